//! What an execution writes into its journal (PROTOCOL 9).
//!
//! An entry is a [`Batch`] of records, because every entry is a write to a store and time counts: the intent of an
//! action is written together with the outcomes of the looks before it. An action that changes something gets its
//! outcome written at once; what only looked is not worth a write of its own, since a crash costs another look.

use std::fmt;

use dr_model::{ResourceName, StepId};
use dr_provider::driver::Applied;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::outcome::{Report, StepState, Stuck};
use crate::plan::Plan;
use crate::request::Statement;

/// The records of one journal entry, in order.
pub type Batch = Vec<Record>;

/// One thing that an execution writes down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record")]
pub enum Record {
    /// The execution begins; the whole plan.
    Opened {
        /// The plan.
        plan: Box<Plan>,
        /// When.
        at: Timestamp,
    },
    /// A step begins.
    Began {
        /// The step.
        step: StepId,
        /// When.
        at: Timestamp,
    },
    /// An action is about to be tried.
    Intended {
        /// Which.
        place: Place,
        /// The number of the attempt in this run, from 1.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// What came of it.
    Concluded {
        /// Which.
        place: Place,
        /// The outcome.
        outcome: Outcome,
        /// How long it took, by the monotonic clock.
        took_seconds: f64,
    },
    /// The fallback is taken from here on.
    FellBack {
        /// The step.
        step: StepId,
        /// The lane in it.
        lane: usize,
        /// Why the main branch definitely cannot be.
        why: String,
    },
    /// The execution goes on without something optional.
    WentWithout {
        /// The step.
        step: StepId,
        /// The lane in it.
        lane: usize,
        /// Why it was not done, or why nobody can tell, and how it stands where that was seen.
        why: String,
        /// When.
        at: Timestamp,
    },
    /// A step is over.
    Finished {
        /// The step.
        step: StepId,
        /// How it ended.
        state: StepState,
        /// One line.
        summary: String,
        /// When.
        at: Timestamp,
    },
    /// A human stated something while resuming.
    Stated {
        /// What.
        statement: Statement,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The old primary was looked at, because somebody's word is to count (PROTOCOL 7).
    Looked {
        /// Which resource's.
        resource: ResourceName,
        /// What was seen.
        seen: String,
        /// Whether that shows that it is alive: then no witness counts.
        alive: bool,
        /// When.
        at: Timestamp,
    },
    /// A human stopped the execution between two actions, until it is resumed.
    Paused {
        /// Why.
        why: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// A human decided that a step is not done. What it has done already stays.
    Skipped {
        /// The step.
        step: StepId,
        /// Why.
        why: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// A human decided that a step that was left out is done after all.
    Unskipped {
        /// The step.
        step: StepId,
        /// Why.
        why: String,
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The execution cannot go on without a human.
    Stuck {
        /// Why, what it leaves behind and what to do.
        stuck: Stuck,
    },
    /// The execution is over.
    Closed {
        /// What came of it.
        report: Box<Report>,
    },
}

/// One action of a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The step.
    pub step: StepId,
    /// The lane in it.
    pub lane: usize,
    /// Whether it belongs to the lane's fallback.
    pub fallback: bool,
    /// The action in it.
    pub action: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let branch = if self.fallback { " fallback" } else { "" };
        write!(f, "{}[{}]{branch}.{}", self.step, self.lane, self.action)
    }
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It is done.
    Done {
        /// What it left behind.
        applied: Applied,
        /// Whether that was found on looking, not done in this attempt.
        observed: bool,
    },
    /// It is definitely not done.
    NotDone {
        /// Why not.
        why: String,
    },
    /// It is unknown whether it was done.
    Unknown {
        /// Why.
        why: String,
    },
}
