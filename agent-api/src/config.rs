//! The agent's own configuration, `amphora-agent.conf`, as the controller writes it.
//!
//! Octavia renders it from `agent_jinja_cfg.py` when it makes the amphora, and again for `PUT /config`. What
//! no controller knows stands in a file of its own beside it, [`OWN_FILE`], which it leaves alone.

mod destination;
mod mutate;
mod options;
mod own;
mod secret;
#[cfg(test)]
mod vectors;
mod wait;

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::desired::Name;
use crate::monitor::OnMarkedDown;
use crate::oslo::{self, File, Known, Unread};
use crate::paths::Paths;

pub use destination::{BadDestination, Destination};
pub use mutate::Ignored;
pub use own::OWN_FILE;
use own::own_file;
pub use secret::Secret;
pub use wait::wait_for;

/// What the file says, each field named for its key. Keys that are not here are ignored, among them
/// `amphora_udp_driver`, which has one value only, and `respawn_*` and `use_upstart` of Octavia 11.
///
/// The sections are those of the file: the stock agent looks for the two facilities in
/// `[amphora_agent]` (`octavia/common/config.py`), where the template does not put them, and so never
/// sees what the controller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// `[DEFAULT]`: log more. Changes live.
    pub debug: bool,
    /// `[DEFAULT]`: log to syslog; off by default, on in what the controller writes.
    pub use_syslog: bool,
    /// `[DEFAULT]`: a name that `syslog.h` has, such as `LOG_LOCAL1`; as found.
    pub syslog_log_facility: String,
    /// `[haproxy_amphora]`: all state. Absolute.
    pub base_path: PathBuf,
    /// `[haproxy_amphora]`: certificates of listeners and pools. Absolute; it does not follow
    /// `base_path`.
    pub base_cert_dir: PathBuf,
    /// `[haproxy_amphora]`: where the REST server listens; `::` is both families.
    pub bind_host: IpAddr,
    /// `[haproxy_amphora]`: the port of the REST server, 9443 unless told; 0 is any that is free.
    pub bind_port: u16,
    /// `[haproxy_amphora]`: the program.
    pub haproxy_cmd: PathBuf,
    /// `[haproxy_amphora]`: the `local` facility of flow logs, 0 to 7.
    pub user_log_facility: u8,
    /// `[haproxy_amphora]`: the `local` facility of all other logs, 0 to 7.
    pub administrative_log_facility: u8,
    /// `[health_manager]`: where heartbeats go, each to the next. None at all if the controller has
    /// none. Changes live.
    pub controller_ip_port_list: Vec<Destination>,
    /// `[health_manager]`: seconds from the end of one heartbeat to the next, at least 1. Changes live.
    pub heartbeat_interval_s: u32,
    /// `[health_manager]`: what heartbeats are signed with: the value as oslo.config reads it and not
    /// changed any further; its bytes in UTF-8 are the key. Changes live.
    ///
    /// The template escapes for HTML, so that a key with `& < > ' "` arrives with entities, and a
    /// controller without a key writes the word `None`. The stock agent takes both as they are, and so
    /// must this one: `None` cannot be told from a key that reads so. What is signed with it matches
    /// nothing, since a controller without a key verifies nothing.
    pub heartbeat_key: Secret,
    /// `[amphora_agent]`: whom client certificates must be signed by, PEM. Absolute.
    pub agent_server_ca: PathBuf,
    /// `[amphora_agent]`: the server's certificate followed by its key, PEM. Absolute.
    pub agent_server_cert: PathBuf,
    /// `[amphora_agent]`: descriptions of interfaces, `/etc/octavia/interfaces/` unless told. Absolute.
    pub agent_server_network_dir: PathBuf,
    /// `[amphora_agent]`: seconds that a request may take; 0 is no limit.
    pub agent_request_read_timeout_s: u32,
    /// `[amphora_agent]`: who this is, in heartbeats. The one source: host names may be random.
    pub amphora_id: Name,
    /// `[amphora_agent]`: the oldest TLS that is spoken.
    pub agent_tls_protocol: TlsMinimum,
    /// `[controller_worker]`: one amphora, or two that speak VRRP. Changes live.
    pub loadbalancer_topology: Topology,
    /// `[xdp_lb]`, a section of our own: how heartbeats are wrapped.
    pub heartbeat_envelope: HeartbeatEnvelope,
    /// `[xdp_lb]`: what becomes of the flows of a member that fails its checks.
    pub on_marked_down: OnMarkedDown,
}

/// The oldest version of TLS that the REST server speaks.
///
/// Octavia's choices begin with `SSLv3`. What is older than 1.2 counts as 1.2 here: those are broken
/// (RFC 7568, RFC 8996), and nobody is left out, for Octavia 11 speaks 1.2 alone and Octavia 19 that
/// version or a later one, whatever its minimum is. The stock agent speaks 1.2 and later as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMinimum {
    Tls12,
    Tls13,
}

/// Octavia's `loadbalancer_topology`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    Single,
    ActiveStandby,
}

/// How a heartbeat is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatEnvelope {
    /// Signed, as Octavia's health manager expects it.
    Octavia,
    /// Encrypted, for a relay of ours.
    Sealed,
}

/// Why there is no configuration. The file's name is for the caller to add, who knows it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("holds more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("not UTF-8")]
    NotText,
    #[error(transparent)]
    Form(#[from] oslo::Error),
    #[error(transparent)]
    Unread(#[from] Unread),
    /// A key without which there is no amphora, or that tells a whole file from a torn one.
    #[error("[{section}] {key} is missing")]
    Missing { section: &'static str, key: &'static str },
    /// In a file of our own, where it can only be a mistake.
    #[error("[{section}] {key} is no option")]
    Unknown { section: String, key: String },
    #[error("{}: {error}", .file.display())]
    Own { file: PathBuf, error: Box<Error> },
    #[error("[{section}] {key} = {value:?}: expected {expected}")]
    Value { section: &'static str, key: &'static str, value: String, expected: &'static str },
}

/// The key that heartbeats are signed with, of an amphora's file or of the controller's own `octavia.conf`,
/// which has it in the same place.
pub fn heartbeat_key(path: &Path) -> Result<Secret, Error> {
    Ok(Secret::new(Options(&file(path)?).text(&options::HEARTBEAT_KEY)?))
}

fn file(path: &Path) -> Result<File, Error> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(Error::Read)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::TooLarge { max: CONFIG_BYTES_MAX });
    }
    let text = str::from_utf8(&bytes).map_err(|_| Error::NotText)?;
    Ok(File::parse(text)?)
}

/// Bytes of the file. Nova takes 10 KiB at most, so that no file of Octavia's is larger at start.
pub const CONFIG_BYTES_MAX: u64 = 64 << 10;

impl AgentConfig {
    /// Reads a file, and our own beside it; the faults beside the configuration are to be logged.
    pub fn read(path: &Path) -> Result<(Self, Vec<BadDestination>), Error> {
        let own = path.with_file_name(OWN_FILE);
        let options = match own_file(&own) {
            Ok(options) => options,
            Err(error) => return Err(Error::Own { file: own, error: error.into() }),
        };
        let (mut config, faults) = Self::from_file(&file(path)?)?;
        if let Some(options) = options {
            config.set_own(&options).map_err(|it| Error::Own { file: own, error: it.into() })?;
        }
        Ok((config, faults))
    }

    /// Takes the options from a file; absent ones are as Octavia's `config.py` has them.
    ///
    /// Two must be there, though: `amphora_id`, which has no default, and `loadbalancer_topology`. That
    /// is the last line of what every Octavia since 4 writes: without it the file is torn, and its
    /// default would make two amphorae own one address.
    ///
    /// A destination that cannot be one is returned beside the rest. The stock agent stops there and
    /// uses those before it; here the good ones after it count as well, since an amphora that sends no
    /// heartbeats is taken down.
    pub fn from_file(file: &File) -> Result<(Self, Vec<BadDestination>), Error> {
        let read = Options(file);
        let (controller_ip_port_list, faults) =
            destination::parse(&read.text(&options::CONTROLLER_IP_PORT_LIST)?);
        let mut config = Self {
            debug: read.boolean(&options::DEBUG)?,
            use_syslog: read.boolean(&options::USE_SYSLOG)?,
            syslog_log_facility: read.text(&options::SYSLOG_LOG_FACILITY)?,
            base_path: read.path(&options::BASE_PATH)?,
            base_cert_dir: read.path(&options::BASE_CERT_DIR)?,
            bind_host: read.value(&options::BIND_HOST, "an IP address", oslo::address)?,
            bind_port: read.number(&options::BIND_PORT, "a port")?,
            haproxy_cmd: read.value(&options::HAPROXY_CMD, "a program", program)?,
            user_log_facility: read.value(&options::USER_LOG_FACILITY, "0 to 7", facility)?,
            administrative_log_facility: read.value(
                &options::ADMINISTRATIVE_LOG_FACILITY,
                "0 to 7",
                facility,
            )?,
            controller_ip_port_list,
            heartbeat_interval_s: read.value(
                &options::HEARTBEAT_INTERVAL,
                "seconds, 1 or more",
                |text| number(text).filter(|it| *it >= 1),
            )?,
            heartbeat_key: Secret::new(read.text(&options::HEARTBEAT_KEY)?),
            agent_server_ca: read.path(&options::AGENT_SERVER_CA)?,
            agent_server_cert: read.path(&options::AGENT_SERVER_CERT)?,
            agent_server_network_dir: read.path(&options::AGENT_SERVER_NETWORK_DIR)?,
            agent_request_read_timeout_s: read
                .number(&options::AGENT_REQUEST_READ_TIMEOUT, "seconds, 0 or more")?,
            amphora_id: read.value(
                &options::AMPHORA_ID,
                "an id of 1 to 36 of a-z, 0-9 and -",
                |text| Name::try_from(text.to_owned()).ok(),
            )?,
            agent_tls_protocol: read.value(
                &options::AGENT_TLS_PROTOCOL,
                "SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
                tls_minimum,
            )?,
            loadbalancer_topology: read.value(
                &options::LOADBALANCER_TOPOLOGY,
                "SINGLE or ACTIVE_STANDBY",
                topology,
            )?,
            heartbeat_envelope: HeartbeatEnvelope::Octavia,
            on_marked_down: OnMarkedDown::Keep,
        };
        config.set_own(file)?;
        Ok((config, faults))
    }

    /// Where the amphora keeps what.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.base_path, &self.base_cert_dir)
    }
}

/// The options of a file, typed.
struct Options<'a>(&'a File);

impl Options<'_> {
    fn value<T>(
        &self,
        option: &Known,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let &Known { section, key, .. } = option;
        let value = self.text(option)?;
        parse(&value).ok_or(Error::Value { section, key, value, expected })
    }

    fn text(&self, option: &Known) -> Result<String, Error> {
        let &Known { section, key, .. } = option;
        self.0.value(option, &options::ALL)?.ok_or(Error::Missing { section, key })
    }

    fn boolean(&self, option: &Known) -> Result<bool, Error> {
        self.value(option, "true or false", oslo::boolean)
    }

    fn number<T: TryFrom<i64>>(&self, option: &Known, expected: &'static str) -> Result<T, Error> {
        self.value(option, expected, number)
    }

    fn path(&self, option: &Known) -> Result<PathBuf, Error> {
        self.value(option, "an absolute path", |text| {
            Some(PathBuf::from(text)).filter(|path| path.is_absolute())
        })
    }
}

fn number<T: TryFrom<i64>>(text: &str) -> Option<T> {
    oslo::integer(text)?.try_into().ok()
}

fn facility(text: &str) -> Option<u8> {
    number(text).filter(|it| *it <= 7)
}

fn program(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn tls_minimum(text: &str) -> Option<TlsMinimum> {
    match text {
        "SSLv3" | "TLSv1" | "TLSv1.1" | "TLSv1.2" => Some(TlsMinimum::Tls12),
        "TLSv1.3" => Some(TlsMinimum::Tls13),
        _ => None,
    }
}

fn topology(text: &str) -> Option<Topology> {
    match text {
        "SINGLE" => Some(Topology::Single),
        "ACTIVE_STANDBY" => Some(Topology::ActiveStandby),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The least that there must be; rows below put lines before it.
    pub const LEAST: &str =
        "[amphora_agent]\namphora_id = a-1\n[controller_worker]\nloadbalancer_topology = SINGLE\n";

    pub fn least() -> AgentConfig {
        AgentConfig {
            debug: false,
            use_syslog: false,
            syslog_log_facility: "LOG_USER".into(),
            base_path: "/var/lib/octavia".into(),
            base_cert_dir: "/var/lib/octavia/certs".into(),
            bind_host: "::".parse().unwrap(),
            bind_port: 9443,
            haproxy_cmd: "/usr/sbin/haproxy".into(),
            user_log_facility: 0,
            administrative_log_facility: 1,
            controller_ip_port_list: vec![],
            heartbeat_interval_s: 10,
            heartbeat_key: Secret::new("None"),
            agent_server_ca: "/etc/octavia/certs/client_ca.pem".into(),
            agent_server_cert: "/etc/octavia/certs/server.pem".into(),
            agent_server_network_dir: "/etc/octavia/interfaces/".into(),
            agent_request_read_timeout_s: 180,
            amphora_id: Name::try_from("a-1".to_owned()).unwrap(),
            agent_tls_protocol: TlsMinimum::Tls12,
            loadbalancer_topology: Topology::Single,
            heartbeat_envelope: HeartbeatEnvelope::Octavia,
            on_marked_down: OnMarkedDown::Keep,
        }
    }

    fn config(text: &str) -> Result<(AgentConfig, Vec<BadDestination>), String> {
        let file = File::parse(text).map_err(|error| error.to_string())?;
        AgentConfig::from_file(&file).map_err(|error| error.to_string())
    }

    /// A row is lines and what they change in `least`.
    #[test]
    fn good() {
        let destination = |host: &str, port| Destination { host: host.into(), port };
        let name = |id: &str| Name::try_from(id.to_owned()).unwrap();
        let id = "2fb5067a-1d18-5a82-80f6-079512bfcd7b";
        #[rustfmt::skip]
        let rows = [
            ("", least()),
            ("[DEFAULT]\ndebug = True", AgentConfig { debug: true, ..least() }),
            ("[DEFAULT]\ndebug = yes\ndebug = no", least()),
            ("[DEFAULT]\nuse_syslog: 1", AgentConfig { use_syslog: true, ..least() }),
            ("[DEFAULT]\nsyslog_log_facility = LOG_LOCAL1",
                AgentConfig { syslog_log_facility: "LOG_LOCAL1".into(), ..least() }),
            ("[haproxy_amphora]\nbase_path = /srv/oct", AgentConfig { base_path: "/srv/oct".into(), ..least() }),
            ("[haproxy_amphora]\nbase_cert_dir = $base_path/tls",
                AgentConfig { base_cert_dir: "/var/lib/octavia/tls".into(), ..least() }),
            ("[haproxy_amphora]\nbind_host = 0.0.0.0",
                AgentConfig { bind_host: "0.0.0.0".parse().unwrap(), ..least() }),
            ("[haproxy_amphora]\nbind_host = 2001:db8::1",
                AgentConfig { bind_host: "2001:db8::1".parse().unwrap(), ..least() }),
            ("[haproxy_amphora]\nbind_port = 0", AgentConfig { bind_port: 0, ..least() }),
            ("[haproxy_amphora]\nbind_port = 65535", AgentConfig { bind_port: 65535, ..least() }),
            ("[haproxy_amphora]\nhaproxy_cmd = haproxy", AgentConfig { haproxy_cmd: "haproxy".into(), ..least() }),
            ("[haproxy_amphora]\nuser_log_facility = 7", AgentConfig { user_log_facility: 7, ..least() }),
            ("[haproxy_amphora]\nadministrative_log_facility = 0",
                AgentConfig { administrative_log_facility: 0, ..least() }),
            ("[amphora_agent]\nadministrative_log_facility = 3", least()),
            ("[health_manager]\ncontroller_ip_port_list = [2001:db8::5]:5555, 192.0.2.5:1",
                AgentConfig {
                    controller_ip_port_list: vec![destination("2001:db8::5", 5555), destination("192.0.2.5", 1)],
                    ..least()
                }),
            ("[health_manager]\nheartbeat_interval = 1", AgentConfig { heartbeat_interval_s: 1, ..least() }),
            ("[health_manager]\nheartbeat_interval = 4294967295",
                AgentConfig { heartbeat_interval_s: u32::MAX, ..least() }),
            ("[health_manager]\nheartbeat_key =", AgentConfig { heartbeat_key: Secret::new(""), ..least() }),
            ("[health_manager]\nheartbeat_key = ' a'", AgentConfig { heartbeat_key: Secret::new(" a"), ..least() }),
            ("[health_manager]\nheartbeat_key = a$$b # c",
                AgentConfig { heartbeat_key: Secret::new("a$b # c"), ..least() }),
            ("[health_manager]\nheartbeat_key = &#34;a&amp;b&#34;",
                AgentConfig { heartbeat_key: Secret::new("&#34;a&amp;b&#34;"), ..least() }),
            ("[amphora_agent]\nagent_server_ca = /ca.pem", AgentConfig { agent_server_ca: "/ca.pem".into(), ..least() }),
            ("[amphora_agent]\nagent_server_cert = /s.pem", AgentConfig { agent_server_cert: "/s.pem".into(), ..least() }),
            ("[amphora_agent]\nagent_server_network_dir = /net",
                AgentConfig { agent_server_network_dir: "/net".into(), ..least() }),
            ("[amphora_agent]\nagent_request_read_timeout = 0",
                AgentConfig { agent_request_read_timeout_s: 0, ..least() }),
            (&format!("[xdp_lb]\n[amphora_agent]\namphora_id = {id}\n[x]"),
                AgentConfig { amphora_id: name(id), ..least() }),
            ("[amphora_agent]\nagent_tls_protocol = SSLv3", least()),
            ("[amphora_agent]\nagent_tls_protocol = TLSv1", least()),
            ("[amphora_agent]\nagent_tls_protocol = TLSv1.1", least()),
            ("[amphora_agent]\nagent_tls_protocol = TLSv1.2", least()),
            ("[amphora_agent]\nagent_tls_protocol = TLSv1.3",
                AgentConfig { agent_tls_protocol: TlsMinimum::Tls13, ..least() }),
            ("[CONTROLLER_WORKER]\nloadbalancer_topology = ACTIVE_STANDBY",
                AgentConfig { loadbalancer_topology: Topology::ActiveStandby, ..least() }),
            ("[xdp_lb]\nheartbeat_envelope = octavia", least()),
            ("[xdp_lb]\nheartbeat_envelope = sealed",
                AgentConfig { heartbeat_envelope: HeartbeatEnvelope::Sealed, ..least() }),
            ("[xdp_lb]\non_marked_down = reset",
                AgentConfig { on_marked_down: OnMarkedDown::Reset, ..least() }),
            // What Octavia 11 writes besides, and what nobody does.
            ("[haproxy_amphora]\nrespawn_count = 2\nrespawn_interval = 2\nuse_upstart = True", least()),
            ("[amphora_agent]\namphora_udp_driver = x\n[nobody]\nx = $y", least()),
        ];
        for (lines, want) in rows {
            // A key that is there twice counts where it is last.
            assert_eq!(config(&format!("{LEAST}{lines}\n")), Ok((want, vec![])), "{lines}");
        }
    }

    #[test]
    fn bad() {
        #[rustfmt::skip]
        let rows = [
            ("[DEFAULT]\ndebug =", "[DEFAULT] debug = \"\": expected true or false"),
            ("[DEFAULT]\nuse_syslog = t", "[DEFAULT] use_syslog = \"t\": expected true or false"),
            ("[haproxy_amphora]\nbase_path = oct", "[haproxy_amphora] base_path = \"oct\": expected an absolute path"),
            ("[haproxy_amphora]\nbase_cert_dir =", "[haproxy_amphora] base_cert_dir = \"\": expected an absolute path"),
            ("[haproxy_amphora]\nbind_host = localhost", "[haproxy_amphora] bind_host = \"localhost\": expected an IP address"),
            ("[haproxy_amphora]\nbind_host = fe80::1%eth0", "[haproxy_amphora] bind_host = \"fe80::1%eth0\": expected an IP address"),
            ("[haproxy_amphora]\nbind_port = 65536", "[haproxy_amphora] bind_port = \"65536\": expected a port"),
            ("[haproxy_amphora]\nbind_port = -1", "[haproxy_amphora] bind_port = \"-1\": expected a port"),
            ("[haproxy_amphora]\nbind_port =", "[haproxy_amphora] bind_port = \"\": expected a port"),
            ("[haproxy_amphora]\nhaproxy_cmd =", "[haproxy_amphora] haproxy_cmd = \"\": expected a program"),
            ("[haproxy_amphora]\nuser_log_facility = 8", "[haproxy_amphora] user_log_facility = \"8\": expected 0 to 7"),
            ("[haproxy_amphora]\nadministrative_log_facility = -1", "[haproxy_amphora] administrative_log_facility = \"-1\": expected 0 to 7"),
            ("[health_manager]\nheartbeat_interval = 0", "[health_manager] heartbeat_interval = \"0\": expected seconds, 1 or more"),
            ("[health_manager]\nheartbeat_interval = 1.5", "[health_manager] heartbeat_interval = \"1.5\": expected seconds, 1 or more"),
            ("[health_manager]\nheartbeat_interval = 4294967296", "[health_manager] heartbeat_interval = \"4294967296\": expected seconds, 1 or more"),
            ("[health_manager]\nheartbeat_key = a$b", "[health_manager] heartbeat_key: the $ at byte 1 names no option that is known; $$ is a dollar"),
            ("[health_manager]\nheartbeat_key = $heartbeat_key", "[health_manager] heartbeat_key: the $ at byte 0 leads back to itself"),
            ("[health_manager]\ncontroller_ip_port_list = $x:5555", "[health_manager] controller_ip_port_list: the $ at byte 0 names no option that is known; $$ is a dollar"),
            ("[amphora_agent]\nagent_server_ca = ca.pem", "[amphora_agent] agent_server_ca = \"ca.pem\": expected an absolute path"),
            ("[amphora_agent]\nagent_server_cert = ./s", "[amphora_agent] agent_server_cert = \"./s\": expected an absolute path"),
            ("[amphora_agent]\nagent_server_network_dir = x", "[amphora_agent] agent_server_network_dir = \"x\": expected an absolute path"),
            ("[amphora_agent]\nagent_request_read_timeout = -1", "[amphora_agent] agent_request_read_timeout = \"-1\": expected seconds, 0 or more"),
            ("[amphora_agent]\namphora_id =", "[amphora_agent] amphora_id = \"\": expected an id of 1 to 36 of a-z, 0-9 and -"),
            ("[amphora_agent]\namphora_id = ../x", "[amphora_agent] amphora_id = \"../x\": expected an id of 1 to 36 of a-z, 0-9 and -"),
            ("[amphora_agent]\nagent_tls_protocol = TLSv1.4", "[amphora_agent] agent_tls_protocol = \"TLSv1.4\": expected SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"),
            ("[amphora_agent]\nagent_tls_protocol = tlsv1.3", "[amphora_agent] agent_tls_protocol = \"tlsv1.3\": expected SSLv3, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3"),
            ("[controller_worker]\nloadbalancer_topology = single", "[controller_worker] loadbalancer_topology = \"single\": expected SINGLE or ACTIVE_STANDBY"),
            ("[controller_worker]\nloadbalancer_topology = ACTIVE", "[controller_worker] loadbalancer_topology = \"ACTIVE\": expected SINGLE or ACTIVE_STANDBY"),
            ("[xdp_lb]\nheartbeat_envelope = Sealed", "[xdp_lb] heartbeat_envelope = \"Sealed\": expected octavia or sealed"),
            ("[xdp_lb]\non_marked_down = Keep", "[xdp_lb] on_marked_down = \"Keep\": expected keep or reset"),
            ("[xdp_lb", "line 5: a section that does not end with ]"),
        ];
        for (lines, want) in rows {
            assert_eq!(config(&format!("{LEAST}{lines}\n")), Err(want.to_owned()), "{lines}");
        }
    }

    #[test]
    fn missing() {
        let rows = [
            ("", "[amphora_agent] amphora_id is missing"),
            (
                "[controller_worker]\nloadbalancer_topology = SINGLE",
                "[amphora_agent] amphora_id is missing",
            ),
            (
                "[amphora_agent]\namphora_id = a-1",
                "[controller_worker] loadbalancer_topology is missing",
            ),
        ];
        for (text, want) in rows {
            assert_eq!(config(text), Err(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn destinations_that_are_none() {
        let text = format!("{LEAST}[health_manager]\ncontroller_ip_port_list = a, 192.0.2.5:1, b:");
        let (config, faults) = config(&text).unwrap();
        let destination = Destination { host: "192.0.2.5".into(), port: 1 };
        let want = AgentConfig { controller_ip_port_list: vec![destination], ..least() };
        assert_eq!(config, want);
        let shown: Vec<String> = faults.iter().map(BadDestination::to_string).collect();
        let prefix = "[health_manager] controller_ip_port_list: ";
        let what = " is not host:port or [address]:port";
        assert_eq!(shown, [format!("{prefix}\"a\"{what}"), format!("{prefix}\"b:\"{what}")]);
    }

    #[test]
    fn the_key_is_not_shown() {
        let (config, _) =
            config(&format!("{LEAST}[health_manager]\nheartbeat_key = insecure")).unwrap();
        assert_eq!(config.heartbeat_key.reveal(), "insecure");
        let shown = format!("{config:?}");
        assert!(shown.contains("heartbeat_key: Secret(..)"), "{shown}");
        assert!(!shown.contains("insecure"), "{shown}");
    }

    #[test]
    fn files() {
        let full = usize::try_from(CONFIG_BYTES_MAX).unwrap() - LEAST.len();
        let comment = |bytes: usize| "#".repeat(bytes);
        let rows: [(&str, Vec<u8>, &str); 5] = [
            ("least", LEAST.into(), ""),
            (
                "a fault",
                LEAST.replace('=', " ").into(),
                "line 2: neither a section, a comment nor `key = value`",
            ),
            ("latin-1", b"[DEFAULT]\n# caf\xe9\n".into(), "not UTF-8"),
            ("full", (LEAST.to_owned() + &comment(full)).into(), ""),
            (
                "too large",
                (LEAST.to_owned() + &comment(full + 1)).into(),
                "holds more than 65536 bytes",
            ),
        ];
        let path = std::env::temp_dir().join(format!("agent-config-{}.conf", std::process::id()));
        for (row, bytes, want) in rows {
            fs::write(&path, bytes).unwrap();
            let shown = AgentConfig::read(&path).err().map(|error| error.to_string());
            assert_eq!(shown.unwrap_or_default(), want, "{row}");
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(AgentConfig::read(&path), Err(Error::Read(_))), "no file");
    }

    #[test]
    fn paths() {
        let config = AgentConfig { base_path: "/a".into(), base_cert_dir: "/b".into(), ..least() };
        assert_eq!(config.paths(), Paths::new("/a", "/b"));
    }
}
