//! The file of a load balancer of its own.

#![no_main]

use agent_api::Desired;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Desired::from_toml(text);
});
