//! `check-health`: waits until every check of the workload passes in the region moved to.
//!
//! An answer that does not come is unknown, and unknown is not healthy (principle 6). Idempotent because it only looks.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::document::{Context, Node, Reader};
use dr_provider::driver::{Action, Applied, Verified};
use dr_provider::probe::Health;
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::plan::{Idempotency, Target};
use crate::poll::{self, Look};
use crate::step::{Impossible, Scene, Step, Work, above_zero, durations, look, look_again};

/// The step's name.
pub const NAME: &str = "check-health";

/// How long a check may take to pass for the first time.
const WITHIN: Duration = Duration::from_secs(60);

/// How long one may take to pass that is optional: clients wait for it.
const OPTIONAL_WITHIN: Duration = Duration::from_secs(10);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The step.
#[derive(Debug)]
pub struct CheckHealth;

#[async_trait]
impl Step for CheckHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until every check of the workload passes"
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

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let probes = scene.world.probes.iter();
        probes.map(|probe| Target::Probe(probe.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        Ok(vec![Action {
            dependencies: vec![scene.needs_target(target.to_string())],
            ..look("probe", format!("wait for {target}"))
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let probes = work.site.probes.get(&work.plan().to);
        let mut probes = probes.into_iter().flatten();
        let known = probes.find(|probe| *target == Target::Probe(probe.describe()));
        let probe = known.ok_or_else(|| work.not_configured(target))?;
        let within = work.seconds("within").unwrap_or(WITHIN);
        let mut lanes = work.step.lanes.iter();
        let optional = lanes.any(|lane| lane.target == *target && lane.optional);
        let within = match optional {
            true => within.min(OPTIONAL_WITHIN),
            false => within,
        };
        let look = || async {
            match probe.probe().await {
                Health::Healthy(seen) => Look::Over(seen),
                Health::Unhealthy(seen) => Look::Again(format!("unhealthy: {seen}")),
                Health::Unknown(why) => Look::Again(format!("unknown: {why}")),
            }
        };
        match poll::until(&work.waits, within, INTERVAL, look).await {
            Ok(seen) => Ok(work.applied(format!("{target}: {seen}"), json!({ "seen": seen }))),
            Err(last) => Err(Error::new(ErrorKind::Failed, "pass", target.to_string())
                .because(format!("after {within:?}: {last}"))),
        }
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}
