//! The path in the kernel: the object, on maps of its own, run by `BPF_PROG_TEST_RUN`.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use aya::maps::{
    Array, DevMapHash, HashMap, LpmTrie, Map, MapData, PerCpuArray, ProgramArray, lpm_trie,
};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use socket2::Socket;
use xdp_lb::reset::reset;
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::abi::{Backend, Listener, ListenerKey, NetworkKey};
use zerocopy::transmute;

use super::frames::frame::Mac;
use super::frames::world::{
    Flow, Held, INTERFACES, Machine, Outcome, SEEDS, SERVICES, SOURCE_PORTS, Verdict,
};
use super::mapped::MappedFlows;
use super::sockets;

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/xdp-lb.bpf.o");

/// In the order of `path::Stage`.
pub const PROGRAMS: [&str; 10] = [
    "xdp_lb",
    "xdp_lb_select4",
    "xdp_lb_select6",
    "xdp_lb_open4",
    "xdp_lb_open6",
    "xdp_lb_icmp4",
    "xdp_lb_icmp6",
    "xdp_lb_follow",
    "xdp_lb_answer",
    "xdp_lb_tell",
];

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

pub struct Kernel {
    pub object: Ebpf,
    /// As they stood after the last frame.
    reasons: Vec<u64>,
    /// Holds the stages: the kernel empties an array that nobody holds.
    _stages: ProgramArray<MapData>,
    /// Of the row at hand.
    sockets: Vec<Socket>,
}

impl Kernel {
    /// Loads the object in a network namespace of this thread's own, with the table's interfaces, and
    /// `flows` slots for each family.
    pub fn new(flows: u32) -> Self {
        Self::telling(flows, 0)
    }

    /// One that tells of frames at this level, to nobody.
    pub fn telling(flows: u32, level: u8) -> Self {
        assert!(Uid::effective().is_root(), "the kernel tests need root: see `cargo xtask test`");
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace for this thread");
        for (ifindex, _) in INTERFACES {
            let (index, name) = (ifindex.to_string(), format!("wire{ifindex}"));
            let peer = format!("peer{ifindex}");
            let added = Command::new("ip")
                .args([
                    "link", "add", &name, "index", &index, "type", "veth", "peer", "name", &peer,
                ])
                .status();
            assert!(added.is_ok_and(|status| status.success()), "ip link add {name}");
        }
        sockets::own_all_addresses();
        let bytes = fs::read(OBJECT)
            .unwrap_or_else(|error| panic!("{OBJECT}: {error}: run `cargo xtask build-ebpf`"));
        let (mask, entries) = (flows - 1, SERVICES.len() as u32 * 8);
        let (low, span) = (u32::from(SOURCE_PORTS.0), u32::from(SOURCE_PORTS.1));
        let mut loader = EbpfLoader::new();
        for (name, entries) in [
            ("FLOWS4", flows),
            ("FLOWS6", flows),
            ("BACKENDS", entries),
            ("BACKEND_LOAD", entries),
            ("BACKEND_COUNTERS", entries),
            ("RING", entries),
            ("STICKY", 64),
            ("FRAGMENTS", 64),
        ] {
            loader.map_max_entries(name, entries);
        }
        let mut object = loader
            .override_global("AYA_LOG_LEVEL", &level, true)
            .override_global("FLOWS4_MASK", &mask, true)
            .override_global("FLOWS6_MASK", &mask, true)
            .override_global("HASH_SEED0", &SEEDS[0], true)
            .override_global("HASH_SEED1", &SEEDS[1], true)
            .override_global("SNAT_LOW", &low, true)
            .override_global("SNAT_SPAN", &span, true)
            .load(&bytes)
            .expect("the object loads");
        let mut stages = ProgramArray::try_from(object.take_map("STAGES").unwrap()).unwrap();
        for (stage, name) in PROGRAMS.into_iter().enumerate() {
            let program: &mut Xdp = object.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
            stages.set(stage as u32, program.fd().unwrap(), 0).unwrap();
        }
        Self { object, reasons: vec![0; Reason::ALL.len()], _stages: stages, sockets: Vec::new() }
    }

    fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.object.map_mut(name).unwrap()).unwrap()
    }

    fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.object.map_mut(name).unwrap()).unwrap()
    }

    fn fill<V: Pod>(&mut self, name: &str, value: V) {
        let mut array = self.array::<V>(name);
        for index in 0..array.len() {
            array.set(index, value, 0).unwrap();
        }
    }

    fn empty<K: Pod, V: Pod>(&mut self, name: &str) {
        let mut hash = self.hash::<K, V>(name);
        for key in hash.keys().map(Result::unwrap).collect::<Vec<_>>() {
            hash.remove(&key).unwrap();
        }
    }

    /// What becomes of a frame; on the CPU that the caller runs on.
    pub fn run(&self, by: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index and
        // egress_ifindex.
        let context = [0, frame.len() as u32, 0, by, 0, 0].map(u32::to_ne_bytes);
        let mut out = vec![0; 4096];
        let program: &Xdp = self.object.program(PROGRAMS[0]).unwrap().try_into().unwrap();
        let ran = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(context.as_flattened()),
                ..TestRunOptions::default()
            })
            .unwrap_or_else(|error| panic!("{} bytes: {error:?}", frame.len()));
        out.truncate(ran.data_size_out as usize);
        let verdict = match ran.return_value {
            XDP_DROP => Verdict::Drop,
            XDP_PASS => Verdict::Pass,
            XDP_TX => Verdict::Tx,
            // A test run does not say where to: each interface has its own MAC.
            XDP_REDIRECT => {
                let mut by = INTERFACES.into_iter().filter(|(_, mac)| out[6..12] == *mac);
                Verdict::Redirect(by.next().map_or(0, |(ifindex, _)| ifindex))
            }
            other => panic!("XDP action {other}"),
        };
        (verdict, out)
    }

    fn count_reasons(&self) -> Vec<u64> {
        let counts: PerCpuArray<_, u64> = self.object.map("REASONS").unwrap().try_into().unwrap();
        (0..counts.len()).map(|index| counts.get(&index, 0).unwrap().iter().sum()).collect()
    }
}

impl Machine for Kernel {
    fn forget(&mut self) {
        self.fill("FLOWS4", [0u8; 64]);
        self.fill("FLOWS6", [0u8; 128]);
        self.fill("BACKEND_LOAD", 0u32);
        self.fill("FRAGMENT_ID", 0u32);
        for index in 0..SERVICES.len() as u32 {
            self.array::<u32>("CURSORS").set(index, 0u32, 0).unwrap();
            self.array::<u32>("LISTENER_LOAD").set(index, 0u32, 0).unwrap();
        }
        self.empty::<[u8; 20], [u8; 12]>("STICKY");
        self.empty::<[u8; 40], [u8; 64]>("FRAGMENTS");
        self.sockets.clear();
    }
    fn set_clock(&mut self, now_s: u32) {
        self.array::<u32>("CLOCK").set(0, now_s, 0).unwrap();
    }
    fn set_interface(&mut self, ifindex: u32, mac: Mac) {
        let mut ports: DevMapHash<_> = self.object.map_mut("PORTS").unwrap().try_into().unwrap();
        ports.insert(ifindex, ifindex, None, 0).unwrap();
        let mut padded = [0u8; 8];
        padded[..6].copy_from_slice(&mac);
        self.hash::<u32, [u8; 8]>("PORT_MACS").insert(ifindex, padded, 0).unwrap();
    }
    fn set_listener(&mut self, key: &ListenerKey, listener: &Listener) {
        let key: [u8; size_of::<ListenerKey>()] = transmute!(*key);
        let listener: [u8; size_of::<Listener>()] = transmute!(*listener);
        self.hash::<[u8; size_of::<ListenerKey>()], [u8; size_of::<Listener>()]>("LISTENERS")
            .insert(key, listener, 0)
            .unwrap();
    }
    fn remove_listener(&mut self, key: &ListenerKey) {
        let key: [u8; size_of::<ListenerKey>()] = transmute!(*key);
        self.hash::<[u8; size_of::<ListenerKey>()], [u8; size_of::<Listener>()]>("LISTENERS")
            .remove(&key)
            .unwrap();
    }
    fn set_ring(&mut self, at: u32, backend: u32) {
        self.array::<u32>("RING").set(at, backend, 0).unwrap();
    }
    fn set_backend(&mut self, id: u32, backend: &Backend) {
        let backend: [u8; size_of::<Backend>()] = transmute!(*backend);
        self.array::<[u8; size_of::<Backend>()]>("BACKENDS").set(id, backend, 0).unwrap();
    }
    fn set_network(&mut self, bits: u32, network: &NetworkKey) {
        let key: [u8; size_of::<NetworkKey>()] = transmute!(*network);
        let mut networks: LpmTrie<_, [u8; size_of::<NetworkKey>()], u32> =
            self.object.map_mut("NETWORKS").unwrap().try_into().unwrap();
        networks.insert(&lpm_trie::Key::new(bits, key), 1, 0).unwrap();
    }
    fn end_flows(&mut self, backends: &BTreeSet<u32>) {
        reset(&MappedFlows::of(&self.object), backends);
    }
    fn open_socket(&mut self, flow: &Flow, held: Held) {
        self.sockets.extend(sockets::open(flow, held));
    }
    fn send(&mut self, by: u32, frame: &[u8]) -> Outcome {
        let (verdict, out) = self.run(by, frame);
        let after = self.count_reasons();
        let before = std::mem::replace(&mut self.reasons, after.clone());
        let moved = after.iter().zip(before).map(|(after, before)| after - before);
        let reasons = Reason::ALL
            .iter()
            .zip(moved)
            .flat_map(|(reason, moved)| vec![*reason; moved as usize])
            .collect();
        Outcome { verdict, frame: out, reasons }
    }
}

/// BTF ids of a map's key and value; zero for none.
pub fn type_ids(map: &Map) -> (u32, u32) {
    /// `struct bpf_map_info` up to what is asked for.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        /// Type, id, sizes, entries, flags, name, interface, kernel type.
        _head: [u32; 12],
        _netns: [u64; 2],
        _btf: u32,
        key: u32,
        value: u32,
    }
    #[repr(C)]
    struct Attributes {
        fd: u32,
        length: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

    let data = match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data) => data,
        other => panic!("{other:?} is no map of the path"),
    };
    let mut info = Info::default();
    let attributes = Attributes {
        fd: data.fd().as_fd().as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel reads `attributes` and writes at most `length` bytes to `info`; both live.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    (info.key, info.value)
}
