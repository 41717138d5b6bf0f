//! The live maps for a trial: the path reads them as it does in the kernel, and what it writes stays here.
//!
//! Every value is copied when the path first looks at it, and from then on the copy is what it sees. What
//! it asked and was told is kept too, for whoever tells of the trial.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use aya::maps::lpm_trie;
use elsa::FrozenMap;
use nix::time::{ClockId, clock_gettime};
use xdp_lb_ebpf::abi::{
    Backend, Fragment, FragmentKey, Listener, ListenerCounters, ListenerKey, NetworkKey, Sticky,
    StickyKey,
};
use xdp_lb_ebpf::account::{Account, FlowLogs};
use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Address, Family, Key, Slot, Slot4, Slot6, V4, V6};
use xdp_lb_ebpf::flows::State;
use xdp_lb_ebpf::tables::{Choice, Flows, Sockets, Tables, Way};
use xdp_lb_ebpf::{Reason, hook};
use zerocopy::transmute;

use super::{Error, FlowTables, Mapped, Maps, Padded32, Table};

/// What the path asked, and was told; what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Listener(ListenerKey, Option<Listener>),
    /// Whether a local socket has the connection.
    Socket(bool),
    Allowed(bool),
    Sticky(StickyKey, Option<Sticky>),
    /// The client is held to a member from now on.
    Stuck(StickyKey, Sticky),
    Chosen(Choice),
    /// A later fragment's first, if it was seen.
    Fragment(Option<Fragment>),
    /// A flow to this backend.
    Opened(u32),
    /// Sent on: the backend and the direction.
    Carried(u32, Way),
    Reason(Reason),
}

pub struct Trial<'a> {
    maps: &'a Maps,
    live: Table<'a>,
    ring: Mapped<Padded32>,
    /// Of this machine, where the load balancer is: addresses wide, the socket's end the destination.
    sockets: &'a HashSet<Key<[u8; 16]>>,
    flows4: Copies<Slot4>,
    flows6: Copies<Slot6>,
    /// The slots that held a flow when they were copied, by version and index, and its state.
    lived: RefCell<HashMap<(u8, u32), State>>,
    backends: Copies<Backend>,
    cursors: Copies<Word32>,
    listener_loads: Copies<Word32>,
    backend_loads: Copies<Word32>,
    fragment_id: Word32,
    sticky: RefCell<HashMap<StickyKey, Sticky>>,
    fragments: RefCell<HashMap<FragmentKey, Fragment>>,
    choice: Cell<Choice>,
    events: RefCell<Vec<Event>>,
}

type Copies<T> = FrozenMap<u32, Box<T>>;

impl<'a> Trial<'a> {
    /// `sockets` are the TCP connections that local sockets have, their own end the destination.
    pub fn new(
        maps: &'a Maps,
        mapped: &'a FlowTables,
        sockets: &'a HashSet<Key<[u8; 16]>>,
    ) -> Result<Self, Error> {
        let ring =
            maps.ring.map().map_err(|error| Error::Map { name: "RING", error: error.into() })?;
        Ok(Self {
            maps,
            live: maps.table(mapped),
            ring,
            sockets,
            flows4: FrozenMap::new(),
            flows6: FrozenMap::new(),
            lived: RefCell::default(),
            backends: FrozenMap::new(),
            cursors: FrozenMap::new(),
            listener_loads: FrozenMap::new(),
            backend_loads: FrozenMap::new(),
            fragment_id: Word32::new(maps.fragment_id.first().map_or(0, |id| id.0.load())),
            sticky: RefCell::default(),
            fragments: RefCell::default(),
            choice: Cell::default(),
            events: RefCell::default(),
        })
    }

    /// What happened since this was asked last.
    pub fn events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// What becomes of a frame at the end of the path; see [`hook::end`].
    pub fn end(
        &self,
        end: Result<u32, Reason>,
        frame: &mut Vec<u8>,
        ingress: u32,
    ) -> (hook::Verdict, Option<Reason>) {
        hook::end(end, frame, ingress, self, |egress| self.maps.ports.get(egress, 0).is_ok())
    }

    /// The slots, by version and index, that held a flow and hold another now, or the same with something
    /// changed that its next frames would meet. That it has been seen is not counted as such.
    pub fn disturbed(&self) -> Vec<(u8, u32)> {
        let lived = self.lived.borrow();
        let changed = lived.iter().filter(|((version, index), state)| match version {
            4 => changed::<V4>(self.flows4.get(index), self.live.slot4(*index), **state),
            _ => changed::<V6>(self.flows6.get(index), self.live.slot6(*index), **state),
        });
        changed.map(|(place, _)| *place).collect()
    }

    fn tell(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn slot<'b, F: Family>(
        &self,
        index: u32,
        copies: &'b Copies<F::Slot>,
        live: Option<&F::Slot>,
    ) -> Option<&'b F::Slot>
    where
        F::Slot: Default,
    {
        if let Some(copy) = copies.get(&index) {
            return Some(copy);
        }
        let copy = copied::<F>(live?);
        let state = State(copy.state().load());
        if state.is_live() {
            self.lived.borrow_mut().insert((F::VERSION, index), state);
        }
        Some(copies.insert(index, Box::new(copy)))
    }
}

/// Whole, unless the slot changes hands again and again.
fn copied<F: Family>(live: &F::Slot) -> F::Slot
where
    F::Slot: Default,
{
    let copy = F::Slot::default();
    for _ in 0..8 {
        let state = State(live.state().load());
        copy.write_key(&live.key());
        copy.write_nat(&live.nat());
        copy.seen_s().store(live.seen_s().load());
        copy.hop().store(live.hop().load());
        copy.state().store(state.0);
        if state.same_flow(State(live.state().load())) {
            break;
        }
    }
    copy
}

fn changed<F: Family>(copy: Option<&F::Slot>, live: Option<&F::Slot>, was: State) -> bool {
    let (Some(copy), Some(live)) = (copy, live) else {
        return false;
    };
    copy.state().load() != was.0 || copy.client() != live.client()
}

fn word<'b>(copies: &'b Copies<Word32>, index: u32, live: &[Padded32]) -> Option<&'b Word32> {
    if let Some(copy) = copies.get(&index) {
        return Some(copy);
    }
    let live = live.get(index as usize)?;
    Some(copies.insert(index, Box::new(Word32::new(live.0.load()))))
}

impl Flows for Trial<'_> {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        self.slot::<V4>(index, &self.flows4, self.live.slot4(index))
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        self.slot::<V6>(index, &self.flows6, self.live.slot6(index))
    }
    /// Nothing is decided by it.
    fn account4(&self, _: u32) -> Option<&Account> {
        None
    }
    /// As above.
    fn flow_logs(&self, _: u32) -> Option<&FlowLogs> {
        None
    }
    fn mask4(&self) -> u32 {
        self.live.mask4()
    }
    fn mask6(&self) -> u32 {
        self.live.mask6()
    }
    fn seeds(&self) -> [u64; 2] {
        self.live.seeds()
    }
    fn now_s(&self) -> u32 {
        self.live.now_s()
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        word(&self.listener_loads, listener, &self.maps.listener_load)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        word(&self.backend_loads, backend, &self.maps.backend_load)
    }
    fn listener_of(&self, backend: u32) -> Option<u32> {
        Some(self.backend(backend)?.listener)
    }
    fn count_closed(&self, _: u32) {}
}

impl Tables for Trial<'_> {
    fn source_ports(&self) -> (u16, u16) {
        (self.maps.meta.snat_low, self.maps.meta.snat_span)
    }
    fn listener(&self, key: &ListenerKey) -> Option<Listener> {
        let found = self.maps.listeners.get(&transmute!(*key), 0).ok();
        let found = found.map(|bytes| transmute!(bytes));
        self.tell(Event::Listener(*key, found));
        found
    }
    fn allowed(&self, key: &NetworkKey) -> bool {
        let bits = size_of::<NetworkKey>() as u32 * 8;
        let found = self.maps.networks.get(&lpm_trie::Key::new(bits, transmute!(*key)), 0).is_ok();
        self.tell(Event::Allowed(found));
        found
    }
    fn ring(&self, index: u32) -> Option<u32> {
        self.ring.get(index as usize).map(|entry| entry.0.load())
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        if let Some(copy) = self.backends.get(&id) {
            return Some(copy);
        }
        let live = self.maps.backends.get(id as usize)?;
        Some(self.backends.insert(id, Box::new(live.load())))
    }
    fn cursor(&self, listener: u32) -> Option<&Word32> {
        word(&self.cursors, listener, &self.maps.cursors)
    }
    fn choose(&self, change: impl FnOnce(&mut Choice)) {
        let mut choice = self.choice.get();
        change(&mut choice);
        self.choice.set(choice);
        self.tell(Event::Chosen(choice));
    }
    fn chosen(&self) -> Choice {
        self.choice.get()
    }
    fn sticky(&self, key: &StickyKey) -> Option<Sticky> {
        let ours = self.sticky.borrow().get(key).copied();
        let live = || self.maps.sticky.get(&transmute!(*key), 0).ok();
        let found = ours.or_else(|| live().map(|bytes| transmute!(bytes)));
        self.tell(Event::Sticky(*key, found));
        found
    }
    fn stick(&self, key: &StickyKey, value: &Sticky) {
        self.sticky.borrow_mut().insert(*key, *value);
        self.tell(Event::Stuck(*key, *value));
    }
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        let ours = self.fragments.borrow().get(key).copied();
        let live = || self.maps.fragments.get(&transmute!(*key), 0).ok();
        let found = ours.or_else(|| live().map(|bytes| transmute!(bytes)));
        self.tell(Event::Fragment(found));
        found
    }
    fn keep_fragment(&self, key: &FragmentKey, value: &Fragment) {
        self.fragments.borrow_mut().insert(*key, *value);
    }
    fn next_fragment_id(&self) -> u32 {
        self.fragment_id.add(1)
    }
    fn port_mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        let [a, b, c, d, e, f, _, _] = self.maps.port_macs.get(&ifindex, 0).ok()?;
        Some([a, b, c, d, e, f])
    }
    fn now_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
        now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }
    fn count(&self, backend: u32, way: Way, _bytes: u32, _payload: u32) {
        self.tell(Event::Carried(backend, way));
    }
    fn count_opened(&self, backend: u32) {
        self.tell(Event::Opened(backend));
    }
    fn count_reason(&self, reason: Reason) {
        self.tell(Event::Reason(reason));
    }
    fn count_refused(&self, _: u32, change: impl FnOnce(&mut ListenerCounters)) {
        // Told by the reason.
        let _ = change;
    }
}

impl Sockets for Trial<'_> {
    fn have<A: Address>(&self, segment: &Key<A>) -> bool {
        let Key { src, dst, sport, dport, proto } = *segment;
        let key = Key { src: src.wide(), dst: dst.wide(), sport, dport, proto };
        let have = self.sockets.contains(&key);
        self.tell(Event::Socket(have));
        have
    }
}
