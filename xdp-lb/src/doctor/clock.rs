//! The clock: certificates, sealed heartbeats and logs go by it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Facts, Finding};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Seconds since 1970.
    pub now_s: i64,
    /// Whether something disciplines it, as the kernel was told; none where it does not say.
    pub synchronised: Option<bool>,
}

impl Clock {
    pub fn look() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now_s: since.as_secs().cast_signed(), synchronised: synchronised() }
    }
}

fn synchronised() -> Option<bool> {
    // SAFETY: `timex` is numbers alone, of which zero is one.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: it is ours to write for the call. No mode is set, so nothing is changed.
    let told = unsafe { libc::adjtimex(&raw mut state) };
    (told >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

pub fn clock(facts: &Facts) -> Vec<Finding> {
    vec![match facts.clock.synchronised {
        Some(true) => Finding::ok("", "synchronised"),
        Some(false) => {
            let found = "nothing synchronises it: certificates and sealed heartbeats go by it";
            let mend = "`timedatectl set-ntp true`, or chrony, and an NTP server that is reached from \
                        the management network (Neutron: DHCP option 42 of its subnet)";
            Finding::warning("", found, mend)
        }
        None => Finding::unknown("", "the kernel does not say"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Ok, Warning};
    use super::super::facts::tests::{said, well};
    use super::*;

    #[test]
    fn states() {
        let rows = [
            (Some(true), Ok, "synchronised"),
            (Some(false), Warning, "timedatectl set-ntp true"),
            (None, Warning, "cannot be told"),
        ];
        for (synchronised, level, words) in rows {
            let mut facts = well();
            facts.clock.synchronised = synchronised;
            said(&clock(&facts), &[(level, "", words)], words);
        }
        assert!(Clock::look().now_s > 1_700_000_000);
    }
}
