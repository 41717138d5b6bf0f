//! Interfaces plugged into a namespace, as the kernel has them afterwards.
//!
//! The library runs on a thread in a namespace that stands for that of the management network. What
//! Nova plugs in is a veth, whose other end is in a third namespace.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod plug;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use agent_api::amphora::{Failed, PlugError, Plugged};
use agent_api::config::Topology;
use agent_api::document::Plugs;
use plug::{Bench, Capture, Event, Request, Vector, check, ip, ip_in, json, remove, set};
use xdp_lb::namespace::Namespace;
use xdp_lb::plug::{Nics, announce};

const VIP_MAC: &str = "fa:16:3e:00:00:01";
const MEMBER_MAC: &str = "fa:16:3e:00:00:02";

#[test]
fn edge_42_45_46_48_every_vector_is_as_the_stock_agent_has_it() {
    let vectors = Vector::all();
    assert_eq!(vectors.len(), 22);
    // Most of the time is the kernel's, which asks for duplicates of IPv6 addresses.
    thread::scope(|scope| {
        for quarter in vectors.chunks(6) {
            scope.spawn(move || quarter.iter().for_each(plug_vector));
        }
    });
}

fn plug_vector(vector: &Vector) {
    let name = &vector.name;
    let bench = Bench::new();
    bench.nova("ens7", &vector.mac());
    let interface = vector.file["name"].as_str().unwrap();
    assert_eq!(vector.plug(&bench), Ok(Plugged::New(interface.to_owned())), "{name}");
    check(&bench, vector);

    let mut events = bench.events();
    let again = match &vector.request {
        Request::Vip(_) => Err(PlugError::Exists),
        Request::Network(_) => Ok(Plugged::Updated(interface.to_owned())),
    };
    assert_eq!(vector.plug(&bench), again, "{name}");
    assert_eq!(events.heard(), [], "{name}: nothing is to be changed");
    check(&bench, vector);
}

#[test]
fn edge_07_44_only_differences_are_applied() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    let vip = Vector::named("vip_v4_SINGLE");
    let members = Vector::named("network_on_vip_port_SINGLE");
    vip.plug(&bench).unwrap();

    let mut events = bench.events();
    assert_eq!(members.plug(&bench), Ok(Plugged::Updated("eth1".to_owned())));
    check(&bench, &members);
    let heard = events.heard();
    assert!(heard.contains(&Event::NewAddress) && heard.contains(&Event::NewRoute), "{heard:?}");
    let added = |event: &Event| matches!(event, Event::NewAddress | Event::NewRoute);
    assert!(heard.iter().all(added), "{heard:?}");

    // What members brought in the meantime stays, and so does the answer.
    assert_eq!(vip.plug(&bench), Err(PlugError::Exists));
    assert_eq!(events.heard(), []);

    // A member's network has gone; the VIP has not been touched.
    let Request::Network(mut fewer) = members.request.clone() else { panic!("a network") };
    fewer.addresses.as_mut().unwrap().truncate(1);
    bench.plug_network(&fewer, Topology::Single).unwrap();
    check(&bench, &vip);
    let heard = events.heard();
    let removed = |event: &Event| matches!(event, Event::DelAddress | Event::DelRoute);
    assert!(!heard.is_empty() && heard.iter().all(removed), "{heard:?}");

    // A controller that says nothing of the VIPs does not mean that they shall go.
    fewer.vip = None;
    bench.plug_network(&fewer, Topology::Single).unwrap();
    assert_eq!(events.heard(), []);
}

#[test]
fn an_address_takes_no_other_of_its_subnet_with_it() {
    let bench = Bench::new();
    bench.nova("ens8", MEMBER_MAC);
    let Request::Network(mut plug) = Vector::named("network_v4").request else { panic!() };
    let second = {
        let mut second = plug.addresses.clone().unwrap().remove(0);
        second.address = ip("10.1.0.6");
        second
    };
    plug.addresses.as_mut().unwrap().push(second);
    bench.plug_network(&plug, Topology::Single).unwrap();
    plug.addresses.as_mut().unwrap().remove(0);
    bench.plug_network(&plug, Topology::Single).unwrap();
    assert_eq!(bench.addresses("eth2"), set(["10.1.0.6/24"]));
}

#[test]
fn another_gateway_replaces_the_old_one() {
    for (vector, gateway) in [("vip_v4_SINGLE", "10.0.0.2"), ("vip_v6_SINGLE", "2001:db8::2")] {
        let bench = Bench::new();
        bench.nova("ens7", VIP_MAC);
        let Request::Vip(mut vip) = Vector::named(vector).request else { panic!() };
        bench.plug_vip(&vip, Topology::Single).unwrap();
        vip.vips[0].gateway = Some(ip(gateway));
        // What a restart does with an interface that is there.
        let plugs = Plugs { vip: Some(vip), ..Plugs::default() };
        bench.restore(&plugs, Topology::Single).unwrap();
        let gateways = bench.routes("eth1").into_iter().filter(|route| route.gateway.is_some());
        let gateways: Vec<_> = gateways.map(|route| (route.table, route.gateway)).collect();
        let want = |table: &str| (table.to_owned(), Some(ip(gateway)));
        assert_eq!(gateways, [want("1"), want("main")]);
    }
}

#[test]
fn edge_08_not_there_yet() {
    let bench = Bench::new();
    let vip = Vector::named("vip_v4_SINGLE");
    assert_eq!(vip.plug(&bench), Err(PlugError::NotFound));
    assert_eq!(fs::read_to_string(bench.places().pci_rescan).unwrap(), "1");
    assert_eq!(Vector::named("network_v4").plug(&bench), Err(PlugError::NotFound));
    bench.nova("ens7", VIP_MAC);
    assert_eq!(vip.plug(&bench), Ok(Plugged::New("eth1".to_owned())));
}

#[test]
fn edge_43_one_goes_and_another_takes_its_name() {
    let bench = Bench::new();
    let new = |name: &str| Ok(Plugged::New(name.to_owned()));
    let Request::Network(plug) = Vector::named("network_v4").request else { panic!() };
    let of = |last: u8| {
        let mut plug = plug.clone();
        plug.mac.0[5] = last;
        let octets = [10, last, 0, 5];
        let own = &mut plug.addresses.as_mut().unwrap()[0];
        own.address = octets.into();
        own.subnet = format!("10.{last}.0.0/24").parse().unwrap();
        plug
    };
    for (last, name) in [(2, "eth2"), (3, "eth3")] {
        bench.nova(&format!("ens{last}"), &of(last).mac.to_string());
        assert_eq!(bench.plug_network(&of(last), Topology::Single), new(name));
    }
    bench.ip_inside("link delete eth2");
    bench.nova("ens4", &of(4).mac.to_string());
    assert_eq!(bench.plug_network(&of(4), Topology::Single), new("eth2"));
    assert_eq!(bench.addresses("eth2"), set(["10.4.0.5/24"]));
    assert_eq!(bench.names(), "fa:16:3e:00:00:03 eth3\nfa:16:3e:00:00:04 eth2\n");

    // What the controller has forgotten to mention stays, and one that is gone is no error.
    let networks = [2, 3, 4].map(|last| (of(last).mac, of(last))).into();
    let mut events = bench.events();
    bench.restore(&Plugs { networks, ..Plugs::default() }, Topology::Single).unwrap();
    assert_eq!(events.heard(), []);
}

#[test]
fn a_name_that_is_taken_is_told() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    let vip = Vector::named("vip_v4_SINGLE");
    vip.plug(&bench).unwrap();
    let Request::Vip(mut other) = vip.request.clone() else { panic!() };
    other.mac = MEMBER_MAC.parse().unwrap();
    bench.nova("ens8", MEMBER_MAC);
    let why = format!("{MEMBER_MAC} cannot become eth1: {VIP_MAC} has that name");
    let taken = bench.plug_vip(&other, Topology::Single);
    assert_eq!(taken, Err(PlugError::Failed(Failed(why))));
    check(&bench, &vip);
}

#[test]
fn a_plug_that_was_cut_short_is_completed() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    let vip = Vector::named("vip_v4_SINGLE");
    bench.outside.enter(|| drop(Namespace::open_or_make(&bench.inside).unwrap())).unwrap();
    bench.ip_outside(&format!("link set ens7 netns {} name eth1", bench.inside));
    assert_eq!(vip.plug(&bench), Err(PlugError::Exists));
    check(&bench, &vip);
}

#[test]
fn edge_47_a_restart_changes_nothing_and_finds_everything() {
    let bench = Bench::new();
    let (plugs, vectors) = plugged(&bench);
    let mut events = bench.events();
    bench.restore(&plugs, Topology::Single).unwrap();
    let (found, traffic) = bench.run(async |nics: &Nics| {
        let mut found = Vec::new();
        for address in ["10.0.0.11", "10.0.0.10", "10.1.0.5", "2001:db8:1::5", "10.0.0.99"] {
            found.push(nics.interface(ip(address)).await.unwrap());
        }
        (found, nics.traffic().await.unwrap())
    });
    assert_eq!(events.heard(), []);
    let eth = |number| Some(format!("eth{number}"));
    assert_eq!(found, [eth(1), eth(1), eth(2), eth(2), None]);
    assert_eq!(traffic.keys().collect::<Vec<_>>(), ["eth1", "eth2"]);
    // The IPv6 stack has asked for duplicates, at least.
    assert!(traffic.values().all(|traffic| traffic.network_tx > 0), "{traffic:?}");
    vectors.iter().for_each(|vector| check(&bench, vector));
}

#[test]
fn edge_60_a_reboot_brings_back_names_and_addresses() {
    let bench = Bench::new();
    let (mut plugs, vectors) = plugged(&bench);
    // A third one, which will be there under its name though the second one is gone.
    let Request::Network(mut third) = Vector::named("network_dhcp").request else { panic!() };
    third.mac = "fa:16:3e:00:00:03".parse().unwrap();
    bench.nova("ens9", &third.mac.to_string());
    bench.plug_network(&third, Topology::Single).unwrap();
    plugs.networks.insert(third.mac, third);

    for (inside, outside) in [("eth1", "eth2"), ("eth3", "eth1")] {
        bench
            .ip_inside(&format!("link set {inside} netns {} name {outside}", bench.outside.name()));
    }
    remove(&bench.inside);
    bench.restore(&plugs, Topology::Single).unwrap();
    check(&bench, &vectors[0]);
    let links: BTreeSet<_> = bench.links().into_iter().collect();
    assert_eq!(links, set(["eth1", "eth3", "lo"]));

    // And the second one, when it is back.
    bench.nova("ens8", MEMBER_MAC);
    bench.restore(&plugs, Topology::Single).unwrap();
    vectors.iter().for_each(|vector| check(&bench, vector));
}

#[test]
fn edge_46_what_is_keepaliveds_is_left_to_keepalived() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    let vip = Vector::named("vip_v4_add_v6_ACTIVE_STANDBY");
    vip.plug(&bench).unwrap();
    // As keepalived adds them when this amphora becomes the master.
    for line in [
        "address add 10.0.0.10/32 dev eth1",
        "address add 2001:db8::10/128 dev eth1 nodad",
        "route add 10.0.0.0/24 dev eth1 src 10.0.0.10 scope link table 1 protocol 18",
        "route add default via 10.0.0.1 dev eth1 onlink table 1 protocol 18",
        "-6 route add default via 2001:db8::1 dev eth1 onlink table 1 protocol 18",
        "rule add from 10.0.0.10 table 1 priority 100 protocol 18",
        "-6 rule add from 2001:db8::10 table 1 priority 100 protocol 18",
    ] {
        bench.ip_inside(line);
    }
    let mut events = bench.events();
    let Request::Vip(plug) = &vip.request else { panic!() };
    let plugs = Plugs { vip: Some(plug.clone()), ..Plugs::default() };
    bench.restore(&plugs, Topology::ActiveStandby).unwrap();
    assert_eq!(vip.plug(&bench), Err(PlugError::Exists));
    assert_eq!(events.heard(), []);
    assert_eq!(bench.rules(), set(["10.0.0.10", "2001:db8::10"]));
}

#[test]
fn edge_48_an_address_that_somebody_else_has() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    let peer = |line: &str| ip_in(bench.peer.name(), line);
    peer("address add 2001:db8::10/64 dev p-ens7 nodad");
    let vip = Vector::named("vip_v6_SINGLE");
    let Err(PlugError::Failed(Failed(why))) = vip.plug(&bench) else { panic!("it is taken") };
    let want = "eth1: somebody else has 2001:db8::10 (duplicate address detection)";
    assert_eq!(why, want);

    peer("address delete 2001:db8::10/64 dev p-ens7");
    assert_eq!(vip.plug(&bench), Err(PlugError::Exists));
    check(&bench, &vip);
}

#[test]
fn neighbours_are_told() {
    let bench = Bench::new();
    bench.nova("ens7", VIP_MAC);
    bench.nova("ens8", MEMBER_MAC);
    let mut wire = Capture::new(&bench.peer);
    let (vip, members) = (Vector::named("vip_v4_add_v6_SINGLE"), Vector::named("network_dual"));
    vip.plug(&bench).unwrap();
    members.plug(&bench).unwrap();
    for address in ["10.1.0.5", "2001:db8:1::5"] {
        wire.wait_for(&announce::frame(members.mac().parse().unwrap(), ip(address)).unwrap());
    }
    let vips = ["10.0.0.10", "2001:db8::10"].map(ip);
    // One that is not here is none of ours to tell of.
    let told = [vips[0], vips[1], ip("10.0.0.77")];
    bench.run(async |nics: &Nics| nics.announce(&told).await);
    for address in vips {
        wire.wait_for(&announce::frame(vip.mac().parse().unwrap(), address).unwrap());
    }
}

#[test]
fn a_namespace_is_made_once_and_mended() {
    let bench = Bench::new();
    let path = PathBuf::from("/run/netns").join(&bench.inside);
    // As a crash leaves it between two steps.
    fs::write(&path, "").unwrap();
    let made = Namespace::open_or_make(&bench.inside).unwrap();
    let own = |namespace: &Namespace| {
        namespace.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap()
    };
    let opened = Namespace::open_or_make(&bench.inside).unwrap();
    assert_eq!(own(&made), own(&opened));
    assert_ne!(own(&made), fs::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(own(&made.try_clone().unwrap()), own(&made));

    let sysctls = made.enter(|| {
        ["ipv4/ip_nonlocal_bind", "ipv6/ip_nonlocal_bind", "ipv4/ping_group_range"]
            .map(|key| fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap())
    });
    assert_eq!(sysctls.unwrap().map(|value| value.trim().to_owned()), ["1", "1", "0\t2147483647"]);
    let lo = json(&bench.inside, &["link", "show", "lo"]);
    assert!(lo[0]["flags"].as_array().unwrap().contains(&"UP".into()), "{lo}");

    // Names of `ip netns` alike: it can remove what is made here.
    drop((made, opened));
    remove(&bench.inside);
    assert!(!path.exists());
}

/// VIP and members, both families.
fn plugged(bench: &Bench) -> (Plugs, [Vector; 2]) {
    let vectors = ["vip_v4_add_v6_SINGLE", "network_dual"].map(Vector::named);
    let mut plugs = Plugs::default();
    for (vector, outside) in vectors.iter().zip(["ens7", "ens8"]) {
        bench.nova(outside, &vector.mac());
        vector.plug(bench).unwrap();
        match vector.request.clone() {
            Request::Vip(plug) => plugs.vip = Some(plug),
            Request::Network(plug) => drop(plugs.networks.insert(plug.mac, plug)),
        }
    }
    (plugs, vectors)
}
