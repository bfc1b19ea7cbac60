//! `fence-primary`: tries to stop the old primary and records what that proves (PROTOCOL 7).
//!
//! The only step that may address the region being left. It is tried on all resources at once, within its time limit,
//! and never fails: what it could not prove is decided where a proof is needed, before a promotion. If the old primary
//! does not even answer when the plan is made, the execution goes on meanwhile; if it does, it is stopped first, so
//! that what it has shipped is as much as can be. Idempotent because stopping what is stopped changes nothing. A driver says
//! by an error of the kind `Conflict` that the old primary is alive all the same.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::{Action, Applied, Evidence as _, Fenced, Goal, Instance, Verified};
use dr_provider::{ErrorKind, Result};
use serde_json::{Value, json};

use super::open_epoch;
use crate::plan::{Idempotency, Mode, Target};
use crate::resource_goal;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "fence-primary";

/// The step.
#[derive(Debug)]
pub struct FencePrimary;

#[async_trait]
impl Step for FencePrimary {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "stop the old primary, as far as it can be reached"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    /// What does not answer is not waited for.
    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// What does answer is worth some seconds more: a proof that it was stopped is the best there is, and a host far away takes a
    /// few round trips for each command.
    fn timeout_in(&self, scene: &Scene<'_>) -> Duration {
        if self.in_background(scene) {
            self.timeout()
        } else {
            Duration::from_secs(15)
        }
    }

    fn is_best_effort(&self) -> bool {
        true
    }

    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn in_background(&self, scene: &Scene<'_>) -> bool {
        // In place the host is there, and what follows rests on what is found.
        scene.mode != Mode::InPlace
            && scene.world.resources.values().all(|resource| {
                let left = resource.facts.regions.get(scene.from);
                !left.is_some_and(|left| {
                    matches!(
                        left.instance,
                        Instance::Running { .. } | Instance::Unreachable { on_host: true, .. }
                    )
                })
            })
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        scene.resources()
    }

    /// What cannot be fenced has no actions; that is no reason to refuse the plan, only a proof less.
    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        if scene.goes_on(target) {
            return Ok(Vec::new());
        }
        let region = scene.from.clone();
        let goal = match scene.mode {
            // Its host can be asked.
            Mode::InPlace => Goal::Vacate { region },
            _ => Goal::Fence { region },
        };
        Ok(resource_goal::plan(scene, target, &goal).unwrap_or_default())
    }

    async fn apply(&self, work: &Work, target: &Target, action: &Action) -> Result<Applied> {
        match resource_goal::apply(work, target, action).await {
            Err(error) if error.kind() != ErrorKind::Superseded => {
                let why = dr_provider::error::chain(&error);
                let summary = format!("no proof: {why}");
                let mut applied = work.applied(summary, json!({ "tried": action.name }));
                if error.kind() == ErrorKind::Conflict {
                    let fenced = Fenced {
                        proof: None,
                        at: applied.at,
                        ran: true,
                        alive: Some(why),
                    };
                    applied.evidence = fenced.to_evidence();
                }
                Ok(applied)
            }
            other => other,
        }
    }

    async fn verify(&self, work: &Work, target: &Target, action: &Action) -> Verified {
        resource_goal::verify(work, target, action).await
    }
}
