//! The tenants' log of connections that are over: off the packet path, and never waited for.

use std::collections::HashMap;
use std::io;
use std::mem::take;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};
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

/// Lines that wait for the syslog, of 300 bytes or so each. The connections of a pass over the table come at
/// once.
const WAITING_MAX: usize = 65_536;

/// Where finished connections are written, and how. A thread of its own writes, and waits.
pub struct Logs {
    socket: PathBuf,
    /// By the listener's id.
    formats: HashMap<String, (Format, u8)>,
    zone: TimeZone,
    /// None until the first line.
    writer: Option<Writer>,
}

struct Writer {
    lines: SyncSender<Line>,
    written: Receiver<Written>,
    /// No line is waited for any more.
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Line {
    /// Its number in the maps.
    listener: u32,
    facility: u8,
    text: String,
}

/// What became of a line of a listener, by its number in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub listener: u32,
    pub taken: bool,
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
        Self { socket, formats: HashMap::new(), zone: TimeZone::system(), writer: None }
    }

    /// Which listeners want it, and how.
    pub fn set(&mut self, desired: &Desired) {
        let wanted = desired.listeners.iter().filter_map(|listener| {
            let LogFormat { text, facility } = listener.log_format.as_ref()?;
            Some((listener.id.clone(), (Format::parse(text), *facility)))
        });
        self.formats = wanted.collect();
    }

    /// Has a line written; false if it is lost at once. A listener that does not want one any more loses
    /// none.
    pub fn write(
        &mut self,
        over: &Over,
        listener: u32,
        name: &BackendName,
        clocks: Clocks,
    ) -> bool {
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
        let text = format.line(&finished, names, &self.zone);
        let line = Line { listener, facility: *facility, text };
        if self.writer.is_none() {
            match Writer::start(self.socket.clone(), self.zone.clone()) {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => warn!("no thread for the logs: {error}"),
            }
        }
        self.writer.as_ref().is_some_and(|writer| writer.lines.try_send(line).is_ok())
    }

    /// What became of lines since this was asked.
    pub fn written(&self) -> impl Iterator<Item = Written> {
        self.writer.iter().flat_map(|writer| writer.written.try_iter())
    }
}

impl Writer {
    fn start(socket: PathBuf, zone: TimeZone) -> io::Result<Self> {
        let ((lines, wait), (tell, written)) = (sync_channel(WAITING_MAX), channel());
        let ends = Arc::new(AtomicBool::new(false));
        let to_end = Arc::clone(&ends);
        let run = move || write(socket, &zone, wait, &tell, &to_end);
        let thread = Some(Builder::new().name("logs".to_owned()).spawn(run)?);
        Ok(Self { lines, written, ends, thread })
    }
}

/// Until nobody has lines any more; of the last ones, until the syslog takes no more.
fn write(
    socket: PathBuf,
    zone: &TimeZone,
    lines: Receiver<Line>,
    tell: &Sender<Written>,
    ends: &AtomicBool,
) {
    let mut syslogs = HashMap::<u8, Syslog>::new();
    // What was wrong with the last line, if it was lost.
    let mut trouble: Option<String> = None;
    for Line { listener, facility, text } in lines {
        let syslog = || Syslog::new(socket.clone(), facility, PROGRAM);
        let said = syslogs.entry(facility).or_insert_with(syslog);
        let why = said.say(&text, Timestamp::now(), zone).err().map(|error| error.to_string());
        let taken = why.is_none();
        if trouble != why {
            if let Some(why) = &why {
                warn!("{}: lines of finished connections are lost: {why}", socket.display());
            }
            trouble = why;
        }
        let told = tell.send(Written { listener, taken });
        if !taken && (told.is_err() || ends.load(Ordering::Relaxed)) {
            return;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Its end is that of the lines.
        self.lines = sync_channel(0).0;
        if let Some(thread) = take(&mut self.thread) {
            // That it panicked it has said itself.
            let _ = thread.join();
        }
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
    fn lines_are_told_of_when_they_are_written_or_lost() {
        use std::os::unix::net::UnixDatagram;

        let path = std::env::temp_dir().join(format!("xdp-lb-logs-{}", std::process::id()));
        let mut logs = Logs::new(path.clone());
        logs.formats.insert("l".to_owned(), (Format::parse("%ci %B"), 3));
        let name = |listener: &str| BackendName {
            listener: listener.to_owned(),
            pool: "p".to_owned(),
            member: "m".to_owned(),
        };
        let over = Over {
            backend: 0,
            client: "192.0.2.1:9".parse().unwrap(),
            vip: "192.0.2.2:80".parse().unwrap(),
            bytes_in: 1,
            bytes_out: 2,
            opened_ns: 0,
            ended_ns: 0,
            end: crate::flow_log::End::Closed,
        };
        let write = |logs: &mut Logs, listener: &str| {
            assert!(logs.write(&over, 7, &name(listener), Clocks::now()));
        };
        let told = |logs: &Logs| logs.writer.as_ref().unwrap().written.recv().unwrap();
        write(&mut logs, "l");
        assert_eq!(told(&logs), Written { listener: 7, taken: false }, "nobody is there");
        let socket = UnixDatagram::bind(&path).unwrap();
        write(&mut logs, "l");
        write(&mut logs, "one that wants none");
        assert_eq!(told(&logs), Written { listener: 7, taken: true });
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(text.starts_with("<158>") && text.ends_with(": 192.0.2.1 2\n"), "{text}");
        write(&mut logs, "l");
        // What waits is written before it ends.
        drop(logs);
        socket.recv(&mut buffer).unwrap();
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut buffer).is_err());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn times() {
        let clocks = Clocks { wall_ms: 1_000_000, boot_ns: 5_000_000_000 };
        assert_eq!(
            [0, 4_999_000_000, 5_000_000_000].map(|at| clocks.ms(at)),
            [995_000, 999_999, 1_000_000]
        );
    }
}
