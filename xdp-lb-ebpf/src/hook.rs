//! The XDP hook on the host, as `xdp.rs` is it in the kernel: what becomes of a frame at the path's end.

use crate::reason::Fate;
use crate::{Packet, Reason, Tables, answer};

/// What is done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Out by the interface it came in by.
    Tx,
    Redirect(u32),
}

/// What becomes of a frame that came in by `ingress`, at the `end` of the path. A reason is counted, and
/// where an answer is due the frame becomes that. `sends` tells the interfaces that frames may leave by.
pub fn end<T: Tables>(
    end: Result<u32, Reason>,
    frame: &mut Vec<u8>,
    ingress: u32,
    tables: &T,
    sends: impl Fn(u32) -> bool,
) -> (Verdict, Option<Reason>) {
    let reason = match end {
        Ok(egress) if egress == ingress => return (Verdict::Tx, None),
        Ok(egress) if sends(egress) => return (Verdict::Redirect(egress), None),
        Ok(_) => Reason::EgressGone,
        Err(reason) => reason,
    };
    tables.count_reason(reason);
    let verdict = match reason.fate() {
        Fate::Pass => Verdict::Pass,
        Fate::Drop => Verdict::Drop,
        Fate::Answer => reply(frame).map_or(Verdict::Drop, |()| Verdict::Tx),
    };
    (verdict, Some(reason))
}

/// Makes the frame its own answer; none, and the frame as it was, where it cannot be one.
fn reply(frame: &mut Vec<u8>) -> Option<()> {
    let shape = answer::shape(&Packet::new(frame))?;
    frame.resize((shape.length - shape.grow) as usize, 0);
    frame.splice(..0, vec![0; shape.grow as usize]);
    answer::write(&mut Packet::new(frame), shape)
}
