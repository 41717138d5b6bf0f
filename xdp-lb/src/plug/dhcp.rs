//! An IPv4 address from DHCP, where the controller has none for an interface.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tracing::{info, warn};

use crate::namespace::Namespace;

/// ISC's client, as the stock agent starts it; it configures the interface by itself.
const PROGRAM: &str = "/sbin/dhclient";
const LEASES: &str = "/var/lib/dhclient";

/// Has an address asked for, if nobody does so already. Does not wait for it: there may be no server.
///
/// Without the program there will be no address, which is a warning.
pub fn ask(namespace: &Namespace, interface: &str) {
    let pid_file = format!("/run/dhclient-{interface}.pid");
    if runs(Path::new(&pid_file)) {
        return;
    }
    // It says itself what it misses.
    let _ = fs::create_dir_all(LEASES);
    let leases = format!("{LEASES}/dhclient-{interface}.leases");
    let mut command = Command::new(PROGRAM);
    command.args(["-nw", "-lf", &leases, "-pf", &pid_file, interface]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match namespace.enter(|| command.status()).flatten() {
        Ok(status) if status.success() => info!("{interface}: asking for an address by DHCP"),
        Ok(status) => warn!("{interface}: {PROGRAM}: {status}"),
        Err(error) => warn!("{interface}: no address by DHCP: {PROGRAM}: {error}"),
    }
}

fn runs(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let name = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    name.is_some_and(|name| name.trim() == "dhclient")
}
