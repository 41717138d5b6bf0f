//! The files that Octavia renders for an amphora, against the settings it rendered them from.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{AgentConfig, Destination, HeartbeatEnvelope, Secret, TlsMinimum, Topology};
use crate::desired::Name;
use crate::monitor::OnMarkedDown;

#[test]
fn vectors() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/agent_conf");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "json") {
            continue;
        }
        let sidecar: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().display();
        let read = AgentConfig::read(&path.with_file_name(sidecar["file"].as_str().unwrap()));
        let (config, faults) = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config, want(&sidecar), "{name}");
        assert_eq!(faults, [], "{name}");
        count += 1;
    }
    assert!(count >= 6, "{count} vectors");
}

/// What a controller writes that has nothing set but what the sidecar names.
fn want(sidecar: &Value) -> AgentConfig {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut config = AgentConfig {
        debug: false,
        use_syslog: true,
        syslog_log_facility: "LOG_LOCAL1".into(),
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
        amphora_id: Name::try_from(text(&sidecar["amphora_id"])).unwrap(),
        agent_tls_protocol: TlsMinimum::Tls12,
        loadbalancer_topology: match sidecar["topology"].as_str().unwrap() {
            "SINGLE" => Topology::Single,
            "ACTIVE_STANDBY" => Topology::ActiveStandby,
            other => panic!("{other}"),
        },
        heartbeat_envelope: HeartbeatEnvelope::Octavia,
        on_marked_down: OnMarkedDown::Keep,
    };
    for (key, value) in sidecar["conf"].as_object().unwrap() {
        match key.as_str() {
            "DEFAULT.debug" => config.debug = value.as_bool().unwrap(),
            // Octavia has the facilities in this section, and writes them into another.
            "amphora_agent.administrative_log_facility" => {
                config.syslog_log_facility = format!("LOG_LOCAL{value}");
                config.administrative_log_facility = number(value);
            }
            "amphora_agent.user_log_facility" => {
                config.user_log_facility = number(value);
            }
            "amphora_agent.agent_request_read_timeout" => {
                config.agent_request_read_timeout_s = number(value);
            }
            "amphora_agent.agent_server_network_dir" => {
                config.agent_server_network_dir = text(value).into();
            }
            "amphora_agent.agent_tls_protocol" => {
                assert_eq!(value, "TLSv1.3");
                config.agent_tls_protocol = TlsMinimum::Tls13;
            }
            "haproxy_amphora.base_cert_dir" => config.base_cert_dir = text(value).into(),
            "haproxy_amphora.base_path" => config.base_path = text(value).into(),
            "haproxy_amphora.bind_host" => config.bind_host = text(value).parse().unwrap(),
            "haproxy_amphora.bind_port" => {
                config.bind_port = number(value);
            }
            "haproxy_amphora.haproxy_cmd" => config.haproxy_cmd = text(value).into(),
            "health_manager.controller_ip_port_list" => {
                let items = value.as_array().unwrap().iter();
                config.controller_ip_port_list = items.map(destination).collect();
            }
            "health_manager.heartbeat_interval" => config.heartbeat_interval_s = number(value),
            "health_manager.heartbeat_key" => {
                config.heartbeat_key = Secret::new(escaped(value.as_str().unwrap()));
            }
            other => panic!("{other}"),
        }
    }
    config
}

fn number<T: TryFrom<u64, Error: Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

fn destination(item: &Value) -> Destination {
    let (host, port) = match item.as_str().unwrap() {
        "192.0.2.5:5555" => ("192.0.2.5", 5555),
        "192.0.2.6:5555" => ("192.0.2.6", 5555),
        "[2001:db8::5]:5555" => ("2001:db8::5", 5555),
        "2001:db8::6:5555" => ("2001:db8::6", 5555),
        other => panic!("{other}"),
    };
    Destination { host: host.into(), port }
}

/// The template escapes for HTML: the file has the entities, and the agent signs with those.
fn escaped(key: &str) -> String {
    let entities = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&#34;"), ("'", "&#39;")];
    entities.iter().fold(key.to_owned(), |key, (from, to)| key.replace(from, to))
}
