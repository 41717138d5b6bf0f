//! The flow table as user space sees it: what the sweep removes expired flows from.

use std::io;

use xdp_lb_ebpf::account::{Account, FlowLogs};
use xdp_lb_ebpf::cell::Word32;
use xdp_lb_ebpf::family::{Slot4, Slot6};
use xdp_lb_ebpf::tables::Flows;

use super::{Error, Mapped, Maps};

/// Both flow tables, mapped for as long as this lives.
pub struct FlowTables {
    pub flows4: Mapped<Slot4>,
    pub flows6: Mapped<Slot6>,
    pub accounts4: Mapped<Account>,
}

/// The flow tables, and what is counted with them.
pub struct Table<'a> {
    maps: &'a Maps,
    mapped: &'a FlowTables,
}

impl Maps {
    /// Maps the flow tables.
    pub fn map_flows(&self) -> Result<FlowTables, Error> {
        let failed = |name| move |error: io::Error| Error::Map { name, error: error.into() };
        let flows4 = self.flows4.map().map_err(failed("FLOWS4"))?;
        let flows6 = self.flows6.map().map_err(failed("FLOWS6"))?;
        let accounts4 = self.accounts4.map().map_err(failed("ACCOUNTS4"))?;
        Ok(FlowTables { flows4, flows6, accounts4 })
    }

    /// The flow tables, to be swept.
    pub fn table<'a>(&'a self, mapped: &'a FlowTables) -> Table<'a> {
        Table { maps: self, mapped }
    }
}

impl Flows for Table<'_> {
    fn slot4(&self, index: u32) -> Option<&Slot4> {
        self.mapped.flows4.get(index as usize)
    }
    fn slot6(&self, index: u32) -> Option<&Slot6> {
        self.mapped.flows6.get(index as usize)
    }
    fn account4(&self, index: u32) -> Option<&Account> {
        self.mapped.accounts4.get(index as usize)
    }
    fn mask4(&self) -> u32 {
        self.maps.meta.flows4 - 1
    }
    fn mask6(&self) -> u32 {
        self.maps.meta.flows6 - 1
    }
    fn seeds(&self) -> [u64; 2] {
        [self.maps.meta.seed0, self.maps.meta.seed1]
    }
    fn now_s(&self) -> u32 {
        self.maps.clock.first().map_or(0, |clock| clock.0.load())
    }
    fn listener_load(&self, listener: u32) -> Option<&Word32> {
        self.maps.listener_load.get(listener as usize).map(|load| &load.0)
    }
    fn backend_load(&self, backend: u32) -> Option<&Word32> {
        self.maps.backend_load.get(backend as usize).map(|load| &load.0)
    }
    fn listener_of(&self, backend: u32) -> Option<u32> {
        Some(self.maps.backends.get(backend as usize)?.load().listener)
    }
    fn flow_logs(&self, listener: u32) -> Option<&FlowLogs> {
        self.maps.flow_logs.get(listener as usize)
    }
    /// The counters are the packet path's own, one copy for each CPU: what expires is seen in the
    /// loads alone.
    fn count_closed(&self, _: u32) {}
}
