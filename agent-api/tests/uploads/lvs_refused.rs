//! What the file of a UDP or SCTP listener may not say. Tenants have a say in addresses, ports and the
//! path of a monitor, and keepalived runs commands.

use std::path::PathBuf;

use agent_api::{Paths, lvs};

/// A name, a text that is replaced wherever it stands, by what, and how that is refused.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn commands() {
    let rows = [
        (
            "a shell for a check",
            r#""/var/lib/octavia/lvs/check/udp_check.sh 10.1.0.21 8080""#,
            r#""/bin/sh -c id""#,
            r#"line 25: misc_path "/bin/sh -c id" is not a check of Octavia's"#,
        ),
        (
            "a program beside the check",
            "udp_check.sh 10.1.0.21",
            "udp_check.sh/../evil 10.1.0.21",
            "line 25: misc_path \"/var/lib/octavia/lvs/check/udp_check.sh/../evil 10.1.0.21 \
             8080\" is not a check of Octavia's",
        ),
        (
            "another way to write the check",
            "/var/lib/octavia/lvs/check/",
            "/var/lib/octavia/lvs//check/",
            "line 25: misc_path \"/var/lib/octavia/lvs//check/udp_check.sh 10.1.0.21 8080\" \
             is not a check of Octavia's",
        ),
        (
            "a command without quotes",
            r#""/var/lib/octavia/lvs/check/udp_check.sh 10.1.0.21 8080""#,
            "/bin/true",
            r#"line 25: misc_path "/bin/true" is not a check of Octavia's"#,
        ),
        (
            "an argument more",
            r#"10.1.0.21 8080""#,
            r#"10.1.0.21 8080 -e""#,
            "line 25: misc_path \"/var/lib/octavia/lvs/check/udp_check.sh 10.1.0.21 8080 -e\" \
             is not a check of Octavia's",
        ),
        (
            "a command for an address",
            r#"10.1.0.21 8080""#,
            r#"`id` 8080""#,
            r#"line 25: address "`id`" is not an address"#,
        ),
        (
            "a command behind an address",
            r#"10.1.0.21 8080""#,
            r#"10.1.0.21;id 8080""#,
            r#"line 25: address "10.1.0.21;id" is not an address"#,
        ),
        (
            "a variable in a command",
            r#"10.1.0.21 8080""#,
            r#"${A} 8080""#,
            "line 25: \"misc_path \\\"/var/lib/octavia/lvs/check/udp_check.sh ${A} 8080\\\"\" \
             has a quote that is not around a word",
        ),
        (
            "a command when a member comes up",
            "weight 1\n",
            "weight 1\nnotify_up \"/bin/sh\"\n",
            r#"line 24: "notify_up \"/bin/sh\"" stands where "}" has to"#,
        ),
        (
            "a command when the pool has enough",
            "retry 3",
            "retry 3\nquorum_up \"/bin/sh\"",
            "line 17: \"quorum_up \\\"/bin/sh\\\"\" stands where \"# Configuration for Pool \
             <id>\" has to",
        ),
    ];
    refused("UDP_monitor_own", &rows);
}

#[test]
fn lines() {
    let rows = [
        (
            "another file",
            "net_namespace amphora-haproxy",
            "include /etc/shadow",
            "line 4: \"include /etc/shadow\" stands where \"net_namespace amphora-haproxy\" \
             has to",
        ),
        (
            "a user for scripts",
            "net_namespace amphora-haproxy",
            "net_namespace amphora-haproxy\nglobal_defs {\nscript_user root\n}",
            r#"line 5: "global_defs {" stands where the file has to end"#,
        ),
        (
            "a condition",
            "weight 1\n",
            "@host weight 1\n",
            r#"line 23: "@host weight 1" is conditional"#,
        ),
        (
            "a condition before a VIP",
            "10.0.0.10 53",
            "@host 53",
            r#"line 7: "@host 53" is conditional"#,
        ),
        (
            "a comment of somebody else's",
            "weight 1\n",
            "# weight 1\n",
            r##"line 23: "# weight 1" stands where "weight <weight>" has to"##,
        ),
        (
            "quotes around a number",
            "weight 1\n",
            "weight \"1\"\n",
            r#"line 23: weight "\"1\"" is not a number from 0 to 256"#,
        ),
        (
            "a server that is sorry",
            "retry 3",
            "retry 3\nsorry_server 10.1.0.9 80",
            "line 17: \"sorry_server 10.1.0.9 80\" stands where \"# Configuration for Pool \
             <id>\" has to",
        ),
        (
            "a server without its id",
            "    # Configuration for Member c8d7b10d-6230-5253-8b55-3375e94c23a0\n",
            "",
            "line 21: \"real_server 10.1.0.21 8080 {\" stands where \"# Configuration for \
             Member <id>\" has to",
        ),
        (
            "an id without its server",
            "real_server 10.1.0.21 8080 {",
            "# Configuration for Member c8d7b10d-6230-5253-8b55-3375e94c23a0",
            "line 22: \"# Configuration for Member c8d7b10d-6230-5253-8b55-3375e94c23a0\" \
             stands where \"real_server <address> <port> {\" has to",
        ),
        (
            "a file for an id",
            "Loadbalancer 40c52c12-68e1-5926-83e7-88107bce47cb",
            "Loadbalancer ../../../../../../../../etc/cron.d/x",
            r#"line 1: id "../../../../../../../../etc/cron.d/x" is not a UUID"#,
        ),
        (
            "two listeners",
            "net_namespace amphora-haproxy",
            "net_namespace amphora-haproxy\n# Configuration for Listener \
             f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3",
            "line 5: \"# Configuration for Listener f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3\" \
             stands where the file has to end",
        ),
        (
            "a weight too great",
            "weight 1\n",
            "weight 257\n",
            r#"line 23: weight "257" is not a number from 0 to 256"#,
        ),
        (
            "a port too great",
            "real_server 10.1.0.21 8080",
            "real_server 10.1.0.21 65536",
            r#"line 22: port "65536" is not a number from 1 to 65535"#,
        ),
        (
            "a mark for a VIP",
            "    10.0.0.10 53",
            "    fwmark 53",
            r#"line 7: address "fwmark" is not an address"#,
        ),
        (
            "a name for a member",
            "real_server 10.1.0.21",
            "real_server evil.example",
            r#"line 22: address "evil.example" is not an address"#,
        ),
        (
            "no VIP",
            "    10.0.0.10 53\n",
            "",
            r#"line 7: "}" stands where "<address> <port>" has to"#,
        ),
        (
            "a group without a server",
            "virtual_server group ipv4-group {\n",
            "virtual_server_group ipv6-group {\n",
            "line 10: \"virtual_server_group ipv6-group {\" stands where \"virtual_server \
             group ipv4-group {\" has to",
        ),
        (
            "a scheduler that Octavia has not",
            "lb_algo wrr",
            "lb_algo wlc",
            r#"line 11: scheduler "wlc" is not wrr, lc or sh"#,
        ),
        (
            "a protocol that Octavia has not",
            "protocol UDP",
            "protocol TCP",
            r#"line 13: protocol "TCP" is not UDP or SCTP"#,
        ),
        (
            "a timed monitor without its id",
            "    # Configuration for HealthMonitor a23c180f-b3e4-53fa-b943-49b7920ad336\n",
            "",
            "line 20: \"# Configuration for Member c8d7b10d-6230-5253-8b55-3375e94c23a0\" \
             stands where \"# Configuration for HealthMonitor <id>\" has to",
        ),
        (
            "members of a disabled pool",
            "# Configuration for Pool f609e499-56b2-59a1-8995-c391176319cf",
            "# Pool f609e499-56b2-59a1-8995-c391176319cf is disabled",
            "line 21: \"# Configuration for Member c8d7b10d-6230-5253-8b55-3375e94c23a0\" \
             stands where \"}\" has to",
        ),
        (
            "a group of a disabled listener",
            "# Configuration for Listener f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3",
            "# Listener f98bcdf3-f14d-5bb0-bb3f-3bfc1a0337a3 is disabled",
            r#"line 6: "virtual_server_group ipv4-group {" stands where the file has to end"#,
        ),
        (
            "HAProxy's configuration",
            "# Configuration for Loadbalancer 40c52c12-68e1-5926-83e7-88107bce47cb\n",
            "# Configuration for loadbalancer 40c52c12-68e1-5926-83e7-88107bce47cb\nglobal\n",
            "line 1: \"# Configuration for loadbalancer \
             40c52c12-68e1-5926-83e7-88107bce47cb\" stands where \"# Configuration for \
             Loadbalancer <id>\" has to",
        ),
    ];
    refused("UDP_monitor_own", &rows);
}

#[test]
fn program_for_sctp() {
    let rows = [
        (
            "another check of SCTP's program",
            "sctp -t 4 10.1.0.21",
            "tcp -t 4 10.1.0.21",
            "line 25: misc_path \"amphora-health-checker tcp -t 4 10.1.0.21 8080\" is not a \
             check of Octavia's",
        ),
        (
            "SCTP's program elsewhere",
            r#""amphora-health-checker"#,
            r#""/tmp/amphora-health-checker"#,
            "line 25: misc_path \"/tmp/amphora-health-checker sctp -t 4 10.1.0.21 8080\" is \
             not a check of Octavia's",
        ),
        (
            "no time for SCTP",
            "-t 4",
            "-t 0",
            r#"line 25: -t "0" is not a number from 1 to 2147483647"#,
        ),
        (
            "the same time for SCTP and its program",
            "misc_timeout 5",
            "misc_timeout 4",
            r#"line 26: misc_timeout "4" is not a second more than -t 4"#,
        ),
    ];
    refused("SCTP_monitor_own", &rows);
}

#[test]
fn pages() {
    let rows = [
        (
            "a command behind a path",
            "path /hc",
            "path /hc\n}\n}\nnotify_down \"/bin/sh\"",
            r#"line 27: "}" stands where "status_code <status_code>" has to"#,
        ),
        (
            "a check behind a path",
            "path /hc\n",
            "path /hc\nstatus_code 200\n}\n}\nMISC_CHECK {\nmisc_path \"/bin/sh\"\n",
            r#"line 29: "}" stands where "connect_ip <connect_ip>" has to"#,
        ),
        (
            "two words for a path",
            "path /hc",
            "path /hc x",
            r#"line 26: "path /hc x" stands where "path <path>" has to"#,
        ),
        (
            "a path that is none",
            "path /hc",
            "path hc",
            r#"line 26: path "hc" does not start with a slash"#,
        ),
        (
            "a path with a comment",
            "path /hc",
            "path /hc#x",
            r#"line 26: "path /hc#x" has a comment that is not Octavia's"#,
        ),
        (
            "a path with an exclamation mark",
            "path /hc",
            "path /hc!",
            r#"line 26: "path /hc!" has a comment that is not Octavia's"#,
        ),
        (
            "a path with a quote",
            "path /hc",
            r#"path /hc?"x""#,
            r#"line 26: "path /hc?\"x\"" has a quote that is not around a word"#,
        ),
        (
            "a path with a variable",
            "path /hc",
            "path /$HOME",
            r#"line 26: "path /$HOME" has a variable"#,
        ),
        (
            "a path with a line separator",
            "path /hc",
            "path /hc\u{b}notify_up /bin/sh",
            r"line 26: character '\u{b}' is not text",
        ),
        (
            "another path for another code",
            "/hc\n              status_code 202",
            "/hd\n              status_code 202",
            r#"line 30: path "/hd" is not "/hc", as before"#,
        ),
        (
            "a code more for another member",
            "            connect_ip 10.9.9.9",
            "url {\npath /hc\nstatus_code 207\n}\nconnect_ip 10.9.9.9",
            "line 52: the check differs from what stands before",
        ),
    ];
    refused("UDP_monitor_http", &rows);
}

#[test]
fn connections() {
    let rows = [
        (
            "a check by name",
            "connect_ip 10.1.0.21",
            "connect_ip localhost",
            r#"line 25: connect_ip "localhost" is not an address"#,
        ),
        (
            "a check without end",
            "connect_timeout 4",
            "connect_timeout 0",
            r#"line 27: connect_timeout "0" is not a number from 1 to 2147483647"#,
        ),
        (
            "a member that is not checked",
            "        TCP_CHECK {\n            connect_ip 10.9.9.9\n            connect_port \
             99\n            connect_timeout 4\n        }\n",
            "",
            "line 32: the check differs from what stands before",
        ),
    ];
    refused("UDP_monitor_tcp", &rows);
}

#[test]
fn both_families() {
    let rows = [
        (
            "a VIP of the other family",
            "10.0.1.10 53",
            "2001:db8::11 53",
            r#"line 8: address "2001:db8::11" is not IPv4, as its block is"#,
        ),
        (
            "a member of the other family",
            "real_server 2001:db8:1::21",
            "real_server 10.1.0.23",
            r#"line 47: address "10.1.0.23" is not IPv6, as its block is"#,
        ),
        (
            "a server of another group",
            "virtual_server group ipv6-group",
            "virtual_server group ipv4-group",
            "line 37: \"virtual_server group ipv4-group {\" stands where \"virtual_server \
             group ipv6-group {\" has to",
        ),
        (
            "a family twice",
            "virtual_server_group ipv6-group",
            "virtual_server_group ipv4-group",
            r#"line 33: "virtual_server_group ipv4-group {" stands where the file has to end"#,
        ),
        (
            "persistence without a mask",
            "    persistence_granularity 255.255.255.255\n",
            "",
            "line 18: \"# Configuration for Pool f609e499-56b2-59a1-8995-c391176319cf\" \
             stands where \"persistence_granularity <mask>\" has to",
        ),
        (
            "a mask with a hole",
            "255.255.255.255",
            "255.0.255.0",
            r#"line 16: mask "255.0.255.0" has a hole"#,
        ),
        (
            "a mask of nothing",
            "255.255.255.255",
            "0.0.0.0",
            r#"line 16: mask "0.0.0.0" makes all clients one"#,
        ),
        (
            "a length too great for IPv6",
            "granularity 128",
            "granularity 129",
            r#"line 42: mask "129" is not a number from 1 to 128"#,
        ),
        (
            "another port for another VIP",
            "10.0.1.10 53",
            "10.0.1.10 54",
            "line 8: the port differs from what stands before",
        ),
        (
            "another scheduler for the other family",
            "lb_algo wrr\n    lb_kind NAT\n    protocol UDP\n    persistence_timeout 360\n    \
             persistence_granularity 128",
            "lb_algo lc\n    lb_kind NAT\n    protocol UDP\n    persistence_timeout 360\n    \
             persistence_granularity 128",
            "line 38: lb_algo differs from what stands before",
        ),
        (
            "another timeout for the other family",
            "persistence_timeout 360\n    persistence_granularity 128",
            "persistence_timeout 361\n    persistence_granularity 128",
            "line 41: persistence_timeout differs from what stands before",
        ),
        (
            "persistence in one family",
            "    persistence_timeout 360\n    persistence_granularity 128\n",
            "",
            "line 40: persistence_timeout differs from what stands before",
        ),
        (
            "a monitor in one family",
            "    persistence_granularity 128\n",
            "    persistence_granularity 128\n    delay_loop 5\n    delay_before_retry 5\n",
            "line 44: delay_loop or retry differs from what stands before",
        ),
        (
            "another pool for the other family",
            "128\n\n\n    # Configuration for Pool f609e499",
            "128\n\n\n    # Configuration for Pool 0609e499",
            "line 45: the pool differs from what stands before",
        ),
    ];
    refused("UDP_dualstack_persist", &rows);
}

#[test]
fn untimed() {
    let rows = [(
        "a check that is not timed",
        "weight 1\n",
        "weight 1\nTCP_CHECK {\n",
        r#"line 22: "TCP_CHECK {" stands where "}" has to"#,
    )];
    refused("UDP_persist_default", &rows);
}

#[test]
fn limits() {
    let rows = [(
        "another limit for another member",
        "weight 0\n        uthreshold 77",
        "weight 0\n        uthreshold 78",
        "line 32: uthreshold differs from what stands before",
    )];
    refused("UDP_member_states", &rows);
}

fn refused(vector: &str, rows: &[Row]) {
    let file = format!("../tests/vectors/lvs/{vector}.conf");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{vector}: {error}"));
    for (row, from, to, want) in rows {
        assert!(text.contains(from), "{row}");
        let config = lvs::parse(&text.replace(from, to), &Paths::default());
        let refused = config.map_err(|refused| refused.to_string());
        assert_eq!(refused, Err((*want).to_owned()), "{row}");
    }
}
