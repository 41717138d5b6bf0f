//! Frames as pcapng: each as it came, and where it was sent on once more as it left.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use xdp_lb_ebpf::Reason;
use xdp_lb_ebpf::capture::Head;

use crate::pcap::{INBOUND, OUTBOUND};
use crate::record::Record;
use crate::trace::names::Names;

/// `if_tsresol`: nanoseconds, which pcap-file takes all ticks for.
const NANOSECONDS: u8 = 9;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

pub struct Writer<'a> {
    pub frames: u64,
    pcapng: PcapNgWriter<Vec<u8>>,
    names: Names<'a>,
    /// The capture's numbers of interfaces.
    interfaces: HashMap<u32, u32>,
    /// Since 1970, when the monotonic clock was zero.
    boot: Duration,
    snap: u32,
}

impl<'a> Writer<'a> {
    pub fn new(record: &'a Record, snap: u32) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let up: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
        let mut writer = Self {
            frames: 0,
            pcapng: PcapNgWriter::new(Vec::new()).map_err(failed)?,
            names: Names(record),
            interfaces: HashMap::new(),
            boot: now.saturating_sub(up),
            snap,
        };
        let there: Vec<_> = writer.names.interfaces().map(|(_, ifindex)| ifindex).collect();
        for ifindex in there {
            writer.interface(ifindex)?;
        }
        Ok(writer)
    }

    /// What was written since this was asked last.
    pub fn written(&mut self) -> Vec<u8> {
        std::mem::take(self.pcapng.get_mut())
    }

    /// Writes a frame; `bytes` are those from before and, behind them, those from after.
    pub fn frame(&mut self, head: &Head, bytes: &[u8]) -> io::Result<()> {
        let Some((before, rest)) = bytes.split_at_checked(head.before as usize) else {
            return Ok(());
        };
        let after = rest.get(..head.after as usize).unwrap_or_default();
        self.frames += 1;
        let number = self.frames;
        let at = self.boot + Duration::from_nanos(head.at_ns);
        let verdict = self.verdict(head);
        let comment = |way: &str| format!("frame {number} {way}: {verdict}");
        self.packet(head.ingress, at, INBOUND, comment("in"), head.before_len, before)?;
        if matches!(head.action, XDP_TX | XDP_REDIRECT) {
            self.packet(head.egress, at, OUTBOUND, comment("out"), head.after_len, after)?;
        }
        Ok(())
    }

    fn verdict(&self, head: &Head) -> String {
        let egress = self.names.interface(head.egress);
        let action = match head.action {
            XDP_DROP => "drop".to_owned(),
            XDP_PASS => "pass".to_owned(),
            XDP_TX => format!("tx by {egress}"),
            XDP_REDIRECT => format!("redirect to {egress}"),
            other => format!("action {other}"),
        };
        match Reason::ALL.get(head.reason as usize) {
            None => action,
            Some(reason) => {
                let (name, text) = reason.text();
                format!("{action}; {name}: {}", text.trim())
            }
        }
    }

    fn packet(
        &mut self,
        ifindex: u32,
        at: Duration,
        direction: u32,
        comment: String,
        length: u32,
        bytes: &[u8],
    ) -> io::Result<()> {
        let packet = EnhancedPacketBlock {
            interface_id: self.interface(ifindex)?,
            timestamp: at,
            original_len: length,
            data: bytes.into(),
            options: vec![
                EnhancedPacketOption::Comment(comment.into()),
                EnhancedPacketOption::Flags(direction),
            ],
        };
        self.pcapng.write_pcapng_block(packet).map_err(failed)?;
        Ok(())
    }

    /// The capture's number of an interface, which is described when it is met first.
    fn interface(&mut self, ifindex: u32) -> io::Result<u32> {
        if let Some(number) = self.interfaces.get(&ifindex) {
            return Ok(*number);
        }
        let number = self.interfaces.len() as u32;
        self.interfaces.insert(ifindex, number);
        let described = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snap,
            options: vec![
                InterfaceDescriptionOption::IfName(self.names.interface(ifindex).into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.pcapng.write_pcapng_block(described).map_err(failed)?;
        Ok(number)
    }
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use xdp_lb_ebpf::capture::NO_REASON;

    use super::*;
    use crate::kernel::Mode;
    use crate::pcap;
    use crate::record::{Interface, Standing};

    fn interface(name: &str, ifindex: u32) -> Interface {
        let standing = Standing::Attached { ifindex, mode: Mode::Native, refused: None };
        Interface { name: name.to_owned(), standing }
    }

    #[test]
    fn what_is_said_of_a_frame() {
        let interfaces = vec![interface("eth1", 3), interface("eth2", 4)];
        let record = Record { interfaces, ..Record::default() };
        let refused = Reason::NetworkRefused as u32;
        let why = "NetworkRefused: From a network the listener does not allow.";
        let rows = [
            (XDP_TX, NO_REASON, 3, "tx by eth1".to_owned(), Some("eth1")),
            (XDP_REDIRECT, NO_REASON, 4, "redirect to eth2".to_owned(), Some("eth2")),
            (XDP_REDIRECT, NO_REASON, 9, "redirect to interface 9".to_owned(), Some("interface 9")),
            (XDP_DROP, refused, 0, format!("drop; {why}"), None),
        ];
        for (action, reason, egress, verdict, out) in rows {
            let mut writer = Writer::new(&record, 96).unwrap();
            let head = Head {
                at_ns: 5,
                ingress: 3,
                egress,
                action,
                reason,
                before_len: 100,
                before: 2,
                after_len: 101,
                after: 3,
                ..Head::default()
            };
            writer.frame(&head, &[1, 2, 3, 4, 5]).unwrap();
            let at = writer.boot + Duration::from_nanos(5);
            let frame = |number, way: &str, bytes: &[u8], length, interface: &str, direction| {
                let comment = Some(format!("frame 1 {way}: {verdict}"));
                let interface = Some(interface.to_owned());
                let (link, bytes) = (DataLink::ETHERNET, bytes.to_vec());
                pcap::Frame { number, at, link, bytes, length, interface, direction, comment }
            };
            let mut want = vec![frame(1, "in", &[1, 2], 100, "eth1", INBOUND)];
            want.extend(out.map(|out| frame(2, "out", &[3, 4, 5], 101, out, OUTBOUND)));
            assert_eq!(pcap::frames(&writer.written()).unwrap().unwrap(), want, "{verdict}");
        }
    }
}
