//! The interfaces: whether XDP can run in their drivers, does, and on all CPUs.

use std::collections::BTreeSet;

use super::{Facts, Finding};
use crate::kernel::Mode;
use crate::record::Standing;

/// As netlink, ethtool and sysfs have it.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    pub name: String,
    /// Of the device, or the kind of a virtual interface: `veth`.
    pub driver: Option<String>,
    pub mtu: u32,
    pub up: bool,
    /// How an XDP program is attached, whoever's.
    pub xdp: Option<Mode>,
    /// None where the driver does not tell.
    pub channels: Option<Channels>,
    /// Offloads that are on, by ethtool's names.
    pub offloads: BTreeSet<String>,
    /// What a virtio device and its host have agreed on, a bit for each.
    pub virtio: Option<u64>,
}

/// Pairs of queues, as `ethtool -l` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    pub combined: Count,
    pub rx: Count,
    pub tx: Count,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub now: u32,
    pub max: u32,
}

impl Channels {
    /// What frames come in by.
    fn receiving(self) -> Count {
        Count { now: self.combined.now + self.rx.now, max: self.combined.max + self.rx.max }
    }
}

/// CPUs: `possible` is the kernel's `nr_cpu_ids`, for each of which drivers want a queue to send by.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    pub possible: u32,
    pub online: u32,
}

/// Drivers with native XDP of all the kernels that the program runs on.
const NATIVE: [&str; 19] = [
    "bnxt_en",
    "ena",
    "hv_netvsc",
    "i40e",
    "ice",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_core",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "nfp",
    "qede",
    "sfc",
    "tun",
    "veth",
    "virtio_net",
    "vif",
];
/// What hypervisors emulate, without it.
const EMULATED: [&str; 6] = ["8139cp", "8139too", "e1000", "e1000e", "ne2k-pci", "pcnet32"];

/// What is left of a page of 4096 bytes for a frame's IP part: 256 are kept free before the frame, 320
/// behind it (`virtnet_xdp_set`, `veth_xdp_set`), and 14 are Ethernet's.
const NATIVE_MTU_MAX: u32 = 3506;

/// From when on `virtio_net` shares queues to send by where there are too few (kernel commit 97c2c69e1926).
const SHARES_QUEUES: (u32, u32) = (5, 13);

// Bits of `virtio`: OASIS virtio 1.2, 5.1.3; `linux/virtio_net.h`.
const GUEST_CSUM: u64 = 1 << 1;
const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
/// TSO4, TSO6, ECN, UFO; USO4, USO6.
const GUEST_MERGES: u64 = (0b1111 << 7) | (0b11 << 54);
const MRG_RXBUF: u64 = 1 << 15;
/// Either of them lets header and data lie in one buffer.
const ANY_LAYOUT: u64 = (1 << 27) | (1 << 32);

const MULTIQUEUE: &str = "Glance: `openstack image set --property hw_vif_multiqueue_enabled=true IMAGE`, or \
                          Nova: `openstack flavor set --property hw:vif_multiqueue_enabled=true FLAVOR` \
                          (at most [libvirt] max_queues of nova.conf); then `openstack loadbalancer failover`";
const MODEL: &str = "Glance: `openstack image set --property hw_vif_model=virtio IMAGE`, then \
                     `openstack loadbalancer failover`";

fn each(facts: &Facts, check: impl Fn(&Interface) -> Option<Finding>) -> Vec<Finding> {
    let interfaces = facts.network.iter().flat_map(|network| &network.interfaces);
    interfaces.filter_map(check).collect()
}

pub fn driver(facts: &Facts) -> Vec<Finding> {
    each(facts, |Interface { name, driver, .. }| {
        let Some(driver) = driver.as_deref() else {
            return Some(Finding::note(name, "its driver is not known"));
        };
        Some(if NATIVE.contains(&driver) {
            Finding::ok(name, format!("{driver}, which has native XDP"))
        } else if EMULATED.contains(&driver) {
            let found = format!("{driver} has no native XDP: generic mode, several times slower");
            Finding::warning(name, found, MODEL)
        } else {
            Finding::note(
                name,
                format!("{driver}: whether it has native XDP is seen when attached"),
            )
        })
    })
}

/// What runs on them, against what is written down of it.
pub fn attached(facts: &Facts) -> Vec<Finding> {
    let recorded = facts.recorded_interfaces();
    let missing = recorded.iter().filter(|it| it.standing == Standing::Missing).map(|it| {
        let mend = "its port plugged again: `openstack loadbalancer failover`; or --interface";
        Finding::failure(&it.name, "there is no such interface", mend)
    });
    let standing = |name: &str| recorded.iter().find(|it| it.name == name).map(|it| &it.standing);
    let found = each(facts, |interface| {
        let Interface { name, up, xdp, .. } = interface;
        if !up {
            let mend = format!("`ip link set {name} up`, or admin_state_up of its Neutron port");
            return Some(Finding::failure(name, "is down", mend));
        }
        runs(name, standing(name), *xdp)
    });
    missing.chain(found).collect()
}

fn runs(name: &str, standing: Option<&Standing>, xdp: Option<Mode>) -> Option<Finding> {
    let off = format!("`ip link set dev {name} xdp off`, where nothing else needs that program");
    Some(match (standing, xdp) {
        (Some(Standing::Missing), None) => return None,
        (Some(Standing::Attached { .. }), Some(Mode::Native)) => Finding::ok(name, "native mode"),
        (Some(Standing::Attached { refused, .. }), Some(Mode::Generic)) => {
            let why = refused.as_deref().unwrap_or("as an earlier start left it");
            let found = format!("generic mode, which is slower: {why}");
            let mend = "what is said of its driver, queues, offloads and MTU; then another start";
            Finding::warning(name, found, mend)
        }
        (Some(Standing::Attached { .. }), None) => {
            let mend = "`systemctl restart amphora-agent`, or `xdp-lb run` again";
            Finding::failure(name, "the program was taken off", mend)
        }
        (Some(Standing::Failed { why }), Some(_)) => {
            Finding::failure(name, format!("not attached: {why}"), off)
        }
        (Some(Standing::Failed { why }), None) => {
            let mend = "what is said of its driver, queues, offloads and MTU";
            Finding::failure(name, format!("not attached: {why}"), mend)
        }
        (None | Some(Standing::Missing), Some(_)) => {
            Finding::failure(name, "another XDP program is attached", off)
        }
        (None, None) => Finding::note(name, "nothing is attached, for nothing has been started"),
    })
}

pub fn queues(facts: &Facts) -> Vec<Finding> {
    each(facts, |interface| {
        let Interface { name, .. } = interface;
        let Some(channels) = interface.channels else {
            return Some(Finding::note(name, "the driver does not tell of its queues"));
        };
        let Cpus { possible, online } = facts.cpus;
        let Count { now, max } = channels.receiving();
        let virtio = interface.driver.as_deref() == Some("virtio_net");
        if virtio && now + possible > max && facts.kernel.version() < SHARES_QUEUES {
            let found = format!(
                "{max} pairs of queues, and {} are wanted, {now} and one for each of {possible} CPUs: \
                 native mode is refused (\"Too few free TX rings\")",
                now + possible
            );
            return Some(Finding::warning(name, found, fewer(name, max, possible)));
        }
        let queues = if now == 1 { "1 queue".to_owned() } else { format!("{now} queues") };
        let few = || format!("{queues} for {online} CPUs: the others do not forward");
        Some(if now < max.min(online) {
            let found = format!("{now} of {max} queues used: {online} CPUs could forward");
            Finding::warning(name, found, more(name, channels, max.min(online)))
        } else if virtio && now < online {
            Finding::warning(name, few(), MULTIQUEUE)
        } else if now < online {
            Finding::note(name, few())
        } else {
            Finding::ok(name, format!("{queues} for {online} CPUs"))
        })
    })
}

/// Queues are left to send by where fewer receive, if that is enough.
fn fewer(name: &str, max: u32, possible: u32) -> String {
    match max.checked_sub(possible) {
        Some(now @ 1..) => format!("`ethtool -L {name} combined {now}`"),
        Some(0) | None => format!("a kernel from 5.13 on, which shares them; or {MULTIQUEUE}"),
    }
}

fn more(name: &str, channels: Channels, queues: u32) -> String {
    if channels.combined.max > 0 {
        format!("`ethtool -L {name} combined {queues}`")
    } else {
        format!("`ethtool -L {name} rx {queues} tx {}`", queues.min(channels.tx.max))
    }
}

pub fn offloads(facts: &Facts) -> Vec<Finding> {
    each(facts, |Interface { name, virtio, offloads, .. }| {
        let merges = |features: u64| features & (GUEST_MERGES | GUEST_CSUM) != 0;
        Some(match virtio {
            Some(features) if merges(*features) && features & CTRL_GUEST_OFFLOADS == 0 => {
                let found = "the host merges frames or leaves checksums open for the guest, and lets \
                             nobody turn that off: native mode is refused";
                let mend = "Neutron: a port of vhost-net instead of vhost-user or vDPA \
                            (binding:vif_type, binding:vnic_type), whose host offers \
                            VIRTIO_NET_F_CTRL_GUEST_OFFLOADS";
                Finding::warning(name, found, mend)
            }
            Some(features) if features & MRG_RXBUF != 0 && features & ANY_LAYOUT == 0 => {
                let found =
                    "the host is of a virtio that parts header and data: native mode is refused";
                let mend = "Glance: a machine type of this decade, `openstack image set --property \
                            hw_machine_type=q35 IMAGE`";
                Finding::warning(name, found, mend)
            }
            _ if offloads.contains("rx-lro") => {
                let found = "LRO is on: the driver hands over frames that are none";
                Finding::warning(name, found, format!("`ethtool -K {name} lro off`"))
            }
            Some(features) if merges(*features) => {
                Finding::ok(name, "the host's are turned off while the program is attached")
            }
            Some(_) | None => Finding::ok(name, "none in the way"),
        })
    })
}

pub fn mtu(facts: &Facts) -> Vec<Finding> {
    let mut findings = each(facts, |Interface { name, mtu, .. }| {
        Some(if *mtu > NATIVE_MTU_MAX {
            let found = format!("{mtu}: a frame does not fit one page, so native mode is refused");
            let mend = format!(
                "Neutron: `openstack network set --mtu 1500 NETWORK` (at most {NATIVE_MTU_MAX}); at \
                 once, `ip link set {name} mtu {NATIVE_MTU_MAX}`"
            );
            Finding::warning(name, found, mend)
        } else {
            Finding::ok(name, mtu.to_string())
        })
    });
    let interfaces = facts.network.iter().flat_map(|network| &network.interfaces);
    let mtus: BTreeSet<u32> = interfaces.map(|it| it.mtu).collect();
    if let (Some(least), Some(most), 2..) = (mtus.first(), mtus.last(), mtus.len()) {
        let found =
            format!("{least} to {most}: frames above {least} are dropped in between, without ICMP");
        let mend =
            format!("one for all: `openstack network set --mtu {least} NETWORK`, then failover");
        findings.push(Finding::warning("", found, mend));
    }
    findings
}

/// What only shows in what came.
pub fn checksums(facts: &Facts) -> Vec<Finding> {
    if !facts.partial_checksums {
        return Vec::new();
    }
    let found = "frames came with partial checksums, which their receivers refuse";
    let mend = "transmit checksum offload off at endpoints on this machine: `ethtool -K <interface> tx off`";
    vec![Finding::failure("", found, mend)]
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Note, Ok, Warning};
    use super::super::facts::tests::{inside, said, well};
    use super::*;
    use crate::record;

    fn change(change: impl Fn(&mut Interface)) -> Facts {
        let mut facts = well();
        inside(&mut facts).interfaces.iter_mut().for_each(change);
        facts
    }

    #[test]
    fn drivers() {
        let rows = [
            (Some("virtio_net"), Ok, "native"),
            (Some("e1000"), Warning, "hw_vif_model=virtio"),
            (Some("8139cp"), Warning, "hw_vif_model=virtio"),
            (Some("igb"), Note, "seen when attached"),
            (None, Note, "not known"),
        ];
        for (name, level, words) in rows {
            let facts = change(|it| it.driver = name.map(str::to_owned));
            said(&driver(&facts), &[(level, "eth1", words)], words);
        }
        assert!(NATIVE.iter().all(|it| !EMULATED.contains(it)));
    }

    #[test]
    fn attachments() {
        use Standing::{Failed, Missing};
        let attached_in = |mode, refused: Option<&str>| {
            Some(Standing::Attached { ifindex: 2, mode, refused: refused.map(str::to_owned) })
        };
        let failed = || Some(Failed { why: "eth1: busy".to_owned() });
        let (native, generic) = (Some(Mode::Native), Some(Mode::Generic));
        let rows = [
            ("well", attached_in(Mode::Native, None), true, native, Some((Ok, "native"))),
            (
                "generic",
                attached_in(Mode::Generic, Some("too few queues")),
                true,
                generic,
                Some((Warning, "too few queues")),
            ),
            ("taken off", attached_in(Mode::Native, None), true, None, Some((Failure, "restart"))),
            ("another's", failed(), true, native, Some((Failure, "xdp off"))),
            ("refused", failed(), true, None, Some((Failure, "eth1: busy"))),
            ("another's, before a start", None, true, generic, Some((Failure, "another XDP"))),
            ("not started", None, true, None, Some((Note, "nothing is attached"))),
            (
                "down",
                attached_in(Mode::Native, None),
                false,
                native,
                Some((Failure, "ip link set")),
            ),
        ];
        for (row, standing, up, xdp, want) in rows {
            let mut facts = change(|it| (it.up, it.xdp) = (up, xdp));
            facts.record_interfaces(
                standing.map(|standing| record::Interface { name: "eth1".to_owned(), standing }),
            );
            let want: Vec<_> = want.iter().map(|(level, words)| (*level, "eth1", *words)).collect();
            said(&attached(&facts), &want, row);
        }
        let mut facts = well();
        let gone = record::Interface { name: "eth2".to_owned(), standing: Missing };
        facts.record_interfaces(Some(gone));
        inside(&mut facts).interfaces.clear();
        said(&attached(&facts), &[(Failure, "eth2", "no such interface")], "gone");
    }

    #[test]
    fn queues_against_cpus() {
        let combined =
            |now, max| Some(Channels { combined: Count { now, max }, ..Channels::default() });
        let apart = |now, max| {
            let count = Count { now, max };
            Some(Channels { rx: count, tx: count, ..Channels::default() })
        };
        let both = "hw_vif_multiqueue_enabled=true";
        let rows = [
            ("one each", "virtio_net", "6.1", combined(4, 4), Ok, "4 queues for 4 CPUs"),
            ("one for all", "virtio_net", "6.1", combined(1, 1), Warning, both),
            (
                "the flavour says it too",
                "virtio_net",
                "6.1",
                combined(1, 1),
                Warning,
                "hw:vif_multi",
            ),
            ("unused", "virtio_net", "6.1", combined(1, 4), Warning, "ethtool -L eth1 combined 4"),
            ("fewer than CPUs", "virtio_net", "6.1", combined(2, 2), Warning, both),
            (
                "an old kernel",
                "virtio_net",
                "5.12",
                combined(4, 4),
                Warning,
                "Too few free TX rings",
            ),
            ("with some to spare", "virtio_net", "5.12", combined(4, 6), Warning, "combined 2"),
            ("and enough", "virtio_net", "5.12", combined(4, 8), Ok, "4 queues"),
            ("rx and tx apart", "veth", "6.1", apart(1, 2), Warning, "ethtool -L eth1 rx 2 tx 2"),
            ("no more to be had", "veth", "6.1", apart(1, 1), Note, "1 queue for 4 CPUs"),
            ("not told", "tun", "6.1", None, Note, "does not tell"),
        ];
        for (row, driver, release, channels, level, words) in rows {
            let mut facts = change(|it| {
                it.driver = Some(driver.to_owned());
                it.channels = channels;
            });
            facts.kernel.release = release.to_owned();
            facts.cpus = Cpus { possible: 4, online: 4 };
            said(&queues(&facts), &[(level, "eth1", words)], row);
        }
    }

    #[test]
    fn offloads_of_hosts() {
        let tso = 1 << 7;
        let modern = 1 << 32;
        let rows = [
            ("none", Some(modern), &[][..], Ok, "none in the way"),
            ("can be turned off", Some(tso | CTRL_GUEST_OFFLOADS | modern), &[], Ok, "turned off"),
            ("cannot", Some(tso | modern), &[], Warning, "binding:vif_type"),
            ("checksums neither", Some(GUEST_CSUM | modern), &[], Warning, "GUEST_OFFLOADS"),
            ("USO neither", Some((1 << 54) | modern), &[], Warning, "GUEST_OFFLOADS"),
            ("an old virtio", Some(MRG_RXBUF), &[], Warning, "hw_machine_type"),
            ("merged buffers, and well", Some(MRG_RXBUF | modern), &[], Ok, "none"),
            ("LRO", None, &["rx-lro"], Warning, "ethtool -K eth1 lro off"),
            ("GRO is the kernel's", None, &["rx-gro"], Ok, "none"),
        ];
        for (row, virtio, on, level, words) in rows {
            let facts = change(|it| {
                it.virtio = virtio;
                it.offloads = on.iter().map(|&it| it.to_owned()).collect();
            });
            said(&offloads(&facts), &[(level, "eth1", words)], row);
        }
    }

    #[test]
    fn mtus() {
        let mend = "openstack network set --mtu";
        let rows: [(&[u32], &[_]); 4] = [
            (&[1500], &[(Ok, "eth1", "1500")]),
            (&[3506], &[(Ok, "eth1", "3506")]),
            (&[9000], &[(Warning, "eth1", mend)]),
            (
                &[1500, 1450],
                &[(Ok, "eth1", "1500"), (Ok, "eth2", "1450"), (Warning, "", "1450 to 1500")],
            ),
        ];
        for (mtus, want) in rows {
            let mut facts = well();
            let numbered = mtus.iter().zip(1..);
            let interface = |(mtu, number): (&u32, u8)| Interface {
                name: format!("eth{number}"),
                mtu: *mtu,
                ..Interface::default()
            };
            inside(&mut facts).interfaces = numbered.map(interface).collect();
            said(&mtu(&facts), want, &format!("{mtus:?}"));
        }
    }

    #[test]
    fn partial_checksums() {
        let mut facts = well();
        said(&checksums(&facts), &[], "well");
        facts.partial_checksums = true;
        said(&checksums(&facts), &[(Failure, "", "ethtool -K <interface> tx off")], "partial");
    }
}
