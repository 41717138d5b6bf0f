//! Octavia's envelope: compressed and signed (`amphorae/backends/health_daemon/status_message.py`).
//!
//! Anybody on the way can read it, and send it again.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{DATAGRAM_MAX, MESSAGE_MAX};

/// Why a datagram is none of ours, or a message does not become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the datagram would be of {bytes} bytes, and {DATAGRAM_MAX} fit")]
    DatagramTooLong { bytes: usize },
    #[error("{bytes} bytes are no envelope")]
    TooShort { bytes: usize },
    #[error("the signature is not that of the key")]
    Signature,
    #[error("what is signed is not compressed by zlib")]
    NotZlib,
    #[error("the message is longer than {MESSAGE_MAX} bytes")]
    MessageTooLong,
}

/// Hex digits of an HMAC-SHA-256.
const HEX: usize = 64;
/// Bytes of one, which amphorae of Python 2 sent.
const RAW: usize = 32;

/// zlib, and the HMAC of that in lower-case hex.
pub fn wrap(json: &[u8], key: &[u8]) -> Result<Vec<u8>, Error> {
    let mut datagram = compressed(json);
    let signature = signature(&datagram, key);
    datagram.extend_from_slice(hex::encode(signature.finalize().into_bytes()).as_bytes());
    fits(datagram)
}

/// The JSON of a datagram that was signed with the key.
pub fn unwrap(datagram: &[u8], key: &[u8]) -> Result<Vec<u8>, Error> {
    let signed = |digest: usize| datagram.split_at_checked(datagram.len().checked_sub(digest)?);
    let short = Error::TooShort { bytes: datagram.len() };
    // The receiver tries both, the one in hex first.
    let (body, digest) = signed(RAW).ok_or(short)?;
    if let Some((body, digest)) = signed(HEX)
        && let Some(digest) = lower_hex(digest)
        && signature(body, key).verify_slice(&digest).is_ok()
    {
        return uncompressed(body);
    }
    signature(body, key).verify_slice(digest).map_err(|_| Error::Signature)?;
    uncompressed(body)
}

/// The JSON of a datagram whoever signed it: to be looked at, never to be believed.
pub fn unverified(datagram: &[u8]) -> Result<Vec<u8>, Error> {
    // What follows the compressed stream is not read.
    uncompressed(datagram)
}

/// The receiver compares text, so capitals are another signature.
fn lower_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let lower = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if lower { hex::decode(digits).ok() } else { None }
}

fn signature(body: &[u8], key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes a key of any length (RFC 2104), the empty one too.
    let keyed = Hmac::<Sha256>::new_from_slice(key);
    let mut hmac = keyed.unwrap_or_else(|_| Hmac::new(&Default::default()));
    hmac.update(body);
    hmac
}

pub(super) fn compressed(json: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    // A vector takes all that is written to it.
    let written = encoder.write_all(json).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

/// Bounded: a few kilobytes can be compressed gigabytes.
pub(super) fn uncompressed(body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut json = Vec::new();
    let mut decoder = ZlibDecoder::new(body).take(MESSAGE_MAX as u64 + 1);
    decoder.read_to_end(&mut json).map_err(|_| Error::NotZlib)?;
    if json.len() > MESSAGE_MAX { Err(Error::MessageTooLong) } else { Ok(json) }
}

pub(super) fn fits(datagram: Vec<u8>) -> Result<Vec<u8>, Error> {
    match datagram.len() {
        bytes if bytes > DATAGRAM_MAX => Err(Error::DatagramTooLong { bytes }),
        _ => Ok(datagram),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// What Octavia's own code made, and what it makes of it.
    #[test]
    fn vectors() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/heartbeat");
        let (mut good, mut bad) = (0, 0);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let sidecar: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let key = sidecar["key"].as_str().unwrap().as_bytes();
            let datagram = fs::read(path.with_extension("bin")).unwrap();
            let opened = unwrap(&datagram, key);
            let json = |json: &Vec<u8>| serde_json::from_slice::<Value>(json).unwrap();
            let wanted = [&sidecar["message"], &sidecar["unwrap"]["ok"]]
                .into_iter()
                .find(|it| it.is_object());
            if let Some(message) = wanted {
                good += 1;
                assert_eq!(opened.as_ref().map(json).as_ref(), Ok(message), "{name}");
                let ours = wrap(&opened.unwrap(), key).unwrap();
                assert_eq!(
                    unwrap(&ours, key).as_ref().map(json).as_ref(),
                    Ok(message),
                    "{name}: ours"
                );
            } else {
                bad += 1;
                let want = match name {
                    "neg_short" => Error::TooShort { bytes: datagram.len() },
                    "neg_gzip_body" | "neg_plain_json_body" | "neg_raw_deflate_body" => {
                        Error::NotZlib
                    }
                    _ => Error::Signature,
                };
                assert_eq!(opened, Err(want), "{name}");
            }
        }
        assert_eq!((good, bad), (51, 9));
    }

    #[test]
    fn bounds() {
        let message = vec![b' '; MESSAGE_MAX + 1];
        let datagram = wrap(&message[1..], b"key").unwrap();
        assert_eq!(unwrap(&datagram, b"key").unwrap().len(), MESSAGE_MAX);
        let datagram = wrap(&message, b"key").unwrap();
        assert_eq!(unwrap(&datagram, b"key"), Err(Error::MessageTooLong));
        let noise: Vec<u8> = (0..40_000_u32)
            .flat_map(|at| at.wrapping_mul(0x9e37_79b9).rotate_left(13).to_be_bytes())
            .collect();
        assert!(matches!(wrap(&noise, b"key"), Err(Error::DatagramTooLong { .. })));
        for length in 0..datagram.len().min(200) {
            assert!(unwrap(&datagram[..length], b"key").is_err(), "{length} bytes");
        }
        assert_eq!(unwrap(&[], b""), Err(Error::TooShort { bytes: 0 }));
    }
}
