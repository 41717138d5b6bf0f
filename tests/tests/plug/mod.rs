//! What the tests of plugged interfaces stand on.

mod bench;
mod listen;
mod vector;

pub use bench::{Bench, Route, ip, ip_in, ip_of, json, remove, set};
pub use listen::{Capture, Event, Events};
pub use vector::{Request, Vector, check};
