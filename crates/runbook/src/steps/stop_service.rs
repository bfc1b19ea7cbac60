//! `stop-service`: stops the workload's services in the region that a planned move leaves.
//!
//! So that what sends mail, charges cards or runs by the clock does not run in two regions (L29). Only in a planned move:
//! a region that may be gone is not waited for, and its services lead nobody anywhere once its database is fenced.
//! Idempotent because a service whose check fails is not stopped again; one without a check is, which its stop command
//! must bear.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::driver::{Action, Applied, Dependency, Plane, Undo, Verified};
use dr_provider::{ErrorKind, Result};
use serde_json::{Value, json};

use super::open_epoch;
use super::start_service::{error, find, limit, runs, wait_until};
use crate::plan::{Idempotency, Mode, Target};
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "stop-service";

/// The step.
#[derive(Debug)]
pub struct StopService;

#[async_trait]
impl Step for StopService {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "stop the services in the region that a planned move leaves"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Idempotent
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn follows(&self) -> &'static [&'static str] {
        &[open_epoch::NAME]
    }

    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let services = scene.world.services_left.iter();
        services.map(|s| Target::Service(s.name.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let from = scene.from;
        if !matches!(scene.mode, Mode::Planned | Mode::InPlace) {
            return Err(Impossible::new(
                format!("{from} may be gone, and nothing may wait for it"),
                "stop services in a planned move only, one with `stop-writes`, or in place",
            ));
        }
        let mut services = scene.world.services_left.iter();
        let known = services.find(|s| *target == Target::Service(s.name.clone()));
        let (host, stop) = known.map_or(("", None), |s| (s.host.as_str(), s.stop.as_deref()));
        let Some(program) = stop else {
            return Err(Impossible::new(
                format!("`{target}` in {from} has no command that stops it"),
                "give it `stop`, which must succeed if it is stopped already",
            ));
        };
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("run `{program} …` on {host} if `{target}` runs"),
            current: None,
            intended: Some("stopped".to_owned()),
            dependencies: vec![Dependency {
                region: from.clone(),
                plane: Plane::Data,
                what: format!("host {host}"),
            }],
            undo: Undo::Compensable(format!("start `{target}`")),
            parameters: Value::Null,
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let service = find(work, target, &work.plan().from)?;
        let fence = work.fence();
        service.host.admit(&fence.workload, fence.epoch).await?;
        // In place it is started again afterwards, and one whose check fails may be there all the same.
        let in_place = work.plan().mode == Mode::InPlace;
        if !in_place && runs(service, target).await? == Some(false) {
            return Ok(work.applied(format!("`{target}` is stopped already"), Value::Null));
        }
        let stop = service.stop.as_ref();
        let stop = stop.ok_or_else(|| work.not_configured(target))?;
        let began = work.site.clock.elapsed();
        let output = service.host.run(stop, limit(work)).await?;
        if output.status != Some(0) {
            return Err(error(target, "stop", ErrorKind::Failed).because(output.said()));
        }
        if service.check.is_some() {
            wait_until(work, (service, target), false, began).await?;
        }
        let evidence = json!({ "host": service.host.name() });
        Ok(work.applied(format!("stopped `{target}`"), evidence))
    }

    async fn verify(&self, work: &Work, target: &Target, _: &Action) -> Verified {
        let look = async { runs(find(work, target, &work.plan().from)?, target).await };
        match look.await {
            Ok(Some(false)) => {
                Verified::Done(work.applied(format!("`{target}` is stopped"), Value::Null))
            }
            Ok(Some(true)) => Verified::NotDone {
                seen: "it runs".to_owned(),
            },
            // Stopping twice is what a stop command without a check has to bear.
            Ok(None) => Verified::NotDone {
                seen: "it has no check".to_owned(),
            },
            Err(error) => Verified::unknown(&error),
        }
    }
}
