//! The configuration of VRRP, as Octavia uploads it for keepalived to an active-standby pair.
//!
//! The grammar is that of Octavia's `keepalived_base.template`, releases 4 to 19; whatever else
//! keepalived would take is refused.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::keepalived::{COUNT_MAX, Lines, Value};
use crate::paths::Paths;
use crate::refused::Refused;

/// The one VRRP instance of an amphora. Files that say the same in other words are equal.
///
/// Always `nopreempt`: a master that comes back stays in the background. Always `accept`: the master
/// answers on the VIPs. Authentication is always by the simple password of VRRP version 2, and none in
/// version 3, which IPv6 speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What Octavia calls the group: the id of the load balancer without dashes.
    pub name: String,
    /// Where VRRP is spoken, where the VIPs live and where all the routes go out. `None` if the
    /// controller had failed to ask this amphora for the name, and wrote `None`.
    pub interface: Option<String>,
    /// How it begins.
    pub state: State,
    /// The VRID, 1 to 255. Octavia always has 1.
    pub router_id: u8,
    /// 1 to 255; Octavia has 100 for the master and 90 for the other.
    pub priority: u8,
    /// Seconds between the gratuitous ARPs of a master, 0 for none (`garp_master_refresh`).
    pub garp_refresh_s: u32,
    /// How many of them each time (`garp_master_refresh_repeat`).
    pub garp_refresh_repeat: u32,
    /// Seconds between the advertisements of a master, 1 to 255.
    pub advert_interval_s: u8,
    /// 1 to 8 letters and digits; it travels in the clear.
    pub auth_pass: String,
    /// Address of this amphora on the VIP network (`vrrp_ip`). Its family is that of VRRP.
    pub source: IpAddr,
    /// The same of the other amphora, if there is one: keepalived multicasts without any.
    pub peers: Vec<IpAddr>,
    /// The VIPs of VRRP's family, which are advertised.
    pub vips: Vec<IpAddr>,
    /// Those of the other family, which come and go with them.
    pub excluded_vips: Vec<IpAddr>,
    /// For each VIP that of its network, then the default one if there is one, then its subnet's host
    /// routes.
    pub routes: Vec<Route>,
    /// One for each VIP.
    pub rules: Vec<Rule>,
    /// When this amphora is well enough to be master.
    pub check: Check,
}

/// How an instance begins (`state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What Octavia 11 gives the amphora of that role. keepalived then preempts in spite of `nopreempt`.
    Master,
    /// Also where nothing is said, as by Octavia 19.
    Backup,
}

/// A route that a master has (`virtual_routes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Of length 0 for the default route.
    pub destination: IpNet,
    pub hop: Hop,
    /// The kernel's routing table. Octavia always has 1.
    pub table: u32,
}

/// Where a route leads, always on the interface of VRRP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The network itself, asked from this VIP (`scope link`).
    Link { source: IpAddr },
    /// Through this router, which need not be on a known network (`onlink`).
    Gateway(IpAddr),
}

/// Traffic from a VIP that looks for its route in a table of its own (`virtual_rules`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The VIP.
    pub from: IpAddr,
    /// Where its routes are. Octavia always has 1.
    pub table: u32,
    /// The lowest is asked first; the main table has 32766. Octavia always has 100.
    pub priority: u32,
}

/// How often the check script is asked, and how many answers in a row count (`vrrp_script`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Seconds between two runs.
    pub interval_s: u32,
    /// Failures in a row after which it is not well.
    pub fall: u32,
    /// Successes in a row after which it is again.
    pub rise: u32,
}

/// The tables that are nobody's: the kernel has 0 and 253 to 255 for itself.
const TABLES: RangeInclusive<u32> = 1..=252;
/// Before that of the main table.
const RULE_PRIORITIES: RangeInclusive<u32> = 1..=32_765;

/// Reads the file (`PUT /vrrp/upload`). `None` is an instance that says nothing; keepalived takes it and
/// does nothing with it, and so the stock agent takes it too.
///
/// # Errors
///
/// The first line that no template of Octavia's leaves there, or whose addresses are of a family that
/// does not fit.
pub fn parse(text: &str, paths: &Paths) -> Result<Option<Config>, Refused> {
    let mut lines = Lines::of(text);
    if let Some([_name]) = lines.when("vrrp_instance <name> {}") {
        return lines.end().map(|()| None);
    }
    let check = check(&mut lines, paths)?;
    let [group] = lines.need("vrrp_instance <name> {")?;
    let name = group_name(group)?;
    let state = state(&mut lines)?;
    let [spoken_on] = lines.need("interface <interface>")?;
    let interface = interface(spoken_on)?;
    let [router_id] = lines.need("virtual_router_id <virtual_router_id>")?;
    let router_id = router_id.number(1..=u8::MAX)?;
    let [priority] = lines.need("priority <priority>")?;
    let priority = priority.number(1..=u8::MAX)?;
    let [] = lines.need("nopreempt")?;
    let [] = lines.need("accept")?;
    let [refresh] = lines.need("garp_master_refresh <garp_master_refresh>")?;
    let garp_refresh_s = refresh.number(0..=COUNT_MAX)?;
    let [repeat] = lines.need("garp_master_refresh_repeat <garp_master_refresh_repeat>")?;
    let garp_refresh_repeat = repeat.number(0..=COUNT_MAX)?;
    let [interval] = lines.need("advert_int <advert_int>")?;
    let advert_interval_s = interval.number(1..=u8::MAX)?;
    let auth_pass = authentication(&mut lines)?;
    let [source] = lines.need("unicast_src_ip <unicast_src_ip>")?;
    let source = source.address()?;
    let peers = peers(&mut lines, source)?;
    let [] = lines.need("virtual_ipaddress {")?;
    let vips = addresses(&mut lines, source.is_ipv6())?;
    // Octavia 4 knows one VIP.
    let excluded_vips = match lines.when("virtual_ipaddress_excluded {") {
        Some([]) => addresses(&mut lines, source.is_ipv4())?,
        None => Vec::new(),
    };
    let routes = routes(&mut lines, spoken_on)?;
    let rules = rules(&mut lines)?;
    let [] = lines.need("track_script {")?;
    let [] = lines.need("check_script")?;
    let [] = lines.need("}")?;
    let [] = lines.need("}")?;
    lines.end()?;
    Ok(Some(Config {
        name,
        interface,
        state,
        router_id,
        priority,
        garp_refresh_s,
        garp_refresh_repeat,
        advert_interval_s,
        auth_pass,
        source,
        peers,
        vips,
        excluded_vips,
        routes,
        rules,
        check,
    }))
}

fn check(lines: &mut Lines<'_>, paths: &Paths) -> Result<Check, Refused> {
    let [] = lines.need("vrrp_script check_script {")?;
    let [script] = lines.need("script <script>")?;
    if paths.vrrp_check().to_str() != Some(script.text) {
        return Err(script.refused("is not the check of Octavia's"));
    }
    let [interval] = lines.need("interval <interval>")?;
    let [fall] = lines.need("fall <fall>")?;
    let [rise] = lines.need("rise <rise>")?;
    let [] = lines.need("}")?;
    let count = 1..=COUNT_MAX;
    Ok(Check {
        interval_s: interval.number(count.clone())?,
        fall: fall.number(count.clone())?,
        rise: rise.number(count)?,
    })
}

fn group_name(name: Value<'_>) -> Result<String, Refused> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let fits = name.text.len() <= 36 && name.text.bytes().all(known);
    if fits { Ok(name.text.to_owned()) } else { Err(name.refused("is not the name of a group")) }
}

fn state(lines: &mut Lines<'_>) -> Result<State, Refused> {
    let Some([state]) = lines.when("state <state>") else { return Ok(State::Backup) };
    match state.text {
        "MASTER" => Ok(State::Master),
        "BACKUP" => Ok(State::Backup),
        _ => Err(state.refused("is not MASTER or BACKUP")),
    }
}

/// A name of Linux: 15 bytes and no slash; less than the kernel would let pass.
fn interface(name: Value<'_>) -> Result<Option<String>, Refused> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    match name.text {
        "None" => Ok(None),
        text if text.len() <= 15 && text.bytes().all(known) => Ok(Some(text.to_owned())),
        _ => Err(name.refused("is not the name of an interface")),
    }
}

fn authentication(lines: &mut Lines<'_>) -> Result<String, Refused> {
    let [] = lines.need("authentication {")?;
    let [] = lines.need("auth_type PASS")?;
    let [pass] = lines.need("auth_pass <auth_pass>")?;
    if pass.text.len() > 8 || !pass.text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(pass.refused("is not 1 to 8 letters and digits"));
    }
    let [] = lines.need("}")?;
    Ok(pass.text.to_owned())
}

/// An amphora that has no address yet is written `None`; keepalived skips it.
fn peers(lines: &mut Lines<'_>, source: IpAddr) -> Result<Vec<IpAddr>, Refused> {
    let [] = lines.need("unicast_peer {")?;
    let mut peers = Vec::new();
    while lines.when::<0>("}").is_none() {
        if let Some([]) = lines.when("None") {
            continue;
        }
        let [peer] = lines.need("<peer>")?;
        peers.push(of_family(peer, source.is_ipv6())?);
    }
    Ok(peers)
}

fn addresses(lines: &mut Lines<'_>, ipv6: bool) -> Result<Vec<IpAddr>, Refused> {
    let mut addresses = Vec::new();
    while lines.when::<0>("}").is_none() {
        let [address] = lines.need("<address>")?;
        addresses.push(of_family(address, ipv6)?);
    }
    Ok(addresses)
}

fn routes(lines: &mut Lines<'_>, interface: Value<'_>) -> Result<Vec<Route>, Refused> {
    let [] = lines.need("virtual_routes {")?;
    let mut routes = Vec::new();
    while lines.when::<0>("}").is_none() {
        routes.push(route(lines, interface)?);
    }
    Ok(routes)
}

fn route(lines: &mut Lines<'_>, interface: Value<'_>) -> Result<Route, Refused> {
    let (destination, dev, hop, table) = if let Some([destination, dev, source, table]) =
        lines.when("<destination> dev <dev> src <src> scope link table <table>")
    {
        let destination = network(destination)?;
        let source = of_family(source, destination.addr().is_ipv6())?;
        (destination, dev, Hop::Link { source }, table)
    } else if let Some([gateway, dev, table]) =
        lines.when("default via <gateway> dev <dev> onlink table <table>")
    {
        let gateway = gateway.address()?;
        (everything(gateway), dev, Hop::Gateway(gateway), table)
    } else {
        // keepalived does not know the word `gateway`, and goes on without the route. The user wanted it.
        let [destination, dev, gateway, table] =
            lines.need("<destination> dev <dev> gateway <gateway> onlink table <table>")?;
        let destination = network(destination)?;
        let gateway = of_family(gateway, destination.addr().is_ipv6())?;
        (destination, dev, Hop::Gateway(gateway), table)
    };
    if dev.text != interface.text {
        return Err(dev.refused(format_args!("is not {:?}, the interface", interface.text)));
    }
    Ok(Route { destination, hop, table: table.number(TABLES)? })
}

fn rules(lines: &mut Lines<'_>) -> Result<Vec<Rule>, Refused> {
    let [] = lines.need("virtual_rules {")?;
    let mut rules = Vec::new();
    while lines.when::<0>("}").is_none() {
        let [from, table, priority] =
            lines.need("from <from> table <table> priority <priority>")?;
        let network = network(from)?;
        if network.prefix_len() != network.max_prefix_len() {
            return Err(from.refused("is not a single address"));
        }
        let (table, priority) = (table.number(TABLES)?, priority.number(RULE_PRIORITIES)?);
        rules.push(Rule { from: network.addr(), table, priority });
    }
    Ok(rules)
}

fn network(text: Value<'_>) -> Result<IpNet, Refused> {
    let network: IpNet = text.text.parse().map_err(|_| text.refused("is not a network"))?;
    if network.trunc() == network { Ok(network) } else { Err(text.refused("has host bits")) }
}

/// Where the default route of this gateway goes to.
fn everything(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    }
}

fn of_family(address: Value<'_>, ipv6: bool) -> Result<IpAddr, Refused> {
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    match address.address()? {
        known if known.is_ipv6() == ipv6 => Ok(known),
        _ => Err(address.refused(format_args!("is not {family}"))),
    }
}
