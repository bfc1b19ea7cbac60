//! What the operator asked for.

use std::time::Duration;

use dr_model::{ApproverName, ExecutionId, RegionName};
use dr_provider::driver::RestoreTarget;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Mode;

/// A way to bring a resource up in the region moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// A standby becomes the primary.
    Promote,
    /// An instance is rebuilt from the store.
    Restore,
    /// The primary runs again as it was.
    Restart,
}

impl Rung {
    /// Returns the word, as in `--rung restore`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Restore => "restore",
            Self::Restart => "restart",
        }
    }
}

impl Rung {
    /// Returns what a plan of `mode` takes, depending on whether something is rebuilt in it.
    pub(crate) fn of(rebuilt: bool, mode: Mode) -> Self {
        match (rebuilt, mode) {
            (true, _) => Self::Restore,
            (false, Mode::InPlace) => Self::Restart,
            (false, _) => Self::Promote,
        }
    }
}

/// A statement that a named human makes, recorded word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "text")]
pub enum Statement {
    /// Who saw what, by which the old primary is known to have stopped: `Ada: I pulled the plug of the rack`.
    Witness(String),
    /// Why safety rules are set aside. Whatever rests on it is reported as unproven for ever.
    Override(String),
    /// How clients are led where a name server would refuse the switch. It sets no other rule aside.
    ClientsByHand(String),
}

/// When the disruption began: what the time to recover is counted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// It is not older than this: the time to recover counts from here.
    pub not_before: Timestamp,
    /// It is not younger than this: the achieved recovery point counts to here.
    pub not_after: Timestamp,
    /// When it was beyond doubt, if a daemon has seen it.
    pub detected_at: Option<Timestamp>,
    /// The region that it was seen from, by whose clock these times are; `None` if a person states it.
    pub seen_from: Option<RegionName>,
    /// Whether `not_before` is the last heartbeat, because the daemon never saw an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_heartbeat: bool,
}

impl Disruption {
    /// Returns when a daemon last saw the primary alive, if one did.
    #[must_use]
    pub fn last_life(&self) -> Option<Timestamp> {
        self.seen_from.as_ref().map(|_| self.not_before)
    }

    /// Takes a person's word for when it began.
    #[must_use]
    pub fn stated(at: Timestamp) -> Self {
        Self {
            not_before: at,
            not_after: at,
            detected_at: None,
            seen_from: None,
            by_heartbeat: false,
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The region to move to.
    pub to: RegionName,
    /// The largest estimated loss that is accepted; the workload's RPO if it is left out.
    pub max_loss: Option<Duration>,
    /// The rung to take; the best one that the facts allow if it is left out.
    pub rung: Option<Rung>,
    /// A witness's statement, an override, and how clients are led by hand, if they were given.
    pub statements: Vec<Statement>,
    /// When the disruption began, if that was measured or somebody knows it.
    pub disruption: Option<Disruption>,
    /// Who asks, if the workload wants approvals: nobody approves what they asked for.
    pub requester: Option<ApproverName>,
    /// The execution that is undone, if this undoes one.
    pub undoes: Option<ExecutionId>,
    /// Whether the journal of what is undone says that no promotion was begun.
    pub unpromoted: bool,
    /// The resource or the service that is recovered, if it is not all of them.
    pub component: Option<String>,
    /// The moment that databases are put back to, where that is wanted.
    pub target: Option<RestoreTarget>,
}

impl Request {
    /// Asks for a move to `to` with no further wishes.
    #[must_use]
    pub fn new(to: RegionName) -> Self {
        Self {
            to,
            max_loss: None,
            rung: None,
            statements: Vec::new(),
            disruption: None,
            requester: None,
            undoes: None,
            unpromoted: false,
            component: None,
            target: None,
        }
    }
}

/// Returns the first witness's statement.
#[must_use]
pub fn witness(statements: &[Statement]) -> Option<&str> {
    statements.iter().find_map(|statement| match statement {
        Statement::Witness(text) => Some(text.as_str()),
        Statement::Override(_) | Statement::ClientsByHand(_) => None,
    })
}

/// Returns the reason of the first override.
#[must_use]
pub fn override_reason(statements: &[Statement]) -> Option<&str> {
    statements.iter().find_map(|statement| match statement {
        Statement::Override(text) => Some(text.as_str()),
        Statement::Witness(_) | Statement::ClientsByHand(_) => None,
    })
}

/// Returns the first statement of how clients are led by hand.
#[must_use]
pub fn clients_by_hand(statements: &[Statement]) -> Option<&str> {
    statements.iter().find_map(|statement| match statement {
        Statement::ClientsByHand(text) => Some(text.as_str()),
        Statement::Witness(_) | Statement::Override(_) => None,
    })
}
