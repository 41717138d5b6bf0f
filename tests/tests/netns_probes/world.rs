//! An amphora that probes one member, and the tables of what it sees.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use agent_api::Probe;
use tokio::runtime::{Builder, Runtime};
use xdp_lb::health::probe::{Failure, Patience, Prober};
use xdp_lb_tests::lab::{FAMILIES, Family, Host, Lab, LabOptions};
use xdp_lb_tests::servers::Server;

/// Longer than any machine takes to answer, where an answer is expected.
pub const LONG: Patience =
    Patience { connect: Duration::from_secs(10), read: Duration::from_secs(10) };
/// Where none is. The two differ, so that it is seen which one it was.
pub const SHORT: Patience =
    Patience { connect: Duration::from_millis(400), read: Duration::from_millis(300) };

/// A probe of a member that serves TCP in its own way.
pub struct Row {
    pub name: &'static str,
    pub probe: Probe,
    pub patience: Patience,
    pub serve: fn(TcpStream, &str) -> io::Result<()>,
    pub want: Result<(), Failure>,
}

pub struct World {
    pub lab: Lab,
}

impl World {
    pub fn new() -> Self {
        let lab = Lab::up(LabOptions { members: 1, ..LabOptions::default() }).expect("a lab");
        // Each of many errors is to be told.
        for host in [&lab.router, &lab.members[0]] {
            host.netns.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
            host.netns.sysctl("ipv6/icmp/ratelimit", "0").unwrap();
        }
        Self { lab }
    }

    pub fn member(&self) -> &Host {
        &self.lab.members[0]
    }

    /// With a prober in the amphora, and what runs it.
    pub fn probing<T: Send>(&self, work: impl FnOnce(&Runtime, &Prober) -> T + Send) -> T {
        self.lab.amphora.netns.enter(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let prober = Prober::new().unwrap();
            work(&runtime, &prober)
        })
    }

    pub fn one(
        &self,
        name: &str,
        probe: &Probe,
        at: SocketAddr,
        patience: Patience,
        want: Result<(), Failure>,
    ) {
        let probed = |runtime: &Runtime, prober: &Prober| {
            runtime.block_on(prober.probe(probe, at, patience))
        };
        assert_eq!(self.probing(probed), want, "{name}, {at}");
    }

    /// Probes the address of each family.
    pub fn each(
        &self,
        name: &str,
        probe: &Probe,
        at: impl Fn(Family) -> SocketAddr,
        patience: Patience,
        want: impl Fn(Family) -> Result<(), Failure>,
    ) {
        for family in FAMILIES {
            self.one(name, probe, at(family), patience, want(family));
        }
    }

    pub fn streams(&self, rows: &[Row]) {
        for Row { name, probe, patience, serve, want } in rows {
            let server = Server::tcp(self.member(), 0, *serve).unwrap();
            let at = |family| self.member().addr(family, server.port);
            self.each(name, probe, at, *patience, |_| want.clone());
        }
    }
}
