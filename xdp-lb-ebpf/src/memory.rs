//! The maps as plain memory: what the tests of the host run on.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use crate::abi::{
    Backend, BackendCounters, Fragment, FragmentKey, Listener, ListenerCounters, ListenerKey,
    NetworkKey, Sticky, StickyKey,
};
use crate::account::{Account, FlowLogs};
use crate::cell::Word32;
use crate::family::{Address, Key, Slot4, Slot6};
use crate::tables::{Choice, Flows, Sockets, Way};
use crate::{Reason, Tables};

/// Tables that are filled by hand. Everything the path writes is shared between threads.
pub struct Memory {
    pub flows4: Vec<Slot4>,
    pub flows6: Vec<Slot6>,
    pub accounts4: Vec<Account>,
    pub flow_logs: Vec<FlowLogs>,
    pub seeds: [u64; 2],
    pub source_ports: (u16, u16),
    pub now_s: Word32,
    pub listeners: HashMap<ListenerKey, Listener>,
    /// Prefix length in bits, as in `NETWORKS`, and the key.
    pub networks: Vec<(u32, NetworkKey)>,
    pub ring: Vec<u32>,
    pub backends: Vec<Backend>,
    pub port_macs: HashMap<u32, [u8; 6]>,
    pub cursors: Vec<Word32>,
    pub listener_loads: Vec<Word32>,
    pub backend_loads: Vec<Word32>,
    pub fragment_id: Word32,
    pub sticky: Mutex<HashMap<StickyKey, Sticky>>,
    pub fragments: Mutex<HashMap<FragmentKey, Fragment>>,
    pub counters: Mutex<Counters>,
    /// What [`Sockets::have`], addresses wide.
    pub sockets: HashSet<Key<[u8; 16]>>,
}

thread_local! {
    /// A thread is a CPU.
    static CHOICE: Cell<Choice> = Cell::default();
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub backends: HashMap<u32, BackendCounters>,
    pub listeners: HashMap<u32, ListenerCounters>,
    pub reasons: HashMap<Reason, u64>,
}

impl Memory {
    /// Empty tables with `flows4` and `flows6` slots (powers of two), room for `listeners` ids and
    /// `backends` ids.
    pub fn new(flows4: u32, flows6: u32, listeners: usize, backends: usize) -> Self {
        fn words(count: usize) -> Vec<Word32> {
            (0..count).map(|_| Word32::default()).collect()
        }
        Self {
            flows4: (0..flows4).map(|_| Slot4::default()).collect(),
            flows6: (0..flows6).map(|_| Slot6::default()).collect(),
            accounts4: (0..flows4).map(|_| Account::default()).collect(),
            flow_logs: (0..listeners).map(|_| FlowLogs::default()).collect(),
            seeds: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211],
            source_ports: (1024, 59976),
            now_s: Word32::new(1000),
            listeners: HashMap::new(),
            networks: Vec::new(),
            ring: Vec::new(),
            backends: vec![Backend::default(); backends],
            port_macs: HashMap::new(),
            cursors: words(listeners),
            listener_loads: words(listeners),
            backend_loads: words(backends),
            fragment_id: Word32::default(),
            sticky: Mutex::default(),
            fragments: Mutex::default(),
            counters: Mutex::default(),
            sockets: HashSet::new(),
        }
    }

    fn counters(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().expect("no test panics while it counts"));
    }
}

impl Flows for Memory {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        self.flows4.get(index as usize)
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        self.flows6.get(index as usize)
    }
    fn account4(&self, index: u32) -> Option<&Account> {
        self.accounts4.get(index as usize)
    }
    fn mask4(&self) -> u32 {
        self.flows4.len() as u32 - 1
    }
    fn mask6(&self) -> u32 {
        self.flows6.len() as u32 - 1
    }
    fn seeds(&self) -> [u64; 2] {
        self.seeds
    }
    fn now_s(&self) -> u32 {
        self.now_s.load()
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        self.listener_loads.get(listener as usize)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        self.backend_loads.get(backend as usize)
    }
    fn count_closed(&self, backend: u32) {
        self.counters(|counters| counters.backends.entry(backend).or_default().closed += 1);
    }
    fn listener_of(&self, backend: u32) -> Option<u32> {
        Some(self.backends.get(backend as usize)?.listener)
    }
    fn flow_logs(&self, listener: u32) -> Option<&FlowLogs> {
        self.flow_logs.get(listener as usize)
    }
}

impl Tables for Memory {
    fn source_ports(&self) -> (u16, u16) {
        self.source_ports
    }
    fn listener(&self, key: &ListenerKey) -> Option<Listener> {
        self.listeners.get(key).copied()
    }
    fn allowed(&self, key: &NetworkKey) -> bool {
        let bits = |key: &NetworkKey, n: u32| {
            let bytes = [&key.listener[..], &key.addr[..]].concat();
            (0..n).map(|bit| bytes[bit as usize / 8] >> (7 - bit % 8) & 1).collect::<Vec<_>>()
        };
        self.networks.iter().any(|(length, network)| bits(network, *length) == bits(key, *length))
    }
    fn ring(&self, index: u32) -> Option<u32> {
        self.ring.get(index as usize).copied()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }
    fn cursor(&self, listener: u32) -> Option<&Word32> {
        self.cursors.get(listener as usize)
    }
    fn choose(&self, change: impl FnOnce(&mut Choice)) {
        let mut choice = CHOICE.get();
        change(&mut choice);
        CHOICE.set(choice);
    }
    fn chosen(&self) -> Choice {
        CHOICE.get()
    }
    fn sticky(&self, key: &StickyKey) -> Option<Sticky> {
        self.sticky.lock().expect("no test panics while it holds this").get(key).copied()
    }
    fn stick(&self, key: &StickyKey, value: &Sticky) {
        self.sticky.lock().expect("no test panics while it holds this").insert(*key, *value);
    }
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.fragments.lock().expect("no test panics while it holds this").get(key).copied()
    }
    fn keep_fragment(&self, key: &FragmentKey, value: &Fragment) {
        self.fragments.lock().expect("no test panics while it holds this").insert(*key, *value);
    }
    fn next_fragment_id(&self) -> u32 {
        self.fragment_id.add(1)
    }
    fn port_mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        self.port_macs.get(&ifindex).copied()
    }
    fn now_ns(&self) -> u64 {
        u64::from(self.now_s.load()) * 1_000_000_000
    }
    fn count(&self, backend: u32, way: Way, bytes: u32, payload: u32) {
        self.counters(|counters| {
            let at = counters.backends.entry(backend).or_default();
            let traffic = if way == Way::In { &mut at.received } else { &mut at.sent };
            traffic.packets += 1;
            traffic.bytes += u64::from(bytes);
            traffic.payload += u64::from(payload);
        });
    }
    fn count_opened(&self, backend: u32) {
        self.counters(|counters| counters.backends.entry(backend).or_default().opened += 1);
    }
    fn count_reason(&self, reason: Reason) {
        self.counters(|counters| *counters.reasons.entry(reason).or_default() += 1);
    }
    fn count_refused(&self, listener: u32, change: impl FnOnce(&mut ListenerCounters)) {
        self.counters(|counters| change(counters.listeners.entry(listener).or_default()));
    }
}

impl Sockets for Memory {
    fn have<A: Address>(&self, segment: &Key<A>) -> bool {
        let Key { src, dst, sport, dport, proto } = *segment;
        self.sockets.contains(&Key { src: src.wide(), dst: dst.wide(), sport, dport, proto })
    }
}
