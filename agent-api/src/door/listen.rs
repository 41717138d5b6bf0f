//! The server: mutual TLS and HTTP/1.1 around the door, with bounds on all that a client can take.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Response, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use openssl::ssl::Ssl;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_openssl::SslStream;
use tracing::{debug, error, info, warn};

use super::answer::Framework;
use super::tls::Identity;
use super::{Answer, Door, Request};
use crate::amphora::Amphora;
use crate::limits::{
    BODIES_KIB_MAX, BODY_BYTES_DISCARDED_MAX, BODY_BYTES_MAX, HANDSHAKES_MAX, SMALL_BODY_BYTES,
};

/// For the handshake and for the head of a request, each. The controller waits ten seconds for a
/// connection (Octavia `rest_request_conn_timeout`).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For the body. The controller waits sixty seconds for an answer (`rest_request_read_timeout`), and
/// then repeats a request that may be under way.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// For all of a connection; an answer that takes longer comes too late.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a request was not read.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the body holds more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// These have no answer: a 400 is final to the controller, and a connection that ends is tried again.
    #[error("the body ended early: {0}")]
    Ended(#[from] hyper::Error),
    #[error("the body took more than {BODY_TIMEOUT:?}")]
    TooSlow,
    #[error("other large bodies took all the room")]
    Occupied,
}

/// What a body takes of the room for all; a small one nothing.
type Room = Option<OwnedSemaphorePermit>;

/// Serves until it is dropped.
pub async fn listen<A: Amphora>(
    listener: TcpListener,
    identity: Arc<Identity>,
    door: Arc<Door<A>>,
) {
    let bodies = Arc::new(Semaphore::new(BODIES_KIB_MAX));
    let mut handshakes = Handshakes::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: others have to end first.
                warn!("accept: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let connection = Connection {
            peer,
            identity: Arc::clone(&identity),
            door: Arc::clone(&door),
            bodies: Arc::clone(&bodies),
        };
        handshakes.make_room();
        let (known, becomes_known) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            if timeout(CONNECTION_TIMEOUT, connection.serve(stream, known)).await.is_err() {
                warn!("{peer}: the connection took too long");
            }
        });
        handshakes.0.push_back((task.abort_handle(), becomes_known));
    }
}

/// Connections of which it is not known yet who they are.
///
/// Anybody who reaches the port can open them and be silent, so there are only so many, and the oldest
/// gives way: the controller's shakes hands at once.
#[derive(Default)]
struct Handshakes(VecDeque<(AbortHandle, tokio::sync::oneshot::Receiver<()>)>);

impl Handshakes {
    fn make_room(&mut self) {
        use tokio::sync::oneshot::error::TryRecvError;
        self.0.retain_mut(|(task, known)| {
            !task.is_finished() && matches!(known.try_recv(), Err(TryRecvError::Empty))
        });
        while self.0.len() >= HANDSHAKES_MAX {
            if let Some((oldest, _)) = self.0.pop_front() {
                oldest.abort();
            }
        }
    }
}

struct Connection<A> {
    peer: SocketAddr,
    identity: Arc<Identity>,
    door: Arc<Door<A>>,
    bodies: Arc<Semaphore>,
}

impl<A: Amphora> Connection<A> {
    async fn serve(self, stream: TcpStream, known: tokio::sync::oneshot::Sender<()>) {
        let peer = self.peer;
        let stream = match timeout(HEAD_TIMEOUT, self.shake_hands(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return info!("{peer}: no TLS: {why}"),
            Err(_) => return info!("{peer}: no TLS: silent for too long"),
        };
        // That nobody listens any more means that the server ends.
        let _ = known.send(());
        let this = &self;
        let service = service_fn(move |request| async move { this.answer(request).await });
        // One request to a connection, as the stock server has it: one that is kept open and closed for
        // its age meets a request now and then, which costs the controller a retry of five seconds.
        let mut http = server::conn::http1::Builder::new();
        http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            debug!("{peer}: {error}");
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<SslStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let ssl = Ssl::new(self.identity.acceptor().context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).accept().await.map_err(io::Error::other)?;
        Ok(stream)
    }

    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Unread> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let (method, path) = (head.method, head.uri.path().to_owned());
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let line = format!("{method} {path}");
        let answer = match self.body(body).await {
            Ok((body, room)) => {
                self.carry_out(Request { method, path, content_type, body }, room).await
            }
            Err(why @ Unread::TooLarge) => Answer::invalid("Invalid request", &why.to_string()),
            Err(why) => {
                warn!("{}: {line}: hung up: {why}", self.peer);
                return Err(why);
            }
        };
        let (peer, status, took) = (self.peer, answer.status.as_u16(), start.elapsed());
        if answer.status.is_client_error() || answer.status.is_server_error() {
            let said = String::from_utf8_lossy(&answer.body);
            warn!("{peer}: {line}: {status} in {took:?}: {said}");
        } else {
            info!("{peer}: {line}: {status} in {took:?}");
        }
        Ok(answer.into())
    }

    /// In a task of its own: what has begun is carried through, also where the client goes away. It will
    /// ask again. The body has its room until then.
    async fn carry_out(&self, request: Request, room: Room) -> Answer {
        let door = Arc::clone(&self.door);
        let answered = tokio::spawn(async move {
            let answer = door.answer(request).await;
            drop(room);
            answer
        });
        let answered = answered.await;
        answered.unwrap_or_else(|error| {
            error!("{}: {error}", self.peer);
            Answer::framework(Framework::Crashed)
        })
    }

    /// All of it. Those that are large are in memory only so far at a time.
    ///
    /// Of one that is too large some more is read and thrown away: who is still sending does not see an
    /// answer.
    async fn body(&self, mut body: Incoming) -> Result<(Bytes, Room), Unread> {
        let deadline = tokio::time::Instant::now() + BODY_TIMEOUT;
        let (mut bytes, mut seen, mut room) = (Vec::new(), 0, None::<OwnedSemaphorePermit>);
        while seen <= BODY_BYTES_DISCARDED_MAX {
            let frame = match timeout_at(deadline, body.frame()).await {
                Ok(Some(frame)) => frame?,
                Ok(None) if seen <= BODY_BYTES_MAX => return Ok((bytes.into(), room)),
                Ok(None) => break,
                Err(_) => return Err(Unread::TooSlow),
            };
            let data = frame.into_data().unwrap_or_default();
            seen += data.len();
            if seen > BODY_BYTES_MAX {
                (bytes, room) = (Vec::new(), None);
                continue;
            }
            if seen > SMALL_BODY_BYTES {
                // Of all so far, or each piece would be rounded up.
                let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                let kib = (seen - SMALL_BODY_BYTES).div_ceil(1024) - held;
                let kib = u32::try_from(kib).unwrap_or(u32::MAX);
                let taken = Arc::clone(&self.bodies).acquire_many_owned(kib);
                // Nobody closes it, so it fails by the deadline alone.
                let taken = timeout_at(deadline, taken).await.ok().and_then(Result::ok);
                let taken = taken.ok_or(Unread::Occupied)?;
                match &mut room {
                    Some(room) => room.merge(taken),
                    None => room = Some(taken),
                }
                // Once, and only touched as it fills: a vector that grows is there twice meanwhile.
                bytes.reserve_exact(BODY_BYTES_MAX - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Err(Unread::TooLarge)
    }
}
