//! Whether the health managers are reached, from where the agent sends its heartbeats.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use agent_api::config::Destination;
use futures_util::future::join_all;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

use super::{Facts, Finding};

/// For the address of a health manager that is given by name.
const LOOKUP: Duration = Duration::from_secs(2);
/// For an ICMP error, which comes at once or not at all.
const ANSWERING: Duration = Duration::from_millis(300);

/// One of `controller_ip_port_list`.
#[derive(Clone, Debug)]
pub struct Manager {
    pub to: Destination,
    pub outcome: Outcome,
}

/// What became of a datagram to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody objected, which is all that UDP tells.
    Sent(SocketAddr),
    Unknown(String),
    /// Of this machine: no route, no address.
    Unsent(SocketAddr, String),
    /// ICMP: nobody listens there.
    Refused(SocketAddr),
    /// ICMP: somebody on the way, or the link.
    Unreachable(SocketAddr, String),
}

/// Asks all at once. In the network namespace of this thread, and in a tokio runtime.
pub async fn look(destinations: &[Destination]) -> Vec<Manager> {
    let asked = destinations.iter().map(async |to| {
        let outcome = match address(to).await {
            Ok(address) => ask(address).await,
            Err(why) => Outcome::Unknown(why),
        };
        Manager { to: to.clone(), outcome }
    });
    join_all(asked).await
}

async fn address(to: &Destination) -> Result<SocketAddr, String> {
    match timeout(LOOKUP, lookup_host((&to.host[..], to.port))).await {
        Ok(Ok(mut addresses)) => addresses.next().ok_or_else(|| "it has no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {LOOKUP:?}")),
    }
}

/// An empty datagram: it has no signature, so that a health manager drops it.
async fn ask(address: SocketAddr) -> Outcome {
    let from: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let sent = async {
        let socket = UdpSocket::bind((from, 0)).await?;
        socket.connect(address).await?;
        socket.send(&[]).await?;
        Ok::<_, io::Error>(socket)
    };
    let socket = match sent.await {
        Ok(socket) => socket,
        Err(error) => return Outcome::Unsent(address, error.to_string()),
    };
    // Nobody answers; what is heard is an ICMP error.
    match timeout(ANSWERING, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Outcome::Refused(address)
        }
        Ok(Err(error)) => Outcome::Unreachable(address, error.to_string()),
        Ok(Ok(_)) | Err(_) => Outcome::Sent(address),
    }
}

pub fn reachable(facts: &Facts) -> Vec<Finding> {
    let Some(config) = facts.agent() else { return Vec::new() };
    if config.controller_ip_port_list.is_empty() {
        let found = "there is none: the controller hears nothing, and replaces this amphora";
        let mend = "[health_manager] controller_ip_port_list on the controllers, then `openstack \
                    loadbalancer amphora configure AMPHORA`";
        return vec![Finding::failure("", found, mend)];
    }
    match &facts.managers {
        Ok(managers) => managers.iter().map(reached).collect(),
        Err(why) => vec![Finding::unknown("", why)],
    }
}

fn reached(Manager { to, outcome }: &Manager) -> Finding {
    let about = to.to_string();
    match outcome {
        Outcome::Sent(address) if about == address.to_string() => {
            Finding::ok(&about, "a datagram leaves, and nobody objects")
        }
        Outcome::Sent(address) => {
            Finding::ok(&about, format!("a datagram leaves to {address}, and nobody objects"))
        }
        Outcome::Unknown(why) => {
            let mend = "an address in [health_manager] controller_ip_port_list, or a name server for the \
                        management network (Neutron: `openstack subnet set --dns-nameserver`)";
            Finding::failure(&about, format!("its name is not resolved: {why}"), mend)
        }
        Outcome::Unsent(address, why) => {
            let mend = "a route from the management network: gateway_ip or host_routes of its Neutron \
                        subnet ([controller_worker] amp_boot_network_list)";
            Finding::failure(&about, format!("nothing leaves to {address}: {why}"), mend)
        }
        Outcome::Refused(address) => {
            let mend =
                "octavia-health-manager started there, on [health_manager] bind_ip and bind_port";
            Finding::failure(&about, format!("nobody listens at {address} (ICMP)"), mend)
        }
        Outcome::Unreachable(address, why) => {
            let mend = "the way there: the router of the management network, and the security group of \
                        the health manager's port, which lets in UDP 5555";
            Finding::failure(&about, format!("{address} is not reached: {why}"), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::super::facts::tests::{said, well};
    use super::*;

    #[test]
    fn outcomes() {
        let address: SocketAddr = "192.0.2.5:5555".parse().unwrap();
        let why = || "it is said".to_owned();
        let rows = [
            (Outcome::Sent(address), Ok, "nobody objects"),
            (Outcome::Unknown(why()), Failure, "dns-nameserver"),
            (Outcome::Unsent(address, why()), Failure, "host_routes"),
            (Outcome::Refused(address), Failure, "octavia-health-manager started"),
            (Outcome::Unreachable(address, why()), Failure, "UDP 5555"),
        ];
        for (outcome, level, words) in rows {
            let mut facts = well();
            let to = Destination { host: "192.0.2.5".to_owned(), port: 5555 };
            facts.managers = Result::Ok(vec![Manager { to, outcome }]);
            said(&reachable(&facts), &[(level, "192.0.2.5:5555", words)], words);
        }
        let mut facts = well();
        facts.managers = Err(why());
        said(&reachable(&facts), &[(Warning, "", "it is said")], "unknown");
        facts.change_agent(|config| config.controller_ip_port_list.clear());
        said(&reachable(&facts), &[(Failure, "", "controller_ip_port_list")], "none");
        facts.config = super::super::facts::Config::None;
        said(&reachable(&facts), &[], "no amphora");
    }
}
