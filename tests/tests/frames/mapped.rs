//! The flow tables of an object that was loaded here, as the control program sees them.

use aya::Ebpf;
use aya::maps::{Map, MapData};
use std::os::fd::AsFd;
use xdp_lb::kernel::{Mapped, Padded32};
use xdp_lb_ebpf::account::{Account, FlowLogs};
use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Slot4, Slot6};
use xdp_lb_ebpf::tables::Flows;

use super::frames::world::SEEDS;

pub struct MappedFlows {
    flows4: Mapped<Slot4>,
    flows6: Mapped<Slot6>,
    backend_load: Mapped<Padded32>,
    listener_load: Mapped<Padded32>,
    clock: Mapped<Padded32>,
}

impl MappedFlows {
    pub fn of(object: &Ebpf) -> Self {
        let data = |name: &str| match object.map(name).unwrap() {
            Map::Array(data) => data,
            other => panic!("{name} is {other:?}"),
        };
        let count = |data: &MapData| data.info().unwrap().max_entries();
        let words = |name| Mapped::new(data(name).fd().as_fd(), count(data(name))).unwrap();
        let (flows4, flows6) = (data("FLOWS4"), data("FLOWS6"));
        Self {
            flows4: Mapped::new(flows4.fd().as_fd(), count(flows4)).unwrap(),
            flows6: Mapped::new(flows6.fd().as_fd(), count(flows6)).unwrap(),
            backend_load: words("BACKEND_LOAD"),
            listener_load: words("LISTENER_LOAD"),
            clock: words("CLOCK"),
        }
    }
}

impl Flows for MappedFlows {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        self.flows4.get(index as usize)
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        self.flows6.get(index as usize)
    }
    /// Nothing that is done here looks at them.
    fn account4(&self, _: u32) -> Option<&Account> {
        None
    }
    fn flow_logs(&self, _: u32) -> Option<&FlowLogs> {
        None
    }
    fn mask4(&self) -> u32 {
        self.flows4.len() as u32 - 1
    }
    fn mask6(&self) -> u32 {
        self.flows6.len() as u32 - 1
    }
    fn seeds(&self) -> [u64; 2] {
        SEEDS
    }
    fn now_s(&self) -> u32 {
        self.clock[0].0.load()
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        self.listener_load.get(listener as usize).map(|load| &load.0)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        self.backend_load.get(backend as usize).map(|load| &load.0)
    }
    /// A service has eight.
    fn listener_of(&self, backend: u32) -> Option<u32> {
        Some(backend / 8)
    }
    fn count_closed(&self, _: u32) {}
}
