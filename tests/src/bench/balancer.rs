//! A load balancer without an interface: the program loaded, its maps filled, for
//! `BPF_PROG_TEST_RUN`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_api::{Algorithm, Desired, Listener, LogFormat, Member, Name, Pool, Protocol};
use anyhow::{Context, Result};
use xdp_lb::kernel::{self, Kernel, Pins, SourcePorts};
use xdp_lb::plan::plan;
pub use xdp_lb::tables::octets;
use xdp_lb::tables::{Hop, Tables, World, compile};

pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 10);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);
pub const PORT: u16 = 80;
/// Of the amphora, and of whoever is at the other end of its wire.
pub const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NEXT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The interface that `BPF_PROG_TEST_RUN` says frames came in by, unless told otherwise: `lo`, which
/// is 1 in every namespace. Members behind it are answered with `XDP_TX`.
const IFINDEX: u32 = 1;
const MEMBER_PORT: u16 = 8080;
/// Of a listener; never reached, always counted.
const CONNECTIONS_MAX: u32 = 1 << 30;
/// All that the client of the bench may be, and as many others again.
const NETWORKS: [&str; 4] = ["198.18.0.0/15", "192.0.2.0/24", "2001:db8:c::/48", "2001:db8:d::/48"];
const SOURCE_PORTS: SourcePorts = SourcePorts { low: 1024, span: 59_976 };

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots of the flow tables, powers of two.
    pub flows4: u32,
    pub flows6: u32,
    pub members: u16,
    /// Whether the TCP listener keeps accounts for the log.
    pub logged: bool,
}

/// Pinned until dropped.
pub struct Balancer {
    pub pins: Pins,
    pub kernel: Kernel,
    leave: bool,
}

impl Balancer {
    /// Loads and fills it, in the place of one of this name that was left.
    pub fn start(name: &str, sizes: Sizes) -> Result<Self> {
        let name = Name::try_from(name.to_owned())?;
        let pins = Pins::of(&name);
        if pins.exist() {
            pins.remove().with_context(|| format!("removing {}", pins.directory().display()))?;
        }
        let entries =
            kernel::Sizes { flows4: Some(sizes.flows4), flows6: Some(sizes.flows6), sticky: None };
        let kernel = Kernel::start(&pins, entries, SOURCE_PORTS, None)?;
        let mut balancer = Self { pins, kernel, leave: false };
        balancer.fill(&desired(name, sizes)?)?;
        Ok(balancer)
    }

    /// Ends without removing what is pinned.
    pub fn leave(mut self) {
        self.leave = true;
    }

    fn fill(&mut self, desired: &Desired) -> Result<()> {
        let hop = |_| Some(Hop { ifindex: IFINDEX, mac: NEXT_MAC, own_mac: OWN_MAC, source: None });
        let world = World { down: &[].into(), hop: &hop, busy: &|_| false };
        let nothing = Tables::default();
        let tables = compile(desired, &world, &nothing)?;
        let maps = &mut self.kernel.maps;
        for change in plan(&tables, &nothing) {
            maps.apply(&change)?;
        }
        maps.set_clock(1);
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if !self.leave
            && let Err(error) = self.pins.remove()
        {
            eprintln!("bench: {} stays: {error}", self.pins.directory().display());
        }
    }
}

/// Removes what [`Balancer::leave`] left.
pub fn unpin(name: &str) -> Result<()> {
    let pins = Pins::of(&Name::try_from(name.to_owned())?);
    pins.remove().with_context(|| format!("removing {}", pins.directory().display()))
}

/// One VIP in both families, TCP and UDP, with everything on that a new flow is checked for.
fn desired(name: Name, sizes: Sizes) -> Result<Desired> {
    let allowed = NETWORKS.iter().map(|network| network.parse());
    let allowed_networks = allowed.collect::<Result<Vec<_>, _>>()?;
    let listener = |(id, protocol): (&str, Protocol)| Listener {
        id: id.to_owned(),
        vips: vec![VIP4.into(), VIP6.into()],
        port: PORT,
        protocol,
        pool: Some("members".to_owned()),
        enabled: true,
        connection_limit: Some(CONNECTIONS_MAX),
        allowed_networks: allowed_networks.clone(),
        idle_timeout_s: 50,
        log_format: sizes.logged.then(|| LogFormat { text: String::new(), facility: 0 }),
    };
    let pool = Pool {
        id: "members".to_owned(),
        algorithm: Algorithm::RoundRobin,
        persistence: None,
        monitor: None,
        enabled: true,
        members: (1..=sizes.members).flat_map(|number| addresses(number).map(member)).collect(),
    };
    let listeners = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)].map(listener);
    Ok(Desired { name, listeners: listeners.into(), pools: vec![pool] })
}

fn addresses(number: u16) -> [IpAddr; 2] {
    let [high, low] = number.to_be_bytes();
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, number);
    [Ipv4Addr::new(10, 200, high, low).into(), v6.into()]
}

fn member(address: IpAddr) -> Member {
    Member {
        id: address.to_string(),
        address,
        port: MEMBER_PORT,
        weight: 1,
        backup: false,
        enabled: true,
        probed_at: None,
    }
}
