//! `start-service`: starts the workload's services in the region moved to.
//!
//! The host is asked first whether it has seen a higher epoch; then nothing is started. Idempotent because a service
//! whose check passes is not started again; one without a check is started again, which its start command must bear.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::RegionName;
use dr_provider::driver::{Action, Applied, Undo, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::open_epoch;
use crate::plan::{Idempotency, Target};
use crate::poll::{self, Look};
use crate::site::ServiceSite;
use crate::step::{Impossible, Scene, Step, Work};

/// The step's name.
pub const NAME: &str = "start-service";

/// How long one look at a service may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// The step.
#[derive(Debug)]
pub struct StartService;

#[async_trait]
impl Step for StartService {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "start the services in the region moved to"
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

    fn may_be_skipped(&self) -> bool {
        true
    }

    fn targets(&self, scene: &Scene<'_>) -> Vec<Target> {
        let services = scene.world.services.iter();
        services.map(|s| Target::Service(s.name.clone())).collect()
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        target: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let mut services = scene.world.services.iter();
        let known = services.find(|s| *target == Target::Service(s.name.clone()));
        let (host, program) = known.map_or(("", ""), |s| (s.host.as_str(), s.program.as_str()));
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("run `{program} …` on {host} unless `{target}` runs"),
            current: None,
            intended: Some("running".to_owned()),
            dependencies: vec![scene.needs_target(format!("host {host}"))],
            undo: Undo::Compensable(format!("stop `{target}`")),
            parameters: Value::Null,
        }])
    }

    async fn apply(&self, work: &Work, target: &Target, _: &Action) -> Result<Applied> {
        let service = find(work, target, &work.plan().to)?;
        let fence = work.fence();
        service.host.admit(&fence.workload, fence.epoch).await?;
        if runs(service, target).await? == Some(true) {
            return Ok(work.applied(format!("`{target}` runs already"), Value::Null));
        }
        let began = work.site.clock.elapsed();
        let output = service.host.run(&service.start, limit(work)).await?;
        if output.status != Some(0) {
            return Err(error(target, "start", ErrorKind::Failed).because(output.said()));
        }
        if service.check.is_some() {
            wait_until(work, (service, target), true, began).await?;
        }
        let evidence = json!({ "host": service.host.name() });
        Ok(work.applied(format!("started `{target}`"), evidence))
    }

    async fn verify(&self, work: &Work, target: &Target, _: &Action) -> Verified {
        let look = async { runs(find(work, target, &work.plan().to)?, target).await };
        match look.await {
            Ok(Some(true)) => Verified::Done(work.applied(format!("`{target}` runs"), Value::Null)),
            Ok(Some(false)) => Verified::NotDone {
                seen: "it does not run".to_owned(),
            },
            // Starting twice is what a start command without a check has to bear.
            Ok(None) => Verified::NotDone {
                seen: "it has no check".to_owned(),
            },
            Err(error) => Verified::unknown(&error),
        }
    }
}

/// Finds a service in a region.
pub(super) fn find<'a>(
    work: &'a Work,
    target: &Target,
    region: &RegionName,
) -> Result<&'a ServiceSite> {
    let Target::Service(name) = target else {
        return Err(work.not_configured(target));
    };
    let regions = work.site.services.get(name);
    let service = regions.and_then(|regions| regions.get(region));
    service.ok_or_else(|| work.not_configured(target))
}

/// Tells whether a service runs; `None` if it has no check.
pub(super) async fn runs(service: &ServiceSite, target: &Target) -> Result<Option<bool>> {
    let Some(check) = &service.check else {
        return Ok(None);
    };
    let output = service.host.run(check, CHECK_LIMIT).await?;
    match output.status {
        Some(status) => Ok(Some(status == 0)),
        None => Err(error(target, "check", ErrorKind::Unknown).because(output.said())),
    }
}

/// Returns how long a command may take.
pub(super) fn limit(work: &Work) -> Duration {
    Duration::try_from_secs_f64(work.step.timeout_seconds).unwrap_or_default()
}

/// Waits until a service that has a check runs, or does not. An attempt that began at `began`, by the monotonic clock, gives up a little
/// before it is cut off, and so can say what was seen.
pub(super) async fn wait_until(
    work: &Work,
    (service, target): (&ServiceSite, &Target),
    running: bool,
    began: Duration,
) -> Result<()> {
    let gone = work.site.clock.elapsed().saturating_sub(began);
    let limit = limit(work).mul_f64(0.95).saturating_sub(gone);
    let look = || async {
        match runs(service, target).await {
            Ok(Some(runs)) if runs == running => Look::Over(()),
            Ok(Some(true)) => Look::Again("its check succeeds".to_owned()),
            Ok(_) => Look::Again("its check fails".to_owned()),
            Err(error) => Look::Again(dr_provider::error::chain(&error)),
        }
    };
    let waited = poll::until(&work.waits, limit, INTERVAL, look).await;
    waited.map_err(|seen| {
        let (verb, not) = match running {
            true => ("start", "not running"),
            false => ("stop", "still running"),
        };
        let late = format!("{not} after {limit:?}: {seen}");
        error(target, verb, ErrorKind::Unknown).because(late)
    })
}

pub(super) fn error(target: &Target, operation: &str, kind: ErrorKind) -> Error {
    Error::new(kind, operation, format!("service {target}"))
}
