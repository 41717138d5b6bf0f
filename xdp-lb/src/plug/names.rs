//! The names that interfaces had, for after a reboot: `plugged_interfaces`.
//!
//! Lines of a MAC address and a name, as the stock agent has them. Interfaces that are gone keep their
//! line until another one takes the name.

use std::path::Path;

use agent_api::durable;
use agent_api::plug::Mac;
use tracing::warn;

/// In the order in which they were plugged. No address and no name is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(Mac, String)>);

impl Names {
    /// From the file. Without one there are none: the names are a comfort, and nothing fails for want of
    /// them.
    pub fn read(path: &Path) -> Self {
        match durable::read(path) {
            Ok(content) => Self::parse(&String::from_utf8_lossy(&content.unwrap_or_default())),
            Err(error) => {
                warn!("{error}");
                Self::default()
            }
        }
    }

    fn parse(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let mac = words.next().and_then(|word| word.parse().ok());
            let name = words.next().filter(|name| number(name).is_some());
            if let (Some(mac), Some(name)) = (mac, name) {
                names.note(mac, name);
            }
        }
        names
    }

    pub fn of(&self, mac: Mac) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == mac).map(|(_, name)| &name[..])
    }

    /// Notes a name on disk; a file that says so already is not written.
    pub fn keep(path: &Path, mac: Mac, name: &str) -> Result<(), durable::Error> {
        let mut names = Self::read(path);
        if names.of(mac) == Some(name) {
            return Ok(());
        }
        names.note(mac, name);
        durable::write(path, 0o644, names.text().as_bytes())
    }

    fn note(&mut self, mac: Mac, name: &str) {
        self.0.retain(|(known, taken)| *known != mac && taken != name);
        self.0.push((mac, name.to_owned()));
    }

    fn text(&self) -> String {
        self.0.iter().map(|(mac, name)| format!("{mac} {name}\n")).collect()
    }
}

/// Name of the interface of the VIPs.
pub const VIP_INTERFACE: &str = "eth1";

/// The number in `eth2`.
pub fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("eth")?;
    // Not `eth+2`, which would parse.
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `eth2`, or the first one after it that is not taken.
pub fn free<'a>(taken: impl Iterator<Item = &'a str>) -> String {
    let taken: Vec<_> = taken.filter_map(number).collect();
    let free = (2..=u16::MAX).find(|number| !taken.contains(number));
    // More interfaces than there are numbers: the kernel will refuse the last one.
    format!("eth{}", free.unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_43_stale_and_foreign_lines() {
        let one = "fa:16:3e:00:00:01";
        let two = "fa:16:3e:00:00:02";
        let rows = [
            ("nothing", "".to_owned(), "".to_owned()),
            (
                "as written",
                format!("{one} eth1\n{two} eth2\n"),
                format!("{one} eth1\n{two} eth2\n"),
            ),
            ("a name taken over", format!("{one} eth2\n{two} eth2\n"), format!("{two} eth2\n")),
            ("renamed", format!("{one} eth2\n{one} eth3\n"), format!("{one} eth3\n")),
            ("no line end", format!("{one}  eth1 x"), format!("{one} eth1\n")),
            ("torn", "fa:16:3e:00\n\n \nfa:16:3e:00:00:01\n".to_owned(), "".to_owned()),
            ("no such name", format!("{one} lo\n{two} eth+2\n{two} eth\n"), "".to_owned()),
        ];
        for (row, text, want) in rows {
            assert_eq!(Names::parse(&text).text(), want, "{row}");
        }
    }

    #[test]
    fn first_free() {
        let rows: [(&[&str], &str); 5] = [
            (&[], "eth2"),
            (&["lo", "eth1"], "eth2"),
            (&["eth2", "eth4"], "eth3"),
            (&["eth3"], "eth2"),
            (&["eth02x", "eth2.7"], "eth2"),
        ];
        for (taken, want) in rows {
            assert_eq!(free(taken.iter().copied()), want, "{taken:?}");
        }
    }

    #[test]
    fn kept() {
        let directory = std::env::temp_dir().join(format!("names-{}", std::process::id()));
        let path = directory.join("plugged_interfaces");
        let mac = |last| Mac([0xfa, 0x16, 0x3e, 0, 0, last]);
        for (mac, name) in [(mac(1), "eth1"), (mac(2), "eth2"), (mac(1), "eth1"), (mac(3), "eth2")]
        {
            Names::keep(&path, mac, name).unwrap();
        }
        let names = Names::read(&path);
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names.text(), "fa:16:3e:00:00:01 eth1\nfa:16:3e:00:00:03 eth2\n");
        assert_eq!(Names::read(&path), Names::default());
    }
}
