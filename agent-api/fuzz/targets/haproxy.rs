//! HAProxy configurations. What HAProxy is left with is within the grammar again.

#![no_main]

use agent_api::understood::Engine;
use agent_api::{Paths, haproxy};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let paths = Paths::default();
    let Ok(config) = haproxy::parse(text, &paths) else {
        return;
    };
    let listeners = config.listeners();
    let kept = |id: &str| listeners.iter().any(|it| it.id == id && it.engine != Engine::Xdp);
    if let Some(part) = config.only(kept) {
        let left = haproxy::parse(part.text(), &paths).expect("a part of it is within the grammar");
        assert_eq!(left, part);
        assert!(left.listeners().iter().all(|listener| listener.engine != Engine::Xdp));
    }
});
