//! How long executions took that were completed: what a plan predicts.
//!
//! A prediction is the median of the newest executions after the same runbook that led into the same region, or into any if none
//! did: what a region takes differs less than what a runbook does. How long people took to approve is not predicted, and nothing is
//! learnt from one that was resumed, because nobody knows how long it lay, or during which a clock was set back.

use std::collections::BTreeMap;

use dr_model::{RegionName, RunbookName, StepId};

use crate::history::History;
use crate::outcome::{State, StepState};
use crate::steps::await_approval;

/// How many executions a prediction rests on at most: what was measured long ago was of another system.
const MOST: usize = 5;

/// How long an execution took that was completed.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The runbook.
    runbook: String,
    /// The region moved to.
    to: RegionName,
    /// In all without the wait for approvals, in seconds; `None` if that was not measured.
    seconds: Option<f64>,
    /// Each step that was done, by its id: what it used, and its seconds.
    steps: BTreeMap<StepId, (String, f64)>,
}

impl Past {
    /// Reads it out of a journal; `None` unless the execution was completed in one go.
    pub(crate) fn of(history: &History) -> Option<Self> {
        let report = history.report();
        if !matches!(
            report.state,
            State::Completed | State::CompletedWithExceptions
        ) {
            return None;
        }
        report.overhead_seconds?;
        let done = report.steps.into_iter();
        let done = done.filter(|step| step.state == StepState::Done);
        let (asking, done): (Vec<_>, Vec<_>) =
            done.partition(|step| step.uses == await_approval::NAME);
        let waited = asking
            .iter()
            .map(|step| step.took_seconds.filter(is_measured));
        let waited: Option<f64> = waited.sum();
        let steps = done.into_iter().filter_map(|step| {
            let seconds = step.took_seconds.filter(is_measured)?;
            Some((step.id, (step.uses, seconds)))
        });
        Some(Self {
            runbook: history.plan.runbook.clone(),
            to: history.plan.to.clone(),
            seconds: report
                .execution_seconds
                .zip(waited)
                .map(|(all, waited)| all - waited)
                .filter(is_measured),
            steps: steps.collect(),
        })
    }
}

/// Tells whether this is a length of time: a difference of two times of a clock that was set is not always one.
fn is_measured(seconds: &f64) -> bool {
    seconds.is_finite() && *seconds >= 0.0
}

/// What past executions let one expect of the next.
#[derive(Debug)]
pub(crate) struct Predictions<'a> {
    past: Vec<&'a Past>,
}

impl<'a> Predictions<'a> {
    /// Takes the newest of `past`, oldest first, that are like an execution of `runbook` into `to`.
    pub(crate) fn of(past: &'a [Past], runbook: &RunbookName, to: &RegionName) -> Self {
        let like = |past: &&Past| past.runbook == runbook.as_str();
        let newest = past.iter().rev().filter(like);
        let same: Vec<_> = newest
            .clone()
            .filter(|past| past.to == *to)
            .take(MOST)
            .collect();
        Self {
            past: match same.is_empty() {
                true => newest.take(MOST).collect(),
                false => same,
            },
        }
    }

    /// Returns how long a step takes, in seconds; `None` if none like it was done.
    pub(crate) fn step(&self, id: &StepId, uses: &str) -> Option<f64> {
        let known = self.past.iter().filter_map(|past| past.steps.get(id));
        median(
            known
                .filter(|(used, _)| used == uses)
                .map(|(_, seconds)| *seconds),
        )
    }

    /// Returns how long an execution takes, in seconds.
    pub(crate) fn whole(&self) -> Option<f64> {
        median(self.past.iter().filter_map(|past| past.seconds))
    }
}

/// Returns the median; of two in the middle the larger.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(runbook: &str, to: &str, seconds: f64) -> Past {
        let step = (
            StepId("seal".to_owned()),
            ("seal-wal".to_owned(), seconds / 10.0),
        );
        Past {
            runbook: runbook.to_owned(),
            to: to.parse().unwrap(),
            seconds: Some(seconds),
            steps: [step].into(),
        }
    }

    #[test]
    fn the_newest_like_it_are_what_is_expected() {
        let mut all = vec![past("failover-region", "us-west-2", 9000.0)];
        all.extend([10.0, 50.0, 20.0, 30.0, 40.0].map(|s| past("failover-region", "us-west-2", s)));
        all.push(past("failover-planned", "us-west-2", 1.0));
        all.push(past("failover-region", "eu-west-1", 2.0));
        let expected = |runbook: &str, to: &str| {
            let (runbook, to) = (runbook.parse().unwrap(), to.parse().unwrap());
            let predictions = Predictions::of(&all, &runbook, &to);
            let step = predictions.step(&StepId("seal".to_owned()), "seal-wal");
            (predictions.whole(), step)
        };
        assert_eq!(
            expected("failover-region", "us-west-2"),
            (Some(30.0), Some(3.0))
        );
        // Into a region that nobody has moved to yet it takes as long as elsewhere.
        assert_eq!(
            expected("failover-planned", "us-east-1"),
            (Some(1.0), Some(0.1))
        );
        assert_eq!(expected("failback-region", "us-west-2"), (None, None));
        let predictions = Predictions { past: Vec::new() };
        assert_eq!(predictions.step(&StepId("seal".to_owned()), "wait"), None);
    }
}
