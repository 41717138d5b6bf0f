//! The kernel's own sockets, as the path sees them.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_CURRENT_NETNS, BPF_TCP_LISTEN};
use aya_ebpf::helpers::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::XdpContext;
use xdp_lb_ebpf::family::{Address, Key};
use xdp_lb_ebpf::tables::Sockets;

/// Those of the network namespace of the interface that the frame came in by.
pub struct OwnSockets<'a>(pub &'a XdpContext);

/// `struct bpf_sock_tuple`, which says by its length of which family it is. Aligned, because LLVM
/// may write two fields at once, and the verifier refuses that on the stack where it is not.
#[repr(C, align(8))]
struct Tuple<A> {
    src: A,
    dst: A,
    sport: [u8; 2],
    dport: [u8; 2],
}

impl Sockets for OwnSockets<'_> {
    /// By `bpf_skc_lookup_tcp` (5.2), which knows connections that are not sockets yet (SYN_RECV)
    /// or no longer: in their place `bpf_sk_lookup_tcp` says the listener, or nothing. TIME_WAIT
    /// counts: the other end's FIN may come again; and it is also what the kernel makes of a
    /// connection in FIN_WAIT2 that was closed, where the client may still be sending (6.18,
    /// `tcp_time_wait`).
    #[inline(always)]
    fn have<A: Address>(&self, segment: &Key<A>) -> bool {
        let Key { src, dst, sport, dport, .. } = *segment;
        let mut tuple = Tuple { src, dst, sport, dport };
        let length = (2 * size_of::<A>() + 4) as u32;
        let netns = BPF_F_CURRENT_NETNS as u64;
        // SAFETY: the context is the kernel's own, `tuple` has `length` bytes, and the socket is
        // ours from the lookup to the release. Volatile, so that its state is read as the whole
        // word that the verifier allows.
        unsafe {
            let tuple = (&raw mut tuple).cast();
            let socket = bpf_skc_lookup_tcp(self.0.as_ptr(), tuple, length, netns, 0);
            if socket.is_null() {
                return false;
            }
            let state = (&raw const (*socket).state).read_volatile();
            bpf_sk_release(socket.cast());
            state != BPF_TCP_LISTEN
        }
    }
}
