//! An execution as its journal tells it: a fold over the entries, pure and the same on every machine.
//!
//! The executor keeps one of these up to date with what it writes, so going on and resuming are the same thing.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::{ExecutionId, ResourceName, StepId};
use dr_provider::driver::{Action, Applied, Evidence};
use jiff::Timestamp;

use crate::outcome::{Report, State, StepState, Stuck};
use crate::plan::{Lane, Plan, Target};
use crate::record::{Outcome, Place, Record};
use crate::request::{Statement, witness};
use crate::steps::await_approval;

/// What is known of an execution.
#[derive(Clone, Debug)]
pub struct History {
    /// The execution.
    pub execution: ExecutionId,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// When it began.
    pub started_at: Timestamp,
    /// What humans stated, first when asking and then when resuming.
    pub statements: Vec<Statement>,
    /// When a human first stated to know that the old primary has stopped.
    pub witnessed_at: Option<Timestamp>,
    /// Why it is paused, and by whom, if it is.
    pub paused: Option<String>,
    /// Why it is stuck, if it is.
    pub stuck: Option<Stuck>,
    /// What came of it, if it is over.
    pub closed: Option<Report>,
    steps: BTreeMap<StepId, StepHistory>,
    fallbacks: BTreeMap<(StepId, usize), String>,
    without: BTreeMap<(StepId, usize), String>,
    actions: BTreeMap<Place, Progress>,
    /// What the newest look at each old primary saw, if that was alive.
    alive: BTreeMap<ResourceName, String>,
}

/// What is known of a step.
#[derive(Clone, Debug)]
pub struct StepHistory {
    /// Its state.
    pub state: StepState,
    /// When it first began.
    pub began_at: Timestamp,
    /// When it was begun last: an execution that was interrupted begins the step anew where it is resumed.
    pub begun_again_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// One line.
    pub summary: Option<String>,
}

impl StepHistory {
    /// Returns how long it took since it was begun last, in seconds: how long an execution lay is no part of it. `None` if it has not
    /// ended, or nobody did it.
    #[must_use]
    pub fn took_seconds(&self) -> Option<f64> {
        if self.state == StepState::Skipped {
            return None;
        }
        let took = self.finished_at?.duration_since(self.begun_again_at);
        Some(took.as_secs_f64())
    }
}

/// How far an action has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// It was begun; nothing is known of its outcome.
    Intended,
    /// What came of the last attempt.
    Concluded(Outcome),
}

impl History {
    /// Starts with a plan of which nothing has been done.
    #[must_use]
    pub fn new(execution: ExecutionId, plan: Plan, started_at: Timestamp) -> Self {
        Self {
            execution,
            witnessed_at: witness(&plan.statements).map(|_| started_at),
            statements: plan.statements.clone(),
            plan: Arc::new(plan),
            started_at,
            paused: None,
            stuck: None,
            closed: None,
            steps: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
            without: BTreeMap::new(),
            actions: BTreeMap::new(),
            alive: BTreeMap::new(),
        }
    }

    /// Reads the records of a journal in order; `None` if they do not begin with a plan.
    #[must_use]
    pub fn from_records<'a>(
        execution: ExecutionId,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Option<Self> {
        let mut records = records.into_iter();
        let Some(Record::Opened { plan, at }) = records.next() else {
            return None;
        };
        let mut history = Self::new(execution, plan.as_ref().clone(), *at);
        for record in records {
            history.take(record);
        }
        Some(history)
    }

    /// Takes the next record in.
    pub fn take(&mut self, record: &Record) {
        match record {
            Record::Opened { .. } => {}
            Record::Began { step, at } => {
                let began = || StepHistory {
                    state: StepState::Running,
                    began_at: *at,
                    begun_again_at: *at,
                    finished_at: None,
                    summary: None,
                };
                let known = self.steps.entry(step.clone()).or_insert_with(began);
                *known = StepHistory {
                    began_at: known.began_at,
                    ..began()
                };
                self.goes_on();
            }
            Record::Intended { place, .. } => {
                self.actions.insert(place.clone(), Progress::Intended);
                self.goes_on();
            }
            Record::Concluded { place, outcome, .. } => {
                let progress = Progress::Concluded(outcome.clone());
                self.actions.insert(place.clone(), progress);
            }
            Record::FellBack { step, lane, why } => {
                self.fallbacks.insert((step.clone(), *lane), why.clone());
            }
            Record::WentWithout {
                step, lane, why, ..
            } => {
                self.without.insert((step.clone(), *lane), why.clone());
            }
            Record::Finished {
                step,
                state,
                summary,
                at,
            } => {
                if let Some(known) = self.steps.get_mut(step) {
                    known.state = *state;
                    known.finished_at = Some(*at);
                    known.summary = Some(summary.clone());
                }
            }
            Record::Stated { statement, at, .. } => {
                self.statements.push(statement.clone());
                if self.witnessed_at.is_none() && witness(&self.statements).is_some() {
                    self.witnessed_at = Some(*at);
                }
            }
            Record::Looked {
                resource,
                seen,
                alive: true,
                ..
            } => {
                self.alive.insert(resource.clone(), seen.clone());
            }
            Record::Looked { resource, .. } => {
                self.alive.remove(resource);
            }
            Record::Paused { why, by, at } => {
                self.paused = Some(format!("paused by {by} at {at:.0}: {why}"));
            }
            Record::Skipped { step, why, by, at } => {
                let began_at = self.steps.get(step).map_or(*at, |known| known.began_at);
                let skipped = StepHistory {
                    state: StepState::Skipped,
                    began_at,
                    begun_again_at: *at,
                    finished_at: Some(*at),
                    summary: Some(format!("skipped by {by}: {why}")),
                };
                self.steps.insert(step.clone(), skipped);
            }
            // What it did before it was left out stands in its actions, and is looked at first.
            Record::Unskipped { step, .. } => {
                self.steps.remove(step);
            }
            Record::Stuck { stuck } => self.stuck = Some(stuck.clone()),
            Record::Closed { report } => {
                self.goes_on();
                self.closed = Some(report.as_ref().clone());
            }
        }
    }

    fn goes_on(&mut self) {
        self.stuck = None;
        self.paused = None;
    }

    /// Returns the state of the execution.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.closed, &self.paused, &self.stuck) {
            (Some(report), ..) => report.state,
            (None, Some(_), _) => State::Paused,
            (None, None, Some(_)) => State::Stuck,
            (None, None, None) if await_approval::is_waiting(self) => State::AwaitingApproval,
            (None, None, None) => State::Running,
        }
    }

    /// Returns what is known of a step, if it has begun.
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<&StepHistory> {
        self.steps.get(id)
    }

    /// Tells whether a step is over in a way that lets the next one begin.
    #[must_use]
    pub fn is_over(&self, id: &StepId) -> bool {
        let over = |step: &StepHistory| {
            use StepState::{Done, Excepted, Skipped};
            matches!(step.state, Done | Excepted | Skipped)
        };
        self.step(id).is_some_and(over)
    }

    /// Returns what the newest look at the old primary of a resource saw, if that was alive.
    #[must_use]
    pub fn alive(&self, resource: &ResourceName) -> Option<&str> {
        self.alive.get(resource).map(String::as_str)
    }

    /// Returns why the fallback of a lane was taken, if it was.
    #[must_use]
    pub fn fell_back(&self, step: &StepId, lane: usize) -> Option<&str> {
        let key = (step.clone(), lane);
        self.fallbacks.get(&key).map(String::as_str)
    }

    /// Returns why the execution went on without what a lane is about, if it did.
    #[must_use]
    pub fn went_without(&self, step: &StepId, lane: usize) -> Option<&str> {
        let key = (step.clone(), lane);
        self.without.get(&key).map(String::as_str)
    }

    /// Returns the first step that went on without `target`, if any did.
    #[must_use]
    pub fn gave_up(&self, target: &Target) -> Option<&StepId> {
        let steps = self.plan.steps.iter();
        let mut lanes = steps.flat_map(|step| {
            let numbered = step.lanes.iter().enumerate();
            numbered.map(move |(index, lane)| (&step.id, index, lane))
        });
        let gave_up = |(step, index, lane): &(&StepId, usize, &Lane)| {
            lane.target == *target && self.went_without(step, *index).is_some()
        };
        lanes.find(gave_up).map(|(step, ..)| step)
    }

    /// Returns how far an action has come, if it has begun.
    #[must_use]
    pub fn progress(&self, place: &Place) -> Option<&Progress> {
        self.actions.get(place)
    }

    /// Returns how far each action has come that has begun, in the order of the plan.
    pub fn actions(&self) -> impl Iterator<Item = (&Place, &Progress)> {
        let order = |place: &Place| {
            let mut steps = self.plan.steps.iter();
            steps.position(|step| step.id == place.step)
        };
        let mut all: Vec<_> = self.actions.iter().collect();
        all.sort_by_key(|(place, _)| order(place));
        all.into_iter()
    }

    /// Returns the planned action at a place.
    #[must_use]
    pub fn action(&self, place: &Place) -> Option<&Action> {
        let lane = self.plan.step(&place.step)?.lanes.get(place.lane)?;
        let actions = match place.fallback {
            false => &lane.actions,
            true => lane.fallback.as_ref()?.actions.as_ref().ok()?,
        };
        actions.get(place.action)
    }

    /// Returns what an action left behind, if it is done.
    #[must_use]
    pub fn applied(&self, place: &Place) -> Option<&Applied> {
        match self.progress(place)? {
            Progress::Concluded(Outcome::Done { applied, .. }) => Some(applied),
            _ => None,
        }
    }

    /// Returns the step that a lane uses now: its own, or its fallback.
    #[must_use]
    pub fn uses<'a>(&self, step: &StepId, index: usize, lane: &'a Lane) -> &'a str {
        match (&lane.fallback, self.fell_back(step, index)) {
            (Some(branch), Some(_)) => &branch.uses,
            _ => &lane.uses,
        }
    }

    /// Returns everything that steps named `uses` have done to `target`, in order.
    pub fn done<'a>(
        &'a self,
        uses: &'a str,
        target: &'a Target,
    ) -> impl Iterator<Item = &'a Applied> {
        let lanes = self.plan.steps.iter().flat_map(|step| {
            step.lanes
                .iter()
                .enumerate()
                .map(move |(i, lane)| (step, i, lane))
        });
        lanes
            .filter(move |(_, _, lane)| &lane.target == target)
            .flat_map(move |(step, index, lane)| {
                let main = (lane.uses.as_str(), false);
                let other = lane.fallback.as_ref().map(|b| (b.uses.as_str(), true));
                std::iter::once(main)
                    .chain(other)
                    .filter(move |(name, _)| *name == uses)
                    .flat_map(move |(_, fallback)| self.in_branch(&step.id, index, fallback))
            })
    }

    fn in_branch(
        &self,
        step: &StepId,
        lane: usize,
        fallback: bool,
    ) -> impl Iterator<Item = &Applied> {
        let place = |action| Place {
            step: step.clone(),
            lane,
            fallback,
            action,
        };
        self.actions.range(place(0)..=place(usize::MAX)).filter_map(
            |(_, progress)| match progress {
                Progress::Concluded(Outcome::Done { applied, .. }) => Some(applied),
                _ => None,
            },
        )
    }

    /// Returns the last evidence of type `E` that any of the steps named left of a resource.
    #[must_use]
    pub fn evidence<E: Evidence>(&self, steps: &[&str], resource: &ResourceName) -> Option<E> {
        let target = Target::Resource(resource.clone());
        let found = steps.iter().flat_map(|uses| {
            let read = |applied: &Applied| E::from_evidence(&applied.evidence);
            self.done(uses, &target).filter_map(read).last()
        });
        found.last()
    }

    /// Returns whether a step of this name is over.
    #[must_use]
    pub fn has_done(&self, uses: &str) -> bool {
        let mut steps = self.plan.steps.iter().filter(|step| step.uses == uses);
        steps.any(|step| {
            self.step(&step.id)
                .is_some_and(|known| known.state == StepState::Done)
        })
    }
}
