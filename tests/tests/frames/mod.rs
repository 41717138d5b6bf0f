//! The tables of frames: each row says what happened before, the frame that comes in, and the whole
//! of what must come out. One source, run on the host and in the kernel.

pub mod frame;
pub mod rows;
pub mod world;

use std::fmt;

use frame::{Frame, checksums_are_right};
use world::{Flow, Held, Machine, Outcome, Verdict};
use xdp_lb_ebpf::Reason;

pub struct Row {
    pub name: String,
    pub before: Vec<Step>,
    pub sent: Wire,
    pub want: Want,
}

/// Bytes, and the interface they come in or leave by.
#[derive(Clone)]
pub struct Wire {
    pub by: u32,
    pub bytes: Vec<u8>,
}

/// What happens before the frame in question.
#[derive(Clone)]
pub enum Step {
    /// A frame that is sent on, or answered.
    Sent(Wire),
    /// A frame that is dropped or passed.
    Lost(Wire),
    /// So many seconds after the start.
    After(u32),
    /// Flags and epoch of a service's member.
    Member(u16, u8, u16, u32),
    /// The members of a service that take new flows.
    Ring(u16, &'static [u8]),
    /// The flows of a service's member are ended.
    Reset(u16, u8),
    /// A service is no longer ours.
    Withdrawn(u16),
    /// A local socket has the connection, its own end at the VIP.
    Socket(Flow, Held),
}

impl Step {
    pub fn changes_the_world(&self) -> bool {
        match self {
            Self::Member(..) | Self::Ring(..) | Self::Withdrawn(_) => true,
            Self::Sent(_) | Self::Lost(_) | Self::After(_) | Self::Reset(..) | Self::Socket(..) => {
                false
            }
        }
    }

    /// Does what is not done by a frame.
    pub fn change(&self, machine: &mut dyn Machine) {
        match self {
            Self::Sent(_) | Self::Lost(_) => {}
            Self::After(seconds) => machine.set_clock(world::NOW_S + seconds),
            Self::Member(port, member, flags, epoch) => {
                world::set_member(machine, *port, *member, *flags, *epoch);
            }
            Self::Reset(port, member) => world::reset(machine, *port, *member),
            Self::Ring(port, members) => world::set_ring(machine, *port, members),
            Self::Withdrawn(port) => world::withdraw(machine, *port),
            Self::Socket(flow, held) => machine.open_socket(flow, *held),
        }
    }
}

pub enum Want {
    Goes(Wire),
    /// Goes, and is counted all the same.
    Counted(Reason, Wire),
    Pass(Reason),
    Drop(Reason),
    /// The answer of a service without a usable member.
    Answer(Frame),
}

pub fn row(
    name: impl Into<String>,
    before: impl IntoIterator<Item = Step>,
    sent: impl Into<Wire>,
    want: Want,
) -> Row {
    Row { name: name.into(), before: before.into_iter().collect(), sent: sent.into(), want }
}

pub fn goes(to: impl Into<Wire>) -> Want {
    Want::Goes(to.into())
}

pub fn sent(frame: impl Into<Wire>) -> Step {
    Step::Sent(frame.into())
}

impl From<Frame> for Wire {
    fn from(frame: Frame) -> Self {
        Self { by: frame.by, bytes: frame.bytes() }
    }
}

impl From<(u32, Vec<u8>)> for Wire {
    fn from((by, bytes): (u32, Vec<u8>)) -> Self {
        Self { by, bytes }
    }
}

impl Row {
    /// What the row wants, as it can be seen.
    fn outcome(&self) -> Outcome {
        let forwarded = |to: &Wire, reasons| Outcome {
            verdict: if to.by == self.sent.by { Verdict::Tx } else { Verdict::Redirect(to.by) },
            frame: to.bytes.clone(),
            reasons,
        };
        let kept = |verdict, reason| Outcome {
            verdict,
            frame: self.sent.bytes.clone(),
            reasons: vec![reason],
        };
        match &self.want {
            Want::Goes(to) => forwarded(to, vec![]),
            Want::Counted(reason, to) => forwarded(to, vec![*reason]),
            Want::Pass(reason) => kept(Verdict::Pass, *reason),
            Want::Drop(reason) => kept(Verdict::Drop, *reason),
            Want::Answer(answer) => forwarded(&answer.clone().into(), vec![Reason::NoMember]),
        }
    }

    /// What is wrong, if anything.
    fn run(&self, machine: &mut dyn Machine) -> Result<(), String> {
        machine.forget();
        machine.set_clock(world::NOW_S);
        for (n, step) in self.before.iter().enumerate() {
            self.step(machine, step).map_err(|wrong| format!("step {n}: {wrong}"))?;
        }
        let mut got = machine.send(self.sent.by, &self.sent.bytes);
        let want = self.outcome();
        if got.reasons == [Reason::EgressGone] {
            // Found out when it was rewritten; nobody sees it.
            got.frame = want.frame.clone();
        }
        if got != want {
            return Err(format!(
                "\n sent {:?}\n want {want:?}\n got  {got:?}",
                Hex(&self.sent.bytes)
            ));
        }
        let forwarded = matches!(got.verdict, Verdict::Tx | Verdict::Redirect(_));
        if forwarded && got.reasons != [Reason::PartialChecksum] && !checksums_are_right(&got.frame)
        {
            return Err(format!("a checksum is wrong: {:?}", Hex(&got.frame)));
        }
        Ok(())
    }

    fn step(&self, machine: &mut dyn Machine, step: &Step) -> Result<(), String> {
        match step {
            Step::Sent(wire) | Step::Lost(wire) => {
                let got = machine.send(wire.by, &wire.bytes);
                let forwarded = matches!(got.verdict, Verdict::Tx | Verdict::Redirect(_));
                if forwarded != matches!(step, Step::Sent(_)) {
                    return Err(format!("\n sent {:?}\n got  {got:?}", Hex(&wire.bytes)));
                }
            }
            Step::After(_)
            | Step::Member(..)
            | Step::Ring(..)
            | Step::Reset(..)
            | Step::Withdrawn(_)
            | Step::Socket(..) => step.change(machine),
        }
        Ok(())
    }
}

/// Runs all rows, then says which failed.
pub fn run(rows: Vec<Row>, machine: &mut dyn Machine) {
    let count = rows.len();
    let mut failed = Vec::new();
    world::build(machine);
    for row in rows {
        if let Err(wrong) = row.run(machine) {
            failed.push(format!("{}: {wrong}", row.name));
        }
        if row.before.iter().any(Step::changes_the_world) {
            world::build(machine);
        }
    }
    println!("{count} rows");
    assert!(failed.is_empty(), "{} of {count} rows:\n{}", failed.len(), failed.join("\n"));
}

pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let gap = if at > 0 && at % 2 == 0 { " " } else { "" };
            write!(to, "{gap}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:?} {:?} {:?}", self.verdict, self.reasons, Hex(&self.frame))
    }
}
