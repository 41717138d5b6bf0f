//! An HTTP request, and the first line of what comes back.

use std::time::Duration;

use agent_api::HttpProbe;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::failure::Failure;

/// Bytes of a status line. The longest reason that a standard has is 31.
const LINE_BYTES_MAX: usize = 512;

/// Asks, and passes with any of the codes. The first status line decides, also one of 1xx, as it
/// does with HAProxy 2.6 (seen: "wrong status, code: 100"); what comes behind it is not read.
pub async fn ask<S>(mut stream: S, probe: &HttpProbe, patience: Duration) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(probe);
    let mut line = [0; LINE_BYTES_MAX];
    let mut received = 0;
    let asked = async {
        // A member that has answered already may have closed: the answer is read all the same.
        let sent = stream.write_all(request.as_bytes()).await;
        loop {
            match stream.read(&mut line[received..]).await {
                Ok(0) if sent.is_err() => return Err(Failure::Reset { received }),
                Ok(0) => return Err(Failure::Closed { received }),
                Ok(more) => received += more,
                Err(error) => return Err(Failure::met("read", &error).after(received)),
            }
            if let Some(code) = status(&line[..received])? {
                return Ok(code);
            }
        }
    };
    let answered = timeout(patience, asked).await;
    let code = answered.map_err(|_| Failure::Late {
        awaited: if received == 0 { "answer" } else { "whole answer" },
        within: patience,
    })??;
    if probe.codes.contains(&code) {
        Ok(())
    } else {
        Err(Failure::Status { code, expected: probe.codes.clone() })
    }
}

/// What HAProxy 2.6 sends (seen), but for the case of the header names.
fn request(probe: &HttpProbe) -> String {
    let minor = probe.version.unwrap_or(0);
    let mut text = format!("{} {} HTTP/1.{minor}\r\n", probe.method, probe.path);
    if let Some(host) = &probe.host {
        text += &format!("Host: {host}\r\n");
    }
    if minor > 0 {
        text += "Connection: close\r\n";
    }
    if matches!(&probe.method[..], "POST" | "PUT" | "PATCH") {
        text += "Content-Length: 0\r\n";
    }
    text + "\r\n"
}

/// The status, as soon as its line is whole.
fn status(answer: &[u8]) -> Result<Option<u16>, Failure> {
    let garbage = || Failure::garbage("HTTP", answer);
    let end = answer.iter().position(|byte| *byte == b'\n');
    // Without the headers, of which the parser would want to know where they end.
    let line = &answer[..end.map_or(answer.len(), |end| end + 1)];
    let mut response = httparse::Response::new(&mut []);
    response.parse(line).map_err(|_| garbage())?;
    match (response.code, response.reason) {
        (Some(code), Some(_)) => Ok(Some(code)),
        _ if end.is_some() || answer.len() == LINE_BYTES_MAX => Err(garbage()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let probe = |method: &str, version, host: Option<&str>| HttpProbe {
            method: method.to_owned(),
            path: "/a?b".to_owned(),
            version,
            host: host.map(str::to_owned),
            codes: [200].into(),
        };
        let rows = [
            (probe("GET", None, None), "GET /a?b HTTP/1.0\r\n\r\n"),
            (probe("HEAD", Some(0), None), "HEAD /a?b HTTP/1.0\r\n\r\n"),
            (
                probe("GET", Some(1), Some("example.org")),
                "GET /a?b HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
            ),
            (
                probe("POST", Some(1), None),
                "POST /a?b HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            ),
        ];
        for (probe, text) in rows {
            assert_eq!(request(&probe), text);
        }
    }

    #[test]
    fn status_lines() {
        let garbage = |answer: &[u8]| Err(Failure::garbage("HTTP", answer));
        let long = [b"HTTP/1.1 200 ".as_slice(), &[b'a'; LINE_BYTES_MAX]].concat();
        let rows: &[(&[u8], _)] = &[
            (b"HTTP/1.1 200 OK\r\n", Ok(Some(200))),
            (b"HTTP/1.0 404 Not Found\r\nServer: x\r\n\r\nbody", Ok(Some(404))),
            (b"HTTP/1.1 200\r\n", Ok(Some(200))),
            (b"HTTP/1.1 204 \n", Ok(Some(204))),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(Some(100))),
            (b"HTTP/1.1 200 OK\r\n\0\0\0\0", Ok(Some(200))),
            (b"H", Ok(None)),
            (b"HTTP/1.1 20", Ok(None)),
            (b"HTTP/1.1 200", Ok(None)),
            (b"HTTP/1.1 200 OK\r", Ok(None)),
            (b"HTTP/1.1 2000 OK\r\n", garbage(b"HTTP/1.1 2000 OK\r\n")),
            (b"HTTP/2 200\r\n", garbage(b"HTTP/2 200\r\n")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", garbage(b"SSH-2.0-OpenSSH_9.2\r\n")),
            (b"\r\n", garbage(b"\r\n")),
            (b"\x15\x03\x01", garbage(b"\x15\x03\x01")),
            (&long[..LINE_BYTES_MAX], garbage(&long[..LINE_BYTES_MAX])),
        ];
        for (answer, read) in rows {
            assert_eq!(status(answer), *read, "{}", answer.escape_ascii());
        }
    }
}
