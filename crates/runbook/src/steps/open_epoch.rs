//! `open-epoch`: wins the right to act for the workload (PROTOCOL 2).
//!
//! One create-only write is the single flight of everything that follows: of two executions one gets the epoch, and the
//! other is told who, when, where to and why, and ends without having changed anything. It also claims a timeline for
//! each cluster. Idempotent because meeting our own record is success.
//!
//! Before that write it is looked once more whether what was planned to bring the resources up is still there: people take their time
//! to approve, and from here on a planned move stops a primary that is well. For the same reason the old primary is looked at once more
//! if the plan is old: one that has come back is whole until its epoch is ended.
//!
//! If the register cannot be read and somebody overrides that by name, the record is put among the copies in the store
//! moved to, where readers find it as long as the register stays silent. Such an epoch is unproven for ever.

use std::time::Duration;

use async_trait::async_trait;
use dr_coordination::register::{EpochRecord, FORMAT_VERSION};
use dr_provider::driver::{Action, Applied, Dependency, Plane, Undo, Verified};
use dr_provider::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::assess_region::{describe, superseded};
use super::switch_traffic;
use crate::plan::{Idempotency, Mode, Target};
use crate::request::override_reason;
use crate::step::{Impossible, Scene, Step, Unmet, Work};
use crate::{come_back, come_up};

/// The step's name.
pub const NAME: &str = "open-epoch";

/// The step.
#[derive(Debug)]
pub struct OpenEpoch;

#[async_trait]
impl Step for OpenEpoch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "win the next epoch and claim its timelines"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::Conditional
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// The register may still be in the region being left after an earlier failover. If that region is gone, it cannot
    /// be read either, and the plan says so.
    fn may_touch_region_left(&self) -> bool {
        true
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Register]
    }

    fn plan(
        &self,
        scene: &Scene<'_>,
        _: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let register = scene.register;
        let store = scene.world.stores.get(&register.region);
        let opens = scene.ended.next();
        Ok(vec![Action {
            name: NAME.to_owned(),
            summary: format!("create epoch {opens} with primary {}", scene.to()),
            current: Some(format!("epoch {} with primary {}", scene.ended, scene.from)),
            intended: Some(format!("epoch {opens} with primary {}", scene.to())),
            dependencies: vec![Dependency {
                region: register.region.clone(),
                plane: Plane::Data,
                what: format!("store {}", store.map_or("", String::as_str)),
            }],
            undo: Undo::Reversible("a later epoch".to_owned()),
            parameters: Value::Null,
        }])
    }

    async fn check(&self, work: &Work, _: &Target) -> std::result::Result<(), Unmet> {
        come_up::is_still_possible(work, None).await?;
        come_back::is_as_planned(work).await?;
        switch_traffic::can_be_asked(work).await
    }

    async fn apply(&self, work: &Work, _: &Target, _: &Action) -> Result<Applied> {
        let record = record(work).await?;
        let plan = work.plan();
        if plan.register.unproven.is_some() {
            return unproven(work, &record).await;
        }
        match work.site.register.create(&record).await {
            Ok(opened) => {
                // The region moved to keeps a copy for reading; without it nothing is lost.
                let copied = match plan.register.region == plan.to {
                    true => Ok(0),
                    false => work.site.register.copy_to(&plan.to).await,
                };
                let mut applied = opened_now(work, &opened.record);
                if let Err(error) = copied {
                    applied.evidence["not_copied"] = json!(dr_provider::error::chain(&error));
                }
                Ok(applied)
            }
            Err(dr_coordination::register::Error::Lost { winner }) => Err(superseded(&winner)),
            Err(error) => Err(error.into()),
        }
    }

    async fn verify(&self, work: &Work, _: &Target, _: &Action) -> Verified {
        let opens = work.plan().opens;
        match work.site.register.read_all().await {
            Ok(records) => match records.iter().find(|record| record.epoch == opens) {
                Some(record) if record.execution.as_ref() == Some(&work.history.execution) => {
                    Verified::Done(opened_now(work, record))
                }
                Some(record) => Verified::NotDone {
                    seen: describe(record),
                },
                None => Verified::NotDone {
                    seen: format!("epoch {opens} has not been opened"),
                },
            },
            Err(error) => Verified::Unknown {
                why: dr_provider::error::chain(&error),
                remedy: error.hint().map(str::to_owned),
            },
        }
    }
}

async fn record(work: &Work) -> Result<EpochRecord> {
    let plan = work.plan();
    if plan.mode == Mode::InPlace {
        return continued(work).await;
    }
    let claims = plan.claims.iter();
    Ok(EpochRecord {
        version: FORMAT_VERSION,
        epoch: plan.opens,
        workload: plan.workload.clone(),
        primary: plan.to.clone(),
        register: plan.register.next.clone(),
        clusters: claims.map(|(name, c)| (name.clone(), c.into())).collect(),
        // Nobody can acknowledge for the new primary before it is protected again.
        sync: std::collections::BTreeMap::new(),
        created_at: work.site.clock.now(),
        created_by: work.site.actor.clone(),
        reason: plan.reason(),
        sync_lost: std::collections::BTreeMap::new(),
        guards: std::collections::BTreeMap::new(),
        execution: Some(work.history.execution.clone()),
        override_reason: override_reason(&work.history.statements).map(str::to_owned),
    })
}

/// Returns the record of an epoch with the same primary: what is not claimed anew goes on with its log, and whom its commits wait
/// for stays. No guard has been seen since.
async fn continued(work: &Work) -> Result<EpochRecord> {
    let plan = work.plan();
    let ended = match work.site.register.follow().await? {
        Some(newest) if newest.epoch == plan.ended => newest,
        // It was opened before a crash.
        Some(newest) if newest.execution.as_ref() == Some(&work.history.execution) => {
            return Ok(newest);
        }
        _ => {
            let mut records = work.site.register.read_all().await?.into_iter();
            records
                .find(|record| record.epoch == plan.ended)
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::Corrupt,
                        "read the register of",
                        plan.workload.as_str(),
                    )
                    .because(format!("the record of epoch {} is gone", plan.ended))
                })?
        }
    };
    let mut record = ended.with_register(plan.register.next.clone());
    for (name, claim) in &plan.claims {
        record.clusters.insert(name.clone(), claim.into());
        record.sync.remove(name);
        record.sync_lost.remove(name);
    }
    record.guards.clear();
    record.created_at = work.site.clock.now();
    record.created_by = work.site.actor.clone();
    record.reason = plan.reason();
    record.execution = Some(work.history.execution.clone());
    record.override_reason = override_reason(&work.history.statements).map(str::to_owned);
    Ok(record)
}

fn opened_now(work: &Work, record: &EpochRecord) -> Applied {
    let summary = format!("epoch {} opened, primary {}", record.epoch, record.primary);
    work.applied(summary, json!({ "record": record }))
}

/// Puts the record among the copies in the store moved to, since the register does not answer.
async fn unproven(work: &Work, record: &EpochRecord) -> Result<Applied> {
    let to = &work.plan().to;
    let Some(store) = work.site.stores.get(to) else {
        return Err(work.not_configured(&Target::Register));
    };
    let key = EpochRecord::copy_key(&record.workload, record.epoch);
    match store.create(&key, record.to_bytes()).await {
        Ok(()) => Ok(opened_now(work, record)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let bytes = store.get(&key).await?;
            let present = EpochRecord::from_bytes(&bytes, &record.workload, record.epoch);
            let present = present.map_err(|why| {
                Error::new(ErrorKind::Corrupt, "read", key.to_string()).because(why)
            })?;
            if present.is_of_same_execution(record) {
                Ok(opened_now(work, &present))
            } else {
                Err(superseded(&present))
            }
        }
        Err(error) => Err(error),
    }
}
