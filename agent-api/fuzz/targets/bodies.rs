//! The JSON of plugs and rules. What is understood survives the way to the disk and back.

#![no_main]

use agent_api::plug::{NetworkPlug, VipPlug};
use agent_api::rules;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(plug) = VipPlug::from_json("10.0.0.10", body) {
        let json = serde_json::to_vec(&plug).expect("what was understood can be written");
        assert_eq!(serde_json::from_slice::<VipPlug>(&json).expect("and read"), plug);
    }
    if let Ok(plug) = NetworkPlug::from_json(body) {
        let json = serde_json::to_vec(&plug).expect("what was understood can be written");
        assert_eq!(serde_json::from_slice::<NetworkPlug>(&json).expect("and read"), plug);
    }
    if let Ok(rules) = rules::from_json(body) {
        let json = serde_json::to_vec(&rules).expect("what was understood can be written");
        assert_eq!(rules::from_json(&json).expect("and read"), rules);
    }
});
