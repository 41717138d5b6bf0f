//! What is looked at, and the looking.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use agent_api::{AgentConfig, Name, config};
use tokio::runtime;

use super::Finding;
use super::certificates::{self, Certificates};
use super::clock::Clock;
use super::daemon::{Fitness, Program, Unit};
use super::ethtool;
use super::interfaces::{Cpus, Interface};
use super::kernel::Kernel;
use super::managers::{self, Manager};
use super::neighbours::Way;
use super::ports::Ports;
use super::rights::Rights;
use super::sockets::{Waiting, waiting};
use crate::agent::KEEPALIVED;
use crate::kernel::{self, SourcePorts};
use crate::lock;
use crate::namespace::{find, inside};
use crate::net::{Ours, Topology, Watch};
use crate::observe::{Found, status};
use crate::plug::{VIP_INTERFACE, number};
use crate::record::{self, Backend, Record, Standing, State};

/// Where to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// `amphora-agent.conf`; need not be there.
    pub config: PathBuf,
    /// That of an amphora is its id, where nothing else is said.
    pub name: Option<Name>,
    /// Network namespace of the load balancer, by name or path; where none is said, that of an amphora, or
    /// of the daemon.
    pub netns: Option<String>,
    /// Those that are meant; where none is said, those that the daemon has, or all.
    pub interfaces: Vec<String>,
}

/// That of an amphora, where nothing else is said.
const NAMESPACE: &str = "amphora-haproxy";

/// A machine as it was found. An error is why something could not be looked at.
#[derive(Clone, Debug)]
pub struct Facts {
    pub config_path: PathBuf,
    pub config: Config,
    /// What of it is ignored.
    pub faults: Vec<String>,
    /// None where nothing has been started, or there are several.
    pub name: Option<Name>,
    /// Of load balancers that have been started here.
    pub names: Vec<Name>,
    /// Process id of the daemon, if it runs.
    pub daemon: Option<String>,
    /// What it wrote down last.
    pub record: Option<Record>,
    /// Why what is pinned cannot be read.
    pub unfound: Option<String>,
    /// Whether more frames than chance has it came with partial checksums.
    pub partial_checksums: bool,
    pub unit: Option<Result<Unit, String>>,
    /// HAProxy and keepalived.
    pub programs: [Program; 2],
    pub kernel: Kernel,
    pub cpus: Cpus,
    pub rights: Result<Rights, String>,
    /// Inside the namespace of the load balancer.
    pub network: Result<Network, Unseen>,
    /// Outside, where the agent is.
    pub waiting: Vec<Waiting>,
    pub certificates: Vec<Certificates>,
    pub clock: Clock,
    pub managers: Result<Vec<Manager>, String>,
}

#[derive(Clone, Debug)]
pub enum Config {
    /// No file.
    None,
    Read(Box<AgentConfig>),
    Bad(String),
}

/// Why nothing is known of the network of the load balancer.
#[derive(Clone, Debug)]
pub enum Unseen {
    /// There is no such namespace.
    Missing(String),
    Failed(String),
}

/// The network of the load balancer.
#[derive(Clone, Debug)]
pub struct Network {
    pub interfaces: Vec<Interface>,
    pub ports: Result<Ports, String>,
    pub waiting: Vec<Waiting>,
    /// To the members.
    pub ways: Vec<Way>,
    /// Of an amphora.
    pub fitness: Option<Fitness>,
}

impl Facts {
    /// Takes a moment: names are resolved, and health managers are asked.
    pub fn look(options: &Options) -> Self {
        let (config, faults) = read_config(&options.config);
        let agent = match &config {
            Config::Read(config) => Some(&**config),
            Config::None | Config::Bad(_) => None,
        };
        let name = options.name.clone().or_else(|| agent.map(|it| it.amphora_id.clone()));
        let names = lock::names().unwrap_or_default();
        let only = if let [only] = &names[..] { Some(only.clone()) } else { None };
        let name = name.or(only);
        let daemon = name.as_ref().and_then(lock::holder);
        let pid = daemon.as_ref().and_then(|pid| pid.parse::<u32>().ok());
        let (found, unfound) = find_pinned(name.as_ref());
        let own = || namespace_of(None);
        let managed = if agent.is_some() { namespace_of(pid).or_else(|_| own()) } else { own() };
        let record = found.as_ref().map(|found| found.record.clone());
        let ours = found.as_ref().and_then(source_ports);
        let network = namespace_of_balancer(options, agent.is_some(), pid).and_then(|namespace| {
            let look = || network(options, agent.is_some(), name.as_ref(), record.as_ref(), ours);
            let looked = inside(&namespace, look).map_err(|error| error.to_string());
            looked.flatten().map_err(Unseen::Failed)
        });
        let managers = managed.as_ref().map_err(Clone::clone).and_then(|namespace| {
            let destinations = agent.map_or(&[][..], |agent| &agent.controller_ip_port_list);
            let looked = inside(namespace, || block_on(managers::look(destinations)));
            looked.map_err(|error| error.to_string()).flatten()
        });
        let outside = managed.as_ref().ok().and_then(|namespace| inside(namespace, waiting).ok());
        let haproxy = agent.map_or(Path::new("haproxy"), |agent| &agent.haproxy_cmd);
        let programs = [haproxy, Path::new(KEEPALIVED)].map(Program::look);
        let certificates = agent.map(certificates::look).unwrap_or_default();
        let partial = found.as_ref().and_then(|found| status::partial_checksums(found).ok());
        Self {
            config_path: options.config.clone(),
            certificates,
            config,
            faults,
            name,
            names,
            daemon,
            record,
            unfound,
            partial_checksums: partial.unwrap_or(false),
            unit: Unit::look(),
            programs,
            kernel: Kernel::look(),
            cpus: ethtool::cpus().unwrap_or(Cpus { possible: 1, online: 1 }),
            rights: Rights::look(pid),
            network,
            waiting: outside.unwrap_or_default(),
            clock: Clock::look(),
            managers,
        }
    }

    /// Of an amphora.
    pub fn agent(&self) -> Option<&AgentConfig> {
        match &self.config {
            Config::Read(config) => Some(config),
            Config::None | Config::Bad(_) => None,
        }
    }

    pub fn is_amphora(&self) -> bool {
        !matches!(self.config, Config::None)
    }

    pub fn recorded_interfaces(&self) -> &[record::Interface] {
        self.record.as_ref().map_or(&[], |record| &record.interfaces)
    }
}

pub fn namespace(facts: &Facts) -> Vec<Finding> {
    let why = match &facts.network {
        Ok(_) => return Vec::new(),
        Err(Unseen::Failed(why)) => return vec![Finding::unknown("", why)],
        Err(Unseen::Missing(why)) => why,
    };
    let plugged = facts.recorded_interfaces().iter().any(|it| it.standing != Standing::Missing);
    vec![if facts.is_amphora() && !plugged {
        Finding::note("", format!("{why}: nothing has been plugged yet"))
    } else {
        let mend =
            "`systemctl start amphora-netns`, then `systemctl restart amphora-agent`; or --netns";
        Finding::failure("", why.clone(), mend)
    }]
}

/// And what of it is ignored.
fn read_config(path: &Path) -> (Config, Vec<String>) {
    match AgentConfig::read(path) {
        Ok((config, ignored)) => {
            let faults = ignored.iter().map(ToString::to_string).collect();
            (Config::Read(Box::new(config)), faults)
        }
        Err(config::Error::Read(error)) if error.kind() == ErrorKind::NotFound => {
            (Config::None, Vec::new())
        }
        Err(error) => (Config::Bad(error.to_string()), Vec::new()),
    }
}

/// What an earlier start has left, or why it cannot be read.
fn find_pinned(name: Option<&Name>) -> (Option<Found>, Option<String>) {
    match name.map(Found::open).transpose() {
        Ok(found) => (found, None),
        Err(kernel::Error::NotStarted(_)) => (None, None),
        Err(error) => (None, Some(error.to_string())),
    }
}

fn source_ports(found: &Found) -> Option<SourcePorts> {
    let meta = found.maps().ok()?.meta;
    Some(SourcePorts { low: meta.snat_low, span: meta.snat_span })
}

/// Of a process, or of this one.
fn namespace_of(pid: Option<u32>) -> Result<File, String> {
    let of = pid.map_or_else(|| "thread-self".to_owned(), |pid| pid.to_string());
    let path = format!("/proc/{of}/ns/net");
    File::open(&path).map_err(|error| format!("{path}: {error}"))
}

fn namespace_of_balancer(
    options: &Options,
    amphora: bool,
    pid: Option<u32>,
) -> Result<File, Unseen> {
    let named = |name: &str| {
        find(name).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Unseen::Missing(error.to_string()),
            _ => Unseen::Failed(error.to_string()),
        })
    };
    match (&options.netns, amphora) {
        (Some(name), _) => named(name),
        (None, true) => named(NAMESPACE),
        (None, false) => namespace_of(pid).map_err(Unseen::Failed),
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(work);
    // A name that nobody resolves keeps a thread for longer than anyone waits.
    runtime.shutdown_background();
    Ok(done)
}

fn network(
    options: &Options,
    amphora: bool,
    name: Option<&Name>,
    record: Option<&Record>,
    ours: Option<SourcePorts>,
) -> Result<Network, String> {
    let looked = block_on(async {
        let watch = Watch::new().map_err(|error| format!("netlink: {error}"))?;
        let topology = watch.topology().await.map_err(|error| format!("netlink: {error}"))?;
        Ok::<_, String>((topology, ethtool::interfaces().await?))
    })?;
    let (topology, mut interfaces) = looked?;
    let recorded = record.map_or(&[][..], |record| &record.interfaces);
    let is_meant = |name: &str| {
        if !options.interfaces.is_empty() {
            options.interfaces.iter().any(|it| it == name)
        } else if !recorded.is_empty() {
            recorded.iter().any(|it| it.name == name)
        } else {
            !amphora || number(name).is_some_and(|number| number > 0)
        }
    };
    interfaces.retain(|interface| is_meant(&interface.name));
    let ways = record.map(|record| ways(record, &topology)).unwrap_or_default();
    let (ports, waiting) = (Ports::look(ours), waiting());
    let fitness = name.filter(|_| amphora).map(Fitness::look);
    Ok(Network { interfaces, ports, waiting, ways, fitness })
}

/// To all members that are wanted, once each.
fn ways(record: &Record, topology: &Topology) -> Vec<Way> {
    let attached = record.interfaces.iter().filter_map(|it| match it.standing {
        Standing::Attached { ifindex, .. } => Some(ifindex),
        Standing::Missing | Standing::Failed { .. } => None,
    });
    let vips = record.listeners.iter().flat_map(|listener| listener.vips.iter().copied());
    let (attached, vips): (BTreeSet<u32>, Vec<IpAddr>) = (attached.collect(), vips.collect());
    let of_vips = record.interfaces.first().map_or(VIP_INTERFACE, |it| &it.name);
    let vip_interface = topology.ifindex(of_vips);
    let ours = Ours { attached: &attached, vip_interface, vips: &vips };
    let mut told = BTreeSet::new();
    let is_wanted = |it: &&Backend| !matches!(it.state, State::Leaving | State::Disabled);
    let wanted = record.backends.iter().filter(is_wanted);
    let once = wanted.filter(|it| told.insert((&it.member, it.address)));
    once.map(|Backend { member, address, .. }| Way {
        member: member.clone(),
        address: *address,
        way: topology.hop(*address, ours).map(drop),
    })
    .collect()
}

#[cfg(test)]
pub mod tests {
    use agent_api::OnMarkedDown;
    use agent_api::config::{self, Destination, HeartbeatEnvelope, Secret, TlsMinimum};

    use super::super::Level;
    use super::super::certificates::{Dates, Whose};
    use super::super::interfaces::{Channels, Count};
    use super::super::managers::Outcome;
    use super::*;
    use crate::kernel::Mode;

    impl Facts {
        pub fn change_agent(&mut self, change: impl FnOnce(&mut AgentConfig)) {
            let Config::Read(config) = &mut self.config else { panic!("no amphora") };
            change(config);
        }

        pub fn change_record(&mut self, change: impl FnOnce(&mut Record)) {
            change(self.record.as_mut().unwrap());
        }

        /// None is no record at all.
        pub fn record_interfaces(&mut self, interface: Option<record::Interface>) {
            match interface {
                Some(interface) => self.change_record(|it| it.interfaces = vec![interface]),
                None => self.record = None,
            }
        }
    }

    pub fn inside(facts: &mut Facts) -> &mut Network {
        facts.network.as_mut().unwrap()
    }

    /// That there are these findings: level, what about, and words of what was found or mends it. What is
    /// bad has advice.
    pub fn said(findings: &[Finding], want: &[(Level, &str, &str)], row: &str) {
        let got: Vec<_> = findings.iter().map(|it| (it.level, &it.about[..])).collect();
        let levels: Vec<_> = want.iter().map(|(level, about, _)| (*level, *about)).collect();
        assert_eq!(got, levels, "{row}: {findings:?}");
        for (finding, (.., words)) in findings.iter().zip(want) {
            let Finding { found, mend, level, .. } = finding;
            let said = format!("{found} {}", mend.as_deref().unwrap_or_default());
            assert!(said.contains(words), "{row}: {words:?} is not in {said:?}");
            assert!(mend.is_some() || *level < Level::Warning, "{row}: {finding:?}");
        }
    }

    /// An amphora with one listener of which all is well.
    pub fn well() -> Facts {
        let manager = Destination { host: "192.0.2.5".to_owned(), port: 5555 };
        let address = "192.0.2.5:5555".parse().unwrap();
        let name = Name::try_from("lb".to_owned()).unwrap();
        let config = AgentConfig {
            debug: false,
            use_syslog: false,
            syslog_log_facility: "LOG_USER".into(),
            base_path: "/var/lib/octavia".into(),
            base_cert_dir: "/var/lib/octavia/certs".into(),
            bind_host: "::".parse().unwrap(),
            bind_port: 9443,
            haproxy_cmd: "/usr/sbin/haproxy".into(),
            user_log_facility: 0,
            administrative_log_facility: 1,
            controller_ip_port_list: vec![manager.clone()],
            heartbeat_interval_s: 10,
            heartbeat_key: Secret::new("k"),
            agent_server_ca: "/ca.pem".into(),
            agent_server_cert: "/server.pem".into(),
            agent_server_network_dir: "/etc/octavia/interfaces/".into(),
            agent_request_read_timeout_s: 180,
            amphora_id: name.clone(),
            agent_tls_protocol: TlsMinimum::Tls12,
            loadbalancer_topology: config::Topology::Single,
            heartbeat_envelope: HeartbeatEnvelope::Octavia,
            on_marked_down: OnMarkedDown::Keep,
        };
        let attached = Standing::Attached { ifindex: 2, mode: Mode::Native, refused: None };
        let listener = record::Listener {
            number: Some(0),
            id: "web".to_owned(),
            vips: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
            port: 80,
            protocol: "tcp".to_owned(),
            pool: None,
            connection_limit: None,
            counted: record::Counted::default(),
        };
        let record = Record {
            interfaces: vec![record::Interface { name: "eth1".to_owned(), standing: attached }],
            listeners: vec![listener],
            ..Record::default()
        };
        let interface = Interface {
            name: "eth1".to_owned(),
            driver: Some("virtio_net".to_owned()),
            mtu: 1500,
            up: true,
            xdp: Some(Mode::Native),
            channels: Some(Channels { combined: Count { now: 2, max: 2 }, ..Channels::default() }),
            offloads: BTreeSet::new(),
            virtio: Some(1 << 32),
        };
        let ports = Ports {
            ours: "1024-49151".parse().ok(),
            reserved: "1024-49151\n".to_owned(),
            local: "32768\t65535\n".to_owned(),
        };
        let network = Network {
            interfaces: vec![interface],
            ports: Ok(ports),
            waiting: vec![],
            ways: vec![],
            fitness: Some(Fitness::Well),
        };
        let dates = Dates { subject: "lb".to_owned(), begins_s: 0, ends_s: 1_800_000_000 };
        let certificates = Certificates {
            path: "/server.pem".into(),
            whose: Whose::Agent,
            dates: Ok(vec![dates]),
        };
        Facts {
            config_path: "/etc/octavia/amphora-agent.conf".into(),
            config: Config::Read(Box::new(config)),
            faults: vec![],
            name: Some(name),
            names: vec![],
            daemon: Some("7".to_owned()),
            record: Some(record),
            unfound: None,
            partial_checksums: false,
            unit: Some(Ok(Unit {
                load: "loaded".to_owned(),
                active: "active".to_owned(),
                file: "enabled".to_owned(),
                restarts: 0,
            })),
            programs: ["/usr/sbin/haproxy", "/usr/sbin/keepalived"]
                .map(|path| Program { path: path.into(), there: true }),
            kernel: Kernel { release: "6.12.0".to_owned(), bpffs: true, btf: true, jit: Some(1) },
            cpus: Cpus { possible: 2, online: 2 },
            rights: Ok(Rights { daemon: Some(7), effective: u64::MAX }),
            network: Ok(network),
            waiting: vec![],
            certificates: vec![certificates],
            clock: Clock { now_s: 1_764_000_000, synchronised: Some(true) },
            managers: Ok(vec![Manager { to: manager, outcome: Outcome::Sent(address) }]),
        }
    }

    #[test]
    fn namespaces() {
        let why = || "network namespace amphora-haproxy: it is said".to_owned();
        let missing = || Err(Unseen::Missing(why()));
        let mut facts = well();
        facts.network = missing();
        said(&namespace(&facts), &[(Level::Failure, "", "amphora-netns")], "lost");
        facts.record_interfaces(None);
        said(&namespace(&facts), &[(Level::Note, "", "nothing has been plugged")], "new");
        facts.config = Config::None;
        said(&namespace(&facts), &[(Level::Failure, "", "--netns")], "no amphora");
        facts.network = Err(Unseen::Failed(why()));
        said(&namespace(&facts), &[(Level::Warning, "", "cannot be told")], "no right");
    }
}
