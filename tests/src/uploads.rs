//! Configurations as Octavia 19 renders them, for listeners of a test's own.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// The one load balancer of a test.
pub const LOAD_BALANCER: &str = "40c52c12-68e1-5926-83e7-88107bce47cb";

/// An id of Octavia's form.
pub fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// What a listener speaks towards its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Tcp,
    Http,
    /// By the list of certificates that is named for the listener.
    Tls,
}

/// A listener of TCP, HTTP or TERMINATED_HTTPS, and its pool.
#[derive(Clone, Debug)]
pub struct Frontend {
    /// Of [`uuid`]; the pool has 1000 more.
    pub id: u32,
    pub port: u16,
    pub speaks: Speaks,
    pub balance: &'static str,
    /// Addresses with ports, and weights.
    pub members: Vec<(IpAddr, u16, u16)>,
    /// Lines of the pool, each with its end.
    pub pool: &'static str,
    /// Ends each member's line: ` send-proxy`.
    pub server: &'static str,
    /// Indexes of members that are.
    pub disabled: Vec<usize>,
}

impl Frontend {
    pub fn new(id: u32, port: u16, speaks: Speaks, members: Vec<(IpAddr, u16, u16)>) -> Self {
        let (balance, pool, server, disabled) = ("roundrobin", "", "", Vec::new());
        Self { id, port, speaks, balance, members, pool, server, disabled }
    }
}

/// Id of a member of a listener's pool.
pub fn member(listener: u32, index: usize) -> String {
    uuid(listener * 1_000_000 + 1 + index as u32)
}

/// For `PUT /loadbalancer/<amphora>/<load balancer>/haproxy`, with files below `base`.
pub fn haproxy(base: &Path, vips: &[IpAddr], frontends: &[Frontend]) -> String {
    let (base, lb) = (base.display(), LOAD_BALANCER);
    let maxconn = 50_000 * frontends.len().max(1);
    let mut text = format!(
        "# Configuration for loadbalancer {lb}\nglobal\n    daemon\n    user nobody\n    \
         log /run/rsyslog/octavia/log local0\n    \
         log /run/rsyslog/octavia/log local1 notice\n    \
         stats socket {base}/{lb}.sock mode 0666 level user\n    \
         server-state-file {base}/{lb}/servers-state\n    maxconn {maxconn}\n\ndefaults\n    \
         log global\n    retries 3\n    option redispatch\n    option splice-request\n    \
         option splice-response\n    option http-keep-alive\n\n"
    );
    for Frontend { id, port, speaks, balance, members, pool: lines, server, disabled } in frontends
    {
        let (listener, pool) = (uuid(*id), uuid(id + 1000));
        let mode = if *speaks == Speaks::Tcp { "tcp" } else { "http" };
        let _ = writeln!(text, "frontend {listener}\n    maxconn 50000");
        if *speaks == Speaks::Tls {
            text += "    redirect scheme https if !{ ssl_fc }\n";
        }
        for vip in vips {
            let _ = write!(text, "    bind {vip}:{port}");
            if *speaks == Speaks::Tls {
                let _ = write!(text, " ssl crt-list {base}/certs/{lb}/{listener}.pem");
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "    mode {mode}\n    default_backend {pool}:{listener}\n    timeout client 50000\n\n\
             backend {pool}:{listener}\n    mode {mode}\n    balance {balance}\n{lines}    \
             fullconn 50000\n    option allbackups\n    timeout connect 5000\n    \
             timeout server 50000"
        );
        for (index, (address, port, weight)) in members.iter().enumerate() {
            let name = member(*id, index);
            let state = if disabled.contains(&index) { " disabled" } else { "" };
            let line = format!("{name} {address}:{port} weight {weight}{state}{server}");
            let _ = writeln!(text, "    server {line}");
        }
        text.push('\n');
    }
    text
}

/// The same with a PROMETHEUS listener, and with it the way to HAProxy's exporter.
pub fn with_metrics(config: &str, vips: &[IpAddr], id: u32, port: u16) -> String {
    let internal = "frontend prometheus-exporter-internal-endpoint\n    bind 127.0.0.1:9101\n    \
        mode http\n    no log\n    http-request use-service prometheus-exporter if { path /metrics }\n    \
        http-request reject\n    timeout http-request 5s\n    timeout client 5s\n\
        backend prometheus-exporter-internal\n    mode http\n    no log\n    balance first\n    \
        timeout connect 5s\n    timeout server 5s\n    \
        server prometheus-internal 127.0.0.1:9102\n\n";
    let binds: String = vips.iter().map(|vip| format!("    bind {vip}:{port}\n")).collect();
    let frontend = format!(
        "frontend {}\n    maxconn 50000\n{binds}    mode http\n    timeout client 50000\n    \
         default_backend prometheus-exporter-internal\n\n",
        uuid(id)
    );
    let (head, frontends) = config.split_at(config.find("frontend ").unwrap_or(config.len()));
    format!("{head}{internal}{frontends}{frontend}")
}

/// For `PUT /listeners/<amphora>/<listener>/udp_listener`. `protocol` is `UDP` or `SCTP`.
pub fn lvs(
    id: u32,
    protocol: &str,
    vips: &[IpAddr],
    port: u16,
    members: &[(IpAddr, u16, u16)],
) -> String {
    let (listener, pool) = (uuid(id), uuid(id + 1000));
    let mut text = format!(
        "# Configuration for Loadbalancer {LOAD_BALANCER}\n\
         # Configuration for Listener {listener}\n\nnet_namespace amphora-haproxy\n\n"
    );
    for (family, is_v4) in [("ipv4", true), ("ipv6", false)] {
        let Some(vip) = vips.iter().find(|vip| vip.is_ipv4() == is_v4) else { continue };
        let _ = writeln!(
            text,
            "virtual_server_group {family}-group {{\n    {vip} {port}\n}}\n\n\
             virtual_server group {family}-group {{\n    lb_algo wrr\n    lb_kind NAT\n    \
             protocol {protocol}\n\n\n    # Configuration for Pool {pool}"
        );
        for (index, (address, port, weight)) in members.iter().enumerate() {
            if address.is_ipv4() == is_v4 {
                let name = member(id, index);
                let _ = writeln!(
                    text,
                    "    # Configuration for Member {name}\n    \
                     real_server {address} {port} {{\n        weight {weight}\n    }}\n"
                );
            }
        }
        text += "}\n\n";
    }
    text
}

/// One amphora of a pair, for [`vrrp`].
#[derive(Clone, Copy, Debug)]
pub struct Vrrp<'a> {
    pub priority: u8,
    pub source: IpAddr,
    pub peer: Option<IpAddr>,
    /// Each with its network in text, and its gateway.
    pub vips: &'a [(IpAddr, &'a str, IpAddr)],
}

/// For `PUT /vrrp/upload`, with files below `base`. The VIPs of the source's family are advertised.
pub fn vrrp(base: &Path, Vrrp { priority, source, peer, vips }: Vrrp<'_>) -> String {
    let (base, name) = (base.display(), LOAD_BALANCER.replace('-', ""));
    let peer = peer.map(|peer| format!("        {peer}\n")).unwrap_or_default();
    let of = |own: bool| {
        let vips = vips.iter().filter(|(vip, ..)| (vip.is_ipv4() == source.is_ipv4()) == own);
        vips.map(|(vip, ..)| format!("        {vip}\n")).collect::<String>()
    };
    let (mut routes, mut rules) = (String::new(), String::new());
    for (vip, network, gateway) in vips {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        let _ = writeln!(routes, "        {network} dev eth1 src {vip} scope link table 1");
        let _ = writeln!(routes, "        default via {gateway} dev eth1 onlink table 1");
        let _ = writeln!(rules, "        from {vip}/{length} table 1 priority 100");
    }
    let (advertised, excluded) = (of(true), of(false));
    let excluded = match &excluded[..] {
        "" => String::new(),
        vips => format!("    virtual_ipaddress_excluded {{\n{vips}    }}\n\n"),
    };
    format!(
        "vrrp_script check_script {{\n    script {base}/vrrp/check_script.sh\n    interval 5\n    \
         fall 2\n    rise 2\n}}\n\nvrrp_instance {name} {{\n    interface eth1\n    \
         virtual_router_id 1\n    priority {priority}\n    nopreempt\n    accept\n    \
         garp_master_refresh 5\n    garp_master_refresh_repeat 2\n    advert_int 1\n    \
         authentication {{\n        auth_type PASS\n        auth_pass 1a2b3c4\n    }}\n\n    \
         unicast_src_ip {source}\n    unicast_peer {{\n{peer}    }}\n\n    \
         virtual_ipaddress {{\n{advertised}    }}\n\n{excluded}    \
         virtual_routes {{\n{routes}    }}\n\n    virtual_rules {{\n{rules}    }}\n\n    \
         track_script {{\n        check_script\n    }}\n}}\n"
    )
}
