//! The lines that such a file is made of, each by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use winnow::ascii::{digit1, space1};
use winnow::combinator::{alt, delimited, preceded, separated_pair, seq, terminated};
use winnow::token::take_while;
use winnow::{Parser, Result};

use crate::desired::Algorithm;
use crate::grammar::{address, number, phrase, port, uuid, word};
use crate::understood::Protocol;

/// One line. A `bool` behind an id tells whether it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    LoadBalancer(String),
    Listener(String, bool),
    Namespace,
    Group(Family),
    Vip(IpAddr, u16),
    Server(Family),
    Algorithm(Algorithm),
    Nat,
    Protocol(Protocol),
    PersistenceTimeout(u32),
    Granularity(Granularity),
    DelayLoop(u32),
    DelayBeforeRetry(u32),
    Retry(u16),
    Pool(String, bool),
    HealthMonitor(String),
    Member(String, bool),
    RealServer(IpAddr, u16),
    Weight(u16),
    UpperThreshold(u32),
    MiscCheck,
    MiscPath(Script),
    MiscTimeout(u32),
    TcpCheck,
    HttpGet,
    Url,
    Path(String),
    StatusCode(u16),
    ConnectIp(IpAddr),
    ConnectPort(u16),
    ConnectTimeout(u32),
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Four,
    Six,
}

/// Leading bits of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// From an IPv4 mask, 1 to 32.
    Mask(u8),
    /// 1 to 128.
    Bits(u8),
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    Udp { path: String, at: SocketAddr },
    Sctp { timeout_s: u32, at: SocketAddr },
}

/// A day: what no delay or timeout is longer than.
const SECONDS_MAX: u32 = 86_400;

pub fn statement(input: &mut &str) -> Result<Statement> {
    alt((comment, group, service, server, check, http)).parse_next(input)
}

fn comment(input: &mut &str) -> Result<Statement> {
    let about = |what: &'static str| {
        preceded((phrase("# Configuration for"), space1, phrase(what), space1), uuid)
    };
    let disabled = |what: &'static str| {
        let id = (space1, uuid, space1);
        delimited((phrase("#"), space1, phrase(what)), id, phrase("is disabled"))
            .map(|(_, id, _)| id)
    };
    alt((
        about("Loadbalancer").map(Statement::LoadBalancer),
        about("Listener").map(|id| Statement::Listener(id, true)),
        disabled("Listener").map(|id| Statement::Listener(id, false)),
        about("Pool").map(|id| Statement::Pool(id, true)),
        disabled("Pool").map(|id| Statement::Pool(id, false)),
        about("HealthMonitor").map(Statement::HealthMonitor),
        about("Member").map(|id| Statement::Member(id, true)),
        disabled("Member").map(|id| Statement::Member(id, false)),
    ))
    .parse_next(input)
}

fn group(input: &mut &str) -> Result<Statement> {
    alt((
        phrase("net_namespace amphora-haproxy").value(Statement::Namespace),
        phrase("virtual_server_group ipv4-group {").value(Statement::Group(Family::Four)),
        phrase("virtual_server_group ipv6-group {").value(Statement::Group(Family::Six)),
        socket.map(|(vip, port)| Statement::Vip(vip, port)),
        phrase("virtual_server group ipv4-group {").value(Statement::Server(Family::Four)),
        phrase("virtual_server group ipv6-group {").value(Statement::Server(Family::Six)),
        "}".value(Statement::Close),
    ))
    .parse_next(input)
}

fn service(input: &mut &str) -> Result<Statement> {
    let balance = alt((
        phrase("lb_algo wrr").value(Statement::Algorithm(Algorithm::RoundRobin)),
        phrase("lb_algo lc").value(Statement::Algorithm(Algorithm::LeastConnections)),
        phrase("lb_algo sh").value(Statement::Algorithm(Algorithm::SourceIp)),
    ));
    alt((
        balance,
        phrase("lb_kind NAT").value(Statement::Nat),
        phrase("protocol UDP").value(Statement::Protocol(Protocol::Udp)),
        phrase("protocol SCTP").value(Statement::Protocol(Protocol::Sctp)),
        told("persistence_timeout", number(1..=u32::MAX)).map(Statement::PersistenceTimeout),
        told("persistence_granularity", granularity).map(Statement::Granularity),
        told("delay_loop", number(1..=SECONDS_MAX)).map(Statement::DelayLoop),
        told("delay_before_retry", number(1..=SECONDS_MAX)).map(Statement::DelayBeforeRetry),
        told("retry", number(1..=1000)).map(|times| Statement::Retry(times as u16)),
    ))
    .parse_next(input)
}

fn server(input: &mut &str) -> Result<Statement> {
    let real = (phrase("real_server"), space1, socket, space1, "{");
    alt((
        real.map(|(_, _, (address, port), _, _)| Statement::RealServer(address, port)),
        told("weight", number(0..=256)).map(|weight| Statement::Weight(weight as u16)),
        told("uthreshold", number(1..=u32::MAX)).map(Statement::UpperThreshold),
    ))
    .parse_next(input)
}

fn check(input: &mut &str) -> Result<Statement> {
    let seconds = || number(1..=SECONDS_MAX);
    alt((
        phrase("MISC_CHECK {").value(Statement::MiscCheck),
        told("misc_path", delimited('"', script, '"')).map(Statement::MiscPath),
        told("misc_timeout", seconds()).map(Statement::MiscTimeout),
        phrase("TCP_CHECK {").value(Statement::TcpCheck),
        told("connect_ip", address).map(Statement::ConnectIp),
        told("connect_port", port).map(Statement::ConnectPort),
        told("connect_timeout", seconds()).map(Statement::ConnectTimeout),
    ))
    .parse_next(input)
}

fn http(input: &mut &str) -> Result<Statement> {
    let path = take_while(1.., |next: char| next.is_ascii_graphic());
    let path = path.verify(|path: &str| path.starts_with('/')).map(str::to_owned);
    alt((
        phrase("HTTP_GET {").value(Statement::HttpGet),
        phrase("url {").value(Statement::Url),
        told("path", path).map(Statement::Path),
        told("status_code", number(100..=599)).map(|code| Statement::StatusCode(code as u16)),
    ))
    .parse_next(input)
}

/// A keyword and its value.
fn told<'a, T>(
    keyword: &'static str,
    value: impl Parser<&'a str, T, winnow::error::ContextError>,
) -> impl Parser<&'a str, T, winnow::error::ContextError> {
    preceded((phrase(keyword), space1), value)
}

fn socket(input: &mut &str) -> Result<(IpAddr, u16)> {
    separated_pair(address, space1, port).parse_next(input)
}

fn script(input: &mut &str) -> Result<Script> {
    let sctp = seq! {Script::Sctp {
        _: phrase("amphora-health-checker sctp -t"),
        _: space1,
        timeout_s: number(1..=SECONDS_MAX),
        _: space1,
        at: target,
    }};
    let udp = seq! {Script::Udp {
        path: word.map(str::to_owned),
        _: space1,
        at: target,
    }};
    alt((sctp, udp)).parse_next(input)
}

fn target(input: &mut &str) -> Result<SocketAddr> {
    socket.map(SocketAddr::from).parse_next(input)
}

fn granularity(input: &mut &str) -> Result<Granularity> {
    let mask = address.verify_map(|mask| match mask {
        IpAddr::V4(mask) => bits(mask).map(Granularity::Mask),
        IpAddr::V6(_) => None,
    });
    let plain = digit1.parse_to().verify(|bits: &u8| (1..=128).contains(bits));
    alt((terminated(plain.map(Granularity::Bits), winnow::combinator::not('.')), mask))
        .parse_next(input)
}

/// Of a mask whose ones are all in front.
fn bits(mask: Ipv4Addr) -> Option<u8> {
    let mask = mask.to_bits();
    let ones = mask.leading_ones();
    (ones > 0 && mask.count_ones() == ones).then_some(ones as u8)
}
