//! `notify`: tells whom the workload's configuration names.
//!
//! The message goes out *at least once*: after a crash it may go out again, with the same idempotency key, by which the
//! other side can drop the repeat (PROTOCOL 9).

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Undo, Verified};
use dr_provider::notifier::Message;
use serde_json::{Value, json};

use crate::plan::{Idempotency, Target};
use crate::proof;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "notify";

/// The step.
#[derive(Debug)]
pub struct Notify;

#[async_trait]
impl Step for Notify {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "tell people and other systems, at least once"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::AtLeastOnce
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn may_fail(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let notifiers = scene.world.notifiers.iter();
        notifiers.map(|n| Target::Notifier(n.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("send to {target}, at least once"),
            current: None,
            intended: None,
            dependencies: vec![scene.needs_target(target.to_string())],
            undo: Undo::Compensable("send a correction".to_owned()),
            parameters: Value::Null,
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let mut all = work.site.notifiers.iter();
        let known = all.find(|n| *target == Target::Notifier(n.describe()));
        let notifier = known.ok_or_else(|| work.not_configured(target))?;
        let message = message(work);
        notifier.notify(&message).await?;
        let evidence = json!({ "idempotency_key": message.idempotency_key });
        Ok(work.applied(format!("told {target}"), evidence))
    }

    /// Whether a message arrived cannot be asked; it is sent again, which the key is for.
    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        Verified::NotDone {
            seen: "it cannot be seen whether a message arrived".to_owned(),
        }
    }
}

fn message(work: &Work) -> Message {
    let plan = work.plan();
    let execution = &work.history.execution;
    let resources = plan.loss.resources.keys();
    let bound = resources
        .map(|name| proof::bound(&work.history, name))
        .reduce(proof::worse);
    Message {
        subject: format!("{} moved from {} to {}", plan.workload, plan.from, plan.to),
        idempotency_key: format!("{execution}/{}", work.step.id),
        body: json!({
            "execution": execution,
            "workload": plan.workload,
            "from": plan.from,
            "to": plan.to,
            "epoch": plan.opens,
            "fence": proof::weakest(&work.history),
            "loss": { "estimate": plan.loss.estimate, "bound": bound },
        }),
    }
}
