//! One action: observed before it is repeated, tried, and observed again if its outcome is unknown (PROTOCOL 9).

use std::time::Duration;

use dr_coordination::journal::{self, Journal};
use dr_provider::ErrorKind;
use dr_provider::driver::{Action, Applied, Undo, Verified};
use tokio::time::error::Elapsed;

use super::trouble::Trouble;
use super::{Executor, Halt};
use crate::events::Event;
use crate::history::Progress;
use crate::plan::{Lane, PlannedStep};
use crate::record::{Batch, Outcome, Place, Record};
use crate::step::{Step, Work};

/// How often an outcome is looked at before it counts as unknown.
const LOOKS: u32 = 3;

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked, during a look that takes long, whether somebody else has written into the journal.
const OUTDONE_INTERVAL: Duration = Duration::from_secs(2);

/// How often an action is tried whose subject could not be reached, whatever the runbook says of retries: nothing has been
/// changed then, and one lost connection must not leave a failover waiting for a human.
const TRIES_TO_REACH: u32 = 3;

/// The least pause before the subject is tried again.
const REACH_INTERVAL: Duration = Duration::from_millis(500);

/// An attempt that took longer than this before its subject could not be reached is not repeated unasked: it may have copied
/// for hours.
const REACH_LIMIT: Duration = Duration::from_secs(30);

/// What an action answered, unless it did not in time.
pub(super) type Applying = Result<dr_provider::Result<Applied>, Elapsed>;

/// What came of one attempt.
pub(super) enum Attempt {
    /// It is done.
    Done,
    /// It is definitely not done: why, and how long to wait before trying again, if that makes sense at all.
    NotDone(Trouble, Option<Duration>),
    /// The same, because its subject could not be reached for a moment.
    OutOfReach(Trouble, Duration),
    /// It is not seen done, but may still become so.
    Doubtful(Trouble),
}

impl Executor<'_> {
    /// Does an action unless it is done; returns why it definitely was not, if so.
    pub(super) async fn action(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
        lane: &Lane,
        place: &Place,
        action: &Action,
    ) -> Result<Option<Trouble>, Halt> {
        let spent = self.tried.remove(place);
        if let Some((why, again)) = &spent
            && (!again || step.attempts < 2)
        {
            return Ok(Some(why.clone()));
        }
        match self.history.progress(place) {
            Some(Progress::Concluded(Outcome::Done { .. })) => return Ok(None),
            Some(_) if changes(action) => {
                let began = self.site.clock.elapsed();
                match self.observe(step, kind, lane, action).await {
                    Verified::Done(applied) => {
                        let outcome = Outcome::Done {
                            applied,
                            observed: true,
                        };
                        self.conclude(lane, place, action, outcome, began).await?;
                        return Ok(None);
                    }
                    Verified::NotDone { .. } => {}
                    Verified::Unknown { why, remedy } => {
                        return Err(unknown(action, Trouble { why, remedy }));
                    }
                }
            }
            _ => {}
        }
        for attempt in 1 + u32::from(spent.is_some()).. {
            let more = attempt < step.attempts;
            match self
                .attempt(step, kind, lane, place, action, attempt)
                .await?
            {
                Attempt::Done => return Ok(None),
                Attempt::NotDone(_, Some(wait)) if more => tokio::time::sleep(wait).await,
                Attempt::OutOfReach(_, wait) if more || attempt < TRIES_TO_REACH => {
                    tokio::time::sleep(wait.max(REACH_INTERVAL)).await;
                }
                Attempt::NotDone(why, _) | Attempt::OutOfReach(why, _) => return Ok(Some(why)),
                Attempt::Doubtful(_) if more => {}
                Attempt::Doubtful(why) => return Err(unknown(action, why)),
            }
        }
        Ok(None)
    }

    async fn attempt(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
        lane: &Lane,
        place: &Place,
        action: &Action,
        attempt: u32,
    ) -> Result<Attempt, Halt> {
        if changes(action) {
            let at = self.site.clock.now();
            self.note(Record::Intended {
                place: place.clone(),
                attempt,
                at,
            });
            self.write().await?;
        } else if kind.waits(action) {
            self.write().await?;
        }
        // Not before it is written that it is intended: until then somebody else may end the execution.
        self.monitor.event(&Event::ActionBegan {
            target: &lane.target,
            action,
            attempt,
        });
        let began = self.site.clock.elapsed();
        let work = self.work(step);
        let apply = apply(step, kind, &work, lane, action);
        let result = if changes(action) {
            apply.await
        } else {
            // Nothing is cut off in its middle: a look that takes long, as for people, ends when somebody else has the say.
            tokio::select! {
                biased;
                result = apply => result,
                error = outdone(&self.journal) => return Err(self.outdone(error).await),
            }
        };
        self.judge(step, kind, lane, place, action, result, began)
            .await
    }

    /// Takes what came of one attempt into the record; where that is not known, looks.
    #[expect(clippy::too_many_arguments, reason = "they are what an attempt is")]
    pub(super) async fn judge(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
        lane: &Lane,
        place: &Place,
        action: &Action,
        result: Applying,
        began: Duration,
    ) -> Result<Attempt, Halt> {
        let limit = limit(step);
        let why = match result {
            Ok(Ok(applied)) => {
                let outcome = Outcome::Done {
                    applied,
                    observed: false,
                };
                self.conclude(lane, place, action, outcome, began).await?;
                return Ok(Attempt::Done);
            }
            Ok(Err(error)) => {
                let why = Trouble::of(&error, &self.redactor);
                if error.is_definite() || !changes(action) {
                    let outcome = Outcome::NotDone {
                        why: why.to_string(),
                    };
                    self.conclude(lane, place, action, outcome, began).await?;
                    if error.kind() == ErrorKind::Superseded {
                        return Err(Halt::Superseded(why.to_string()));
                    }
                    let pause = Duration::try_from_secs_f64(step.retry_delay_seconds);
                    let pause = error.retry_after().max(pause.ok()).unwrap_or_default();
                    let took = self.site.clock.elapsed().saturating_sub(began);
                    if error.kind() == ErrorKind::Unavailable
                        && changes(action)
                        && took < REACH_LIMIT
                    {
                        return Ok(Attempt::OutOfReach(why, pause));
                    }
                    return Ok(Attempt::NotDone(
                        why,
                        (!error.is_permanent()).then_some(pause),
                    ));
                }
                why
            }
            Err(_) => {
                let why = Trouble::from(format!("no answer within {limit:?}"));
                if !changes(action) {
                    let outcome = Outcome::NotDone {
                        why: why.to_string(),
                    };
                    self.conclude(lane, place, action, outcome, began).await?;
                    return Ok(Attempt::NotDone(why, Some(Duration::ZERO)));
                }
                why
            }
        };
        match self.observe(step, kind, lane, action).await {
            Verified::Done(applied) => {
                let outcome = Outcome::Done {
                    applied,
                    observed: true,
                };
                self.conclude(lane, place, action, outcome, began).await?;
                Ok(Attempt::Done)
            }
            Verified::NotDone { seen } => {
                let seen = self.redactor.text(&seen);
                let why = why.and(&format!("then it was not seen done: {seen}"), None);
                let outcome = Outcome::Unknown {
                    why: why.to_string(),
                };
                self.conclude(lane, place, action, outcome, began).await?;
                Ok(Attempt::Doubtful(why))
            }
            Verified::Unknown { why: still, remedy } => {
                let still = self.redactor.text(&still);
                let why = why.and(&format!("and looking did not tell: {still}"), remedy);
                let outcome = Outcome::Unknown {
                    why: why.to_string(),
                };
                self.conclude(lane, place, action, outcome, began).await?;
                Err(unknown(action, why))
            }
        }
    }

    async fn observe(
        &self,
        step: &PlannedStep,
        kind: &dyn Step,
        lane: &Lane,
        action: &Action,
    ) -> Verified {
        let work = self.work(step);
        let mut last = (String::new(), None);
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            let verify = kind.verify(&work, &lane.target, action);
            match tokio::time::timeout(LOOK_LIMIT, verify).await {
                Ok(Verified::Unknown { why, remedy }) => last = (why, remedy),
                Ok(told) => return told,
                Err(_) => last = (format!("no answer within {LOOK_LIMIT:?}"), None),
            }
        }
        let (why, remedy) = last;
        Verified::Unknown { why, remedy }
    }

    /// Takes an outcome into the record, and writes it at once if something was or may have been changed.
    async fn conclude(
        &mut self,
        lane: &Lane,
        place: &Place,
        action: &Action,
        outcome: Outcome,
        began: Duration,
    ) -> Result<(), Halt> {
        let took = self.site.clock.elapsed().saturating_sub(began);
        self.busy += took;
        let outcome = self.redactor.outcome(outcome);
        self.monitor.event(&Event::ActionEnded {
            target: &lane.target,
            action,
            outcome: &outcome,
            took,
        });
        self.note(Record::Concluded {
            place: place.clone(),
            outcome,
            took_seconds: took.as_secs_f64(),
        });
        if changes(action) {
            self.write().await?;
        }
        Ok(())
    }

    /// Tells whether anything in a branch was or may have been changed, so that its gate has been passed; where nothing is changed,
    /// whether anything was looked at.
    pub(super) fn has_begun(
        &self,
        step: &PlannedStep,
        lane: usize,
        fallback: bool,
        actions: &[Action],
    ) -> bool {
        let only_looks = !actions.iter().any(changes);
        let numbered = actions.iter().enumerate();
        let counts = numbered.filter(|(_, action)| only_looks || changes(action));
        counts.map(|(number, _)| number).any(|action| {
            let place = Place {
                step: step.id.clone(),
                lane,
                fallback,
                action,
            };
            let progress = self.history.progress(&place);
            progress
                .is_some_and(|known| !matches!(known, Progress::Concluded(Outcome::NotDone { .. })))
        })
    }
}

/// Does an action, for no longer than its step allows.
pub(super) async fn apply(
    step: &PlannedStep,
    kind: &dyn Step,
    work: &Work,
    lane: &Lane,
    action: &Action,
) -> Applying {
    tokio::time::timeout(limit(step), kind.apply(work, &lane.target, action)).await
}

/// Waits until somebody else has written into the journal; returns what that means.
async fn outdone(journal: &Journal<Batch>) -> journal::Error {
    loop {
        tokio::time::sleep(OUTDONE_INTERVAL).await;
        if let Ok(Some(error)) = journal.outdone().await {
            return error;
        }
    }
}

pub(super) fn changes(action: &Action) -> bool {
    !matches!(action.undo, Undo::ReadOnly)
}

/// Returns how long one attempt may take.
pub(super) fn limit(step: &PlannedStep) -> Duration {
    Duration::try_from_secs_f64(step.timeout_seconds).unwrap_or(Duration::MAX)
}

fn unknown(action: &Action, trouble: Trouble) -> Halt {
    Halt::Stuck(
        format!(
            "it is unknown whether this was done: {} ({})",
            action.summary, trouble.why
        ),
        trouble
            .remedy
            .unwrap_or_else(|| "look whether it was done".to_owned()),
    )
}
