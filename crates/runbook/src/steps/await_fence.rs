//! `await-fence`: waits until the guard of the old primary has stopped it (PROTOCOL 7, the fence `self`).
//!
//! The register said, when the plan was made, that the old primary runs under a guard which stops it when it cannot see that no
//! newer epoch is open. So a fixed time after our epoch is in the register it has stopped, whether anybody can reach it or not.
//! Where it is proven otherwise by then, nothing is waited for.
//!
//! The time is counted by this process's monotonic clock, and from the beginning where another process opened the epoch: the
//! clocks of two machines are not compared. Idempotent because it only waits.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{
    Action, Applied, Evidence as _, Fenced, Instance, Role, StopProof, Verified,
};
use serde_json::{Value, json};

use super::{fence_primary, open_epoch};
use crate::plan::{Idempotency, Mode, Target};
use crate::proof;
use crate::resource_goal::failed;
use crate::step::{Impossible, Scene, Step, Work, durations, look, look_again};
use crate::world::LOST_REGION_LIMIT;

/// The step's name.
pub const NAME: &str = "await-fence";

/// The step.
#[derive(Debug)]
pub struct AwaitFence;

#[async_trait]
impl Step for AwaitFence {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until the guard of the old primary has stopped it, unless that is proven otherwise"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME, fence_primary::NAME]
    }

    fn waits(&self, _: &Action) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        scene.resources()
    }

    /// What runs under no guard is not waited for.
    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let Target::Resource(name) = target else {
            return Ok(Vec::new());
        };
        let loss = scene.loss.resources.get(name);
        let sealed = loss.is_some_and(|loss| loss.sealing_proves_zero);
        let Some(guard) = scene.world.register.guard(name) else {
            return Ok(Vec::new());
        };
        if scene.mode != Mode::Unplanned || sealed {
            return Ok(Vec::new());
        }
        let after = guard.stopped_after();
        let seconds = after.as_secs_f64();
        let summary = format!(
            "unless it is proven to be stopped, wait until {seconds:.1} s after epoch {} was opened: by then the guard of \
             `{target}` in {} has stopped it, whose lease is {} s",
            scene.ended.next(),
            scene.from,
            guard.lease_seconds,
        );
        Ok(vec![Action {
            parameters: durations(&[("after", Some(after))]),
            ..look(NAME, summary)
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        let Target::Resource(name) = target else {
            return Err(work.not_configured(target));
        };
        if proof::is_seen(&work.history, name) {
            let summary = format!("`{target}` is proven to be stopped: nothing to wait for");
            return Ok(work.applied(summary, json!({ "waited_seconds": 0.0 })));
        }
        let after = action.parameters.get("after").and_then(Value::as_f64);
        let after = after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some(after) = after else {
            let why = "the plan does not say how long its guard takes";
            return Err(failed("wait for the guard of", target.to_string(), why));
        };
        let clock = &work.site.clock;
        let began = clock.elapsed();
        let until = work.opened.unwrap_or(began) + after;
        tokio::time::sleep(until.saturating_sub(began)).await;
        if proof::alive(&work.history, name).is_some() {
            still_stopped(work, target).await?;
        }
        let from = &work.plan().from;
        let mut applied = work.applied(
            format!("the guard of `{target}` in {from} has stopped it by now"),
            json!({ "waited_seconds": clock.elapsed().saturating_sub(began).as_secs_f64() }),
        );
        let fenced = Fenced {
            proof: Some(StopProof::SelfStopped),
            at: applied.at,
            // What it acknowledged until then, nobody knows.
            ran: true,
            alive: None,
        };
        applied.evidence[Fenced::KEY] = fenced.to_evidence()[Fenced::KEY].clone();
        Ok(applied)
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}

/// Fails if a primary answers that was seen to be alive before and should have been stopped by now: a guard that has not done
/// that is none. A region that did not answer the fence is asked for nothing.
async fn still_stopped(work: &Work, target: &Target) -> Result<()> {
    let driver = work.driver(target)?;
    let from = &work.plan().from;
    let look = driver.observe(std::slice::from_ref(from));
    let Ok(facts) = tokio::time::timeout(LOST_REGION_LIMIT, look).await else {
        return Ok(());
    };
    match facts.regions.get(from).map(|seen| &seen.instance) {
        Some(Instance::Running {
            role: Role::Primary,
            ..
        }) => {
            let why = format!(
                "a primary still answers in {from}, although its guard has to have stopped it"
            );
            Err(failed("rest on the guard of", target.to_string(), why)
                .with_hint("stop it by hand; it was started without its guard"))
        }
        _ => Ok(()),
    }
}
