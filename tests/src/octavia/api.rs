//! Octavia's REST API, as its users call it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::Head;
use crate::lab::Netns;

/// Where `octavia.conf` has it, in the stack's own network.
const ADDRESS: &str = "127.0.0.1:9876";
/// Of all calls. There is no Keystone: the header says who calls.
pub const PROJECT: &str = "0123456789abcdef0123456789abcdef";
/// For an answer. Some are slow where the machine is busy, none takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of a call that Octavia refused.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {status} {said}")]
pub struct Refused {
    pub method: String,
    pub path: String,
    pub status: u16,
    pub said: String,
}

/// Calls `method path`, `path` without the version: `lbaas/loadbalancers`. The answer is null where it has
/// no body; a status that is an error is [`Refused`].
pub fn call(netns: &Netns, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let ask = || -> Result<(u16, String)> {
        let stream = TcpStream::connect(ADDRESS).context("Octavia's API does not answer")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let length = body.len();
        write!(
            &stream,
            "{method} /v2.0/{path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\
             X-Project-Id: {PROJECT}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut from = BufReader::new(&stream);
        let head = Head::read(&mut from)?.context("Octavia's API closed without an answer")?;
        let mut said = String::new();
        from.read_to_string(&mut said)?;
        Ok((head.word(1).parse()?, said))
    };
    let (status, said) = netns.enter(ask).with_context(|| format!("{method} {path}"))?;
    if !(200..300).contains(&status) {
        bail!(Refused { method: method.to_owned(), path: path.to_owned(), status, said });
    }
    if said.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&said).with_context(|| format!("{method} {path}: {said}"))
}

/// The object, or the list of them, that is at `path`.
pub fn show(netns: &Netns, path: &str) -> Result<Value> {
    let answer = call(netns, "GET", path, None)?;
    let Value::Object(answer) = answer else { bail!("GET {path}: {answer}") };
    let mut kinds = answer.into_iter().filter(|(kind, _)| !kind.ends_with("_links"));
    Ok(kinds.next().with_context(|| format!("GET {path}: nothing"))?.1)
}

/// The text at a key of an object that must have it.
pub fn text(object: &Value, key: &str) -> Result<String> {
    let value = object[key].as_str();
    Ok(value.with_context(|| format!("there is no {key} in {object}"))?.to_owned())
}
