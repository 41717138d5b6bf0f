//! What the configuration of VRRP may not say. Tenants have a say in their subnets' routes, and
//! keepalived runs commands, as root.

use std::path::PathBuf;

use agent_api::{Paths, vrrp};

/// A name, a text that is replaced wherever it stands, by what, and how that is refused.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn commands() {
    let rows = [
        (
            "a shell for a script",
            "/var/lib/octavia/vrrp/check_script.sh",
            r#""/bin/sh -c id""#,
            r#"line 2: script "\"/bin/sh -c id\"" is not the check of Octavia's"#,
        ),
        (
            "another script",
            "/var/lib/octavia/vrrp/check_script.sh",
            "/tmp/check_script.sh",
            r#"line 2: script "/tmp/check_script.sh" is not the check of Octavia's"#,
        ),
        (
            "another way to write the script",
            "/var/lib/octavia/vrrp/check_script.sh",
            "/var/lib/octavia/vrrp/../vrrp/check_script.sh",
            "line 2: script \"/var/lib/octavia/vrrp/../vrrp/check_script.sh\" is not the \
             check of Octavia's",
        ),
        (
            "an argument to the script",
            "/var/lib/octavia/vrrp/check_script.sh",
            "/var/lib/octavia/vrrp/check_script.sh x",
            "line 2: \"script /var/lib/octavia/vrrp/check_script.sh x\" stands where \"script \
             <script>\" has to",
        ),
        (
            "a user for the script",
            "fall 2",
            "user root\nfall 2",
            r#"line 4: "user root" stands where "fall <fall>" has to"#,
        ),
        (
            "a second script",
            "vrrp_instance",
            "vrrp_script x {\nscript /bin/sh\n}\nvrrp_instance",
            r#"line 8: "vrrp_script x {" stands where "vrrp_instance <name> {" has to"#,
        ),
        (
            "a command when it becomes master",
            "    nopreempt\n",
            "    nopreempt\n    notify_master \"/bin/sh\"\n",
            r#"line 13: "notify_master \"/bin/sh\"" stands where "accept" has to"#,
        ),
        (
            "a command behind all",
            "    track_script {",
            "    notify \"/bin/sh\"\n    track_script {",
            r#"line 43: "notify \"/bin/sh\"" stands where "track_script {" has to"#,
        ),
        (
            "a second instance",
            "        check_script\n    }\n}",
            "        check_script\n    }\n}\nvrrp_instance x {\n}",
            r#"line 47: "vrrp_instance x {" stands where the file has to end"#,
        ),
        (
            "global definitions",
            "vrrp_script",
            "global_defs {\nenable_script_security\n}\nvrrp_script",
            r#"line 1: "global_defs {" stands where "vrrp_script check_script {" has to"#,
        ),
        (
            "another file",
            "vrrp_instance",
            "include /etc/passwd\nvrrp_instance",
            "line 8: \"include /etc/passwd\" stands where \"vrrp_instance <name> {\" \
             has to",
        ),
    ];
    refused("v4_amp1_peers1", &rows);
}

#[test]
fn values() {
    let rows = [
        (
            "a variable for an interface",
            "interface eth1",
            "interface $IF",
            r#"line 9: "interface $IF" has a variable"#,
        ),
        (
            "a comment",
            "    nopreempt\n",
            "    nopreempt # x\n",
            r#"line 12: "nopreempt # x" has a comment that is not Octavia's"#,
        ),
        (
            "a condition",
            "    nopreempt\n",
            "    @a nopreempt\n",
            r#"line 12: "@a nopreempt" is conditional"#,
        ),
        (
            "a path for an interface",
            "interface eth1",
            "interface ../eth1",
            r#"line 9: interface "../eth1" is not the name of an interface"#,
        ),
        (
            "a name too long",
            "interface eth1",
            "interface eth1eth1eth1eth1",
            r#"line 9: interface "eth1eth1eth1eth1" is not the name of an interface"#,
        ),
        (
            "a name that is a path",
            "40c52c1268e1592683e788107bce47cb",
            "../x",
            r#"line 8: name "../x" is not the name of a group"#,
        ),
        (
            "another state",
            "interface eth1",
            "state FAULT\ninterface eth1",
            r#"line 9: state "FAULT" is not MASTER or BACKUP"#,
        ),
        (
            "a priority too great",
            "    priority 100",
            "    priority 256",
            r#"line 11: priority "256" is not a number from 1 to 255"#,
        ),
        (
            "preemption",
            "    nopreempt\n",
            "",
            r#"line 12: "accept" stands where "nopreempt" has to"#,
        ),
        (
            "part of a second",
            "advert_int 1",
            "advert_int 0.1",
            r#"line 16: advert_int "0.1" is not a number from 1 to 255"#,
        ),
        (
            "the authentication header",
            "auth_type PASS",
            "auth_type AH",
            r#"line 18: "auth_type AH" stands where "auth_type PASS" has to"#,
        ),
        (
            "a password too long",
            "1a2b3c4",
            "1a2b3c4d5",
            r#"line 19: auth_pass "1a2b3c4d5" is not 1 to 8 letters and digits"#,
        ),
        (
            "a password that is more",
            "1a2b3c4",
            "1a2b;c4",
            r#"line 19: auth_pass "1a2b;c4" is not 1 to 8 letters and digits"#,
        ),
    ];
    refused("v4_amp1_peers1", &rows);
}

#[test]
fn addresses() {
    let rows = [
        (
            "a peer of the other family",
            "10.0.0.12",
            "2001:db8::12",
            r#"line 24: peer "2001:db8::12" is not IPv4"#,
        ),
        (
            "a peer with more",
            "10.0.0.12",
            "10.0.0.12 min_ttl 1",
            r#"line 24: "10.0.0.12 min_ttl 1" stands where "<peer>" has to"#,
        ),
        (
            "a VIP of the other family",
            "        10.0.0.10\n",
            "        2001:db8::10\n",
            r#"line 28: address "2001:db8::10" is not IPv4"#,
        ),
        (
            "a VIP on another interface",
            "        10.0.0.10\n",
            "        10.0.0.10 dev eth0\n",
            r#"line 28: "10.0.0.10 dev eth0" stands where "<address>" has to"#,
        ),
        (
            "a VIP with a length",
            "        10.0.0.10\n",
            "        10.0.0.10/24\n",
            r#"line 28: address "10.0.0.10/24" is not an address"#,
        ),
        (
            "a route on another interface",
            "10.0.0.0/24 dev eth1",
            "10.0.0.0/24 dev eth0",
            r#"line 35: dev "eth0" is not "eth1", the interface"#,
        ),
        (
            "a route with host bits",
            "10.0.0.0/24",
            "10.0.0.1/24",
            r#"line 35: destination "10.0.0.1/24" has host bits"#,
        ),
        (
            "a route with a source of the other family",
            "src 10.0.0.10",
            "src 2001:db8::10",
            r#"line 35: src "2001:db8::10" is not IPv4"#,
        ),
        (
            "a route in the main table",
            "link table 1",
            "link table 254",
            r#"line 35: table "254" is not a number from 1 to 252"#,
        ),
        (
            "a route in no table",
            "scope link table 1",
            "scope link",
            "line 35: \"10.0.0.0/24 dev eth1 src 10.0.0.10 scope link\" stands where \
             \"<destination> dev <dev> gateway <gateway> onlink table <table>\" has to",
        ),
        (
            "a route that Octavia has not",
            "10.0.0.0/24 dev eth1 src",
            "blackhole 10.0.0.0/24 dev eth1 src",
            "line 35: \"blackhole 10.0.0.0/24 dev eth1 src 10.0.0.10 scope link table 1\" \
             stands where \"<destination> dev <dev> gateway <gateway> onlink table <table>\" \
             has to",
        ),
        (
            "a default route by name",
            "default via 10.0.0.1",
            "default via gateway",
            r#"line 36: gateway "gateway" is not an address"#,
        ),
        (
            "a default route that is not on the link",
            "eth1 onlink",
            "eth1",
            "line 36: \"default via 10.0.0.1 dev eth1 table 1\" stands where \"<destination> \
             dev <dev> gateway <gateway> onlink table <table>\" has to",
        ),
        (
            "a rule for a network",
            "from 10.0.0.10/32",
            "from 10.0.0.0/24",
            r#"line 40: from "10.0.0.0/24" is not a single address"#,
        ),
        (
            "a rule of another kind",
            "from 10.0.0.10/32",
            "to 10.0.0.10/32",
            "line 40: \"to 10.0.0.10/32 table 1 priority 100\" stands where \"from <from> \
             table <table> priority <priority>\" has to",
        ),
        (
            "a rule behind the main table",
            "table 1 priority 100",
            "table 1 priority 32766",
            r#"line 40: priority "32766" is not a number from 1 to 32765"#,
        ),
        (
            "another script to ask",
            "        check_script\n",
            "        x\n",
            r#"line 44: "x" stands where "check_script" has to"#,
        ),
        (
            "a weight of the script",
            "        check_script\n",
            "        check_script weight 2\n",
            r#"line 44: "check_script weight 2" stands where "check_script" has to"#,
        ),
    ];
    refused("v4_amp1_peers1", &rows);
}

#[test]
fn both_families() {
    let rows = [(
        "an excluded VIP of the same family",
        "        2001:db8::10\n",
        "        10.0.0.11\n",
        r#"line 33: address "10.0.0.11" is not IPv6"#,
    )];
    refused("v4_add_v4_v6_amp1_peers1", &rows);
}

#[test]
fn host_routes() {
    let rows = [
        (
            "a host route over the other family",
            "gateway 10.0.0.254",
            "gateway 2001:db8::1",
            r#"line 37: gateway "2001:db8::1" is not IPv4"#,
        ),
        (
            "a host route in other words",
            "gateway 10.0.0.254",
            "via 10.0.0.254",
            "line 37: \"172.16.0.0/12 dev eth1 via 10.0.0.254 onlink table 1\" stands where \
             \"<destination> dev <dev> gateway <gateway> onlink table <table>\" has to",
        ),
    ];
    refused("v4_host_routes_amp1_peers1", &rows);
}

/// What the recorded exchange with the stock agent uploads.
#[test]
fn recorded() {
    assert_eq!(vrrp::parse("vrrp_instance x {}\n", &Paths::default()), Ok(None));
    let more = vrrp::parse("vrrp_instance x {}\nnotify /bin/sh\n", &Paths::default());
    let want = r#"line 2: "notify /bin/sh" stands where the file has to end"#;
    assert_eq!(more.unwrap_err().to_string(), want);
}

fn refused(vector: &str, rows: &[Row]) {
    let file = format!("../tests/vectors/vrrp/{vector}.conf");
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{vector}: {error}"));
    for (row, from, to, want) in rows {
        assert!(text.contains(from), "{row}");
        let config = vrrp::parse(&text.replace(from, to), &Paths::default());
        let refused = config.map_err(|refused| refused.to_string());
        assert_eq!(refused, Err((*want).to_owned()), "{row}");
    }
}
