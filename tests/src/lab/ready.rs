//! Waiting until the kernel has noticed that the wires are plugged in.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{LabError, Netns};

/// The kernel may take a second to work through carriers that came on (`linkwatch`).
const WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED`, in the fifth column of `if_inet6`.
const UNUSABLE: u8 = 0x40 | 0x08;

/// Returns when every interface in `netns` runs and every IPv6 address there can be used.
pub fn wait(netns: &Netns) -> Result<(), LabError> {
    let began = Instant::now();
    netns.enter(|| {
        loop {
            let Some(missing) = missing()? else {
                return Ok(());
            };
            let waited = began.elapsed();
            if waited > WAIT {
                let (netns, waited_ms) = (netns.name.clone(), waited.as_millis());
                return Err(LabError::NotReady { netns, missing, waited_ms });
            }
            sleep(POLL);
        }
    })
}

/// What is not there yet, seen from inside the namespace.
fn missing() -> Result<Option<String>, LabError> {
    let links = getifaddrs().map_err(std::io::Error::from)?;
    let mut waiting = links.filter(|link| !link.flags.contains(InterfaceFlags::IFF_RUNNING));
    if let Some(link) = waiting.next() {
        return Ok(Some(format!("{} does not run", link.interface_name)));
    }
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6")?;
    let tentative = addresses.lines().find(|line| {
        let flags = line.split_whitespace().nth(4).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        flags.is_none_or(|flags| flags & UNUSABLE != 0)
    });
    Ok(tentative.map(|line| format!("an address: {line}")))
}
