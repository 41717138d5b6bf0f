//! Every limit of the packet path, with its reason.

/// Listener keys (address, port, protocol). Octavia's largest load balancers stay far below.
pub const LISTENER_KEYS_MAX: u32 = 4096;
/// Listener ids: what counters and connection limits are kept by.
pub const LISTENERS_MAX: u32 = 1024;
/// Backend ids. A backend is a member of a pool as one listener uses it; ids of backends that left
/// are given out again once their last flow is gone. A flow holds the id in 16 bits.
pub const BACKENDS_MAX: u32 = 1 << 15;
/// Ring entries, all pools and both generations of a pool that is being replaced.
pub const RING_MAX: u32 = 1 << 20;
/// Allowed networks, all listeners.
pub const NETWORKS_MAX: u32 = 1 << 16;
/// Interfaces the program is attached to or sends through.
pub const PORTS_MAX: u32 = 64;
/// Datagrams whose fragments are under way. Of one that finds no room the later fragments go to the
/// kernel, which drops them, and are counted.
pub const FRAGMENTS_MAX: u32 = 8192;
/// Slots of the IPv4 flow table unless told otherwise: 64 MiB.
pub const FLOWS4_DEFAULT: u32 = 1 << 20;
/// Slots of the IPv6 flow table unless told otherwise: 32 MiB.
pub const FLOWS6_DEFAULT: u32 = 1 << 18;
/// Clients that persistence remembers unless told otherwise.
pub const STICKY_DEFAULT: u32 = 1 << 16;
/// Fewest slots of a flow table: the four sets a flow may live in must differ.
pub const FLOWS_MIN: u32 = 64;
/// Most slots of a flow table: a flow names its other half by a 32-bit index, and 16 GiB is enough.
pub const FLOWS_MAX: u32 = 1 << 28;
/// Slots of a flow table, in percent, that established flows may take with none refused; a connection
/// takes two. Filled at random, the first was refused at 77 % of 2^20 slots (worst of 12 fillings) and
/// at 71 % of 2^18 (of 200); at 66 %, in one filling of 2^20 slots in ten thousand, by calculation.
pub const FLOWS_CAPACITY_PERCENT: u32 = 66;

/// Source ports tried for a new flow before it is refused: at half the ports of a member taken, one
/// flow in 65536 is refused. More may not load everywhere: for these the verifier of 6.1 walks half of the
/// million instructions that it may (`xdp_lb_open4`; from 6.12 on a twentieth, by `cargo xtask vm`).
pub const PORT_TRIES: u32 = 16;
/// Of these, the ports that must all be taken before one of a flow that may be evicted is given again.
pub const PORT_EAGER: u32 = 4;
/// Members a LEAST_CONNECTIONS pool compares for one new flow: all of a small pool; of a larger one
/// a window that moves on by one with every flow, so that each member is looked at.
pub const LEAST_CANDIDATES: u32 = 16;

const _: () = assert!(BACKENDS_MAX <= 1 << 16, "a flow holds its backend in 16 bits");
const _: () = assert!(FLOWS4_DEFAULT.is_power_of_two() && FLOWS6_DEFAULT.is_power_of_two());
