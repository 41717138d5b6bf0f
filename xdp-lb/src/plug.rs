//! Interfaces: how they come into the namespace of the load balancer, and what they have there.
//!
//! Octavia hot-plugs them into the namespace of this process, the one of the management network, and
//! names them by MAC address. What each shall have is a [`Layout`](layout::Layout); the kernel is
//! changed where it differs, and nowhere else.

pub mod announce;
mod dhcp;
pub mod diff;
pub mod layout;
mod names;
pub mod nics;
mod wire;

pub use names::{VIP_INTERFACE, number};
pub use nics::{Nics, Places};
