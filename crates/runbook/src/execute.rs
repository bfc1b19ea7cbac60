//! Executes a plan: journals intent before and outcome after, and makes no choices of its own (PROTOCOL 9).
//!
//! Going on from any point of the journal is the normal way of working: a new execution is one whose journal holds
//! nothing but its plan. Whoever finds that somebody else has written the next entry stops without another effect.

mod action;
mod best_effort;
mod due;
mod end;
mod error;
mod optional;
mod together;
mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::journal::{self, Journal};
use dr_model::{ExecutionId, StepId};

pub(crate) use end::completed;
pub use error::Error;

use crate::events::{Event, Monitor};
use crate::history::History;
use crate::outcome::{Report, StepState};
use crate::plan::{Lane, Mode, Plan, PlannedStep};
use crate::proof;
use crate::record::{Batch, Place, Record};
use crate::redact::Redactor;
use crate::site::Site;
use crate::step::{Step, Unmet, Work};
use crate::steps::{fence_primary, open_epoch, registry, verify_traffic};
use crate::waits::Waits;
use due::{Due, changes};
use trouble::Trouble;

/// How long a look before an action may take.
const CHECK_LIMIT: Duration = Duration::from_secs(40);

/// Executes a plan from its beginning to its end, or as far as it goes.
///
/// # Errors
///
/// Only if the journal cannot be written: then nobody knows more than it says, and the execution is to be resumed.
/// Everything else, superseded and stuck included, is a state in the report.
pub async fn execute(site: Arc<Site>, plan: Plan, monitor: &dyn Monitor) -> Result<Report, Error> {
    let redactor = Redactor::new(&site.secrets);
    let text = serde_json::to_value(&plan)
        .expect("a plan holds text keys, numbers, texts and times, which are always valid JSON");
    if redactor.finds_in(&text) {
        return Err(Error::SecretInPlan);
    }
    let started = site.clock.elapsed();
    let at = site.clock.now();
    let execution = ExecutionId::new(at, &plan.to, rand::random());
    let Some(store) = site.stores.get(&plan.to) else {
        return Err(Error::NoStore { region: plan.to });
    };
    let opened = Record::Opened {
        plan: Box::new(plan.clone()),
        at,
    };
    let created = Journal::create(
        Arc::clone(store),
        Arc::clone(&site.clock),
        execution.clone(),
        site.actor.clone(),
        vec![opened],
    );
    let journal = created.await.map_err(|source| Error::NotBegun {
        execution: execution.clone(),
        region: plan.to.clone(),
        source: Box::new(source),
    })?;
    let history = History::new(execution, plan, at);
    let mut executor = Executor::new(site, journal, history, monitor);
    executor.started = Some(started);
    executor.run(false).await
}

/// Why the steps came to a halt.
#[derive(Debug)]
enum Halt {
    /// Something was definitely not done.
    Failed(Trouble),
    /// It needs a human: why, and what to do.
    Stuck(String, String),
    /// Somebody else has the say.
    Superseded(String),
    /// Somebody has written into the journal that it is to stop here.
    Paused(String),
    /// The journal cannot be written.
    Journal(journal::Error),
}

/// Carries out one execution.
pub(crate) struct Executor<'a> {
    site: Arc<Site>,
    journal: Journal<Batch>,
    history: Arc<History>,
    monitor: &'a dyn Monitor,
    redactor: Arc<Redactor>,
    /// Records not written yet: looks, and what goes with the next intent.
    unwritten: Batch,
    /// What runs beside the steps.
    best_effort: best_effort::Running,
    /// Actions that were tried once, side by side with those of other lanes, and were definitely not done: why, and whether it makes sense to try
    /// again.
    tried: BTreeMap<Place, (Trouble, bool)>,
    /// Monotonic time at the beginning, if this process began the execution.
    started: Option<Duration>,
    /// Time to recover by the monotonic clock.
    rta: Option<Duration>,
    /// When this process first knew that the epoch is open, by the monotonic clock.
    opened: Option<Duration>,
    /// How long actions were under way or waited for.
    busy: Duration,
    /// Whether the journal is another's now: what we would add is not heard.
    taken_over: bool,
    /// How often the execution had been taken over when this process began; what it reads of later takeovers is another's.
    takeovers: u32,
}

impl<'a> Executor<'a> {
    /// Makes an executor that goes on where `history` ends; the journal must be ours.
    pub(crate) fn new(
        site: Arc<Site>,
        journal: Journal<Batch>,
        history: History,
        monitor: &'a dyn Monitor,
    ) -> Self {
        if history.plan.mode == Mode::Unplanned {
            site.register.leave(&history.plan.from);
        }
        let takeovers = journal.takeovers();
        Self {
            redactor: Arc::new(Redactor::new(&site.secrets)),
            site,
            journal,
            history: Arc::new(history),
            monitor,
            unwritten: Batch::new(),
            best_effort: best_effort::Running::default(),
            tried: BTreeMap::new(),
            started: None,
            rta: None,
            opened: None,
            busy: Duration::ZERO,
            taken_over: false,
            takeovers,
        }
    }

    /// Carries out all that is left to do.
    pub(crate) async fn run(mut self, resumed: bool) -> Result<Report, Error> {
        let plan = Arc::clone(&self.history.plan);
        self.monitor.event(&Event::Started {
            execution: &self.history.execution,
            plan: &plan,
            resumed,
        });
        let mut end = self.steps(&plan).await;
        if !matches!(end, Err((_, Halt::Superseded(_) | Halt::Journal(_)))) {
            // What is still on its way belongs into the record; it takes its own time limit at most.
            let late = self.settle().await;
            if let (Ok(()), Err(halt)) = (&end, late) {
                let step = plan.steps.last().map(|step| step.id.clone());
                end = Err((step.unwrap_or_else(|| StepId(String::new())), halt));
            }
        }
        let report = match end {
            Ok(()) => completed(&self.history),
            Err((step, halt)) => match self.halted(&step, halt) {
                Ok(report) => report,
                Err(source) => return Err(Error::journal(&self.history.execution, source)),
            },
        };
        self.close(report).await
    }

    async fn steps(&mut self, plan: &Plan) -> Result<(), (StepId, Halt)> {
        for (index, step) in plan.steps.iter().enumerate() {
            if self.history.is_over(&step.id) && !self.is_worth_repeating(step) {
                continue;
            }
            self.monitor.event(&Event::StepBegan {
                step,
                number: index + 1,
                of: plan.steps.len(),
            });
            let done = self.step(step).await;
            done.map_err(|halt| (step.id.clone(), halt))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &PlannedStep) -> Result<(), Halt> {
        let at = self.site.clock.now();
        self.note(Record::Began {
            step: step.id.clone(),
            at,
        });
        let began = self.site.clock.elapsed();
        let Some(kind) = registry::find(&step.uses) else {
            return Err(unknown_step(&step.uses));
        };
        if kind.is_best_effort() {
            self.start(step, kind, began).await?;
            return if step.background {
                Ok(())
            } else {
                self.settle().await
            };
        }
        self.collect().await?;
        // A fence that is still on its way may see what somebody's word is contradicted by.
        let acts = step.lanes.iter().any(|lane| !lane.actions.is_empty());
        if acts && kind.follows().contains(&fence_primary::NAME) && !self.is_settled() {
            self.settle().await?;
        }
        match Box::pin(self.together(step, kind)).await {
            Err(halt @ (Halt::Superseded(_) | Halt::Journal(_) | Halt::Paused(_))) => {
                return Err(halt);
            }
            // Whatever else came of a lane is found again where it is done by itself.
            Ok(()) | Err(Halt::Failed(_) | Halt::Stuck(..)) => {}
        }
        let mut failed = None;
        for index in 0..step.lanes.len() {
            match self.lane_unless_optional(step, kind, index).await {
                Ok(()) => {}
                Err(Halt::Failed(why)) if step.continue_on_error => {
                    failed = Some(why.to_string());
                }
                Err(Halt::Stuck(why, _)) if step.continue_on_error => failed = Some(why),
                Err(halt) => {
                    match &halt {
                        Halt::Failed(why) => {
                            self.finish(step, StepState::Failed, &why.to_string(), began);
                        }
                        Halt::Stuck(why, _) => self.finish(step, StepState::Failed, why, began),
                        _ => {}
                    }
                    return Err(halt);
                }
            }
        }
        match failed {
            Some(why) => self.finish(step, StepState::Excepted, &why, began),
            None => {
                let summary = self.summary(step);
                if self.went_without_all(step) {
                    self.finish(step, StepState::Excepted, &summary, began);
                    return Ok(());
                }
                self.finish(step, StepState::Done, &summary, began);
                if step.uses == open_epoch::NAME {
                    self.opened = Some(self.site.clock.elapsed());
                }
                let proves = step.uses == verify_traffic::NAME
                    && verify_traffic::is_proven(&self.history, &step.id);
                if let (true, Some(started)) = (proves, self.started) {
                    self.rta = Some(self.site.clock.elapsed().saturating_sub(started));
                }
            }
        }
        Ok(())
    }

    /// Tells whether a step that is over may still find what nobody has found: a proof, or what somebody's word is contradicted by.
    fn is_worth_repeating(&self, step: &PlannedStep) -> bool {
        let kind = registry::find(&step.uses);
        kind.is_some_and(Step::is_best_effort) && !self.is_settled()
    }

    /// Tells whether every resource that needs a proof has one that rests on nobody's word, or came up already.
    fn is_settled(&self) -> bool {
        let history = &self.history;
        let mut resources = history.plan.proofs.keys();
        resources
            .all(|name| proof::is_seen(history, name) || proof::recovered(history, name).is_some())
    }

    async fn lane(&mut self, step: &PlannedStep, index: usize) -> Result<(), Halt> {
        let lane = &step.lanes[index];
        let why = match self.history.fell_back(&step.id, index) {
            Some(why) => Trouble::from(why.to_owned()),
            None => match self.branch(step, index, false).await? {
                None => return Ok(()),
                Some(why) => why,
            },
        };
        let other = lane.fallback.as_ref();
        let Some(other) = other.filter(|branch| branch.actions.is_ok()) else {
            return Err(Halt::Failed(why));
        };
        if self.history.fell_back(&step.id, index).is_none() {
            self.monitor.event(&Event::FellBack {
                target: &lane.target,
                uses: &other.uses,
                why: &why.to_string(),
            });
            self.note(Record::FellBack {
                step: step.id.clone(),
                lane: index,
                why: why.to_string(),
            });
            self.write().await?;
        }
        match self.branch(step, index, true).await? {
            None => Ok(()),
            Some(also) => {
                let then = format!("then {}: {}", other.uses, also.why);
                Err(Halt::Failed(why.and(&then, also.remedy)))
            }
        }
    }

    /// Does what one branch of a lane says; returns why it definitely was not done, if so.
    async fn branch(
        &mut self,
        step: &PlannedStep,
        index: usize,
        fallback: bool,
    ) -> Result<Option<Trouble>, Halt> {
        let lane = &step.lanes[index];
        let (uses, actions) = branch_of(lane, fallback);
        let Some(kind) = registry::find(uses) else {
            return Err(unknown_step(uses));
        };
        let has_begun = self.has_begun(step, index, fallback, actions);
        if !has_begun && let Some(why) = self.check(step, kind, lane).await? {
            return Ok(Some(why));
        }
        let first_change = actions.iter().position(changes);
        for (number, action) in actions.iter().enumerate() {
            // What came before it may have taken long, as a checkpoint does.
            if !has_begun
                && number > 0
                && Some(number) == first_change
                && let Some(why) = self.check(step, kind, lane).await?
            {
                return Ok(Some(why));
            }
            let due = Due {
                step,
                kind,
                lane,
                place: Place {
                    step: step.id.clone(),
                    lane: index,
                    fallback,
                    action: number,
                },
                action,
            };
            if let Some(why) = self.action(&due).await? {
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    async fn check(
        &self,
        step: &PlannedStep,
        kind: &dyn Step,
        lane: &Lane,
    ) -> Result<Option<Trouble>, Halt> {
        let work = self.work(step);
        match tokio::time::timeout(CHECK_LIMIT, kind.check(&work, &lane.target)).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(Unmet::Unfit(why))) => Ok(Some(why.into())),
            Ok(Err(Unmet::Forbidden { why, remedy })) => Err(Halt::Stuck(why, remedy)),
            Ok(Err(Unmet::Superseded(why))) => Err(Halt::Superseded(why)),
            Err(_) => Err(Halt::Stuck(
                format!("`{}` could not be looked at in time", lane.target),
                "see why it does not answer".to_owned(),
            )),
        }
    }

    fn work(&self, step: &PlannedStep) -> Work {
        Work {
            site: Arc::clone(&self.site),
            history: Arc::clone(&self.history),
            step: Arc::new(step.clone()),
            opened: self.opened,
            takeovers: self.takeovers,
            waits: Waits::default(),
        }
    }

    fn note(&mut self, record: Record) {
        Arc::make_mut(&mut self.history).take(&record);
        self.unwritten.push(record);
    }

    /// Writes what has not been written. When this returns, nobody else had written before.
    async fn write(&mut self) -> Result<(), Halt> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.unwritten);
        match self.journal.append(batch).await {
            Ok(_) => Ok(()),
            Err(error @ journal::Error::TakenOver { .. }) => Err(self.outdone(error).await),
            Err(error) => Err(Halt::Journal(error)),
        }
    }

    /// Says why somebody else's entry stands where the next of ours should: a pause, or another who acts.
    async fn outdone(&mut self, error: journal::Error) -> Halt {
        self.taken_over = true;
        let read = self.journal.read_on().await;
        let newest = self.journal.entries().last().filter(|_| read.is_ok());
        let mut records = newest
            .and_then(|entry| entry.record())
            .into_iter()
            .flatten();
        match records.find(|record| matches!(record, Record::Paused { .. })) {
            Some(paused) => {
                let history = Arc::make_mut(&mut self.history);
                history.take(paused);
                Halt::Paused(history.paused.clone().unwrap_or_default())
            }
            None => Halt::Superseded(error.to_string()),
        }
    }

    fn finish(&mut self, step: &PlannedStep, state: StepState, summary: &str, began: Duration) {
        let took = self.site.clock.elapsed().saturating_sub(began);
        self.monitor.event(&Event::StepEnded {
            step,
            state,
            summary,
            took,
        });
        tracing::info!(
            step = step.uses,
            ?state,
            took_seconds = took.as_secs_f64(),
            summary
        );
        let at = self.site.clock.now();
        self.note(Record::Finished {
            step: step.id.clone(),
            state,
            summary: summary.to_owned(),
            at,
        });
    }

    fn summary(&self, step: &PlannedStep) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (index, lane) in step.lanes.iter().enumerate() {
            let fallback = self.history.fell_back(&step.id, index).is_some();
            let (_, actions) = branch_of(lane, fallback);
            let place = |action| Place {
                step: step.id.clone(),
                lane: index,
                fallback,
                action,
            };
            let last = (0..actions.len())
                .rev()
                .find_map(|a| self.history.applied(&place(a)));
            let last = last.map(|applied| applied.summary.clone());
            parts.extend(optional::without(&self.history, step, index).or(last));
        }
        if let Some(why) = &step.left_out {
            return format!("left out: {why}");
        }
        if parts.is_empty() {
            return "nothing to do".to_owned();
        }
        parts.join("; ")
    }

    /// Returns what is known of the execution.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Leaves a step out, as a human has decided.
    pub(crate) fn skip(&mut self, step: &StepId, why: &str) {
        let by = self.site.actor.to_string();
        let at = self.site.clock.now();
        let why = self.redactor.text(why);
        let mut note = format!("step `{step}` is left out: {why}");
        let undone: Vec<_> = self.history.undone(step).collect();
        if !undone.is_empty() {
            note.push_str(&format!(
                "; nobody but you does this now: {}",
                undone.join("; ")
            ));
        }
        note.push_str(&format!(
            ". While the execution has not ended, `dr execution resume {} --unskip {step} --reason \"...\"` has it done after all",
            self.history.execution
        ));
        self.note(Record::Skipped {
            step: step.clone(),
            why,
            by,
            at,
        });
        self.monitor.event(&Event::Note(&note));
    }

    /// Takes back that a step was left out, as a human has decided: it is done when its turn comes, which is now.
    pub(crate) fn unskip(&mut self, step: &StepId, why: &str) {
        let by = self.site.actor.to_string();
        let at = self.site.clock.now();
        let why = self.redactor.text(why);
        self.note(Record::Unskipped {
            step: step.clone(),
            why,
            by,
            at,
        });
    }

    /// Takes what a human states into the record.
    pub(crate) fn state(&mut self, statement: crate::request::Statement) {
        let by = self.site.actor.to_string();
        let at = self.site.clock.now();
        self.note(Record::Stated { statement, by, at });
    }
}

fn branch_of(lane: &Lane, fallback: bool) -> (&str, &[dr_provider::driver::Action]) {
    match (&lane.fallback, fallback) {
        (Some(branch), true) => (&branch.uses, branch.actions.as_deref().unwrap_or_default()),
        _ => (&lane.uses, &lane.actions),
    }
}

fn unknown_step(uses: &str) -> Halt {
    Halt::Stuck(
        format!("this version of dr knows no step `{uses}`"),
        "use the version of dr that made the plan".to_owned(),
    )
}
