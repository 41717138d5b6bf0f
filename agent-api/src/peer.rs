//! The name of an amphora among the HAProxy peers of its load balancer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

/// From the amphora's id: SHA-1 in URL-safe Base64 without padding, and an `x` for a dash in front,
/// which HAProxy would take for an option (Octavia `common/utils.py`, `base64_sha1_string`).
///
/// ```
/// let name = agent_api::peer::name("2fb5067a-1d18-5a82-80f6-079512bfcd7b");
/// assert_eq!(name, "nzbAAPlKZfx9oi3GDKqgcHGlVyI");
/// ```
pub fn name(amphora_id: &str) -> String {
    let name = URL_SAFE_NO_PAD.encode(Sha1::digest(amphora_id.as_bytes()));
    match name.strip_prefix('-') {
        Some(rest) => format!("x{rest}"),
        None => name,
    }
}
