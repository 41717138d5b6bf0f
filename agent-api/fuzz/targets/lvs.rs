//! keepalived configurations of UDP and SCTP listeners.

#![no_main]

use agent_api::{Paths, lvs};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(config) = lvs::parse(text, &Paths::default()) {
        let _ = config.listener();
    }
});
