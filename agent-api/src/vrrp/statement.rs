//! The lines that such a file is made of, each by itself.

use std::net::IpAddr;

use ipnet::IpNet;
use winnow::ascii::space1;
use winnow::combinator::{alt, opt, preceded, separated_pair, seq};
use winnow::error::ContextError;
use winnow::token::take_while;
use winnow::{Parser, Result};

use super::{Route, Rule, State};
use crate::grammar::{address, number, phrase, word};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    Script,
    ScriptPath(String),
    Interval(u32),
    Fall(u32),
    Rise(u32),
    /// `empty`: its end is on the same line.
    Instance {
        name: String,
        empty: bool,
    },
    Interface(String),
    State(State),
    RouterId(u8),
    Priority(u8),
    NoPreempt,
    Accept,
    GarpRefresh(u32),
    GarpRepeat(u32),
    Advertise(u32),
    Authentication,
    AuthType,
    AuthPass(String),
    Source(IpAddr),
    Peers,
    Vips,
    ExcludedVips,
    Address(IpAddr),
    Routes,
    Route(Route),
    Rules,
    Rule(Rule),
    Track,
    CheckScript,
    Close,
}

/// What no interval and no count is more than.
const MAX: u32 = 86_400;

pub fn statement(input: &mut &str) -> Result<Statement> {
    alt((script, instance, timing, blocks, items)).parse_next(input)
}

fn script(input: &mut &str) -> Result<Statement> {
    alt((
        phrase("vrrp_script check_script {").value(Statement::Script),
        told("script", word).map(|path| Statement::ScriptPath(path.to_owned())),
        told("interval", number(1..=MAX)).map(Statement::Interval),
        told("fall", number(1..=MAX)).map(Statement::Fall),
        told("rise", number(1..=MAX)).map(Statement::Rise),
    ))
    .parse_next(input)
}

fn instance(input: &mut &str) -> Result<Statement> {
    let byte = |least| number(least..=255).map(|number| number as u8);
    alt((
        seq! {Statement::Instance {
            _: phrase("vrrp_instance"),
            _: space1,
            name: name.map(str::to_owned),
            _: space1,
            _: '{',
            empty: opt('}').map(|end| end.is_some()),
        }},
        told("interface", interface).map(|name| Statement::Interface(name.to_owned())),
        phrase("state MASTER").value(Statement::State(State::Master)),
        phrase("state BACKUP").value(Statement::State(State::Backup)),
        told("virtual_router_id", byte(1)).map(Statement::RouterId),
        told("priority", byte(1)).map(Statement::Priority),
    ))
    .parse_next(input)
}

fn timing(input: &mut &str) -> Result<Statement> {
    alt((
        phrase("nopreempt").value(Statement::NoPreempt),
        phrase("accept").value(Statement::Accept),
        told("garp_master_refresh", number(0..=MAX)).map(Statement::GarpRefresh),
        told("garp_master_refresh_repeat", number(1..=MAX)).map(Statement::GarpRepeat),
        told("advert_int", number(1..=MAX)).map(Statement::Advertise),
        phrase("auth_type PASS").value(Statement::AuthType),
        told("auth_pass", name).map(|password| Statement::AuthPass(password.to_owned())),
        told("unicast_src_ip", address).map(Statement::Source),
    ))
    .parse_next(input)
}

fn blocks(input: &mut &str) -> Result<Statement> {
    alt((
        phrase("authentication {").value(Statement::Authentication),
        phrase("unicast_peer {").value(Statement::Peers),
        phrase("virtual_ipaddress {").value(Statement::Vips),
        phrase("virtual_ipaddress_excluded {").value(Statement::ExcludedVips),
        phrase("virtual_routes {").value(Statement::Routes),
        phrase("virtual_rules {").value(Statement::Rules),
        phrase("track_script {").value(Statement::Track),
        phrase("check_script").value(Statement::CheckScript),
        "}".value(Statement::Close),
    ))
    .parse_next(input)
}

fn items(input: &mut &str) -> Result<Statement> {
    alt((route.map(Statement::Route), rule.map(Statement::Rule), address.map(Statement::Address)))
        .parse_next(input)
}

/// The parts in the order of the template.
fn route(input: &mut &str) -> Result<Route> {
    let destination = alt((phrase("default").value(None), network.map(Some)));
    let via = |keyword: &'static str| preceded(space1, told(keyword, address));
    let (destination, first_hop, interface) =
        (destination, opt(via("via")), preceded(space1, told("dev", interface)))
            .parse_next(input)?;
    let second_hop = opt(alt((via("via"), via("gateway")))).parse_next(input)?;
    let source = opt(via("src")).parse_next(input)?;
    let scope_link = opt((space1, phrase("scope link"))).parse_next(input)?;
    let onlink = opt((space1, phrase("onlink"))).parse_next(input)?;
    let table = preceded(space1, told("table", number(1..=u32::MAX))).parse_next(input)?;
    Ok(Route {
        destination,
        next_hop: first_hop.or(second_hop),
        interface: interface.to_owned(),
        source,
        scope_link: scope_link.is_some(),
        onlink: onlink.is_some(),
        table,
    })
}

fn rule(input: &mut &str) -> Result<Rule> {
    seq! {Rule {
        from: told("from", network),
        _: space1,
        table: told("table", number(1..=u32::MAX)),
        _: space1,
        priority: told("priority", number(0..=u32::MAX)),
    }}
    .parse_next(input)
}

/// An address and a length.
fn network(input: &mut &str) -> Result<IpNet> {
    let made = |(address, prefix): (IpAddr, u32)| {
        u8::try_from(prefix).ok().and_then(|prefix| IpNet::new(address, prefix).ok())
    };
    separated_pair(address, '/', number(0..=128)).verify_map(made).parse_next(input)
}

fn name<'a>(input: &mut &'a str) -> Result<&'a str> {
    let inside = ('a'..='z', 'A'..='Z', '0'..='9', '_', '-');
    take_while(1..=64, inside).parse_next(input)
}

/// A name that Linux gives an interface, of those that Octavia does.
fn interface<'a>(input: &mut &'a str) -> Result<&'a str> {
    let inside = ('a'..='z', 'A'..='Z', '0'..='9', '_', '-', '.', '@');
    take_while(1..=15, inside).parse_next(input)
}

/// A keyword and its value.
fn told<'a, T>(
    keyword: &'static str,
    value: impl Parser<&'a str, T, ContextError>,
) -> impl Parser<&'a str, T, ContextError> {
    preceded((phrase(keyword), space1), value)
}
