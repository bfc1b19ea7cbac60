//! The lanes of one step at once: several databases are promoted in the time that one takes.
//!
//! One entry of the journal holds what is intended of all of them before any is begun, and one what came of each. A lane that does not go
//! straight through is left to be done by itself behind the others, where it is tried again, falls back, or halts the execution; one that was
//! begun before, by this process or another, as well.

use std::sync::Arc;

use futures::future::join_all;

use super::action::{Attempt, watched};
use super::due::{Applying, Due, changes};
use super::{Executor, Halt};
use crate::plan::PlannedStep;
use crate::record::Place;
use crate::step::{Step, Work};

impl Executor<'_> {
    /// Does what the lanes of a step that nobody has begun can do side by side.
    pub(super) async fn together(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
    ) -> Result<(), Halt> {
        let all = 0..step.lanes.len();
        let begun = all.clone().any(|index| {
            let lane = &step.lanes[index];
            self.history.fell_back(&step.id, index).is_some()
                || self.has_begun(step, index, false, &lane.actions)
        });
        // What is optional comes by itself, behind the others: clients do not wait for it to give up.
        let mut going: Vec<usize> = all.filter(|index| !step.lanes[*index].optional).collect();
        let mut waits = step.lanes.iter().flat_map(|lane| &lane.actions);
        if going.len() < 2 || begun || waits.any(|action| kind.waits(action)) {
            return Ok(());
        }
        for number in 0.. {
            going.retain(|index| number < step.lanes[*index].actions.len());
            if going.is_empty() {
                break;
            }
            going = self.fit(step, kind, going, number).await?;
            going = self.wave(step, kind, going, number).await?;
        }
        Ok(())
    }

    /// Returns the lanes whose next action may begin. Those that may not are looked at again when they are done by themselves.
    async fn fit(
        &self,
        step: &PlannedStep,
        kind: &dyn Step,
        lanes: Vec<usize>,
        number: usize,
    ) -> Result<Vec<usize>, Halt> {
        let looks = lanes.into_iter().map(|index| async move {
            let lane = &step.lanes[index];
            let first_change = lane.actions.iter().position(changes);
            let due = number == 0 || Some(number) == first_change;
            let unfit = match due {
                true => self.check(step, kind, lane).await,
                false => Ok(None),
            };
            (index, unfit)
        });
        let mut fit = Vec::new();
        for (index, unfit) in join_all(looks).await {
            match unfit {
                Ok(None) => fit.push(index),
                Err(halt @ (Halt::Superseded(_) | Halt::Journal(_))) => return Err(halt),
                Ok(Some(_)) | Err(_) => {}
            }
        }
        Ok(fit)
    }

    /// Does one action of each of these lanes; returns those in which it is done.
    async fn wave(
        &mut self,
        step: &PlannedStep,
        kind: &dyn Step,
        lanes: Vec<usize>,
        number: usize,
    ) -> Result<Vec<usize>, Halt> {
        let due = |index: &usize| Due {
            step,
            kind,
            lane: &step.lanes[*index],
            place: Place {
                step: step.id.clone(),
                lane: *index,
                fallback: false,
                action: number,
            },
            action: &step.lanes[*index].actions[number],
        };
        let all: Vec<Due<'_>> = lanes.iter().map(due).collect();
        let only_looks = !all.iter().any(Due::changes);
        for due in all.iter().filter(|due| due.changes()) {
            self.intend(due, 1);
        }
        if !only_looks {
            self.write().await?;
        }
        for due in &all {
            self.begin(due, 1);
        }
        let (busy, began) = (self.busy, self.site.clock.elapsed());
        let works: Vec<Work> = all.iter().map(|_| self.work(step)).collect();
        let each = || all.iter().zip(&works);
        let results = join_all(each().map(|(due, work)| due.apply(work)));
        let (monitor, redactor) = (self.monitor, Arc::clone(&self.redactor));
        let results = watched(monitor, &redactor, each(), results);
        let results: Vec<Applying> = match only_looks {
            true => self.unless_outdone(results).await?,
            false => results.await,
        };
        let (mut done, mut halted) = (Vec::new(), None);
        for ((due, result), index) in all.iter().zip(results).zip(lanes) {
            match self.judge(due, result, began).await {
                Ok(Attempt::Done) => done.push(index),
                Ok(Attempt::NotDone(why, wait)) => {
                    let tried = (why, wait.is_some());
                    self.tried.insert(due.place.clone(), tried);
                }
                // One that could not be reached is tried again whatever the runbook says, and what is in doubt is looked at.
                Ok(Attempt::OutOfReach(..) | Attempt::Doubtful(_)) => {}
                // What came of the others is written down first.
                Err(halt) => halted = halted.or(Some(halt)),
            }
        }
        // They took the time of one.
        self.busy = busy + self.site.clock.elapsed().saturating_sub(began);
        halted.map_or(Ok(done), Err)
    }
}
