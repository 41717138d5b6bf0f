//! Datagrams: what nobody signed is not taken, and what is signed comes back as it was.

#![no_main]

use agent_api::heartbeat::envelope::{unwrap, wrap};
use agent_api::heartbeat::sealed::{Opener, Sealer};
use agent_api::heartbeat::{MESSAGE_MAX, Message};

const KEY: &[u8] = b"insecure";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = unwrap(bytes, KEY);
    let _ = Message::from_json(bytes);
    assert!(Opener::new(KEY).open(bytes).is_err());
    if let Ok(datagram) = wrap(bytes, KEY) {
        assert_eq!(unwrap(&datagram, KEY).as_deref(), Ok(bytes));
    }
    let mut sealer = Sealer::new(KEY, "amphora", 0, [0; 32]).expect("an id that fits");
    if bytes.len() <= MESSAGE_MAX
        && let Ok(datagram) = sealer.seal(bytes)
    {
        let opened = Opener::new(KEY).open(&datagram).expect("what was sealed");
        assert_eq!(opened.json, bytes);
    }
});
