//! Lines to a syslog's socket, as HAProxy writes them.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `informational` of RFC 3164: that of a tenant's log.
const INFO: u8 = 6;
/// `local0`.
const LOCAL0: u8 = 16;

/// For a receiver that is there and takes no more: its queue holds ten lines, as kernels are set up
/// (`net.unix.max_dgram_qlen`), and one that is alive takes them in microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket of `/dev/log`'s kind. It may come and go: each line tries it anew.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    /// `local0` to `local7`, by the number.
    local: u8,
    program: &'static str,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// Under the name of this program.
    pub fn new(path: PathBuf, local: u8, program: &'static str) -> Self {
        Self { path, local, program, socket: None }
    }

    /// One line, without its end. Waits a second at most. An error is a line that is lost: nobody is
    /// there, or it takes no more.
    pub fn say(&mut self, line: &str, now: Timestamp, zone: &TimeZone) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket
            }
        };
        let sent = socket.send_to(self.datagram(line, now, zone).as_bytes(), &self.path);
        self.socket = Some(socket);
        sent.map(drop)
    }

    /// RFC 3164 (4.1), with a line's end, as HAProxy 2.6 has it.
    fn datagram(&self, line: &str, now: Timestamp, zone: &TimeZone) -> String {
        let priority = (LOCAL0 + self.local) << 3 | INFO;
        let at = now.to_zoned(zone.clone()).strftime("%b %e %H:%M:%S").to_string();
        format!("<{priority}>{at} {}[{}]: {line}\n", self.program, std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_millisecond(1_796_111_448_279).unwrap()
    }

    #[test]
    fn datagrams() {
        let pid = std::process::id();
        for (local, priority) in [(0, 134), (3, 158), (7, 190)] {
            let syslog = Syslog::new("/nowhere".into(), local, "haproxy");
            let want = format!("<{priority}>Dec  1 07:50:48 haproxy[{pid}]: a b\n");
            assert_eq!(syslog.datagram("a b", at(), &TimeZone::UTC), want);
        }
    }

    #[test]
    fn receivers_come_and_go() {
        let path = std::env::temp_dir().join(format!("xdp-lb-syslog-{}", std::process::id()));
        let mut syslog = Syslog::new(path.clone(), 0, "haproxy");
        let mut say = |line: &str| syslog.say(line, at(), &TimeZone::UTC);
        assert_eq!(say("nobody").unwrap_err().kind(), ErrorKind::NotFound);
        let socket = UnixDatagram::bind(&path).unwrap();
        say("first").unwrap();
        let mut buffer = [0; 99];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(b": first\n"));
        let slow = (0..100_000).find_map(|_| say("more").err()).unwrap();
        assert_eq!(slow.kind(), ErrorKind::WouldBlock);
        // A new one in its place.
        drop(socket);
        assert_eq!(say("gone").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        say("second").unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..length].ends_with(b": second\n"));
        std::fs::remove_file(&path).unwrap();
    }
}
