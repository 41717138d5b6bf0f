//! `xdp-lb flows`: the connections in the flow tables, read where they lie.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use xdp_lb_ebpf::abi::{SCTP, TCP, UDP};
use xdp_lb_ebpf::family::{Address, Family, Key, Slot, V4, V6};
use xdp_lb_ebpf::flows::State;

use super::{Found, row, table};
use crate::kernel::Error;
use crate::tables::address;

#[derive(Debug, Serialize)]
pub struct Flows {
    pub name: String,
    pub tables: [Table; 2],
    /// No more than were asked for.
    pub flows: Vec<Flow>,
}

#[derive(Debug, Serialize)]
pub struct Table {
    pub family: &'static str,
    /// Connections; each takes two slots.
    pub flows: usize,
    pub slots: usize,
}

#[derive(Debug, Serialize)]
pub struct Flow {
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub protocol: &'static str,
    pub member: SocketAddr,
    /// Ours, towards the member.
    pub source: SocketAddr,
    /// The member's id, where it is known.
    pub name: Option<String>,
    pub state: &'static str,
    /// Seconds since the last packet of either side.
    pub idle_s: u32,
}

/// At most `limit` flows, IPv4 first; all are counted.
pub fn flows(found: &Found, limit: usize) -> Result<Flows, Error> {
    let (maps, record) = (found.maps()?, &found.record);
    let mapped = maps.map_flows()?;
    let now_s = maps.clock.first().map_or(0, |clock| clock.0.load());
    let names =
        record.backends.iter().map(|backend| (backend.number, &backend.member[..])).collect();
    let mut flows = Vec::new();
    let mut reader = Reader { now_s, names: &names, limit, flows: &mut flows };
    let tables = [
        Table {
            family: "ipv4",
            flows: reader.read::<V4>(&mapped.flows4),
            slots: mapped.flows4.len(),
        },
        Table {
            family: "ipv6",
            flows: reader.read::<V6>(&mapped.flows6),
            slots: mapped.flows6.len(),
        },
    ];
    Ok(Flows { name: record.name.clone(), tables, flows })
}

struct Reader<'a> {
    now_s: u32,
    names: &'a HashMap<u32, &'a str>,
    limit: usize,
    flows: &'a mut Vec<Flow>,
}

impl Reader<'_> {
    /// Reads a table; returns how many flows it has.
    fn read<F: Family>(&mut self, slots: &[F::Slot]) -> usize {
        let mut count = 0;
        for slot in slots {
            let state = State(slot.state().load());
            if !state.is_live() || !state.has(State::FORWARD) {
                continue;
            }
            count += 1;
            if self.flows.len() < self.limit {
                let flow = self.flow::<F>(slots, slot, state, F::tuple(&slot.key()));
                // Another flow's by now, perhaps half of it.
                if state.same_flow(State(slot.state().load())) {
                    self.flows.push(flow);
                }
            }
        }
        count
    }

    fn flow<F: Family>(
        &self,
        slots: &[F::Slot],
        slot: &F::Slot,
        state: State,
        key: Key<F::Addr>,
    ) -> Flow {
        let nat = slot.nat();
        let idle = |slot: &F::Slot| self.now_s.saturating_sub(slot.seen_s().load());
        let reply = slots.get(nat.peer as usize).map_or(u32::MAX, idle);
        let socket =
            |addr: F::Addr, port| SocketAddr::new(address(addr.wide()), u16::from_be_bytes(port));
        Flow {
            client: socket(key.src, key.sport),
            vip: socket(key.dst, key.dport),
            protocol: protocol(key.proto),
            member: socket(nat.dst, nat.dport),
            source: socket(nat.src, nat.sport),
            name: self.names.get(&nat.backend.into()).map(|name| (*name).to_owned()),
            state: word(state),
            idle_s: idle(slot).min(reply),
        }
    }
}

fn protocol(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        UDP => "udp",
        SCTP => "sctp",
        _ => "?",
    }
}

/// How far a connection is.
pub fn word(state: State) -> &'static str {
    let rows = [
        (State::CLOSED, "closed"),
        (State::CLIENT_FIN, "closing"),
        (State::MEMBER_FIN, "closing"),
        (State::ANSWERED, "established"),
        (State::REPLIED, "replied"),
    ];
    rows.into_iter().find(|(bit, _)| state.has(*bit)).map_or("opening", |(_, word)| word)
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flows =
            table(&["PROTOCOL", "CLIENT", "VIP", "SOURCE", "MEMBER", "NAME", "STATE", "IDLE S"]);
        for flow in &self.flows {
            let Flow { client, vip, protocol, member, source, name, state, idle_s } = flow;
            let name = name.as_deref().unwrap_or("-");
            row(&mut flows, [protocol, client, vip, source, member, &name, state, idle_s]);
        }
        writeln!(f, "{flows}\n")?;
        for Table { family, flows, slots } in &self.tables {
            let taken = 200.0 * *flows as f64 / *slots as f64;
            writeln!(f, "{family}: {flows} flows in {slots} slots ({taken:.1} % taken)")?;
        }
        let all: usize = self.tables.iter().map(|table| table.flows).sum();
        if self.flows.len() < all {
            writeln!(f, "shown: {} of {all} (--limit)", self.flows.len())?;
        }
        Ok(())
    }
}
