//! Actions: what a plan is made of.

use std::fmt;

use dr_model::RegionName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::error::chain;

/// Which side of a service an action calls (L1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plane {
    /// The part that serves, in its own region.
    Data,
    /// The part that configures, which may live elsewhere.
    Control,
}

/// Something that an action needs to be alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The region that it is in.
    pub region: RegionName,
    /// Which side is called.
    pub plane: Plane,
    /// What is called: a host, a store, a DNS server.
    pub what: String,
}

/// What it takes to go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "class", content = "detail")]
pub enum Undo {
    /// Nothing is changed, so there is nothing to undo.
    ReadOnly,
    /// The previous state can be put back; how.
    Reversible(String),
    /// Another action makes up for it; which.
    Compensable(String),
    /// There is no way back from here; why.
    Irreversible(String),
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly => f.write_str("read-only"),
            Self::Reversible(how) => write!(f, "reversible: {how}"),
            Self::Compensable(how) => write!(f, "compensable: {how}"),
            Self::Irreversible(why) => write!(f, "point of no return: {why}"),
        }
    }
}

/// One thing to do, decided when the plan was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// What it is called, a verb phrase in kebab case that its driver knows: `promote-standby`.
    pub name: String,
    /// One line for people: what will be done, to what, with which values.
    pub summary: String,
    /// The value now, where there is one.
    pub current: Option<String>,
    /// The value afterwards.
    pub intended: Option<String>,
    /// What has to be alive for it.
    pub dependencies: Vec<Dependency>,
    /// What it takes to go back.
    pub undo: Undo,
    /// The driver's own parameters.
    pub parameters: Value,
}

/// What an action left behind, for the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// One line for people: what was done.
    pub summary: String,
    /// Measured values, as data.
    pub evidence: Value,
    /// When the effect was known to be there, by this machine's wall clock.
    pub at: Timestamp,
}

/// Whether an action has been done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verified {
    /// It has.
    Done(Applied),
    /// It has not; what was seen instead.
    NotDone {
        /// What was seen.
        seen: String,
    },
    /// That cannot be told; why.
    Unknown {
        /// Why not.
        why: String,
        /// What to do so that it can be, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remedy: Option<String>,
    },
}

impl Verified {
    /// It could not be looked at: the error with its causes says why, its hint what to do.
    #[must_use]
    pub fn unknown(error: &Error) -> Self {
        Self::Unknown {
            why: chain(error),
            remedy: error.hint().map(str::to_owned),
        }
    }
}
