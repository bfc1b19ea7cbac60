//! Sealing the ended epoch's log in the store moved to (PROTOCOL 3).
//!
//! Idempotent because a seal for the same successor is found and taken for ours. So is that of an earlier epoch, whose execution has lost
//! its say to ours: nobody acknowledges beyond it either.

use dr_coordination::Actor;
use dr_coordination::chain::{ChainId, ChainSummary, Error, SealRequest, seal, summarise};
use dr_model::{Epoch, Lsn, RegionName};
use dr_provider::Result;
use dr_provider::driver::{Applied, Evidence, Fence, Sealed, Verified};
use jiff::Timestamp;

use super::Log;
use crate::driver::PostgresDriver;
use crate::register::patience;

impl PostgresDriver {
    pub(super) async fn seal_log(
        &self,
        region: &RegionName,
        log: Log,
        promised: Option<Epoch>,
        fence: &Fence,
    ) -> Result<Applied> {
        let store = self.store(region)?;
        let chain = ChainId::from(log);
        // A chain that no receiver has ever written begins and ends where the standby stands.
        let origin_if_empty = match self.connect(region).await {
            Ok(mut instance) => instance.position().await?.position,
            Err(_) => Lsn::INVALID,
        };
        let request = SealRequest {
            successor: fence.epoch,
            execution: Some(fence.execution.clone()),
            actor: self.actor(),
            at: self.clock().now(),
            origin_if_empty,
        };
        let sealed = match seal(&**store, &chain, &request, patience()).await {
            Ok(sealed) => sealed,
            Err(error @ Error::Superseded { .. }) => {
                return match self.is_log_sealed(region, log, promised, fence).await? {
                    Verified::Done(applied) => Ok(applied),
                    _ => Err(error.into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        let at = (sealed.lsn, sealed.seal.sealed_at);
        let summary = self.summary_of(region, log).await?;
        Ok(self.sealed(region, log, promised, at, summary.as_ref()))
    }

    pub(super) async fn is_log_sealed(
        &self,
        region: &RegionName,
        log: Log,
        promised: Option<Epoch>,
        fence: &Fence,
    ) -> Result<Verified> {
        let Some(summary) = self.summary_of(region, log).await? else {
            return Ok(Verified::NotDone {
                seen: "the store holds no log of the epoch".to_owned(),
            });
        };
        match &summary.seal {
            Some(seal) if seal.successor <= fence.epoch => {
                let at = (summary.end, seal.sealed_at);
                let sealed = self.sealed(region, log, promised, at, Some(&summary));
                Ok(Verified::Done(sealed))
            }
            Some(seal) => Ok(Verified::NotDone {
                seen: format!("sealed for epoch {} by {}", seal.successor, seal.sealed_by),
            }),
            None => Ok(Verified::NotDone {
                seen: format!("open, ends at {}", summary.end),
            }),
        }
    }

    async fn summary_of(&self, region: &RegionName, log: Log) -> Result<Option<ChainSummary>> {
        const HEADERS: usize = 16;
        let store = self.store(region)?;
        Ok(summarise(&**store, &ChainId::from(log), HEADERS, patience()).await?)
    }

    fn sealed(
        &self,
        region: &RegionName,
        log: Log,
        promised: Option<Epoch>,
        (lsn, sealed_at): (Lsn, Timestamp),
        summary: Option<&ChainSummary>,
    ) -> Applied {
        let promise = summary.and_then(|summary| summary.promise.as_ref());
        let sealed = Sealed {
            timeline: log.timeline,
            lsn,
            promise: promised.zip(promise).map(|(ended, promise)| {
                let kept = promise.covers(log.epoch, ended, lsn);
                (kept, promise.checked_at)
            }),
            covered_at: summary.and_then(|summary| summary.covered_at),
            sealed_at,
        };
        self.applied(
            format!(
                "timeline {} of epoch {} is sealed at {lsn} in {region}",
                log.timeline, log.epoch
            ),
            sealed.to_evidence(),
        )
    }

    pub(crate) fn actor(&self) -> Actor {
        self.parts().actor.clone()
    }
}
