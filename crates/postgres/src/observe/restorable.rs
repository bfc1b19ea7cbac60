//! Whether what a store holds can be brought back, where that is what a failover would do: the looks of a restore before it
//! writes, made before a primary is stopped for it.

use std::time::Duration;

use dr_coordination::chain::{self, prove};

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::LogFacts;
use dr_provider::error::chain as explain;
use dr_repository::KeyId;
use tokio::time::timeout;

use super::Held;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;

/// How long proving that the log is whole may take: hundreds of thousands of chunks that nobody has merged take longer.
const PROOF_LIMIT: Duration = Duration::from_secs(10);

/// How long looking at one recovery point may take: a manifest, and a listing of each backup that it refers to.
const POINT_LIMIT: Duration = Duration::from_secs(5);

impl PostgresDriver {
    /// Leaves out what cannot be restored, naming it, and proves that the log is all there from what would be restored on.
    pub(super) async fn prove_restorable(
        &self,
        region: &RegionName,
        held: Held,
    ) -> Result<LogFacts> {
        let Held {
            mut facts,
            candidates,
            key,
        } = held;
        if let Some(key) = key.filter(|key| self.keys().get(&KeyId::named(key)).is_none()) {
            let why = format!("the log is encrypted with key {key}, which is not at hand");
            for point in facts.recovery_points.drain(..) {
                facts.unusable.push(format!("{}: {why}", point.label));
            }
            return Ok(facts);
        }
        for base in candidates {
            match timeout(POINT_LIMIT, self.check_restorable(region, &base)).await {
                Ok(Ok(())) => return self.prove_log(region, facts, &base).await,
                // What does not answer says nothing of the recovery point.
                Ok(Err(error)) if !error.is_permanent() => return Err(error),
                Ok(Err(error)) => {
                    let why = format!("{}: {}", base.label, explain(&error));
                    facts.unusable.push(why);
                    let label = base.label.as_str();
                    facts.recovery_points.retain(|point| point.label != label);
                }
                // The restore looks again before it writes anything.
                Err(_) => {
                    tracing::warn!(
                        %region, label = %base.label,
                        "not proven within {} s that it can be restored", POINT_LIMIT.as_secs()
                    );
                    return self.prove_log(region, facts, &base).await;
                }
            }
        }
        Ok(facts)
    }

    /// Proves that the log from `base` to the tail is all there.
    async fn prove_log(
        &self,
        region: &RegionName,
        mut facts: LogFacts,
        base: &Base,
    ) -> Result<LogFacts> {
        let (cluster, from) = (base.source.system_identifier, base.log_start());
        let (store, timeline, end) = (self.store(region)?, facts.timeline, facts.end);
        if from >= end {
            return Ok(facts);
        }
        let proven = prove(&**store, cluster, timeline, from, end, patience());
        match timeout(PROOF_LIMIT, proven).await {
            Ok(Ok(())) => facts.start = from,
            Ok(Err(hole @ chain::Error::Hole { to, .. })) => {
                facts.start = to;
                facts.missing.push(hole.to_string());
            }
            // Every recovery point that is older needs it, too.
            Ok(Err(
                damage @ (chain::Error::Corrupt { .. } | chain::Error::CorruptPiece { .. }),
            )) => {
                facts.start = end;
                facts.missing.push(damage.to_string());
            }
            Ok(Err(error)) => return Err(error.into()),
            // The restore proves it again before it writes anything.
            Err(_) => tracing::warn!(
                %region, %from, %end,
                "not proven within {} s that the log is whole", PROOF_LIMIT.as_secs()
            ),
        }
        Ok(facts)
    }
}
