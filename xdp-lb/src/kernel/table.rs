//! The flow table as user space sees it: what the sweep removes expired flows from.

use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Slot4, Slot6};
use xdp_lb_ebpf::tables::Flows;

use super::Maps;

impl Flows for Maps {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        self.flows4.get(index as usize)
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        self.flows6.get(index as usize)
    }
    fn mask4(&self) -> u32 {
        self.meta.flows4 - 1
    }
    fn mask6(&self) -> u32 {
        self.meta.flows6 - 1
    }
    fn seeds(&self) -> [u64; 2] {
        [self.meta.seed0, self.meta.seed1]
    }
    fn now_s(&self) -> u32 {
        self.clock.first().map_or(0, |clock| clock.0.load())
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        self.listener_load.get(listener as usize).map(|load| &load.0)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        self.backend_load.get(backend as usize).map(|load| &load.0)
    }
    fn listener_of(&self, backend: u32) -> Option<u32> {
        Some(self.backends.get(backend as usize)?.load().listener)
    }
    /// The counters are the packet path's own, one copy for each CPU: what expires is seen in the
    /// loads alone.
    fn count_closed(&self, _: u32) {}
}
