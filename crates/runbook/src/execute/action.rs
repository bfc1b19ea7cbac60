//! One action: observed before it is repeated, tried, and observed again if its outcome is unknown (PROTOCOL 9).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::journal::{self, Journal};
use dr_provider::ErrorKind;
use dr_provider::driver::{Action, Applied, Verified};

use super::due::{Applying, Due, changes};
use super::trouble::Trouble;
use super::{Executor, Halt};
use crate::events::{Event, Monitor};
use crate::history::Progress;
use crate::plan::PlannedStep;
use crate::record::{Batch, Outcome, Place, Record};
use crate::redact::Redactor;
use crate::step::Work;

/// How often an outcome is looked at before it counts as unknown.
const LOOKS: u32 = 3;

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often whoever watches is told what an action waits for, if that is something else by then.
const WAITS_INTERVAL: Duration = Duration::from_secs(5);

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
    pub(super) async fn action(&mut self, due: &Due<'_>) -> Result<Option<Trouble>, Halt> {
        let spent = self.tried.remove(&due.place);
        let attempts = due.step.attempts;
        if let Some((why, again)) = &spent
            && (!again || attempts < 2)
        {
            return Ok(Some(why.clone()));
        }
        match self.history.progress(&due.place) {
            Some(Progress::Concluded(Outcome::Done { .. })) => return Ok(None),
            Some(_) if due.changes() => {
                let began = self.site.clock.elapsed();
                match self.observe(due).await {
                    Verified::Done(applied) => {
                        self.conclude(due, seen_done(applied), began).await?;
                        return Ok(None);
                    }
                    Verified::NotDone { .. } => {}
                    Verified::Unknown { why, remedy } => {
                        return Err(unknown(due.action, Trouble { why, remedy }));
                    }
                }
            }
            _ => {}
        }
        for attempt in 1 + u32::from(spent.is_some()).. {
            let more = attempt < attempts;
            match self.attempt(due, attempt).await? {
                Attempt::Done => return Ok(None),
                Attempt::NotDone(_, Some(wait)) if more => tokio::time::sleep(wait).await,
                Attempt::OutOfReach(_, wait) if more || attempt < TRIES_TO_REACH => {
                    tokio::time::sleep(wait.max(REACH_INTERVAL)).await;
                }
                Attempt::NotDone(why, _) | Attempt::OutOfReach(why, _) => return Ok(Some(why)),
                Attempt::Doubtful(_) if more => {}
                Attempt::Doubtful(why) => return Err(unknown(due.action, why)),
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self, due: &Due<'_>, attempt: u32) -> Result<Attempt, Halt> {
        if due.changes() {
            self.intend(due, attempt);
            self.write().await?;
        } else if due.kind.waits(due.action) {
            self.write().await?;
        }
        // Not before it is written that it is intended: until then somebody else may end the execution.
        self.begin(due, attempt);
        let began = self.site.clock.elapsed();
        let work = self.work(due.step);
        let (monitor, redactor) = (self.monitor, Arc::clone(&self.redactor));
        let apply = watched(monitor, &redactor, [(due, &work)], due.apply(&work));
        let result = match due.changes() {
            true => apply.await,
            false => self.unless_outdone(apply).await?,
        };
        self.judge(due, result, began).await
    }

    /// Takes into the record that an attempt is about to be made.
    pub(super) fn intend(&mut self, due: &Due<'_>, attempt: u32) {
        let at = self.site.clock.now();
        self.note(Record::Intended {
            place: due.place.clone(),
            attempt,
            at,
        });
    }

    /// Tells whoever watches that an attempt begins.
    pub(super) fn begin(&self, due: &Due<'_>, attempt: u32) {
        self.monitor.event(&Event::ActionBegan {
            target: &due.lane.target,
            action: due.action,
            attempt,
        });
    }

    /// Waits for looks. One that takes long, as for people, ends when somebody else has the say; nothing that changes anything is cut off
    /// in its middle.
    pub(super) async fn unless_outdone<T>(
        &mut self,
        looks: impl Future<Output = T>,
    ) -> Result<T, Halt> {
        tokio::select! {
            biased;
            seen = looks => Ok(seen),
            error = outdone(&self.journal) => Err(self.outdone(error).await),
        }
    }

    /// Takes what came of one attempt into the record; where that is not known, looks.
    pub(super) async fn judge(
        &mut self,
        due: &Due<'_>,
        result: Applying,
        began: Duration,
    ) -> Result<Attempt, Halt> {
        let why = match result {
            Ok(Ok(applied)) => {
                let outcome = Outcome::Done {
                    applied,
                    observed: false,
                };
                self.conclude(due, outcome, began).await?;
                return Ok(Attempt::Done);
            }
            Ok(Err(error)) => {
                let why = Trouble::of(&error, &self.redactor);
                if error.is_definite() || !due.changes() {
                    self.conclude(due, not_done(&why), began).await?;
                    if error.kind() == ErrorKind::Superseded {
                        return Err(Halt::Superseded(why.to_string()));
                    }
                    let pause = Duration::try_from_secs_f64(due.step.retry_delay_seconds);
                    let pause = error.retry_after().max(pause.ok()).unwrap_or_default();
                    let took = self.site.clock.elapsed().saturating_sub(began);
                    if error.kind() == ErrorKind::Unavailable && due.changes() && took < REACH_LIMIT
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
                let why = Trouble::from(format!("no answer within {:?}", due.limit()));
                if !due.changes() {
                    self.conclude(due, not_done(&why), began).await?;
                    return Ok(Attempt::NotDone(why, Some(Duration::ZERO)));
                }
                why
            }
        };
        match self.observe(due).await {
            Verified::Done(applied) => {
                self.conclude(due, seen_done(applied), began).await?;
                Ok(Attempt::Done)
            }
            Verified::NotDone { seen } => {
                let seen = self.redactor.text(&seen);
                let why = why.and(&format!("then it was not seen done: {seen}"), None);
                self.conclude(due, doubtful(&why), began).await?;
                Ok(Attempt::Doubtful(why))
            }
            Verified::Unknown { why: still, remedy } => {
                let still = self.redactor.text(&still);
                let why = why.and(&format!("and looking did not tell: {still}"), remedy);
                self.conclude(due, doubtful(&why), began).await?;
                Err(unknown(due.action, why))
            }
        }
    }

    async fn observe(&self, due: &Due<'_>) -> Verified {
        let work = self.work(due.step);
        let mut last = (String::new(), None);
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            match tokio::time::timeout(LOOK_LIMIT, due.verify(&work)).await {
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
        due: &Due<'_>,
        outcome: Outcome,
        began: Duration,
    ) -> Result<(), Halt> {
        let took = self.site.clock.elapsed().saturating_sub(began);
        self.busy += took;
        let outcome = self.redactor.outcome(outcome);
        self.monitor.event(&Event::ActionEnded {
            target: &due.lane.target,
            action: due.action,
            outcome: &outcome,
            took,
        });
        self.note(Record::Concluded {
            place: due.place.clone(),
            outcome,
            took_seconds: took.as_secs_f64(),
        });
        if due.changes() {
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

/// What was seen to be done, whoever did it.
fn seen_done(applied: Applied) -> Outcome {
    Outcome::Done {
        applied,
        observed: true,
    }
}

fn not_done(why: &Trouble) -> Outcome {
    Outcome::NotDone {
        why: why.to_string(),
    }
}

fn doubtful(why: &Trouble) -> Outcome {
    Outcome::Unknown {
        why: why.to_string(),
    }
}

/// Awaits what takes its time, and tells meanwhile what each of the actions waits for.
pub(super) async fn watched<'d, T>(
    monitor: &dyn Monitor,
    redactor: &Redactor,
    actions: impl IntoIterator<Item = (&'d Due<'d>, &'d Work)>,
    doing: impl Future<Output = T>,
) -> T {
    let actions: Vec<_> = actions.into_iter().collect();
    let mut told = vec![None; actions.len()];
    let mut doing = pin!(doing);
    loop {
        if let Ok(done) = tokio::time::timeout(WAITS_INTERVAL, &mut doing).await {
            return done;
        }
        for ((due, work), told) in actions.iter().zip(&mut told) {
            let seen = work.waits.last().map(|seen| redactor.text(&seen));
            if seen != *told
                && let Some(seen) = &seen
            {
                let target = &due.lane.target;
                monitor.event(&Event::ActionWaits { target, seen });
            }
            *told = seen;
        }
    }
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
