//! The agent's own configuration, `amphora-agent.conf`, as the controller renders it
//! (`agent_jinja_cfg.py`), with Octavia's defaults (`common/config.py`).

mod wait;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::oslo::{Error, File};
use crate::paths::Paths;
pub use wait::wait_for;

/// All of it. Keys and sections that are not here are nobody's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Octavia's id of this amphora; all that it is known by.
    pub amphora_id: String,
    pub topology: Topology,
    pub log: Log,
    pub base_path: PathBuf,
    /// Certificates and keys of tenants.
    pub base_cert_dir: PathBuf,
    pub haproxy_command: PathBuf,
    /// Where the API listens: the management network.
    pub bind_host: IpAddr,
    /// 0 takes any.
    pub bind_port: u16,
    /// Certificate and key of the API.
    pub server_certificate: PathBuf,
    /// The CAs of the controllers.
    pub client_ca: PathBuf,
    pub tls_minimum: TlsMinimum,
    pub heartbeat: Heartbeat,
}

/// Whether there is a second amphora.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    /// VRRP has the VIPs.
    ActiveStandby,
}

/// The oldest TLS that the API speaks.
///
/// Octavia's names go back to SSLv3, whose peers are gone; below 1.2 is 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMinimum {
    Tls12,
    Tls13,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub debug: bool,
    pub use_syslog: bool,
    /// `LOG_LOCAL<n>` of flow logs and of all else, 0 to 7.
    pub user_facility: u8,
    pub administrative_facility: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Health managers, one at a time in turn. None until the controller knows some.
    pub destinations: Vec<Destination>,
    /// Entries of the list that are no destination.
    pub unknown: Vec<String>,
    /// Seconds between two of them.
    pub interval_s: u32,
    /// To sign with, as the file has it: the controller writes HTML's entities for some characters and
    /// `None` for a key that is not set, and whatever it checks with, this is what it sent.
    pub key: Secret,
    pub envelope: Envelope,
}

/// What a heartbeat travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Signed; what Octavia's health manager reads.
    Octavia,
    /// Encrypted too; for a relay in front of it.
    Sealed,
}

/// A health manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// An address without brackets, or a name.
    pub host: String,
    pub port: u16,
}

/// What no log must show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

/// A key that cannot change while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored(pub &'static str);

/// Octavia's defaults, where there are any; an option without one is empty.
fn default(section: &str, key: &str) -> Option<&'static str> {
    let options: &[(&str, &str)] = match section {
        "DEFAULT" => &[("debug", "False"), ("use_syslog", "True")],
        "haproxy_amphora" => &[
            ("base_path", "/var/lib/octavia"),
            ("base_cert_dir", "/var/lib/octavia/certs"),
            ("bind_host", "::"),
            ("bind_port", "9443"),
            ("haproxy_cmd", "/usr/sbin/haproxy"),
            ("user_log_facility", "0"),
            ("administrative_log_facility", "1"),
        ],
        "health_manager" => {
            &[("controller_ip_port_list", ""), ("heartbeat_interval", "10"), ("heartbeat_key", "")]
        }
        "amphora_agent" => &[
            ("agent_server_ca", "/etc/octavia/certs/client_ca.pem"),
            ("agent_server_cert", "/etc/octavia/certs/server.pem"),
            ("agent_tls_protocol", "TLSv1.2"),
            ("amphora_id", ""),
        ],
        "controller_worker" => &[("loadbalancer_topology", "SINGLE")],
        "xdp_lb" => &[("heartbeat_envelope", "octavia")],
        _ => &[],
    };
    options.iter().find(|(name, _)| *name == key).map(|(_, default)| *default)
}

impl AgentConfig {
    pub fn from_file(file: &File) -> Result<Self, Error> {
        let text = |section, key| Ok(file.text(section, key, default)?.unwrap_or_default());
        let path = |section, key| text(section, key).map(PathBuf::from);
        let yes = |section, key| Ok(file.boolean(section, key, default)?.unwrap_or_default());
        let bad = |section, key, value: &str, wanted: &str| {
            Err(file.bad(section, key, value, wanted.to_owned()))
        };
        let facility = |key| {
            let facility = file.integer("haproxy_amphora", key, 0..=7, default)?;
            Ok(facility.and_then(|number| u8::try_from(number).ok()).unwrap_or_default())
        };

        let amphora_id = text("amphora_agent", "amphora_id")?;
        if amphora_id.is_empty() {
            return bad("amphora_agent", "amphora_id", "", "the id of this amphora");
        }
        let topology = text("controller_worker", "loadbalancer_topology")?;
        let topology = match &topology[..] {
            "SINGLE" => Topology::Single,
            "ACTIVE_STANDBY" => Topology::ActiveStandby,
            other => {
                let wanted = "SINGLE or ACTIVE_STANDBY";
                return bad("controller_worker", "loadbalancer_topology", other, wanted);
            }
        };
        let bind_host = text("haproxy_amphora", "bind_host")?;
        let Ok(bind_host) = bind_host.parse() else {
            return bad("haproxy_amphora", "bind_host", &bind_host, "an IP address");
        };
        let bind_port = file.integer("haproxy_amphora", "bind_port", 0..=65535, default)?;
        let oldest = text("amphora_agent", "agent_tls_protocol")?;
        let tls_minimum = match &oldest[..] {
            "SSLv3" | "TLSv1" | "TLSv1.1" | "TLSv1.2" => TlsMinimum::Tls12,
            "TLSv1.3" => TlsMinimum::Tls13,
            other => {
                let wanted = "SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3";
                return bad("amphora_agent", "agent_tls_protocol", other, wanted);
            }
        };
        Ok(Self {
            amphora_id,
            topology,
            log: Log {
                debug: yes("DEFAULT", "debug")?,
                use_syslog: yes("DEFAULT", "use_syslog")?,
                user_facility: facility("user_log_facility")?,
                administrative_facility: facility("administrative_log_facility")?,
            },
            base_path: path("haproxy_amphora", "base_path")?,
            base_cert_dir: path("haproxy_amphora", "base_cert_dir")?,
            haproxy_command: path("haproxy_amphora", "haproxy_cmd")?,
            bind_host,
            bind_port: bind_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            server_certificate: path("amphora_agent", "agent_server_cert")?,
            client_ca: path("amphora_agent", "agent_server_ca")?,
            tls_minimum,
            heartbeat: Heartbeat::from_file(file)?,
        })
    }

    pub fn paths(&self) -> Paths {
        Paths::new(&self.base_path, &self.base_cert_dir)
    }

    /// What this becomes, while it runs, when the file says `told`; and the keys that stay as they were.
    ///
    /// Octavia marks the keys that may change with `mutable`; one by one they are taken over here.
    pub fn mutate(&self, told: Self) -> (Self, Vec<Ignored>) {
        let config = Self {
            topology: told.topology,
            log: Log { debug: told.log.debug, ..self.log.clone() },
            heartbeat: told.heartbeat.clone(),
            ..self.clone()
        };
        let kept = [
            ("amphora_id", self.amphora_id != told.amphora_id),
            ("use_syslog", self.log.use_syslog != told.log.use_syslog),
            ("user_log_facility", self.log.user_facility != told.log.user_facility),
            (
                "administrative_log_facility",
                self.log.administrative_facility != told.log.administrative_facility,
            ),
            ("base_path", self.base_path != told.base_path),
            ("base_cert_dir", self.base_cert_dir != told.base_cert_dir),
            ("haproxy_cmd", self.haproxy_command != told.haproxy_command),
            ("bind_host", self.bind_host != told.bind_host),
            ("bind_port", self.bind_port != told.bind_port),
            ("agent_server_cert", self.server_certificate != told.server_certificate),
            ("agent_server_ca", self.client_ca != told.client_ca),
            ("agent_tls_protocol", self.tls_minimum != told.tls_minimum),
        ];
        let kept = kept.into_iter().filter(|(_, changed)| *changed);
        (config, kept.map(|(key, _)| Ignored(key)).collect())
    }
}

impl Heartbeat {
    fn from_file(file: &File) -> Result<Self, Error> {
        const SECTION: &str = "health_manager";
        let list = file.list(SECTION, "controller_ip_port_list", default)?;
        let parsed = list.into_iter().map(|entry| Destination::parse(&entry).ok_or(entry));
        let (destinations, unknown): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
        let interval = file.integer(SECTION, "heartbeat_interval", 1..=86_400, default)?;
        let envelope = file.text("xdp_lb", "heartbeat_envelope", default)?.unwrap_or_default();
        Ok(Self {
            destinations: destinations.into_iter().filter_map(Result::ok).collect(),
            unknown: unknown.into_iter().filter_map(Result::err).collect(),
            interval_s: interval.and_then(|s| u32::try_from(s).ok()).unwrap_or(10),
            key: Secret(file.text(SECTION, "heartbeat_key", default)?.unwrap_or_default()),
            envelope: match &envelope[..] {
                "octavia" => Envelope::Octavia,
                "sealed" => Envelope::Sealed,
                other => {
                    let wanted = "octavia or sealed".to_owned();
                    return Err(file.bad("xdp_lb", "heartbeat_envelope", other, wanted));
                }
            },
        })
    }
}

impl Destination {
    /// `host:port`, at the last colon; the host may be in brackets (Octavia `health_sender.py`).
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then_some(Self { host, port })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has changed: it will be in force after a restart", self.0)
    }
}
