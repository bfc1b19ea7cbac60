//! `await-fence`: waits until the guard of the old primary has stopped it (PROTOCOL 7, the fence `self`).
//!
//! The register said, when the plan was made, that the old primary runs under a guard which stops it when it cannot see that no
//! newer epoch is open. So a fixed time after our epoch is in the register it has stopped, whether anybody can reach it or not.
//! Where it is proven otherwise by then, nothing is waited for. Where it was seen to be alive, when the plan was made or since, it is
//! looked at again once the time is over: a guard that has not stopped it is none.
//!
//! The time is counted by this process's monotonic clock, and from the beginning where another process opened the epoch: the
//! clocks of two machines are not compared. Idempotent because it only waits.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Evidence as _, Fenced, StopProof, Verified};
use serde_json::{Value, json};

use super::{fence_primary, open_epoch};
use crate::old_primary::{self, was_alive};
use crate::plan::{Idempotency, Mode, Target};
use crate::proof;
use crate::resource_goal::failed;
use crate::step::{Impossible, Scene, Step, Work, durations, look, look_again};

/// The step's name.
pub const NAME: &str = "await-fence";

/// The parameter that says that the plan saw the old primary alive.
const ALIVE: &str = "alive";

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
        let known = scene.world.resources.get(name);
        let alive = known.is_some_and(|known| was_alive(&known.facts, scene.from));
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
        let mut parameters = durations(&[("after", Some(after))]);
        if alive {
            parameters[ALIVE] = Value::Bool(true);
        }
        Ok(vec![Action {
            parameters,
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
        let was_alive = action.parameters.get(ALIVE) == Some(&Value::Bool(true));
        if was_alive || proof::alive(&work.history, name).is_some() {
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
            // What it acknowledged until then, nobody knows: the gate before a promotion counts it where the seal came earlier.
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

/// Fails if what was seen to be alive before, and should have been stopped by now, is alive still, or does not show in time what it
/// is. A region that was silent all the time is asked for nothing.
async fn still_stopped(work: &Work, target: &Target) -> Result<()> {
    let driver = work.driver(target)?;
    let from = &work.plan().from;
    let looked = old_primary::look(&*driver, from).await;
    let failed = |why: String| failed("rest on the guard of", target.to_string(), why);
    if looked.alive {
        let seen = looked.seen;
        return Err(failed(format!(
            "the old primary is still alive in {from}, although its guard has to have stopped it: {seen}"
        ))
        .with_hint("stop it by hand; it was started without its guard"));
    }
    if !looked.in_time {
        return Err(failed(format!(
            "the old primary was seen alive in {from}, and cannot be looked at now: {}",
            looked.seen
        ))
        .with_hint("resume: it is looked at again"));
    }
    Ok(())
}
