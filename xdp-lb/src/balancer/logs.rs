//! The tenants' log of connections that are over: off the packet path, and never waited for.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use agent_api::{Desired, LogFormat};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::flow_log::{Finished, Format, Names};
use crate::sweep::Over;
use crate::syslog::Syslog;
use crate::tables::BackendName;

/// As HAProxy calls itself, by which an operator's rules may go.
const PROGRAM: &str = "haproxy";

/// Where finished connections are written, and how.
pub struct Logs {
    socket: PathBuf,
    /// By the listener's id.
    formats: HashMap<String, (Format, u8)>,
    /// By the facility.
    syslogs: BTreeMap<u8, Syslog>,
    zone: TimeZone,
    /// What was wrong with the last line, if it was lost.
    trouble: Option<String>,
}

/// What the clocks say at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Milliseconds since 1970, and nanoseconds since boot.
    wall_ms: u64,
    boot_ns: u64,
}

impl Logs {
    /// To this syslog's socket, which may come later.
    pub fn new(socket: PathBuf) -> Self {
        let (formats, syslogs) = (HashMap::new(), BTreeMap::new());
        Self { socket, formats, syslogs, zone: TimeZone::system(), trouble: None }
    }

    /// Which listeners want it, and how.
    pub fn set(&mut self, desired: &Desired) {
        let wanted = desired.listeners.iter().filter_map(|listener| {
            let LogFormat { text, facility } = listener.log_format.as_ref()?;
            Some((listener.id.clone(), (Format::parse(text), *facility)))
        });
        self.formats = wanted.collect();
    }

    /// Writes a line. Whether it was taken; a listener that does not want one any more has lost none.
    pub fn write(&mut self, over: &Over, name: &BackendName, clocks: Clocks) -> bool {
        let Some((format, facility)) = self.formats.get(&name.listener) else { return true };
        let finished = Finished {
            client: over.client,
            vip: over.vip,
            bytes_in: over.bytes_in,
            bytes_out: over.bytes_out,
            opened_ms: clocks.ms(over.opened_ns),
            ended_ms: clocks.ms(over.ended_ns),
            end: over.end,
        };
        let names = Names { listener: &name.listener, pool: &name.pool, member: &name.member };
        let line = format.line(&finished, names, &self.zone);
        let socket = || Syslog::new(self.socket.clone(), *facility, PROGRAM);
        let syslog = self.syslogs.entry(*facility).or_insert_with(socket);
        let said = syslog.say(&line, Timestamp::now(), &self.zone);
        let trouble = said.err().map(|error| error.to_string());
        if self.trouble != trouble {
            if let Some(why) = &trouble {
                warn!("{}: lines of finished connections are lost: {why}", self.socket.display());
            }
            self.trouble.clone_from(&trouble);
        }
        trouble.is_none()
    }
}

impl Clocks {
    pub fn now() -> Self {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
            let (s, ns) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
            s * 1_000_000_000 + ns
        });
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), boot_ns: boot }
    }

    /// Of a time since boot, milliseconds since 1970.
    fn ms(self, at_ns: u64) -> u64 {
        self.wall_ms.saturating_sub(self.boot_ns.saturating_sub(at_ns) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let clocks = Clocks { wall_ms: 1_000_000, boot_ns: 5_000_000_000 };
        assert_eq!(
            [0, 4_999_000_000, 5_000_000_000].map(|at| clocks.ms(at)),
            [995_000, 999_999, 1_000_000]
        );
    }
}
