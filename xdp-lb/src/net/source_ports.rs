//! Source ports towards members, kept apart from those of the kernel's own sockets.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use crate::kernel::SourcePorts;

pub const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
pub const LOCAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports the kernel keeps for the connections of this machine: health checks, HAProxy.
pub const LOCAL_MIN: usize = 1024;

/// Reserves `ours` in the network namespace of this thread, beside what is reserved already.
pub fn reserve(ours: SourcePorts) -> io::Result<Reserved> {
    let reserved = fs::read_to_string(RESERVED)?;
    let local = fs::read_to_string(LOCAL)?;
    let change = change(&reserved, &local, ours);
    if let Some(local) = &change.local {
        fs::write(LOCAL, local)?;
    }
    fs::write(RESERVED, &change.reserved)?;
    Ok(change)
}

/// What [`reserve`] writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub reserved: String,
    /// A wider range for local sockets, where the old one would have left them too few.
    pub local: Option<String>,
    /// Ports left to local sockets.
    pub left: usize,
}

/// What it takes to have `ours` reserved: `reserved` and `local` are what the two sysctls hold.
pub fn change(reserved: &str, local: &str, ours: SourcePorts) -> Reserved {
    let mut taken = taken(reserved);
    taken[usize::from(ours.low)..=usize::from(ours.high())].fill(true);
    let (low, high) = bounds(local);
    let left = |high| free(&taken, low, high);
    let wider = left(high) < LOCAL_MIN && left(u16::MAX) > left(high);
    let end = if wider { u16::MAX } else { high };
    Reserved {
        reserved: text(&taken),
        local: wider.then(|| format!("{low} {end}")),
        left: left(end),
    }
}

/// How many ports the kernel may give to local sockets, as the two sysctls are.
pub fn given(reserved: &str, local: &str) -> usize {
    let (low, high) = bounds(local);
    free(&taken(reserved), low, high)
}

/// By port.
fn taken(reserved: &str) -> Vec<bool> {
    let mut taken = vec![false; 1 << 16];
    for (low, high) in reserved.trim().split(',').filter_map(range) {
        taken[usize::from(low)..=usize::from(high)].fill(true);
    }
    taken
}

/// Of the range for local sockets.
fn bounds(local: &str) -> (u16, u16) {
    let mut bounds = local.split_whitespace().map(u16::from_str);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high => (low, high),
        _ => (32768, 60999),
    }
}

fn free(taken: &[bool], low: u16, high: u16) -> usize {
    taken[usize::from(low)..=usize::from(high)].iter().filter(|taken| !**taken).count()
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
    (low <= high).then_some((low, high))
}

/// As the kernel writes it: `1024-60999,61100`.
fn text(taken: &[bool]) -> String {
    let runs = taken.chunk_by(|a, b| a == b).scan(0, |start, run| {
        let low = *start;
        *start += run.len();
        Some((run[0], low, low + run.len() - 1))
    });
    let ranges: Vec<_> = runs
        .filter(|(taken, ..)| *taken)
        .map(|(_, low, high)| if low == high { low.to_string() } else { format!("{low}-{high}") })
        .collect();
    ranges.join(",")
}

impl SourcePorts {
    pub fn high(self) -> u16 {
        self.low.saturating_add(self.span - 1)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not LOW-HIGH, two ports from 1 to 65535 in order")]
pub struct BadPorts(String);

impl FromStr for SourcePorts {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, BadPorts> {
        match range(text) {
            Some((low, high)) if low > 0 => Ok(Self { low, span: high - low + 1 }),
            _ => Err(BadPorts(text.to_owned())),
        }
    }
}

impl fmt::Display for SourcePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.low, self.high())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        let rows = [
            ("1024-60999", Some((1024, 59976))),
            ("1-65535", Some((1, 65535))),
            ("80", Some((80, 1))),
            ("0-100", None),
            ("200-100", None),
            ("1-65536", None),
            ("", None),
        ];
        for (text, want) in rows {
            let ports = text.parse::<SourcePorts>().ok();
            assert_eq!(ports.map(|ports| (ports.low, ports.span)), want, "{text}");
        }
    }

    #[test]
    fn reserving() {
        let rows = [
            (
                "nothing reserved, room left",
                "",
                "32768\t60999",
                "1024-30000",
                "1024-30000",
                None,
                28232,
            ),
            (
                "no room left: the range grows",
                "",
                "32768 60999",
                "1024-60999",
                "1024-60999",
                Some("32768 65535"),
                4536,
            ),
            (
                "beside others, as amphorae have it",
                "8080,9148\n",
                "1025 65534",
                "1024-60999",
                "1024-60999",
                None,
                4535,
            ),
            (
                "others stay",
                "61000-61999,65000\n",
                "1025 65534",
                "1024-60999",
                "1024-61999,65000",
                None,
                3534,
            ),
            ("nothing can be left", "", "32768 60999", "1-65535", "1-65535", None, 0),
            (
                "a second time",
                "1024-60999\n",
                "32768 65535",
                "1024-60999",
                "1024-60999",
                None,
                4536,
            ),
        ];
        for (row, reserved, local, ours, want, want_local, left) in rows {
            let want =
                Reserved { reserved: want.to_owned(), local: want_local.map(str::to_owned), left };
            assert_eq!(change(reserved, local, ours.parse().unwrap()), want, "{row}");
        }
    }
}
