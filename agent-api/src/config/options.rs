//! The keys of `amphora-agent.conf` and what they are where it does not say.
//!
//! The defaults are those of `octavia/common/config.py` and, in `[DEFAULT]`, of oslo.log.

use crate::oslo::Known;

pub const ALL: [Known; 23] = [
    DEBUG,
    USE_SYSLOG,
    SYSLOG_LOG_FACILITY,
    BASE_PATH,
    BASE_CERT_DIR,
    BIND_HOST,
    BIND_PORT,
    HAPROXY_CMD,
    USER_LOG_FACILITY,
    ADMINISTRATIVE_LOG_FACILITY,
    CONTROLLER_IP_PORT_LIST,
    HEARTBEAT_INTERVAL,
    HEARTBEAT_KEY,
    AGENT_SERVER_CA,
    AGENT_SERVER_CERT,
    AGENT_SERVER_NETWORK_DIR,
    AGENT_REQUEST_READ_TIMEOUT,
    AMPHORA_ID,
    AMPHORA_UDP_DRIVER,
    AGENT_TLS_PROTOCOL,
    LOADBALANCER_TOPOLOGY,
    HEARTBEAT_ENVELOPE,
    ON_MARKED_DOWN,
];

/// Those of ours.
pub const OWN: [Known; 2] = [HEARTBEAT_ENVELOPE, ON_MARKED_DOWN];

pub const DEBUG: Known = option("DEFAULT", "debug", "False");
pub const USE_SYSLOG: Known = option("DEFAULT", "use_syslog", "False");
pub const SYSLOG_LOG_FACILITY: Known = option("DEFAULT", "syslog_log_facility", "LOG_USER");

pub const BASE_PATH: Known = option("haproxy_amphora", "base_path", "/var/lib/octavia");
pub const BASE_CERT_DIR: Known =
    option("haproxy_amphora", "base_cert_dir", "/var/lib/octavia/certs");
pub const BIND_HOST: Known = option("haproxy_amphora", "bind_host", "::");
pub const BIND_PORT: Known = option("haproxy_amphora", "bind_port", "9443");
pub const HAPROXY_CMD: Known = option("haproxy_amphora", "haproxy_cmd", "/usr/sbin/haproxy");
pub const USER_LOG_FACILITY: Known = option("haproxy_amphora", "user_log_facility", "0");
pub const ADMINISTRATIVE_LOG_FACILITY: Known =
    option("haproxy_amphora", "administrative_log_facility", "1");

pub const CONTROLLER_IP_PORT_LIST: Known = option("health_manager", "controller_ip_port_list", "");
pub const HEARTBEAT_INTERVAL: Known = option("health_manager", "heartbeat_interval", "10");
/// It has no default; the stock sender signs with what Python makes of that, `str(None)`.
pub const HEARTBEAT_KEY: Known = option("health_manager", "heartbeat_key", "None");

pub const AGENT_SERVER_CA: Known =
    option("amphora_agent", "agent_server_ca", "/etc/octavia/certs/client_ca.pem");
pub const AGENT_SERVER_CERT: Known =
    option("amphora_agent", "agent_server_cert", "/etc/octavia/certs/server.pem");
/// It has no default; this is what the stock agent takes in its stead (`interface_file.py`).
pub const AGENT_SERVER_NETWORK_DIR: Known =
    option("amphora_agent", "agent_server_network_dir", "/etc/octavia/interfaces/");
pub const AGENT_REQUEST_READ_TIMEOUT: Known =
    option("amphora_agent", "agent_request_read_timeout", "180");
pub const AMPHORA_ID: Known = Known { section: "amphora_agent", key: "amphora_id", default: None };
/// Read by nobody; it may be referred to.
pub const AMPHORA_UDP_DRIVER: Known =
    option("amphora_agent", "amphora_udp_driver", "keepalived_lvs");
pub const AGENT_TLS_PROTOCOL: Known = option("amphora_agent", "agent_tls_protocol", "TLSv1.2");

/// Octavia's default is `SINGLE`; `AgentConfig::from_file` says why it must be there.
pub const LOADBALANCER_TOPOLOGY: Known =
    Known { section: "controller_worker", key: "loadbalancer_topology", default: None };

pub const HEARTBEAT_ENVELOPE: Known = option("xdp_lb", "heartbeat_envelope", "octavia");
pub const ON_MARKED_DOWN: Known = option("xdp_lb", "on_marked_down", "keep");

const fn option(section: &'static str, key: &'static str, default: &'static str) -> Known {
    Known { section, key, default: Some(default) }
}
