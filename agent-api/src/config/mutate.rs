//! What of the configuration a `PUT /config` changes while the agent runs.

use super::{AgentConfig, options};
use crate::oslo::Known;

/// A key that a `PUT /config` cannot change, with another value than before. It takes a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{section}] {key}")]
pub struct Ignored {
    pub section: &'static str,
    pub key: &'static str,
}

impl AgentConfig {
    /// What a running agent has after a `PUT /config` of `new`, and which of its changes are ignored
    /// until a restart.
    ///
    /// Options of our own stay as they are: no controller knows them.
    ///
    /// Those keys change that oslo.config calls mutable (`mutable=True` in `octavia/common/config.py`
    /// and, for `debug`, in oslo.log). The stock agent logs the others, by name only, as here.
    pub fn mutate(&self, new: &Self) -> (Self, Vec<Ignored>) {
        let mut config = self.clone();
        config.debug = new.debug;
        config.controller_ip_port_list.clone_from(&new.controller_ip_port_list);
        config.heartbeat_interval_s = new.heartbeat_interval_s;
        config.heartbeat_key.clone_from(&new.heartbeat_key);
        config.loadbalancer_topology = new.loadbalancer_topology;
        let immutable = [
            (options::USE_SYSLOG, self.use_syslog == new.use_syslog),
            (options::SYSLOG_LOG_FACILITY, self.syslog_log_facility == new.syslog_log_facility),
            (options::BASE_PATH, self.base_path == new.base_path),
            (options::BASE_CERT_DIR, self.base_cert_dir == new.base_cert_dir),
            (options::BIND_HOST, self.bind_host == new.bind_host),
            (options::BIND_PORT, self.bind_port == new.bind_port),
            (options::HAPROXY_CMD, self.haproxy_cmd == new.haproxy_cmd),
            (options::USER_LOG_FACILITY, self.user_log_facility == new.user_log_facility),
            (
                options::ADMINISTRATIVE_LOG_FACILITY,
                self.administrative_log_facility == new.administrative_log_facility,
            ),
            (options::AGENT_SERVER_CA, self.agent_server_ca == new.agent_server_ca),
            (options::AGENT_SERVER_CERT, self.agent_server_cert == new.agent_server_cert),
            (
                options::AGENT_SERVER_NETWORK_DIR,
                self.agent_server_network_dir == new.agent_server_network_dir,
            ),
            (
                options::AGENT_REQUEST_READ_TIMEOUT,
                self.agent_request_read_timeout_s == new.agent_request_read_timeout_s,
            ),
            (options::AMPHORA_ID, self.amphora_id == new.amphora_id),
            (options::AGENT_TLS_PROTOCOL, self.agent_tls_protocol == new.agent_tls_protocol),
        ];
        let ignored = immutable.into_iter().filter(|(_, same)| !same);
        (config, ignored.map(|(Known { section, key, .. }, _)| Ignored { section, key }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oslo::File;

    const BEFORE: &str =
        "[amphora_agent]\namphora_id = a\n[controller_worker]\nloadbalancer_topology = SINGLE\n";

    fn config(text: &str) -> AgentConfig {
        AgentConfig::from_file(&File::parse(text).unwrap()).unwrap().0
    }

    /// Every option there is, with another value than before, and whether that is taken over.
    #[test]
    fn each_option() {
        let rows = [
            (options::DEBUG, "True", true),
            (options::USE_SYSLOG, "True", false),
            (options::SYSLOG_LOG_FACILITY, "LOG_LOCAL2", false),
            (options::BASE_PATH, "/srv", false),
            (options::BASE_CERT_DIR, "/srv/certs", false),
            (options::BIND_HOST, "0.0.0.0", false),
            (options::BIND_PORT, "9444", false),
            (options::HAPROXY_CMD, "/opt/haproxy", false),
            (options::USER_LOG_FACILITY, "3", false),
            (options::ADMINISTRATIVE_LOG_FACILITY, "4", false),
            (options::CONTROLLER_IP_PORT_LIST, "192.0.2.5:5555", true),
            (options::HEARTBEAT_INTERVAL, "11", true),
            (options::HEARTBEAT_KEY, "insecure", true),
            (options::AGENT_SERVER_CA, "/srv/ca.pem", false),
            (options::AGENT_SERVER_CERT, "/srv/server.pem", false),
            (options::AGENT_SERVER_NETWORK_DIR, "/srv/interfaces", false),
            (options::AGENT_REQUEST_READ_TIMEOUT, "60", false),
            (options::AMPHORA_ID, "b", false),
            (options::AGENT_TLS_PROTOCOL, "TLSv1.3", false),
            (options::LOADBALANCER_TOPOLOGY, "ACTIVE_STANDBY", true),
        ];
        let nobodys = |it: &Known| *it == options::AMPHORA_UDP_DRIVER || options::OWN.contains(it);
        let read: Vec<Known> = options::ALL.into_iter().filter(|it| !nobodys(it)).collect();
        assert_eq!(rows.map(|(option, ..)| option).to_vec(), read);

        let before = config(BEFORE);
        for (Known { section, key, .. }, text, mutable) in rows {
            let new = config(&format!("{BEFORE}[{section}]\n{key} = {text}\n"));
            assert_ne!(new, before, "{key}");
            let want = if mutable {
                (new.clone(), vec![])
            } else {
                (before.clone(), vec![Ignored { section, key }])
            };
            assert_eq!(before.mutate(&new), want, "{key}");
        }
    }

    #[test]
    fn our_own_stay() {
        let sealed = config(&format!("{BEFORE}[xdp_lb]\nheartbeat_envelope = sealed\n"));
        assert_eq!(sealed.mutate(&config(BEFORE)), (sealed.clone(), vec![]));
    }

    #[test]
    fn several_options() {
        let before = config(BEFORE);
        let new = config(&format!(
            "{BEFORE}[haproxy_amphora]\nbind_port = 1\nbase_path = /srv\n[DEFAULT]\ndebug = on\n"
        ));
        let (config, ignored) = before.mutate(&new);
        assert_eq!(config, AgentConfig { debug: true, ..before });
        let shown: Vec<String> = ignored.iter().map(Ignored::to_string).collect();
        assert_eq!(shown, ["[haproxy_amphora] base_path", "[haproxy_amphora] bind_port"]);
    }
}
