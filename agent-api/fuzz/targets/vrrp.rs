//! keepalived configurations of VRRP.

#![no_main]

use agent_api::{Paths, vrrp};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = vrrp::parse(text, &Paths::default());
});
