//! What the steps that hand a goal to a resource's driver have in common.
//!
//! Such a step is a [`GoalStep`]: it names the goal, and what may begin when. The driver decides what reaches the goal, does that and
//! looks whether it is done. A step that differs from this is a [`Step`] of its own and uses the functions here.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::{Action, Applied, Goal, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::Value;

use crate::come_up;
use crate::plan::{Class, Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Unmet, Work};

/// How long a driver may take to look at what it did.
const VERIFY_LIMIT: Duration = Duration::from_secs(10);

/// A step that hands a goal to the driver of each resource. Its methods are those of [`Step`] unless they say otherwise.
#[async_trait]
pub(crate) trait GoalStep: Send + Sync + fmt::Debug {
    /// See [`Step::name`].
    fn name(&self) -> &'static str;

    /// See [`Step::summary`].
    fn summary(&self) -> &'static str;

    /// See [`Step::idempotency`]. A driver's actions are idempotent by its contract.
    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    /// See [`Step::timeout`].
    fn timeout(&self) -> Duration;

    /// See [`Step::follows`].
    fn follows(&self) -> &'static [&'static str] {
        &[]
    }

    /// See [`Step::fallbacks`].
    fn fallbacks(&self) -> &'static [&'static str] {
        &[]
    }

    /// See [`Step::may_fail`].
    fn may_fail(&self) -> bool {
        false
    }

    /// See [`Step::may_touch_region_left`].
    fn may_touch_region_left(&self) -> bool {
        false
    }

    /// Tells whether what came up reads back the newest heartbeat of the primary that it replaces.
    fn brings_up(&self) -> bool {
        false
    }

    /// Returns what is wanted of a resource; `None` if nothing is to be done to it. Pure.
    fn goal(
        &self,
        scene: &Scene<'_>,
        target: &Target,
    ) -> std::result::Result<Option<Goal>, Impossible>;

    /// See [`Step::check`].
    async fn check(&self, _work: &Work, _target: &Target) -> std::result::Result<(), Unmet> {
        Ok(())
    }
}

#[async_trait]
impl<T: GoalStep> Step for T {
    fn name(&self) -> &'static str {
        GoalStep::name(self)
    }

    fn summary(&self) -> &'static str {
        GoalStep::summary(self)
    }

    fn idempotency(&self) -> Idempotency {
        GoalStep::idempotency(self)
    }

    fn timeout(&self) -> Duration {
        GoalStep::timeout(self)
    }

    fn follows(&self) -> &'static [&'static str] {
        GoalStep::follows(self)
    }

    fn fallbacks(&self) -> &'static [&'static str] {
        GoalStep::fallbacks(self)
    }

    fn may_fail(&self) -> bool {
        GoalStep::may_fail(self)
    }

    fn may_touch_region_left(&self) -> bool {
        GoalStep::may_touch_region_left(self)
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        scene.resources()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        match self.goal(scene, target)? {
            Some(goal) => plan(scene, target, &goal),
            None => Ok(Vec::new()),
        }
    }

    async fn check(&self, work: &Work, target: &Target) -> std::result::Result<(), Unmet> {
        GoalStep::check(self, work, target).await
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        let applied = apply_and_verify(work, target, action).await?;
        match self.brings_up() {
            true => Ok(come_up::with_heartbeat(work, target, applied).await),
            false => Ok(applied),
        }
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        verify(work, target, action).await
    }
}

/// Lets the driver of a resource decide what reaches a goal.
pub(crate) fn plan(
    scene: &Scene<'_>,
    target: &Target,
    goal: &Goal,
) -> std::result::Result<Vec<Action>, Impossible> {
    let known = match target {
        Target::Resource(name) => scene.world.resources.get(name),
        _ => None,
    };
    let Some(resource) = known else {
        let why = format!("`{target}` is not a resource of this workload");
        return Err(Impossible {
            why,
            hint: None,
            class: Class::Invalid,
        });
    };
    resource
        .driver
        .plan(goal, &resource.facts)
        .map_err(|error| {
            // A moment that there is not was asked for; everything else that is wrong for good is written somewhere.
            let moment = matches!(goal, Goal::Prepare { .. }) && error.kind() == ErrorKind::Invalid;
            let impossible = Impossible::from(error);
            match moment {
                true => Impossible {
                    class: Class::Asked,
                    ..impossible
                },
                false => impossible,
            }
        })
}

/// Lets the driver do an action.
pub(crate) async fn apply(work: &Work, target: &Target, action: &Action) -> Result<Applied> {
    work.driver(target)?.apply(action, &work.fence()).await
}

/// Lets the driver do an action and look whether it is done: only what was seen counts.
async fn apply_and_verify(work: &Work, target: &Target, action: &Action) -> Result<Applied> {
    let applied = apply(work, target, action).await?;
    match verify(work, target, action).await {
        Verified::NotDone { seen } => {
            let error = Error::new(ErrorKind::Unknown, &action.name, target.to_string());
            Err(error.because(format!(
                "it was reported done, but then seen not done: {seen}"
            )))
        }
        Verified::Done(_) | Verified::Unknown { .. } => Ok(applied),
    }
}

/// Lets the driver look whether an action has been done.
pub(crate) async fn verify(work: &Work, target: &Target, action: &Action) -> Verified {
    let driver = match work.driver(target) {
        Ok(driver) => driver,
        Err(error) => return Verified::unknown(&error),
    };
    let fence = work.fence();
    let look = driver.verify(action, &fence);
    match tokio::time::timeout(VERIFY_LIMIT, look).await {
        Ok(Ok(verified)) => verified,
        Ok(Err(error)) => Verified::unknown(&error),
        Err(_) => Verified::Unknown {
            why: format!("no answer within {} s", VERIFY_LIMIT.as_secs()),
            remedy: None,
        },
    }
}

/// Tells an error that the subject stands in the way of a rule of the execution itself.
pub(crate) fn failed(operation: &str, subject: impl Into<String>, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Failed, operation, subject).because(why.into())
}
