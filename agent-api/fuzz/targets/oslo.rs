//! The agent's configuration, in oslo's dialect.

#![no_main]

use agent_api::config::AgentConfig;
use agent_api::oslo::File;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(file) = File::parse(text) {
        let _ = AgentConfig::from_file(&file);
    }
});
