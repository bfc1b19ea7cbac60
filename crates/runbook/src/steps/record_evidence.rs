//! `record-evidence`: writes down what happened, for whoever asks a year later.
//!
//! The last step of a runbook: the record says what the execution comes to once this step is done. Whoever ends an execution otherwise
//! adds that record without a step; here it is a part of what has to be done, so that an end without it is no pass. A create-only write; a
//! record of this execution and state that is there already is the record.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Undo, Verified};
use serde_json::{Value, json};

use super::open_epoch;
use crate::evidence;
use crate::execute::completed;
use crate::history::History;
use crate::outcome::{Report, State};
use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "record-evidence";

/// The step.
#[derive(Debug)]
pub struct RecordEvidence;

#[async_trait]
impl Step for RecordEvidence {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "write down what happened, in a chain of evidence"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Conditional
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_fail(&self) -> bool {
        true
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Workload]
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        _: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let to = scene.to();
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("add a record to the evidence in the store of {to}"),
            current: None,
            intended: None,
            dependencies: vec![scene.needs_target(format!("store of {to}"))],
            undo: Undo::Compensable(
                "it stays; what undoes the rest is recorded behind it".to_owned(),
            ),
            parameters: Value::Null,
        }])
    }

    async fn apply(&self, work: &Work, _: &Target, _: &Action) -> Result<Applied> {
        let report = report(work);
        let record = evidence::append(&work.site, &work.history, &report).await?;
        Ok(recorded(work, record.sequence, &report))
    }

    async fn verify(&self, work: &Work, _: &Target, _: &Action) -> Verified {
        let report = report(work);
        match evidence::find(&work.site, &work.history, &report).await {
            Ok(Some(record)) => Verified::Done(recorded(work, record.sequence, &report)),
            Ok(None) => Verified::NotDone {
                seen: format!("the store of {} has no such record", work.plan().to),
            },
            Err(error) => Verified::unknown(&error),
        }
    }
}

/// Tells whether the step has recorded that the execution came to `state`.
#[must_use]
pub(crate) fn has_recorded(history: &History, state: State) -> bool {
    let mut records = history.done(NAME, &Target::Workload);
    records.any(|applied| applied.evidence["state"] == state.as_str())
}

fn recorded(work: &Work, sequence: u64, report: &Report) -> Applied {
    let summary = format!("record {sequence} in the store of {}", work.plan().to);
    let evidence = json!({ "sequence": sequence, "state": report.state });
    work.applied(summary, evidence)
}

/// Returns what the execution comes to once this step is done; as it stands, if others are not.
fn report(work: &Work) -> Report {
    let history = &work.history;
    let mut others = history
        .plan
        .steps
        .iter()
        .filter(|step| step.id != work.step.id);
    if !others.all(|step| history.is_over(&step.id)) {
        return history.report();
    }
    let mut report = completed(history);
    report.finished_at = Some(work.site.clock.now());
    report
}
