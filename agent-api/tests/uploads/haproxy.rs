//! What is not Octavia's is refused, with its line: tenants' text stands in these files.

use agent_api::understood::{Engine, Layer7, Protocol};
use agent_api::{Paths, haproxy};
use proptest::prelude::*;

use super::model;

const LB: &str = "40c52c12-68e1-5926-83e7-88107bce47cb";
const TCP: &str = "14ff4e77-7137-591a-ae98-fc8ed067e170";
const WEB: &str = "4d9e9335-152e-5b29-bc3c-a2494702c932";
const POOL: &str = "3aaa149b-3584-58ce-beeb-3e03e989e425";

/// A listener of layer 4 and one of layer 7.
fn good() -> String {
    format!(
        r#"# Configuration for loadbalancer {LB}
global
    daemon
    user nobody
    log /run/rsyslog/octavia/log local0
    log /run/rsyslog/octavia/log local1 notice
    stats socket /var/lib/octavia/{LB}.sock mode 0666 level user
    server-state-file /var/lib/octavia/{LB}/servers-state
    maxconn 100000

defaults
    log global
    retries 3
    option redispatch

frontend {TCP}
    maxconn 50000
    bind 10.0.0.10:22
    mode tcp
    default_backend {POOL}:{TCP}
    timeout client 50000

backend {POOL}:{TCP}
    mode tcp
    balance roundrobin
    timeout check 4s
    fullconn 50000
    option allbackups
    timeout connect 5000
    timeout server 50000
    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:8080 weight 1 check inter 5s fall 3 rise 2

frontend {WEB}
    maxconn 50000
    bind 10.0.0.10:443 ssl crt-list /var/lib/octavia/certs/{LB}/{WEB}.pem no-sslv3 no-tlsv10
    mode http
        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m reg a
    http-request deny if c9bf0c8d-8d9c-52bf-9330-2e246bb162a6
    redirect code 302 location https://example.com/ if !c9bf0c8d-8d9c-52bf-9330-2e246bb162a6
    default_backend {POOL}:{WEB}
    timeout client 50000
    log-format a\ %f\ %[ssl_c_verify]

backend {POOL}:{WEB}
    mode http
    balance source
    stick-table type ipv6 size 10k
    stick on src
    timeout check 4s
    option httpchk GET /
    http-check expect rstatus 200|202
    timeout connect 5000
    timeout server 50000
    server 10d02e17-4383-55ba-90fd-a5bd9ad40137 10.1.0.21:8080 weight 1 check inter 5s fall 3 rise 2
"#
    )
}

/// A row is its name, the beginning of a line, what takes the line's place (`+` goes behind it), and
/// what is said, on which line of the new text.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str, &str)] = &[
    // The file.
    ("no comment", "# Configuration", "", "line 1: it does not say of which load balancer the file is"),
    ("an id in capitals", "# Configuration", "# Configuration for loadbalancer 40C52C12-68e1-5926-83e7-88107bce47cb",
        "line 1: it does not say of which load balancer the file is"),
    ("no defaults", "defaults", "", r#"line 12: "log global" is not a directive of `global`"#),
    ("a second global section", "+    option redispatch", "global", r#"line 15: "global" is not a directive of `the file`"#),
    ("a section of its own", "+    option redispatch", "listen x", r#"line 15: "listen x" is not a directive of `defaults`"#),
    ("lua is loaded", "+    daemon", "    lua-load /tmp/x.lua", r#"line 4: "lua-load /tmp/x.lua" is not a directive of `global`"#),
    ("a program is run", "+    option redispatch", "program x\n command /bin/sh", r#"line 15: "program x" is not a directive of `defaults`"#),
    ("a conditional", "+    daemon", ".if 1", r#"line 4: ".if 1" is not a directive of `global`"#),
    ("a carriage return", "    daemon", "    daemon\r    chroot /", r"line 3: '\r' is a control character"),
    ("NUL", "    daemon", "    daemon\0", r"line 3: '\0' is a control character"),
    ("a variable", "    user nobody", "    user \"$USER\"", "line 4: a quote or a backslash that Octavia does not write"),
    ("a quote that stays open", "    user nobody", "    user \"nobody", "line 4: a quote or a backslash that Octavia does not write"),
    // Paths, commands and sockets.
    ("another user", "    user nobody", "    user root", r#"line 4: "user root" is not a directive of `global`"#),
    ("another stats socket", "    stats socket", "    stats socket /tmp/x mode 0666 level user",
        "line 7: the path must be /var/lib/octavia/40c52c12-68e1-5926-83e7-88107bce47cb.sock"),
    ("a stats socket of administrators", "    stats socket", "    stats socket /var/lib/octavia/x.sock mode 0666 level admin",
        r#"line 7: "stats socket /var/lib/octavia/x.sock mode 0666 level admin" is not a directive of `global`"#),
    ("another state file", "    server-state-file", "    server-state-file /etc/passwd",
        "line 8: the path must be /var/lib/octavia/40c52c12-68e1-5926-83e7-88107bce47cb/servers-state"),
    ("another log socket", "    log /run/rsyslog/octavia/log local0", "    log /var/run/docker.sock local0",
        "line 5: logs go to the socket of rsyslog, or an address"),
    ("another certificate folder", "    bind 10.0.0.10:443", "    bind 10.0.0.10:443 ssl crt-list /etc/ssl/private/x.pem",
        r#"line 35: "/etc/ssl/private/x.pem" is not a .pem file of /var/lib/octavia/certs/40c52c12-68e1-5926-83e7-88107bce47cb"#),
    ("out of the certificate folder", "    bind 10.0.0.10:443", "    bind 10.0.0.10:443 ssl crt-list /var/lib/octavia/certs/40c52c12-68e1-5926-83e7-88107bce47cb/../x.pem",
        r#"line 35: "/var/lib/octavia/certs/40c52c12-68e1-5926-83e7-88107bce47cb/../x.pem" is not a .pem file of /var/lib/octavia/certs/40c52c12-68e1-5926-83e7-88107bce47cb"#),
    ("the folder twice over", "    bind 10.0.0.10:443", "    bind 10.0.0.10:443 ssl crt-list /var/lib/octavia/certs//40c52c12-68e1-5926-83e7-88107bce47cb/x.pem",
        r#"line 35: "/var/lib/octavia/certs//40c52c12-68e1-5926-83e7-88107bce47cb/x.pem" is not a .pem file of /var/lib/octavia/certs/40c52c12-68e1-5926-83e7-88107bce47cb"#),
    ("another check command", "+    option httpchk", "    external-check command /bin/sh", "line 51: the command must be /var/lib/octavia/ping-wrapper.sh"),
    ("a check's path", "+    option httpchk", "    external-check path /tmp", r#"line 51: "external-check path /tmp" is not a directive of `backend`"#),
    ("a unix socket", "    bind 10.0.0.10:22", "    bind /tmp/x.sock", r#"line 18: "/tmp/x.sock" is not an address and a port"#),
    ("an open descriptor", "    bind 10.0.0.10:22", "    bind fd@3", r#"line 18: "fd@3" is not an address and a port"#),
    ("all addresses", "    bind 10.0.0.10:22", "    bind *:22", r#"line 18: "*:22" is not an address and a port"#),
    ("a range of ports", "    bind 10.0.0.10:22", "    bind 10.0.0.10:22-80", r#"line 18: "10.0.0.10:22-80" is not an address and a port"#),
    ("two ports", "+    bind 10.0.0.10:22", "    bind 10.0.0.11:23", "line 19: a listener has one port"),
    ("a namespace", "    bind 10.0.0.10:22", "    bind 10.0.0.10:22 namespace x", "line 18: `namespace` is not an option of `bind`"),
    ("a server on a unix socket", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b unix@/run/x weight 1",
        r#"line 31: "unix@/run/x" is not an address and a port"#),
    ("a server by name", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b example.com:80 weight 1",
        r#"line 31: "example.com:80" is not an address and a port"#),
    // Tenants' text.
    ("patterns from a file", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -f /etc/shadow",
        "line 37: an ACL has more than one value"),
    ("a flag as the value", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m reg -f", "line 37: the value of an ACL is a flag"),
    ("a flag behind a tab", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m reg a\t-f\t/etc/shadow",
        "line 37: an ACL has more than one value"),
    ("another match", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m found x", "line 37: it is not an ACL that Octavia writes"),
    ("another fetch", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 env(HOME) -m str x", "line 37: it is not an ACL that Octavia writes"),
    ("a converter behind a name", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 req.hdr(a),map(/etc/shadow) -m str x",
        r#"line 37: "a),map(/etc/shadow" is not a name"#),
    ("a name of an ACL", "        acl", "        acl mine path -m str x", r#"line 37: "mine" is not a UUID"#),
    ("a line of its own", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m reg a\n    http-request use-service lua.x",
        r#"line 38: "http-request use-service lua.x" is not a directive of `frontend`"#),
    ("a section of its own within", "        acl", "        acl c9bf0c8d-8d9c-52bf-9330-2e246bb162a6 path -m reg a\n\tbackend x",
        "line 33: the frontend has no `timeout client`"),
    ("a map in a redirect", "    redirect code 302", "    redirect code 302 location %[path,map(/etc/shadow)] if c9bf0c8d-8d9c-52bf-9330-2e246bb162a6",
        r#"line 39: "%[path,map(/etc/shadow)]" is not plain text"#),
    ("a sample with flags in a redirect", "    redirect code 302", "    redirect location %{+Q}[env(HOME)] if c9bf0c8d-8d9c-52bf-9330-2e246bb162a6",
        r#"line 39: "%{+Q}[env(HOME)]" is not plain text"#),
    ("a condition that is none", "    http-request deny", "    http-request deny if { path /x }", r#"line 38: "{" is not a UUID"#),
    ("a code that is none", "    redirect code 302", "    redirect code 200 location / if c9bf0c8d-8d9c-52bf-9330-2e246bb162a6",
        r#"line 39: "200" is not a number from 300 to 399"#),
    ("a map in the log", "    log-format", "    log-format %[path,map(/etc/shadow)]", r#"line 42: "%[path,map(/etc/shadow)]" is not a format of known samples"#),
    ("the environment in the log", "    log-format", "    log-format %{+Q}[env(HOME)]", r#"line 42: "%{+Q}[env(HOME)]" is not a format of known samples"#),
    ("a map behind a bracket in quotes", "    log-format", "    log-format %[str(']'),map(/path)]", r#"line 42: "%[str(]),map(/path)]" is not a format of known samples"#),
    ("a map behind a bracket", "    log-format", "    log-format %[str(]),map(/path)]", r#"line 42: "%[str(]),map(/path)]" is not a format of known samples"#),
    ("a map behind a known sample", "    log-format", "    log-format %[src,map(/path)]", r#"line 42: "%[src,map(/path)]" is not a format of known samples"#),
    ("a map behind flags that hold a bracket", "    log-format", "    log-format %{+Q,-X}[src,map_str(/path)]",
        r#"line 42: "%{+Q,-X}[src,map_str(/path)]" is not a format of known samples"#),
    ("a sample without an end", "    log-format", "    log-format %[src", r#"line 42: "%[src" is not a format of known samples"#),
    ("a socket behind the mode", "    redirect code 302", "    bind 10.0.0.11:443", "line 39: `bind` stands before `mode`"),
    ("the path of a check", "    option httpchk", "    option httpchk GET x", "line 50: a path begins with a slash"),
    ("the host of a check", "+    option httpchk", "    http-check send hdr Host %[env(HOME)]", r#"line 51: "%[env(HOME)]" is not a host name"#),
    ("another header of a check", "+    option httpchk", "    http-check send hdr X y", r#"line 51: "http-check send hdr X y" is not a directive of `backend`"#),
    ("another header", "+    option httpchk", "    http-request set-header X y", r#"line 51: "http-request set-header X y" is not a directive of `backend`"#),
    // Numbers and references.
    ("a timeout below 0", "    timeout client", "    timeout client -5", r#"line 21: "-5" is not a number from 0 to 4294967295"#),
    ("a weight of 257", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:8080 weight 257",
        r#"line 31: "257" is not a number from 0 to 256"#),
    ("no port", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21 weight 1", r#"line 31: "10.1.0.21" is not an address and a port"#),
    ("half a check", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:80 weight 1 check inter 5s",
        "line 31: a check has `inter`, `fall` and `rise`"),
    ("a server twice", "+    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:80 weight 1", "line 32: this server is there twice"),
    ("checked unlike", "+    server 379a9b99", "    server 479a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:80 weight 1 check inter 6s fall 3 rise 2",
        "line 32: it is checked unlike the one before"),
    ("a delay of more than 31 bits", "    server 379a9b99", "    server 379a9b99-5d99-5766-b17f-00d9d220a01b 10.1.0.21:80 weight 1 check inter 2147484s fall 3 rise 2",
        r#"line 31: "2147484s" is not a number of seconds"#),
    ("a mode twice", "+    mode tcp", "    mode tcp", "line 20: `mode` is there twice"),
    ("no mode", "    mode tcp", "", "line 16: the frontend has no `mode`"),
    ("no bind", "    bind 10.0.0.10:22", "", "line 16: the frontend has no `bind`"),
    ("a backend that is missing", "    default_backend", "    default_backend 4aaa149b-3584-58ce-beeb-3e03e989e425:14ff4e77-7137-591a-ae98-fc8ed067e170",
        "line 16: its backend 4aaa149b-3584-58ce-beeb-3e03e989e425:14ff4e77-7137-591a-ae98-fc8ed067e170 is missing"),
    ("another listener's backend", "    default_backend", "    default_backend 3aaa149b-3584-58ce-beeb-3e03e989e425:4d9e9335-152e-5b29-bc3c-a2494702c932",
        "line 16: its backend 3aaa149b-3584-58ce-beeb-3e03e989e425:4d9e9335-152e-5b29-bc3c-a2494702c932 is missing"),
    ("metrics without an exporter", "    default_backend", "    default_backend prometheus-exporter-internal", "line 16: there is no exporter of metrics"),
    ("a table of peers that are not there", "    stick-table", "    stick-table type ipv6 size 10k peers x", "line 47: it shares its table with peers that are not there"),
    ("a table without a rule", "    stick on src", "", "line 44: the backend has no `stick`"),
];

#[test]
fn refused() {
    haproxy::parse(&good(), &Paths::default()).unwrap();
    for (row, line, new, want) in ROWS {
        let (behind, line) = match line.strip_prefix('+') {
            Some(line) => (true, line),
            None => (false, *line),
        };
        let mut lines: Vec<String> = good().lines().map(str::to_owned).collect();
        let at = lines.iter().position(|text| text.starts_with(line));
        let at = at.unwrap_or_else(|| panic!("{row}: {line}"));
        if behind {
            lines.insert(at + 1, (*new).to_owned());
        } else {
            lines[at] = (*new).to_owned();
        }
        let shown = haproxy::parse(&(lines.join("\n") + "\n"), &Paths::default());
        let shown = shown.map_err(|refused| refused.to_string());
        assert_eq!(shown.err().as_deref(), Some(*want), "{row}");
    }
}

/// Octavia renders the same again, and other things instead.
#[test]
fn meaning() {
    let change = |from: &str, to: &str| {
        let text = good();
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let rows = [
        ("the same", good(), true),
        ("codes in another order", change("200|202", "202|200"), true),
        ("flags in another order", change("no-sslv3 no-tlsv10", "no-tlsv10 no-sslv3"), true),
        ("more blanks", change("weight 1 check", "weight  1\tcheck"), true),
        ("another indentation", change("    mode tcp", "mode tcp"), true),
        ("no empty lines", good().replace("\n\n", "\n"), true),
        ("a comment", change("    mode http", "    mode http # of layer 7"), true),
        ("another code", change("200|202", "200|203"), false),
        ("another weight", change("weight 1 check", "weight 2 check"), false),
        ("a flag less", change(" no-sslv3", ""), false),
        ("another path", change("path -m reg a", "path -m reg b"), false),
        ("another redirect", change("https://example.com/", "https://example.org/"), false),
        ("another timeout", change("timeout client 50000", "timeout client 50001"), false),
        ("another limit", change("    maxconn 100000", "    maxconn 100001"), false),
    ];
    let before = haproxy::parse(&good(), &Paths::default()).unwrap();
    for (row, text, want) in rows {
        let after = haproxy::parse(&text, &Paths::default()).unwrap();
        assert_eq!(before == after, want, "{row}");
    }
}

/// What HAProxy is left with is the text as it was, without some of it, and means what it meant.
#[test]
fn filtered() {
    for (text, vector) in model::vectors("haproxy", "cfg", 112) {
        let Ok(config) = haproxy::parse(&text, &Paths::default()) else {
            continue;
        };
        let name = &vector.name;
        let all = config.only(|_| true);
        assert_eq!(
            all.as_ref().map(|all| all.text()),
            (!config.listeners().is_empty()).then_some(&text[..]),
            "{name}"
        );
        let listeners = config.listeners();
        let kept = |id: &str| listeners.iter().any(|it| it.id == id && it.engine != Engine::Xdp);
        let Some(part) = config.only(kept) else {
            assert!(listeners.iter().all(|it| it.engine == Engine::Xdp), "{name}");
            continue;
        };
        let wanted: Vec<_> = listeners.iter().filter(|it| kept(&it.id)).cloned().collect();
        assert_eq!(part.listeners(), wanted, "{name}");
        assert_eq!(haproxy::parse(part.text(), &Paths::default()), Ok(part.clone()), "{name}");
        let mut rest = text.lines();
        assert!(
            part.text().lines().all(|line| rest.any(|other| other == line)),
            "{name}: in order"
        );
        for gone in listeners.iter().filter(|it| !kept(&it.id)) {
            assert!(!part.text().contains(&gone.id), "{name}: {}", gone.id);
        }
    }
}

#[test]
fn half_a_file() {
    let text = good();
    let refused = haproxy::parse(text.trim_end(), &Paths::default()).unwrap_err();
    let want = "line 54: the last line has no end, which HAProxy takes for half a file";
    assert_eq!(refused.to_string(), want);
}

/// The redirect of plain HTTP is rendered for TERMINATED_HTTPS alone, the certificate only if it has one.
#[test]
fn terminated_https() {
    let redirect = "    mode http\n    redirect scheme https if !{ ssl_fc }\n        acl";
    let text = good().replacen("    mode http\n        acl", redirect, 1);
    let bind = text.lines().find(|line| line.contains(":443")).unwrap().to_owned();
    for text in [text.clone(), text.replace(&bind, "    bind 10.0.0.10:443")] {
        let listeners = haproxy::parse(&text, &Paths::default()).unwrap().listeners();
        assert_eq!(listeners[1].protocol, Protocol::TerminatedHttps);
        assert_eq!(listeners[1].engine, Engine::Haproxy(Layer7::TerminatesTls));
    }
}

#[test]
fn filtered_by_hand() {
    let config = haproxy::parse(&good(), &Paths::default()).unwrap();
    let part = config.only(|id| id == WEB).unwrap();
    let (start, end) =
        (good().find("frontend 14ff").unwrap(), good().find("frontend 4d9e").unwrap());
    assert_eq!(part.text(), [&good()[..start], &good()[end..]].concat());
    assert!(config.only(|_| false).is_none());
}

/// Ten thousand members, and their order is theirs.
#[test]
fn ten_thousand_members() {
    let server = good().lines().find(|line| line.contains("server 379a")).unwrap().to_owned();
    let servers: Vec<String> = (0..10_000)
        .map(|at| {
            server
                .replace("379a9b99", &format!("{at:08x}"))
                .replace(":8080", &format!(":{}", at + 1))
        })
        .collect();
    let config = haproxy::parse(&good().replace(&server, &servers.join("\n")), &Paths::default());
    let listeners = config.unwrap().listeners();
    assert_eq!(listeners[0].engine, Engine::Xdp);
    let members = &listeners[0].pools[0].members;
    assert_eq!(members.len(), 10_000);
    assert_eq!(members[9_999].id, "0000270f-5d99-5766-b17f-00d9d220a01b");
}

proptest! {
    /// Half a line here, another there: an answer, never a panic.
    #[test]
    fn torn(at in 0_usize..3000, until in 0_usize..3000, with in "[ a-z0-9:/\"'\\\\#\n\t%\\[\\]-]{0,12}") {
        let text = good();
        let (at, until) = (at.min(text.len()), until.min(text.len()));
        let (at, until) = (at.min(until), at.max(until));
        let torn = format!("{}{with}{}", &text[..at], &text[until..]);
        if let Ok(config) = haproxy::parse(&torn, &Paths::default()) {
            let _ = config.listeners();
            let _ = config.only(|id| id == WEB);
        }
    }
}
