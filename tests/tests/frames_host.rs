//! The tables of frames, on the host.

mod frames;
#[path = "frames/host.rs"]
mod host;

use host::Host;

#[test]
fn host_rows() {
    frames::run(frames::rows::all(), &mut Host::new());
}
