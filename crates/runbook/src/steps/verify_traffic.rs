//! `verify-traffic`: asks everybody who answers clients until no one leads them elsewhere.
//!
//! The time to recover is taken when this is so. Somebody who does not answer leads nobody anywhere: that is recorded
//! and not waited for, but at least one has to answer. Idempotent because it only looks.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::document::{Context, Node, Reader};
use dr_provider::driver::{Action, Applied, Verified};
use dr_provider::traffic::View;
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::switch_traffic::{self, find, is_ours};
use crate::plan::{Idempotency, Plan, Target};
use crate::poll::{self, Look};
use crate::step::{Impossible, Scene, Step, Work, above_zero, durations, look, look_again};

/// The step's name.
pub const NAME: &str = "verify-traffic";

/// How long it may take until everybody agrees.
const WITHIN: Duration = Duration::from_secs(120);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The step.
#[derive(Debug)]
pub struct VerifyTraffic;

#[async_trait]
impl Step for VerifyTraffic {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until everybody who answers clients leads them to the region moved to"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        WITHIN + Duration::from_secs(10)
    }

    fn parameters(&self, with: &Node, context: &mut Context) -> Value {
        let mut within = None;
        if let Some(mut reader) = Reader::open(with, context) {
            within = reader.optional_with("within", above_zero);
            reader.finish();
        }
        durations(&[("within", Some(within.unwrap_or(WITHIN)))])
    }

    fn follows(&self) -> &'static [&'static str] {
        &[switch_traffic::NAME]
    }

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let traffic = scene.world.traffic.iter();
        traffic.map(|t| Target::Traffic(t.name.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        Ok(vec![Action {
            dependencies: vec![scene.needs_target(format!("authority of `{target}`"))],
            ..look("ask", format!("ask everybody who answers `{target}`"))
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let traffic = find(work, target)?;
        let within = work.seconds("within").unwrap_or(WITHIN);
        let look = || async {
            let views = traffic.views().await;
            match disagreement(work.plan(), &views) {
                None => Look::Over(views),
                Some(seen) => Look::Again(seen),
            }
        };
        match poll::until(within, INTERVAL, look).await {
            Ok(views) => {
                let silent = views.iter().filter(|view| view.state.is_err()).count();
                let agree = views.len() - silent;
                let summary = match silent {
                    0 => format!("{agree} of {agree} lead to {}", work.plan().to),
                    _ => format!("{agree} lead to {}, {silent} silent", work.plan().to),
                };
                Ok(work.applied(summary, json!({ "views": views })))
            }
            Err(last) => Err(Error::new(ErrorKind::Failed, "verify", target.to_string())
                .because(format!("after {within:?}: {last}"))),
        }
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// Returns who leads clients elsewhere, or that nobody answers.
fn disagreement(plan: &Plan, views: &[View]) -> Option<String> {
    let elsewhere = views.iter().find_map(|view| match &view.state {
        Ok(state) if !is_ours(plan, state) => Some((view, state)),
        _ => None,
    });
    if let Some((view, state)) = elsewhere {
        return Some(format!("{} answers {}", view.observer, state.answer));
    }
    let answered = views.iter().any(|view| view.state.is_ok());
    (!answered).then(|| "nobody answers".to_owned())
}
