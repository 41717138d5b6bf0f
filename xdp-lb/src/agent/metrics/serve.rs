//! Answers at 127.0.0.1:9102 in the namespace of the load balancer while a PROMETHEUS listener is wanted,
//! which is where HAProxy sends those who ask it. Nobody else reaches it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_api::door::Door;
use agent_api::understood::Protocol;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

use crate::agent::machine::Machine;

/// Where HAProxy's internal backend goes (Octavia `haproxy/combined_listeners/templates/macros.j2`).
pub const PORT: u16 = 9102;
/// Where HAProxy's exporter is.
pub const EXPORTER: u16 = 9101;

/// Who asks at the same time, one after the other: an exposition of ten thousand members takes some
/// hundred megabytes while it is made.
const CONNECTIONS_MAX: usize = 4;
/// For one of them, from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(15);
/// How soon a listener that is wanted is there, and how often one that fails is tried again.
const LOOK: Duration = Duration::from_secs(1);
/// HAProxy takes some 12 KiB a member.
const EXPORTER_BYTES_MAX: usize = 128 << 20;

/// Does not return.
pub async fn serve(door: Arc<Door<Machine>>) {
    let mut due = interval(LOOK);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (mut listener, mut told) = (None, None);
    loop {
        tokio::select! {
            _ = due.tick() => {
                if !is_wanted(&door) {
                    listener = None;
                } else if listener.is_none() {
                    match door.amphora().listen_inside(PORT).await {
                        Ok(listening) => (listener, told) = (Some(listening), None),
                        Err(error) => {
                            let why = Some(error.to_string());
                            if told != why {
                                warn!("metrics at port {PORT}: {error}");
                                told = why;
                            }
                        }
                    }
                }
            }
            stream = accepted(listener.as_ref()) => {
                let Ok(permit) = Arc::clone(&free).try_acquire_owned() else { continue };
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    // Who is late, or goes away, asks again.
                    let _ = timeout(PATIENCE, answered(stream, door)).await;
                    drop(permit);
                });
            }
        }
    }
}

fn is_wanted(door: &Door<Machine>) -> bool {
    door.listeners().iter().any(|listener| listener.protocol == Protocol::Prometheus)
}

/// Never, where nobody listens.
async fn accepted(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            Some(listener) => match listener.accept().await {
                Ok((stream, _)) => return stream,
                // Of one connection, or for want of descriptors: not at once again.
                Err(_) => tokio::time::sleep(LOOK).await,
            },
            None => std::future::pending().await,
        }
    }
}

async fn answered(stream: TcpStream, door: Arc<Door<Machine>>) -> Result<(), hyper::Error> {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(request.method(), &door).await)
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

/// For any path, as in stock.
async fn answer(method: &Method, door: &Door<Machine>) -> Response<Full<Bytes>> {
    let (status, text) = if ![Method::GET, Method::HEAD].contains(method) {
        (StatusCode::METHOD_NOT_ALLOWED, String::new())
    } else {
        match door.amphora().exposition(&door.listeners()).await {
            Ok(text) => (StatusCode::OK, text),
            Err(failed) => (StatusCode::BAD_GATEWAY, format!("{failed}\n")),
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, const { hyper::header::HeaderValue::from_static("no-cache") });
    headers.insert(CONTENT_TYPE, TEXT);
    response
}

const TEXT: hyper::header::HeaderValue =
    hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");

/// What HAProxy's exporter says on this connection.
pub async fn exported(stream: TcpStream) -> io::Result<String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::get("/metrics").header("Host", "127.0.0.1").body(Empty::<Bytes>::new());
    let request = request.map_err(io::Error::other)?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(io::Error::other(format!("it answers {}", response.status())));
        }
        let body = Limited::new(response.into_body(), EXPORTER_BYTES_MAX).collect().await;
        let bytes = body.map_err(io::Error::other)?.to_bytes();
        String::from_utf8(bytes.into()).map_err(io::Error::other)
    };
    tokio::select! {
        text = asked => text,
        // It ends before the answer only by a failure.
        ended = connection => Err(match ended {
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => io::Error::other(error),
        }),
    }
}
