//! Steps that are tried for what they are worth, beside the others: fencing (PROTOCOL 7).
//!
//! Where somebody has stated something about it, the old primary is looked at meanwhile: a fence that runs into its time limit says nothing, and
//! nobody's word outweighs a server that answers. What was seen is journaled, also where an override goes on all the same.
//!
//! Their intents are journaled before they begin like any other; their outcomes when they are collected, which is
//! before the first step that could need them and in any case before the end.

use std::pin::pin;
use std::time::Duration;

use dr_provider::driver::{Action, Applied, Evidence, Fenced};
use dr_provider::{Error, ErrorKind};
use futures::future::{Either, select};
use tokio::task::JoinSet;

use super::due::limit;
use super::{Executor, Halt};
use crate::old_primary::{self, Look};
use crate::outcome::StepState;
use crate::plan::{PlannedStep, Target};
use crate::record::{Outcome, Place, Record};
use crate::request::{override_reason, witness};
use crate::step::{Step, Work};

/// What runs beside the steps. Dropping it calls everything off.
#[derive(Debug, Default)]
pub(super) struct Running {
    lanes: JoinSet<Ended>,
    steps: Vec<Begun>,
}

#[derive(Debug)]
struct Begun {
    step: PlannedStep,
    began: Duration,
    left: usize,
    summaries: Vec<String>,
}

/// A lane that has ended: what came of each action that was begun, in order.
#[derive(Debug)]
struct Ended {
    step: PlannedStep,
    lane: usize,
    results: Vec<Result<Applied, Error>>,
    looked: Option<Look>,
    took: Duration,
}

impl Executor<'_> {
    /// Begins all lanes of a best-effort step at once.
    pub(super) async fn start(
        &mut self,
        step: &PlannedStep,
        kind: &'static dyn Step,
        began: Duration,
    ) -> Result<(), Halt> {
        let open: Vec<usize> = (0..step.lanes.len())
            .filter(|lane| !self.has_proven(step, *lane))
            .collect();
        for lane in &open {
            for action in 0..step.lanes[*lane].actions.len() {
                let place = place(step, *lane, action);
                let at = self.site.clock.now();
                self.note(Record::Intended {
                    place,
                    attempt: 1,
                    at,
                });
            }
        }
        self.write().await?;
        for lane in &open {
            let planned = &step.lanes[*lane];
            let work = self.work(step);
            let (target, actions) = (planned.target.clone(), planned.actions.clone());
            let run = run(work, kind, *lane, target, actions);
            self.best_effort.lanes.spawn(run);
        }
        self.best_effort.steps.push(Begun {
            step: step.clone(),
            began,
            left: open.len(),
            summaries: Vec::new(),
        });
        self.finish_best_effort();
        Ok(())
    }

    /// Tells whether a lane has its proof already, from before a crash; trying again could only lose it.
    fn has_proven(&self, step: &PlannedStep, lane: usize) -> bool {
        (0..step.lanes[lane].actions.len()).any(|action| {
            let applied = self.history.applied(&place(step, lane, action));
            applied.is_some_and(proves)
        })
    }

    /// Collects what has ended, without waiting.
    pub(super) async fn collect(&mut self) -> Result<(), Halt> {
        while let Some(ended) = self.best_effort.lanes.try_join_next() {
            self.take_in(ended)?;
        }
        Ok(())
    }

    /// Waits for everything that runs beside the steps; each has its time limit.
    pub(super) async fn settle(&mut self) -> Result<(), Halt> {
        let mut since = self.site.clock.elapsed();
        while let Some(ended) = self.best_effort.lanes.join_next().await {
            let now = self.site.clock.elapsed();
            self.busy += now.saturating_sub(since);
            since = now;
            self.take_in(ended)?;
        }
        Ok(())
    }

    fn take_in(&mut self, ended: Result<Ended, tokio::task::JoinError>) -> Result<(), Halt> {
        let ended = match ended {
            Ok(ended) => ended,
            // A lane that panicked proved nothing; its intents stand without an outcome.
            Err(error) => {
                tracing::error!(%error, "a best-effort lane broke down");
                return Ok(());
            }
        };
        let Ended {
            step,
            lane,
            results,
            looked,
            took,
        } = ended;
        let planned = step.lanes[lane].actions.len();
        let mut superseded = None;
        let mut summary = None;
        let mut results = results.into_iter();
        for action in 0..planned {
            let outcome = match results.next() {
                Some(Ok(applied)) => Outcome::Done {
                    applied,
                    observed: false,
                },
                Some(Err(error)) => {
                    let why = dr_provider::error::chain(&error);
                    if error.kind() == ErrorKind::Superseded {
                        superseded = Some(why.clone());
                    }
                    Outcome::NotDone { why }
                }
                None => Outcome::Unknown {
                    why: format!("no answer within {:?}", limit(&step)),
                },
            };
            let outcome = self.redactor.outcome(outcome);
            summary = Some(match &outcome {
                Outcome::Done { applied, .. } => applied.summary.clone(),
                Outcome::NotDone { why } | Outcome::Unknown { why } => format!("no proof: {why}"),
            });
            self.note(Record::Concluded {
                place: place(&step, lane, action),
                outcome,
                took_seconds: took.as_secs_f64(),
            });
        }
        let looked = looked.and_then(|looked| self.take_look(&step.lanes[lane].target, looked));
        if let Some(begun) = self.begun(&step) {
            begun.left -= 1;
            begun.summaries.extend(summary);
            begun.summaries.extend(looked);
        }
        self.finish_best_effort();
        match superseded {
            Some(why) => Err(Halt::Superseded(why)),
            None => Ok(()),
        }
    }

    /// Takes a look into the record; returns it in one line.
    fn take_look(&mut self, target: &Target, looked: Look) -> Option<String> {
        let Target::Resource(resource) = target else {
            return None;
        };
        let seen = self.redactor.text(&looked.seen);
        let line = format!("looked at the old primary of `{resource}`: {seen}");
        let at = self.site.clock.now();
        self.note(Record::Looked {
            resource: resource.clone(),
            seen,
            alive: looked.alive,
            at,
        });
        Some(line)
    }

    fn begun(&mut self, step: &PlannedStep) -> Option<&mut Begun> {
        let mut all = self.best_effort.steps.iter_mut();
        all.find(|begun| begun.step.id == step.id)
    }

    /// Finishes every best-effort step of which nothing is left.
    fn finish_best_effort(&mut self) {
        let steps = std::mem::take(&mut self.best_effort.steps);
        for begun in steps {
            if begun.left > 0 {
                self.best_effort.steps.push(begun);
                continue;
            }
            let summary = match begun.summaries.is_empty() {
                true => "nothing was left to try".to_owned(),
                false => begun.summaries.join("; "),
            };
            self.finish(&begun.step, StepState::Done, &summary, begun.began);
        }
    }
}

fn place(step: &PlannedStep, lane: usize, action: usize) -> Place {
    Place {
        step: step.id.clone(),
        lane,
        fallback: false,
        action,
    }
}

async fn run(
    work: Work,
    kind: &'static dyn Step,
    lane: usize,
    target: Target,
    actions: Vec<Action>,
) -> Ended {
    let began = work.site.clock.elapsed();
    let mut results = Vec::new();
    let (late, looked) = {
        let all = async {
            for action in &actions {
                results.push(kind.apply(&work, &target, action).await);
            }
            results.iter().flatten().any(proves)
        };
        let acting = pin!(tokio::time::timeout(limit(&work.step), all));
        let looking = pin!(look(&work, &target));
        match select(acting, looking).await {
            // A proof leaves nothing to be contradicted.
            Either::Left((Ok(true), _)) => (false, None),
            Either::Left((acted, looking)) => (acted.is_err(), looking.await),
            Either::Right((looked, acting)) => (acting.await.is_err(), looked),
        }
    };
    // A lane that is late has proven what its results say and no more.
    tracing::debug!(step = kind.name(), %target, late, ?looked, "best-effort lane ended");
    Ended {
        step: work.step.as_ref().clone(),
        lane,
        results,
        looked,
        took: work.site.clock.elapsed().saturating_sub(began),
    }
}

/// Looks at the old primary if somebody's word is to count for it.
async fn look(work: &Work, target: &Target) -> Option<Look> {
    let Target::Resource(name) = target else {
        return None;
    };
    let needs_proof = work.plan().proofs.contains_key(name);
    let statements = &work.history.statements;
    let is_stated = witness(statements).is_some() || override_reason(statements).is_some();
    if !is_stated || !needs_proof {
        return None;
    }
    let driver = work.driver(target).ok()?;
    Some(old_primary::look(&*driver, &work.plan().from).await)
}

fn proves(applied: &Applied) -> bool {
    Fenced::from_evidence(&applied.evidence).is_some_and(|fenced| fenced.proof.is_some())
}
