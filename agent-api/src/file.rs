//! The document as a file of TOML, and errors that say on which line.
//!
//! `lb.example.toml` at the root of the repository explains every key.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::desired::Desired;
use crate::limits::FILE_BYTES_MAX;
use crate::validate::{Fault, Place, Step};

/// Why there is no document. The file's name is for the caller to add, who knows it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("holds more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("line {line}: not UTF-8")]
    NotText { line: usize },
    /// Not TOML, a key that nobody knows, one that is missing, or a value of the wrong type.
    #[error("line {line}: {message}")]
    Form { line: usize, message: String },
    #[error("line {line}: {fault}")]
    Invalid { line: usize, fault: Fault },
}

impl Desired {
    /// Reads and validates a file of at most 16 MiB.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(Error::Read)?;
        // One byte more than allowed tells a full file from one that is too large, without asking
        // for its size, which a pipe does not have.
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::TooLarge { max: FILE_BYTES_MAX });
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Self::from_toml(text),
            Err(error) => Err(Error::NotText { line: line(&bytes, error.valid_up_to()) }),
        }
    }

    /// Parses and validates; the first error is the one returned.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let desired: Self = toml::from_str(text).map_err(|error| form(text, &error))?;
        match desired.validate() {
            Ok(()) => Ok(desired),
            Err(invalid) => {
                let line = line(text.as_bytes(), offset(text, &invalid.place)?);
                Err(Error::Invalid { line, fault: invalid.fault })
            }
        }
    }
}

fn form(text: &str, error: &toml::de::Error) -> Error {
    let offset = error.span().map_or(0, |span| span.start);
    Error::Form { line: line(text.as_bytes(), offset), message: error.message().to_owned() }
}

/// Where in the text the place stands; for a key that was left out, what it was left out of.
///
/// The text is parsed a second time, now for its spans: only a document at fault pays for them, and
/// the types need not carry them.
fn offset(text: &str, place: &Place) -> Result<usize, Error> {
    let table = DeTable::parse(text).map_err(|error| form(text, &error))?;
    let document = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let mut here = &document;
    for step in &place.0 {
        let next = match step {
            Step::Key(key) => here.get_ref().get(*key),
            Step::Index(index) => here.get_ref().get(*index),
        };
        let Some(next) = next else { break };
        here = next;
    }
    Ok(here.span().start)
}

/// The line of a byte, the first being 1.
fn line(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Algorithm, Listener, Member, Name, Persistence, Pool, Protocol};
    use crate::monitor::{HttpProbe, Monitor, OnMarkedDown, Probe};

    const EXAMPLE: &str = include_str!("../../lb.example.toml");

    /// The least that says everything; the rows below change one thing in it.
    const LEAST: &str = r#"name = "web"
[[listener]]
id = "http"
vips = ["10.0.0.10", "2001:db8::10"]
port = 80
protocol = "tcp"
pool = "web"
[[pool]]
id = "web"
algorithm = "round_robin"
persistence = {}
[[pool.member]]
id = "web-1"
address = "10.0.1.11"
port = 8080
[[pool.member]]
id = "web-2"
address = "2001:db8:1::12"
port = 8080
"#;

    /// The end of its last member.
    const LAST: &str = "2001:db8:1::12\"\nport = 8080";

    /// A row is its name, a line of `LEAST`, what takes its place, and the error.
    #[rustfmt::skip]
    const FAULTS: &[(&str, usize, &str, &str)] = &[
        // The form.
        ("no value", 5, "port",
            "line 5: key with no value, expected `=`"),
        ("a key twice", 5, "port = 80\nport = 81",
            "line 6: duplicate key"),
        ("an unknown key", 2, "colour = 1\n[[listener]]",
            "line 2: unknown field `colour`, expected one of `name`, `listener`, `pool`"),
        ("an unknown key of a listener", 7, "pools = \"web\"",
            "line 7: unknown field `pools`, expected one of `id`, `vips`, `port`, `protocol`, `pool`, `enabled`, `connection_limit`, `allowed_networks`, `idle_timeout_s`"),
        ("an unknown key of a pool", 11, "persist = {}",
            "line 11: unknown field `persist`, expected one of `id`, `algorithm`, `persistence`, `monitor`, `enabled`, `member`"),
        ("an unknown key of persistence", 11, "persistence = { timeout = 1 }",
            "line 11: unknown field `timeout`, expected one of `timeout_s`, `prefix4`, `prefix6`"),
        ("an unknown key of a member", 15, "port = 8080\nwheight = 1",
            "line 16: unknown field `wheight`, expected one of `id`, `address`, `port`, `weight`, `backup`, `enabled`, `monitor_address`, `monitor_port`"),
        ("no name", 1, "",
            "line 1: missing field `name`"),
        ("a name with a capital", 1, "name = \"Web\"",
            "line 1: name \"Web\" is not 1 to 36 of a-z, 0-9 and -"),
        ("no port", 5, "",
            "line 2: missing field `port`"),
        ("no port of the last member", 19, "",
            "line 16: missing field `port`"),
        ("a port in quotes", 5, "port = \"80\"",
            "line 5: invalid type: string \"80\", expected u16"),
        ("a port too high", 5, "port = 65536",
            "line 5: invalid value: integer `65536`, expected u16"),
        ("a limit below 0", 7, "connection_limit = -1",
            "line 7: invalid value: integer `-1`, expected u32"),
        ("an unknown protocol", 6, "protocol = \"http\"",
            "line 6: unknown variant `http`, expected one of `tcp`, `udp`, `sctp`"),
        ("an unknown algorithm", 10, "algorithm = \"random\"",
            "line 10: unknown variant `random`, expected one of `round_robin`, `least_connections`, `source_ip`, `source_ip_port`"),
        ("not an address", 4, "vips = [\"10.0.0.10\",\n \"10.0.0\", \"2001:db8::10\"]",
            "line 5: invalid IP address syntax"),
        ("not a network", 7, "allowed_networks = [\n\"10.0.0.0\"]",
            "line 8: invalid IP address syntax"),
        ("one listener, not a list", 2, "[listener]",
            "line 2: invalid type: map, expected a sequence"),
        ("an unknown key of a monitor", 11, "[pool.monitor]\ntype = \"tcp\"\ninterval = 1",
            "line 13: unknown field `interval`, expected one of `type`, `delay_s`, `timeout_s`, `rise`, `fall`, `on_marked_down`, `method`, `path`, `version`, `host`, `codes`"),
        ("no type of a monitor", 11, "monitor = {}",
            "line 11: missing field `type`"),
        ("an unknown type of a monitor", 11, "monitor = { type = \"smtp\" }",
            "line 11: unknown variant `smtp`, expected one of `tcp`, `tls_hello`, `http`, `https`, `ping`, `udp_connect`, `sctp`"),
        ("a path without HTTP", 11, "monitor = { type = \"tcp\", path = \"/\" }",
            "line 11: `path` is of monitors of type \"http\" and \"https\" alone"),
        ("an unknown version", 11, "monitor = { type = \"http\", version = \"2\" }",
            "line 11: unknown variant `2`, expected `1.0` or `1.1`"),
        ("an unknown end of flows", 11, "monitor = { type = \"ping\", on_marked_down = \"drop\" }",
            "line 11: unknown variant `drop`, expected `keep` or `reset`"),
        // The name of a thing.
        ("an empty id", 3, "id = \"\"",
            "line 3: id \"\" is not 1 to 64 visible ASCII characters"),
        ("an id with a blank", 17, "id = \"web 2\"",
            "line 17: id \"web 2\" is not 1 to 64 visible ASCII characters"),
        ("a listener twice", 8, "[[listener]]\nid = \"http\"\nvips = [\"10.0.0.11\"]\nport = 80\nprotocol = \"tcp\"\n[[pool]]",
            "line 9: there is already a listener http"),
        ("a pool twice", 8, "[[pool]]\nid = \"web\"\nalgorithm = \"source_ip\"\n[[pool]]",
            "line 12: there is already a pool web"),
        ("a member twice", 17, "id = \"web-1\"",
            "line 17: there is already a member web-1, in pool web"),
        ("a member of two pools", 8, "[[pool]]\nid = \"b\"\nalgorithm = \"source_ip\"\nmember = [{ id = \"web-1\", address = \"10.0.2.1\", port = 1 }]\n[[pool]]",
            "line 17: there is already a member web-1, in pool b"),
        ("an unknown pool", 7, "pool = \"wed\"",
            "line 7: listener http names pool wed, which is not there"),
        // Addresses.
        ("no vips", 4, "vips = []",
            "line 4: listener http has no vips"),
        ("a vip of two listeners", 8, "[[listener]]\nid = \"b\"\nvips = [\n\"10.0.0.11\",\n\"10.0.0.10\"]\nport = 80\nprotocol = \"tcp\"\n[[pool]]",
            "line 12: 10.0.0.10 tcp port 80 belongs to listener http already"),
        ("a vip twice in a listener", 4, "vips = [\"10.0.0.10\", \"10.0.0.10\"]",
            "line 4: 10.0.0.10 tcp port 80 belongs to listener http already"),
        ("a vip of zeros", 4, "vips = [\n\"0.0.0.0\", \"2001:db8::10\"]",
            "line 5: 0.0.0.0 is the unspecified address"),
        ("a vip of zeros, IPv6", 4, "vips = [\"10.0.0.10\", \"::\"]",
            "line 4: :: is the unspecified address"),
        ("a loopback vip", 4, "vips = [\"127.0.0.2\", \"2001:db8::10\"]",
            "line 4: 127.0.0.2 is a loopback address"),
        ("a loopback vip, IPv6", 4, "vips = [\"10.0.0.10\", \"::1\"]",
            "line 4: ::1 is a loopback address"),
        ("a multicast vip", 4, "vips = [\"224.0.0.18\", \"2001:db8::10\"]",
            "line 4: 224.0.0.18 is a multicast address"),
        ("a multicast vip, IPv6", 4, "vips = [\"10.0.0.10\", \"ff02::1\"]",
            "line 4: ff02::1 is a multicast address"),
        ("a broadcast vip", 4, "vips = [\"255.255.255.255\", \"2001:db8::10\"]",
            "line 4: 255.255.255.255 is the broadcast address"),
        ("a vip of IPv4 as IPv6", 4, "vips = [\"10.0.0.10\", \"::ffff:10.0.0.10\"]",
            "line 4: ::ffff:10.0.0.10 is IPv4 in the form of IPv6; write it as IPv4"),
        ("a member of zeros", 14, "address = \"0.0.0.0\"",
            "line 14: 0.0.0.0 is the unspecified address"),
        ("a loopback member", 18, "address = \"::1\"",
            "line 18: ::1 is a loopback address"),
        ("a multicast member", 14, "address = \"239.1.1.1\"",
            "line 14: 239.1.1.1 is a multicast address"),
        ("a member of IPv4 as IPv6", 14, "address = \"::ffff:10.0.1.11\"",
            "line 14: ::ffff:10.0.1.11 is IPv4 in the form of IPv6; write it as IPv4"),
        ("a member that is a vip", 14, "address = \"10.0.0.10\"",
            "line 14: member web-1 at 10.0.0.10 would loop: that is a vip of listener http"),
        ("a member's socket twice", 18, "address = \"10.0.1.11\"",
            "line 18: 10.0.1.11 port 8080 is member web-1 of this pool already"),
        ("a network of IPv4 as IPv6", 7, "allowed_networks = [\"10.0.0.0/8\",\n\"::ffff:10.0.0.0/104\"]",
            "line 8: network ::ffff:10.0.0.0/104 is IPv4 in the form of IPv6; write it as IPv4"),
        // Numbers.
        ("port 0", 5, "port = 0",
            "line 5: port 0 is not a port"),
        ("port 0 of a member", 15, "port = 0",
            "line 15: port 0 is not a port"),
        ("weight 257", 15, "weight = 257\nport = 8080",
            "line 15: weight 257 is over 256"),
        ("connection limit 0", 7, "connection_limit = 0",
            "line 7: a connection limit of 0 refuses everybody; leave it out for no limit"),
        ("idle timeout 0", 7, "idle_timeout_s = 0",
            "line 7: a timeout of 0 s forgets at once"),
        ("persistence timeout 0", 11, "persistence = { timeout_s = 0 }",
            "line 11: a timeout of 0 s forgets at once"),
        ("prefix4 0", 11, "persistence = { prefix4 = 0 }",
            "line 11: a prefix of 0 bits is not within 1 to 32"),
        ("prefix4 33", 11, "persistence = { prefix4 = 33 }",
            "line 11: a prefix of 33 bits is not within 1 to 32"),
        ("a delay of 0", 11, "[pool.monitor]\ntype = \"tcp\"\ndelay_s = 0",
            "line 13: delay_s 0: a monitor needs 1 at least"),
        ("fall 0", 11, "[pool.monitor]\ntype = \"tcp\"\nfall = 0",
            "line 13: fall 0: a monitor needs 1 at least"),
        ("a method of two words", 11, "[pool.monitor]\ntype = \"http\"\nmethod = \"GET /\"",
            "line 13: method \"GET /\" is not one of HTTP: letters, as in GET"),
        ("a path that ends its line", 11, "[pool.monitor]\ntype = \"http\"\npath = \"/a\\nb\"",
            "line 13: path \"/a\\nb\" is not visible ASCII that begins with a slash"),
        ("a host with a blank", 11, "[pool.monitor]\ntype = \"https\"\nhost = \"a b\"",
            "line 13: host \"a b\" is not visible ASCII"),
        ("no code", 11, "[pool.monitor]\ntype = \"http\"\ncodes = []",
            "line 13: without a code no answer is a good one"),
        ("code 99", 11, "[pool.monitor]\ntype = \"http\"\ncodes = [200, 99]",
            "line 13: code 99 is not within 100 to 599"),
        ("a monitor_port of 0", 15, "port = 8080\nmonitor_port = 0",
            "line 16: port 0 is not a port"),
        ("a loopback monitor_address", 15, "port = 8080\nmonitor_address = \"127.0.0.1\"",
            "line 16: 127.0.0.1 is a loopback address"),
        ("prefix6 129", 11, "[pool.persistence]\nprefix6 = 129",
            "line 12: a prefix of 129 bits is not within 1 to 128"),
    ];

    #[test]
    fn faults() {
        for (row, line, new, want) in FAULTS {
            let mut lines: Vec<&str> = LEAST.lines().collect();
            lines[line - 1] = new;
            let shown = Desired::from_toml(&lines.join("\n")).map_err(|error| error.to_string());
            assert_eq!(shown, Err((*want).to_owned()), "{row}");
        }
    }

    #[test]
    fn defaults() {
        let member = |id: &str, address: &str| Member {
            id: id.to_owned(),
            address: address.parse().unwrap(),
            port: 8080,
            weight: 1,
            backup: false,
            enabled: true,
            probed_at: None,
        };
        let want = Desired {
            name: Name::try_from("web".to_owned()).unwrap(),
            listeners: vec![Listener {
                id: "http".to_owned(),
                vips: vec!["10.0.0.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
                port: 80,
                protocol: Protocol::Tcp,
                pool: Some("web".to_owned()),
                enabled: true,
                connection_limit: None,
                allowed_networks: vec![],
                idle_timeout_s: 50,
                log_format: None,
            }],
            pools: vec![Pool {
                id: "web".to_owned(),
                algorithm: Algorithm::RoundRobin,
                persistence: Some(Persistence { timeout_s: 360, prefix4: 32, prefix6: 128 }),
                monitor: None,
                enabled: true,
                members: vec![member("web-1", "10.0.1.11"), member("web-2", "2001:db8:1::12")],
            }],
        };
        assert_eq!(Desired::from_toml(LEAST).unwrap(), want);
    }

    /// A row is what stands in the file, and what it says with its defaults.
    #[test]
    fn monitors() {
        let http =
            |method: &str, path: &str, version, host: Option<&str>, codes: &[u16]| HttpProbe {
                method: method.to_owned(),
                path: path.to_owned(),
                version,
                host: host.map(str::to_owned),
                codes: codes.iter().copied().collect(),
            };
        let least = |probe| Monitor {
            probe,
            delay_s: 5,
            timeout_s: 3,
            rise: 2,
            fall: 3,
            on_marked_down: OnMarkedDown::Keep,
        };
        let rows = [
            ("type = \"tcp\"", least(Probe::Tcp)),
            ("type = \"tls_hello\"", least(Probe::TlsHello)),
            ("type = \"ping\"", least(Probe::Ping)),
            ("type = \"udp_connect\"", least(Probe::UdpConnect)),
            ("type = \"sctp\"", least(Probe::Sctp)),
            ("type = \"http\"", least(Probe::Http(http("GET", "/", None, None, &[200])))),
            (
                "type = \"tcp\"\ndelay_s = 2",
                Monitor { delay_s: 2, timeout_s: 2, ..least(Probe::Tcp) },
            ),
            (
                "type = \"https\"\ndelay_s = 10\ntimeout_s = 9\nrise = 1\nfall = 4\n\
                 on_marked_down = \"reset\"\nmethod = \"HEAD\"\npath = \"/hc?a=1\"\n\
                 version = \"1.1\"\nhost = \"example.com\"\ncodes = [204, 200]",
                Monitor {
                    probe: Probe::Https(http(
                        "HEAD",
                        "/hc?a=1",
                        Some(1),
                        Some("example.com"),
                        &[200, 204],
                    )),
                    delay_s: 10,
                    timeout_s: 9,
                    rise: 1,
                    fall: 4,
                    on_marked_down: OnMarkedDown::Reset,
                },
            ),
        ];
        for (row, want) in rows {
            let text = LEAST.replace("persistence = {}", &format!("[pool.monitor]\n{row}"));
            let desired = Desired::from_toml(&text).unwrap();
            assert_eq!(desired.pools[0].monitor.as_ref(), Some(&want), "{row}");
            let toml = toml::to_string(&desired).unwrap();
            assert_eq!(Desired::from_toml(&toml).unwrap(), desired, "{row}");
        }
        for (row, want) in [
            ("monitor_port = 99", "10.0.1.11:99"),
            ("monitor_address = \"10.0.1.12\"", "10.0.1.12:8080"),
            ("monitor_address = \"2001:db8::1\"\nmonitor_port = 99", "[2001:db8::1]:99"),
        ] {
            let text = LEAST.replacen("port = 8080", &format!("port = 8080\n{row}"), 1);
            let members = &Desired::from_toml(&text).unwrap().pools[0].members;
            let probed = [want.parse().ok(), None];
            assert_eq!([members[0].probed_at, members[1].probed_at], probed, "{row}");
        }
    }

    /// What may look like a fault and is none.
    #[test]
    fn allowed() {
        let listener = |id: &str, port: u16, protocol: &str| {
            format!(
                "[[listener]]\nid = \"{id}\"\nvips = [\"10.0.0.10\"]\nport = {port}\n\
                 protocol = \"{protocol}\"\n"
            )
        };
        let rows = [
            ("nothing but a name", "name = \"web\"".to_owned()),
            ("another port of a vip", LEAST.to_owned() + &listener("b", 81, "tcp")),
            ("another protocol of a vip", LEAST.to_owned() + &listener("b", 80, "udp")),
            ("a listener called like a pool", LEAST.to_owned() + &listener("web", 81, "tcp")),
            ("another port of a member", LEAST.replace(LAST, "10.0.1.11\"\nport = 8081")),
            ("a pool of nobody", LEAST.replace("pool = \"web\"\n", "")),
            ("lines that end as on Windows", LEAST.replace('\n', "\r\n")),
        ];
        for (row, text) in rows {
            let shown = Desired::from_toml(&text).map_err(|error| error.to_string());
            assert!(shown.is_ok(), "{row}: {shown:?}");
        }
    }

    #[test]
    fn example() {
        let desired = Desired::from_toml(EXAMPLE).unwrap();
        let timeouts: Vec<u32> = desired.listeners.iter().map(|it| it.idle_timeout_s).collect();
        assert_eq!(timeouts, [50, 300]);
        let members: Vec<usize> = desired.pools.iter().map(|pool| pool.members.len()).collect();
        assert_eq!(members, [3, 1]);

        let json = serde_json::to_string(&desired).unwrap();
        assert_eq!(serde_json::from_str::<Desired>(&json).unwrap(), desired, "by way of JSON");
        let toml = toml::to_string(&desired).unwrap();
        assert_eq!(Desired::from_toml(&toml).unwrap(), desired, "by way of TOML");
    }

    /// Half a file is a document or an error, never a panic; nor does nesting exhaust the stack.
    #[test]
    fn torn() {
        for (at, _) in EXAMPLE.char_indices().step_by(7) {
            let _ = Desired::from_toml(&EXAMPLE[..at]);
        }
        assert!(Desired::from_toml(&format!("name = {}", "[".repeat(1 << 20))).is_err());
    }

    #[test]
    fn files() {
        let full = usize::try_from(FILE_BYTES_MAX).unwrap() - LEAST.len();
        let comment = |bytes: usize| "#".repeat(bytes);
        let rows: [(&str, Vec<u8>, &str); 5] = [
            ("least", LEAST.into(), ""),
            ("a fault", LEAST.replace("80\n", "0\n").into(), "line 5: port 0 is not a port"),
            ("latin-1", b"name = \"web\"\n# caf\xe9\n".into(), "line 2: not UTF-8"),
            ("full", (LEAST.to_owned() + &comment(full)).into(), ""),
            (
                "too large",
                (LEAST.to_owned() + &comment(full + 1)).into(),
                "holds more than 16777216 bytes",
            ),
        ];
        let path = std::env::temp_dir().join(format!("desired-{}.toml", std::process::id()));
        for (row, bytes, want) in rows {
            std::fs::write(&path, bytes).unwrap();
            let shown = Desired::read(&path).err().map(|error| error.to_string());
            assert_eq!(shown.unwrap_or_default(), want, "{row}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Desired::read(&path), Err(Error::Read(_))), "no file");
    }
}
