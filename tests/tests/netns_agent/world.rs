//! A lab with an amphora and members, and what is configured there.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Value, json};
use xdp_lb_tests::agent::Agent;
use xdp_lb_tests::lab::{FAMILIES, Host, Lab, LabOptions};
use xdp_lb_tests::pki::{Authority, Kind};
use xdp_lb_tests::servers::{Server, sctp_missing};
use xdp_lb_tests::uploads::{self, Frontend, LOAD_BALANCER, Speaks, uuid};

/// Of the listeners: also their ids.
pub const TCP: u32 = 1;
pub const HTTP: u32 = 2;
pub const TLS: u32 = 3;
pub const UDP: u32 = 4;
pub const SCTP: u32 = 5;

pub fn lab() -> Lab {
    Lab::up(LabOptions { members: 2, ..Default::default() }).expect("a lab")
}

/// HTTP, UDP and, where the kernel has it, SCTP on port 80 of every member.
pub fn servers(lab: &Lab) -> Vec<Server> {
    let mut servers = Vec::new();
    for host in &lab.members {
        servers.push(Server::http(host, 80).expect("HTTP"));
        servers.push(Server::udp(host, 80).expect("UDP"));
        if sctp_missing().is_none() {
            servers.push(Server::sctp(host, 80).expect("SCTP"));
        }
    }
    servers
}

pub fn vips(lab: &Lab) -> Vec<IpAddr> {
    FAMILIES.map(|family| lab.vip(family, 0).ip()).to_vec()
}

/// Both addresses of each, of weight 1.
pub fn members(hosts: &[Host]) -> Vec<(IpAddr, u16, u16)> {
    let addresses = hosts.iter().flat_map(|host| FAMILIES.map(|family| host.addr(family, 0).ip()));
    addresses.map(|address| (address, 80, 1)).collect()
}

/// A listener on port 8000 and its number, with all members of the lab.
pub fn frontend(lab: &Lab, id: u32, speaks: Speaks) -> Frontend {
    Frontend::new(id, port(id), speaks, members(&lab.members))
}

pub fn port(id: u32) -> u16 {
    8000 + id as u16
}

pub fn haproxy(agent: &Agent<'_>, frontends: &[Frontend]) -> String {
    uploads::haproxy(&agent.base(), &vips(agent.lab), frontends)
}

/// Uploads a certificate of a CA of its own, and the list that names it for a listener.
pub fn certify(agent: &Agent<'_>, listener: u32) -> Result<()> {
    let issued = Authority::new("tenants")?.issue("www", Kind::ServerOnly)?;
    let folder = format!("/1.0/loadbalancer/{LOAD_BALANCER}/certificates");
    let name = "9965834d856a7e24459522af0b91df69323947b3.pem";
    agent.must(200, "PUT", &format!("{folder}/{name}"), &issued.pem()?)?;
    let list = agent.base().join("certs").join(LOAD_BALANCER).join(name);
    let file = format!("{folder}/{}.pem", uuid(listener));
    agent.must(200, "PUT", &file, format!("{}\n", list.display()).as_bytes()).map(drop)
}

/// Plugs the VIPs and serves listeners of TCP, HTTP, TERMINATED_HTTPS and UDP, and of SCTP where the
/// kernel has it, which share their members.
pub fn serve_all(agent: &Agent<'_>) -> Result<()> {
    let lab = agent.lab;
    agent.plug_vip(json!({}))?;
    certify(agent, TLS)?;
    let kinds = [(TCP, Speaks::Tcp), (HTTP, Speaks::Http), (TLS, Speaks::Tls)];
    let frontends = kinds.map(|(id, speaks)| frontend(lab, id, speaks));
    agent.serve(LOAD_BALANCER, &haproxy(agent, &frontends))?;
    let mut packets = vec![(UDP, "UDP")];
    if sctp_missing().is_none() {
        packets.push((SCTP, "SCTP"));
    }
    for (id, protocol) in packets {
        let config = uploads::lvs(id, protocol, &vips(lab), port(id), &members(&lab.members));
        agent.serve_lvs(&uuid(id), &config)?;
    }
    Ok(())
}

/// Which program serves a listener, as `xdp-lb status` says.
pub fn engine(agent: &Agent<'_>, listener: u32) -> Result<Option<String>> {
    let status = agent.status()?;
    let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
    let found = listeners.iter().find(|it| it["id"] == uuid(listener).as_str());
    Ok(found.and_then(|it| it["by"].as_str()).map(str::to_owned))
}

/// What the kernel has in the namespace of the load balancer: addresses, routes and rules.
pub fn network(agent: &Agent<'_>) -> Result<Vec<Value>> {
    let inside = agent.inside()?;
    let look = |words: &[&str]| -> Result<Value> {
        Ok(serde_json::from_str(&inside.run("ip", &[&["-j"], words].concat())?)?)
    };
    let links = look(&["addr"])?;
    // Not the number of the program.
    let addresses = links.as_array().into_iter().flatten().map(|link| link["addr_info"].clone());
    Ok(vec![
        addresses.collect(),
        look(&["route", "show", "table", "all"])?,
        look(&["-6", "route", "show", "table", "all"])?,
        look(&["rule"])?,
        look(&["-6", "rule"])?,
    ])
}
