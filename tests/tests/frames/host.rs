//! The path on the host, behind the same shell as the XDP hook's.

use std::collections::BTreeSet;

use xdp_lb::reset::reset;
use xdp_lb_ebpf::abi::{Backend, Listener, ListenerKey, NetworkKey};
use xdp_lb_ebpf::family::Key;
use xdp_lb_ebpf::memory::Memory;
use xdp_lb_ebpf::{Packet, Reason, hook, path};

use super::frames::frame::Mac;
use super::frames::world::{
    FLOWS, Flow, Held, Machine, Outcome, SEEDS, SERVICES, SOURCE_PORTS, Verdict, wide,
};

pub struct Host(pub Memory);

impl Host {
    pub fn new() -> Self {
        let mut memory = Memory::new(FLOWS, FLOWS, SERVICES.len(), SERVICES.len() * 8);
        (memory.seeds, memory.source_ports) = (SEEDS, SOURCE_PORTS);
        memory.ring = vec![0; SERVICES.len() * 8];
        Self(memory)
    }

    fn end(&self, by: u32, frame: &mut Vec<u8>) -> Verdict {
        let end = path::frame(&mut Packet::new(frame), by, &self.0);
        hook::end(end, frame, by, &self.0, |egress| self.0.port_macs.contains_key(&egress)).0
    }
}

impl Machine for Host {
    fn forget(&mut self) {
        let Self(fresh) = Self::new();
        let Memory { listeners, networks, ring, backends, port_macs, .. } =
            std::mem::replace(&mut self.0, fresh);
        let memory = &mut self.0;
        (memory.listeners, memory.networks, memory.ring) = (listeners, networks, ring);
        (memory.backends, memory.port_macs) = (backends, port_macs);
    }
    fn set_clock(&mut self, now_s: u32) {
        self.0.now_s.store(now_s);
    }
    fn set_interface(&mut self, ifindex: u32, mac: Mac) {
        self.0.port_macs.insert(ifindex, mac);
    }
    fn set_listener(&mut self, key: &ListenerKey, listener: &Listener) {
        self.0.listeners.insert(*key, *listener);
    }
    fn remove_listener(&mut self, key: &ListenerKey) {
        self.0.listeners.remove(key);
    }
    fn set_ring(&mut self, at: u32, backend: u32) {
        self.0.ring[at as usize] = backend;
    }
    fn set_backend(&mut self, id: u32, backend: &Backend) {
        self.0.backends[id as usize] = *backend;
    }
    fn set_network(&mut self, bits: u32, network: &NetworkKey) {
        self.0.networks.push((bits, *network));
    }
    fn end_flows(&mut self, backends: &BTreeSet<u32>) {
        reset(&self.0, backends);
    }
    fn open_socket(&mut self, flow: &Flow, held: Held) {
        if held == Held::Listening {
            return;
        }
        self.0.sockets.insert(Key {
            src: wide(flow.client),
            dst: wide(flow.family.vip(flow.vip)),
            sport: flow.sport.to_be_bytes(),
            dport: flow.port.to_be_bytes(),
            proto: flow.proto,
        });
    }
    fn send(&mut self, by: u32, frame: &[u8]) -> Outcome {
        let before = self.0.counters.lock().unwrap().reasons.clone();
        let mut frame = frame.to_vec();
        let verdict = self.end(by, &mut frame);
        let after = &self.0.counters.lock().unwrap().reasons;
        let moved = |reason| {
            let count = |at: &std::collections::HashMap<_, _>| at.get(reason).copied().unwrap_or(0);
            count(after) - count(&before)
        };
        let reasons =
            Reason::ALL.iter().flat_map(|reason| vec![*reason; moved(reason) as usize]).collect();
        Outcome { verdict, frame, reasons }
    }
}
