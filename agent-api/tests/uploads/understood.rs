//! What Octavia rendered is understood as what it was rendered from, every field of it.

use super::model::vectors;
use agent_api::understood::{Engine, Understood};
use agent_api::{Paths, haproxy};

/// A tenant's text that has a line of its own.
const HOSTILE: &str = "neg_l7_regex_newline";

#[test]
fn haproxy() {
    for (text, vector) in vectors("haproxy", "cfg", 112) {
        let name = &vector.name;
        let parsed = haproxy::parse(&text, &Paths::default());
        if name == HOSTILE {
            let line = text
                .lines()
                .position(|line| line.contains("# tenant") || line.contains(r"#\ tenant"));
            assert_eq!(parsed.unwrap_err().line, line.unwrap() + 1, "{name}");
            continue;
        }
        let config = parsed.unwrap_or_else(|refused| panic!("{name}: {refused}"));
        assert_eq!(config.load_balancer, vector.load_balancer.id, "{name}");
        let (listeners, wanted) = (config.listeners(), vector.haproxy());
        assert_eq!(listeners.len(), wanted.len(), "{name}");
        for (mut listener, wanted) in listeners.into_iter().zip(wanted) {
            let forwarded = listener.engine == Engine::Xdp;
            assert_eq!(forwarded, wanted.forwarded, "{name}: {:?}", listener.engine);
            let logs = vector.conf.get("haproxy_amphora.connection_logging").is_none();
            assert_eq!(listener.log_format.take().is_some(), logs, "{name}");
            listener.engine = Engine::Xdp;
            assert_eq!(listener, wanted.listener, "{name}");
        }
        let understood = Understood {
            load_balancer: config.load_balancer.clone(),
            listeners: config.listeners(),
        };
        assert!(understood.desired().is_ok(), "{name}: {:?}", understood.desired());
    }
}
