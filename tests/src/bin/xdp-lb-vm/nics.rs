//! The pairs of `virtio_net` NICs that a guest has: of each, one end is a client's and a member's, the
//! other the load balancer's. What they differ in is what Nova and the image decide about a port.

use xdp_lb::kernel::Mode;

/// CPUs of a guest.
pub const CPUS: u32 = 2;

pub struct Pair {
    /// As it stands in the table.
    pub name: &'static str,
    /// Of each end's transmit and receive queues, so many.
    pub queues: u32,
    /// More of the balancer's NIC, in the words of qemu.
    pub properties: &'static str,
    /// How the program is to run on it.
    pub mode: Mode,
}

pub const PAIRS: [Pair; 3] = [
    // The driver uses a queue for each CPU, and XDP wants as many for itself (`virtnet_xdp_set`).
    Pair { name: "4 queues", queues: 2 * CPUS, properties: "", mode: Mode::Native },
    // Without `hw_vif_multiqueue_enabled`. Since 5.13 the driver shares what there is, with a lock, and
    // says so in the kernel's log; before, it refused.
    Pair { name: "1 queue", queues: 1, properties: "", mode: Mode::Native },
    // The host hands over frames that it has not segmented or checked, and the driver cannot stop it.
    Pair {
        name: "fixed offloads",
        queues: 1,
        properties: ",ctrl_guest_offloads=off",
        mode: Mode::Generic,
    },
];

/// The two ends of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Balancer,
}

pub const ENDS: [End; 2] = [End::Client, End::Balancer];

impl End {
    /// By which the guest knows its NICs.
    pub fn mac(self, pair: usize) -> String {
        format!("52:54:00:00:{pair:02x}:{:02x}", self as u8 + 1)
    }
}
