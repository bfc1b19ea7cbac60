//! What the steps that hand a goal to a resource's driver have in common.

use std::time::Duration;

use dr_provider::driver::{Action, Applied, Goal, Verified};
use dr_provider::{Error, ErrorKind, Result};

use crate::plan::Target;
use crate::step::{Impossible, Scene, Work};

/// How long a driver may take to look at what it did.
const VERIFY_LIMIT: Duration = Duration::from_secs(10);

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
            is_forbidden: false,
        });
    };
    Ok(resource.driver.plan(goal, &resource.facts)?)
}

/// Lets the driver do an action.
pub(crate) async fn apply(work: &Work, target: &Target, action: &Action) -> Result<Applied> {
    work.driver(target)?.apply(action, &work.fence()).await
}

/// Lets the driver do an action and look whether it is done: only what was seen counts.
pub(crate) async fn apply_and_verify(
    work: &Work,
    target: &Target,
    action: &Action,
) -> Result<Applied> {
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
        Err(error) => {
            return Verified::Unknown {
                why: dr_provider::error::chain(&error),
            };
        }
    };
    let fence = work.fence();
    let look = driver.verify(action, &fence);
    match tokio::time::timeout(VERIFY_LIMIT, look).await {
        Ok(Ok(verified)) => verified,
        Ok(Err(error)) => Verified::Unknown {
            why: dr_provider::error::chain(&error),
        },
        Err(_) => Verified::Unknown {
            why: format!("no answer within {} s", VERIFY_LIMIT.as_secs()),
        },
    }
}

/// Tells an error that the subject stands in the way of a rule of the execution itself.
pub(crate) fn failed(operation: &str, subject: impl Into<String>, why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Failed, operation, subject).because(why.into())
}
