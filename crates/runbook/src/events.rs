//! Progress, for whoever watches. The library never prints.

use std::time::Duration;

use dr_model::ExecutionId;
use dr_provider::driver::Action;

use crate::outcome::{Report, StepState};
use crate::plan::{Plan, PlannedStep, Target};
use crate::record::Outcome;

/// Something that happened in an execution.
#[derive(Debug)]
pub enum Event<'a> {
    /// The execution begins, or is resumed; its journal exists.
    Started {
        /// The execution.
        execution: &'a ExecutionId,
        /// The plan.
        plan: &'a Plan,
        /// Whether another process began it.
        resumed: bool,
    },
    /// A step begins.
    StepBegan {
        /// The step.
        step: &'a PlannedStep,
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// An action begins.
    ActionBegan {
        /// What it acts on.
        target: &'a Target,
        /// The action.
        action: &'a Action,
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// An action has been under way for some time and waits for something. Said anew when it is something else.
    ActionWaits {
        /// What it acts on.
        target: &'a Target,
        /// What was seen last of what it waits for.
        seen: &'a str,
    },
    /// An action ended.
    ActionEnded {
        /// What it acted on.
        target: &'a Target,
        /// The action.
        action: &'a Action,
        /// What came of it.
        outcome: &'a Outcome,
        /// How long it took.
        took: Duration,
    },
    /// A fallback is taken.
    FellBack {
        /// What is acted on.
        target: &'a Target,
        /// The step that acts from here on.
        uses: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A step ended; one in the background may end after later ones.
    StepEnded {
        /// The step.
        step: &'a PlannedStep,
        /// How.
        state: StepState,
        /// One line.
        summary: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Something to know.
    Note(&'a str),
    /// The execution is over, or stuck.
    Ended(&'a Report),
}

/// Watches an execution.
pub trait Monitor: Send + Sync {
    /// Takes an event in. Called between steps: it must not block.
    fn event(&self, event: &Event<'_>);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _: &Event<'_>) {}
}
