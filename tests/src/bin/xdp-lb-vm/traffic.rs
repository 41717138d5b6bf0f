//! Real traffic in a guest: from a client behind one NIC through `xdp-lb run` behind another, and back to
//! a member beside the client.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use xdp_lb::record::Interface;
use xdp_lb_tests::balancer::{Balancer, Listener, Place};
use xdp_lb_tests::clients::{Connections, TIMEOUT, download, requests, udp_ask, upload};
use xdp_lb_tests::lab::{Host, Netns};
use xdp_lb_tests::servers::Server;

use crate::nics::{End, Pair};
use crate::report::Carried;

/// What a client asks for on each family. Emulated, a few are enough to see that all go.
const REQUESTS: u64 = 40;
const DATAGRAMS: u64 = 20;
/// Longer than any frame, so that the host may hand it over in one piece.
const TRANSFER: u64 = 1 << 20;

const VIPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
];
const MEMBER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 101), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x101));
const PORT: u16 = 80;

/// Has a client and a member speak through one pair of NICs.
pub fn carry(number: usize, pair: &Pair) -> Result<Carried> {
    let netns = plug_in(number, End::Client, &[MEMBER.0.into(), MEMBER.1.into()])?;
    let amphora = plug_in(number, End::Balancer, &VIPS)?;
    let member = Host { name: "m1".into(), netns, v4: MEMBER.0, v6: MEMBER.1 };
    let _servers = [Server::http(&member, PORT)?, Server::udp(&member, PORT)?];
    let listeners =
        ["tcp", "udp"].map(|protocol| Listener::new(protocol, protocol, PORT, [&member]));
    let place = Place { netns: &amphora, vips: VIPS };
    let name = format!("pair{number}");
    let balancer = Balancer::start_at(place, &name, &listeners, &["--interface", "eth1"]);

    for vip in VIPS {
        let vip = SocketAddr::new(vip, PORT);
        member.netns.enter(|| ask(vip)).with_context(|| format!("{}: {vip}", pair.name))?;
    }
    let status = balancer.status();
    let interfaces: Vec<Interface> = serde_json::from_value(status["interfaces"].clone())?;
    let eth1 = interfaces.into_iter().next().context("no interface in the status")?;
    // Two transfers follow the requests; a datagram is a flow.
    let want = [("tcp", 2 * (REQUESTS + 2)), ("udp", 2 * DATAGRAMS)];
    let mut opened = 0;
    for (listener, want) in want {
        let counted = balancer.listener(listener, "/moved/opened");
        ensure!(counted == want, "{listener}: {counted} flows were counted, {want} were opened");
        opened += counted;
    }
    Ok(Carried {
        standing: eth1.standing,
        warnings: serde_json::from_value(status["warnings"].clone())?,
        opened,
        walked: walked()?,
    })
}

fn ask(vip: SocketAddr) -> Result<()> {
    let outcome = requests(vip, Connections::Fresh, 2, |request| request < REQUESTS);
    ensure!(u64::from(outcome.ok) == REQUESTS, "of {REQUESTS} requests {} went", outcome.ok);
    download(vip, TRANSFER).context("a download")?;
    upload(vip, TRANSFER).context("an upload")?;
    for number in 0..DATAGRAMS {
        let payload = number.to_string();
        let answer = udp_ask(vip, payload.as_bytes(), TIMEOUT).context("a datagram")?;
        ensure!(answer.payload == payload.as_bytes(), "another datagram came back");
    }
    Ok(())
}

/// A namespace with one end of a pair as its `eth1`.
fn plug_in(number: usize, end: End, addresses: &[IpAddr]) -> Result<Netns> {
    let netns = Netns::unnamed(&format!("pair{number}-{end:?}"))?;
    let dev = device(&end.mac(number))?;
    let rename = format!("link set {dev} name eth1 netns {}", netns.path());
    own(&rename)?;
    let address = |address: &IpAddr| match address {
        IpAddr::V4(_) => format!("address add {address}/24 dev eth1"),
        IpAddr::V6(_) => format!("address add {address}/64 dev eth1 nodad"),
    };
    let up = ["link set lo up", "link set eth1 up"].map(str::to_owned);
    netns.ip(&addresses.iter().map(address).chain(up).collect::<Vec<_>>())?;
    Ok(netns)
}

/// The interface with this MAC in the guest's first namespace.
fn device(mac: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == mac {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("there is no NIC with {mac}")
}

/// A line of `ip` in the guest's first namespace.
fn own(line: &str) -> Result<()> {
    Ok(Netns::of(1)?.ip(&[line.to_owned()])?)
}

/// What the verifier walked of each program that the load balancer has loaded now.
fn walked() -> Result<Vec<(String, u32)>> {
    let mut stages = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        let name = program.name_as_str().unwrap_or_default();
        if name.starts_with("xdp_lb") {
            let count = program.verified_instruction_count().unwrap_or(0);
            stages.push((name.to_owned(), count));
        }
    }
    Ok(stages)
}
