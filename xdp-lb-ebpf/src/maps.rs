//! The maps, named for what they hold, and the path's view of them.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::lpm_trie::Key as Prefixed;
use aya_ebpf::btf_maps::{
    Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray,
};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_map;
use xdp_lb_ebpf::abi::*;
use xdp_lb_ebpf::account;
use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Slot4, Slot6, V4, V6};
use xdp_lb_ebpf::flows::State;
use xdp_lb_ebpf::limits::*;
use xdp_lb_ebpf::path::STAGES as STAGES_COUNT;
use xdp_lb_ebpf::progress::{Progress, progress};
use xdp_lb_ebpf::reason::REASONS as REASONS_COUNT;
use xdp_lb_ebpf::tables::{Choice, Flows, Way};
use xdp_lb_ebpf::{Reason, Tables};
use xdp_lb_ebpf::{flows, sctp, select};

const MMAP: usize = BPF_F_MMAPABLE as usize;

// Arrays that user space maps begin on a page, so that a slot of 64 bytes is one cache line.
#[btf_map]
static FLOWS4: Array<Flow4, { FLOWS4_DEFAULT as usize }, MMAP> = Array::new();
#[btf_map]
static FLOWS6: Array<Flow6, { FLOWS6_DEFAULT as usize }, MMAP> = Array::new();
/// As long as `FLOWS4`.
#[btf_map]
static ACCOUNTS4: Array<Account, { FLOWS4_DEFAULT as usize }, MMAP> = Array::new();
#[btf_map]
static FLOW_LOGS: Array<FlowLogs, { LISTENERS_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static LISTENERS: HashMap<ListenerKey, Listener, { LISTENER_KEYS_MAX as usize }> = HashMap::new();
#[btf_map]
static NETWORKS: LpmTrie<NetworkKey, u32, { NETWORKS_MAX as usize }> = LpmTrie::new();
#[btf_map]
static BACKENDS: Array<Backend, { BACKENDS_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static RING: Array<u32, { RING_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static CURSORS: Array<u32, { LISTENERS_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static LISTENER_LOAD: Array<u32, { LISTENERS_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static BACKEND_LOAD: Array<u32, { BACKENDS_MAX as usize }, MMAP> = Array::new();
#[btf_map]
static STICKY: LruHashMap<StickyKey, Sticky, { STICKY_DEFAULT as usize }> = LruHashMap::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { FRAGMENTS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters, { BACKENDS_MAX as usize }> =
    PerCpuArray::new();
#[btf_map]
static LISTENER_COUNTERS: PerCpuArray<ListenerCounters, { LISTENERS_MAX as usize }> =
    PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { REASONS_COUNT as usize }> = PerCpuArray::new();
/// Seconds since boot; the last identification given to a fragmented datagram.
#[btf_map]
static CLOCK: Array<u32, 1, MMAP> = Array::new();
#[btf_map]
static FRAGMENT_ID: Array<u32, 1, MMAP> = Array::new();
/// Interfaces frames may leave by, and their own MACs (6 bytes and 2 of zero).
#[btf_map]
pub static PORTS: DevMapHash<{ PORTS_MAX as usize }> = DevMapHash::new();
#[btf_map]
static PORT_MACS: HashMap<u32, [u8; 8], { PORTS_MAX as usize }> = HashMap::new();
/// From one stage of a frame to the next: tail calls take no arguments.
#[btf_map]
static CHOICE: PerCpuArray<Choice, 1> = PerCpuArray::new();
/// The programs of [`Stage`](xdp_lb_ebpf::path::Stage): each generation of the program has its own.
#[btf_map]
pub static STAGES: ProgramArray<{ STAGES_COUNT as usize }> = ProgramArray::new();
/// Written and read by user space alone; here so that it is pinned with the rest.
#[btf_map]
static META: Array<Meta, 1> = Array::new();

// Set when the program is loaded, from `META`: constants to the verifier.
#[unsafe(no_mangle)]
static FLOWS4_MASK: Global<u32> = Global::new(FLOWS4_DEFAULT - 1);
#[unsafe(no_mangle)]
static FLOWS6_MASK: Global<u32> = Global::new(FLOWS6_DEFAULT - 1);
#[unsafe(no_mangle)]
static HASH_SEED0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_SEED1: Global<u64> = Global::new(1);
#[unsafe(no_mangle)]
static SNAT_LOW: Global<u32> = Global::new(1024);
#[unsafe(no_mangle)]
static SNAT_SPAN: Global<u32> = Global::new(59976);

/// The maps as the path sees them.
pub struct Maps;

/// A map value as the words it is made of.
#[inline(always)]
fn words<'a, From, To>(value: *const From) -> &'a To {
    const { assert!(size_of::<From>() == size_of::<To>() && align_of::<From>() >= align_of::<To>()) };
    // SAFETY: a value of an array map lives as long as the program; same size, no stricter alignment,
    // and `To` is made of cells, which take any bytes and any writer.
    unsafe { &*value.cast() }
}

impl Flows for Maps {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        FLOWS4.get_ptr(index).map(words)
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        FLOWS6.get_ptr(index).map(words)
    }
    fn account4(&self, index: u32) -> Option<&account::Account> {
        ACCOUNTS4.get_ptr(index).map(words)
    }
    fn mask4(&self) -> u32 {
        FLOWS4_MASK.load()
    }
    fn mask6(&self) -> u32 {
        FLOWS6_MASK.load()
    }
    fn seeds(&self) -> [u64; 2] {
        [HASH_SEED0.load(), HASH_SEED1.load()]
    }
    fn now_s(&self) -> u32 {
        CLOCK.get_ptr(0).map_or(0, |word| words::<u32, Word32>(word).load())
    }
    fn elsewhere4(&self, key: &[u64; 2], home: u32, hop: u64) -> u32 {
        elsewhere4(key[0], key[1], home, hop)
    }
    fn elsewhere6(&self, key: &[u64; 5], home: u32, hop: u64) -> u32 {
        elsewhere6(key, home, hop)
    }
    fn settle4(&self, key: &[u64; 2], home: u32, absent: u64) -> u64 {
        settle4(key[0], key[1], home, absent)
    }
    fn settle6(&self, key: &[u64; 5], home: u32, absent: u64) -> u64 {
        settle6(key, home, absent)
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        LISTENER_LOAD.get_ptr(listener).map(words)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        BACKEND_LOAD.get_ptr(backend).map(words)
    }
    fn count_closed(&self, backend: u32) {
        if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) {
            // SAFETY: as in `count`.
            unsafe { (*counters).closed += 1 };
        }
    }
    #[inline(always)]
    fn listener_of(&self, backend: u32) -> Option<u32> {
        BACKENDS.get(backend).map(|at| at.listener)
    }
    fn flow_logs(&self, listener: u32) -> Option<&account::FlowLogs> {
        FLOW_LOGS.get_ptr(listener).map(words)
    }
}

impl Tables for Maps {
    fn source_ports(&self) -> (u16, u16) {
        (SNAT_LOW.load() as u16, SNAT_SPAN.load() as u16)
    }
    fn crc_shift(&self, change: u32, length: u32) -> u32 {
        crc_shift(change, length)
    }
    fn progress4(&self, progress: &Progress) {
        let Progress { index, state, peer, backend, news } = *progress;
        progress4(index, state.0, peer, backend, news);
    }
    fn progress6(&self, progress: &Progress) {
        let Progress { index, state, peer, backend, news } = *progress;
        progress6(index, state.0, peer, backend, news);
    }
    fn least(&self, start: u32, length: u32, turn: u32) -> u32 {
        least(start, length, turn)
    }
    fn listener(&self, key: &ListenerKey) -> Option<Listener> {
        // SAFETY: copied out at once. An entry replaced meanwhile is freed after this program ends,
        // and an update in place of a hash map is a new element (kernel hashtab.c).
        unsafe { LISTENERS.get(key) }.copied()
    }
    fn allowed(&self, key: &NetworkKey) -> bool {
        NETWORKS.get(&Prefixed::new(size_of::<NetworkKey>() as u32 * 8, *key)).is_some()
    }
    fn ring(&self, index: u32) -> Option<u32> {
        RING.get(index).copied()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }
    fn cursor(&self, listener: u32) -> Option<&Word32> {
        CURSORS.get_ptr(listener).map(words)
    }
    fn choose(&self, change: impl FnOnce(&mut Choice)) {
        if let Some(at) = CHOICE.get_ptr_mut(0) {
            // SAFETY: this CPU's own copy.
            change(unsafe { &mut *at });
        }
    }
    fn chosen(&self) -> Choice {
        CHOICE.get(0).copied().unwrap_or_default()
    }
    fn sticky(&self, key: &StickyKey) -> Option<Sticky> {
        // SAFETY: copied out at once; an LRU element reused meanwhile may give a member of another
        // client, which is usable all the same.
        unsafe { STICKY.get(key) }.copied()
    }
    fn stick(&self, key: &StickyKey, value: &Sticky) {
        // Fails only when every CPU's free list is empty: the client is then not remembered.
        let _ = STICKY.insert(key, value, 0);
    }
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: copied out at once; see `sticky`. Reuse within that time takes 8192 datagrams.
        unsafe { FRAGMENTS.get(key) }.copied()
    }
    fn keep_fragment(&self, key: &FragmentKey, value: &Fragment) {
        // On failure the later fragments go to the kernel, counted as `FragmentUnknown`.
        let _ = FRAGMENTS.insert(key, value, 0);
    }
    fn next_fragment_id(&self) -> u32 {
        FRAGMENT_ID.get_ptr(0).map_or(0, |word| words::<u32, Word32>(word).add(1))
    }
    fn port_mac(&self, ifindex: u32) -> Option<[u8; 6]> {
        // SAFETY: copied out at once.
        let [a, b, c, d, e, f, _, _] = *unsafe { PORT_MACS.get(ifindex) }?;
        Some([a, b, c, d, e, f])
    }
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_boot_ns() }
    }
    fn count(&self, backend: u32, way: Way, bytes: u32, payload: u32) {
        let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) else {
            return;
        };
        // SAFETY: this CPU's own copy; XDP programs of one CPU do not interrupt each other.
        let counters = unsafe { &mut *counters };
        let traffic = if way == Way::In { &mut counters.received } else { &mut counters.sent };
        traffic.packets += 1;
        traffic.bytes += u64::from(bytes);
        traffic.payload += u64::from(payload);
    }
    fn count_opened(&self, backend: u32) {
        if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(backend) {
            // SAFETY: as in `count`.
            unsafe { (*counters).opened += 1 };
        }
    }
    fn count_reason(&self, reason: Reason) {
        if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: as in `count`.
            unsafe { *counter += 1 };
        }
    }
    fn count_refused(&self, listener: u32, change: impl FnOnce(&mut ListenerCounters)) {
        if let Some(counters) = LISTENER_COUNTERS.get_ptr_mut(listener) {
            // SAFETY: as in `count`.
            change(unsafe { &mut *counters });
        }
    }
}

// Global functions: exported, so that their BTF says so, and never inlined.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn elsewhere4(addresses: u64, ports: u64, home: u32, hop: u64) -> u32 {
    flows::elsewhere::<V4, _>(&Maps, &[addresses, ports], home, hop)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn elsewhere6(key: *const [u64; 5], home: u32, hop: u64) -> u32 {
    // SAFETY: the verifier checks it: null or readable, and what is not one of the two does not load.
    match unsafe { key.as_ref() } {
        Some(key) => flows::elsewhere::<V6, _>(&Maps, key, home, hop),
        None => flows::NOWHERE,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle4(addresses: u64, ports: u64, home: u32, absent: u64) -> u64 {
    flows::settle::<V4, _>(&Maps, &[addresses, ports], home, absent)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn settle6(key: *const [u64; 5], home: u32, absent: u64) -> u64 {
    // SAFETY: as in `elsewhere6`.
    match unsafe { key.as_ref() } {
        Some(key) => flows::settle::<V6, _>(&Maps, key, home, absent),
        None => flows::FULL,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn progress4(index: u32, state: u32, peer: u32, backend: u32, news: u32) -> u32 {
    progress::<V4, _>(&Maps, &Progress { index, state: State(state), peer, backend, news });
    // The verifier takes no global function without a result.
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn progress6(index: u32, state: u32, peer: u32, backend: u32, news: u32) -> u32 {
    progress::<V6, _>(&Maps, &Progress { index, state: State(state), peer, backend, news });
    // The verifier takes no global function without a result.
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn least(start: u32, length: u32, turn: u32) -> u32 {
    select::least(&Maps, start, length, turn)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn crc_shift(change: u32, length: u32) -> u32 {
    sctp::shift(change, length)
}
