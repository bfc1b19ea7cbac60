//! `wait`: lets time pass, because something outside needs it.
//!
//! Where a condition can be looked at, a check is better: this knows nothing but the clock. Idempotent because it only
//! waits; what has been waited before a crash counts.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::document::{Context, FromNode, Node, Problem, Reader};
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Verified};
use serde_json::{Value, json};

use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Work, durations, look, look_again};

/// The step's name.
pub const NAME: &str = "wait";

/// The longest wait: what takes longer is for a person to go on with.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The step.
#[derive(Debug)]
pub struct Wait;

#[async_trait]
impl Step for Wait {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "let time pass"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        LONGEST + Duration::from_secs(60)
    }

    fn parameters(&self, with: &Node, context: &mut Context) -> Value {
        let mut length = None;
        if let Some(mut reader) = Reader::open(with, context) {
            length = reader.required_with("for", self::length);
            reader.finish();
        }
        durations(&[("for", length)])
    }

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn waits(&self, _: &Action) -> bool {
        true
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Workload]
    }

    fn plan(
        &self,
        _: &Scene<'_>,
        _: &Target,
        parameters: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let seconds = parameters.get("for").and_then(Value::as_f64);
        let length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let shown = humantime::format_duration(length.unwrap_or_default());
        Ok(vec![look(NAME, format!("wait for {shown}"))])
    }

    async fn apply(&self, work: &Work, _: &Target, _: &Action) -> Result<Applied> {
        let length = work.seconds("for").unwrap_or_default();
        let began = work.history.step(&work.step.id).map(|step| step.began_at);
        let now = work.site.clock.now();
        let waited = now.duration_since(began.unwrap_or(now));
        // A clock that went back has not unwaited anything.
        let waited = Duration::try_from(waited).unwrap_or_default();
        tokio::time::sleep(length.saturating_sub(waited)).await;
        let summary = format!("waited for {}", humantime::format_duration(length));
        Ok(work.applied(
            summary,
            json!({ "waited_before_seconds": waited.as_secs_f64() }),
        ))
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

fn length(node: &Node, context: &mut Context) -> Option<Duration> {
    let length = Duration::from_node(node, context)?;
    if length > LONGEST {
        let problem = Problem::error(&node.span, "this is too long to wait for")
            .expected("at most `1d`")
            .hint("end the runbook here and let a person go on");
        context.report(problem);
        return None;
    }
    Some(length)
}
