//! The TCP connections of local sockets, as `/proc` tells them: what the program asks the kernel for.

use std::collections::HashSet;
use std::io::ErrorKind;

use procfs_core::net::{TcpNetEntries, TcpState};
use procfs_core::{ExplicitSystemInfo, FromReadSI, ProcError};
use xdp_lb_ebpf::abi::TCP;
use xdp_lb_ebpf::family::Key;

use crate::tables::octets;

/// Of this thread's network namespace: `/proc/net` is that of the process.
const FILES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// How the files of this machine are to be read: addresses are words in its own order.
const MACHINE: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 100,
    page_size: 4096,
    is_little_endian: cfg!(target_endian = "little"),
};

/// All connections, addresses wide, the socket's own end the destination. Sockets that listen have none.
pub fn connections() -> Result<HashSet<Key<[u8; 16]>>, ProcError> {
    let mut found = HashSet::new();
    for file in FILES {
        let TcpNetEntries(entries) = match TcpNetEntries::from_file(file, &MACHINE) {
            Ok(entries) => entries,
            // A kernel without IPv6.
            Err(ProcError::NotFound(_)) => continue,
            Err(ProcError::Io(error, _)) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let connected = entries.into_iter().filter(|entry| entry.state != TcpState::Listen);
        found.extend(connected.map(|entry| Key {
            src: octets(entry.remote_address.ip().to_canonical()),
            dst: octets(entry.local_address.ip().to_canonical()),
            sport: entry.remote_address.port().to_be_bytes(),
            dport: entry.local_address.port().to_be_bytes(),
            proto: TCP,
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn both_ends_of_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let (_server, from) = listener.accept().unwrap();
            let key = Key {
                src: octets(from.ip()),
                dst: octets(at.ip()),
                sport: from.port().to_be_bytes(),
                dport: at.port().to_be_bytes(),
                proto: TCP,
            };
            let found = connections().unwrap();
            assert!(found.contains(&key) && found.contains(&key.turned()), "{address}");
            let listening = Key { src: key.dst, sport: key.dport, ..key };
            assert!(!found.contains(&listening), "{address}");
            drop(client);
        }
    }
}
