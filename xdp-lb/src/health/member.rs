//! A member as its checks see it: how many results in a row turn it.

use agent_api::heartbeat::message::{Count, MemberStatus};
use serde::{Deserialize, Serialize};

/// Counting the results that would change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Member {
    Up { failed: u16 },
    Down { passed: u16 },
}

/// Results in a row that turn a member: HAProxy's `rise` and `fall`, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    pub rise: u16,
    pub fall: u16,
}

/// A member, and what turns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub member: Member,
    pub thresholds: Thresholds,
}

impl Member {
    /// Before the first probe it is up, and the first failure is decisive (HAProxy `server.c`: health
    /// begins at `rise`, where `rise + fall - 1` is full).
    pub fn new(thresholds: Thresholds) -> Self {
        Self::Up { failed: thresholds.fall.saturating_sub(1) }
    }

    /// After one more probe.
    pub fn after(self, ok: bool, Thresholds { rise, fall }: Thresholds) -> Self {
        match (self, ok) {
            (Self::Up { failed }, false) if failed + 1 < fall => Self::Up { failed: failed + 1 },
            (Self::Down { passed }, true) if passed + 1 < rise => Self::Down { passed: passed + 1 },
            (_, true) => Self::Up { failed: 0 },
            (_, false) => Self::Down { passed: 0 },
        }
    }

    /// The same under other thresholds: no further from turning than it can be.
    pub fn within(self, Thresholds { rise, fall }: Thresholds) -> Self {
        match self {
            Self::Up { failed } => Self::Up { failed: failed.min(fall.saturating_sub(1)) },
            Self::Down { passed } => Self::Down { passed: passed.min(rise.saturating_sub(1)) },
        }
    }

    /// Whether new flows may go there.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

impl Standing {
    /// In HAProxy's words: `UP 1/3` is a failure away from `DOWN`, `DOWN 1/2` a success from `UP`.
    pub fn status(self) -> MemberStatus {
        let Thresholds { rise, fall } = self.thresholds;
        match self.member {
            Member::Up { failed: 0 } => MemberStatus::Up(None),
            Member::Up { failed } => {
                MemberStatus::Up(Some(Count { done: fall.saturating_sub(failed), of: fall }))
            }
            Member::Down { passed: 0 } => MemberStatus::Down(None),
            Member::Down { passed } => MemberStatus::Down(Some(Count { done: passed, of: rise })),
        }
    }
}
