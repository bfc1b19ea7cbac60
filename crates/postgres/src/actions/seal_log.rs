//! Sealing the ended epoch's log in the store moved to (PROTOCOL 3).
//!
//! Idempotent because a seal for the same successor is found and taken for ours.

use dr_coordination::Actor;
use dr_coordination::chain::{ChainId, SealRequest, find_tail, seal, summarise};
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
        let sealed = seal(&**store, &chain, &request, patience()).await?;
        self.sealed(region, log, promised, sealed.lsn, sealed.seal.sealed_at)
            .await
    }

    pub(super) async fn is_log_sealed(
        &self,
        region: &RegionName,
        log: Log,
        promised: Option<Epoch>,
        fence: &Fence,
    ) -> Result<Verified> {
        let store = self.store(region)?;
        let Some(tail) = find_tail(&**store, &ChainId::from(log), patience()).await? else {
            return Ok(Verified::NotDone {
                seen: "the store holds no log of the epoch".to_owned(),
            });
        };
        match tail.seal {
            Some(seal) if seal.successor == fence.epoch => Ok(Verified::Done(
                self.sealed(region, log, promised, tail.end, seal.sealed_at)
                    .await?,
            )),
            Some(seal) => Ok(Verified::NotDone {
                seen: format!("sealed for epoch {} by {}", seal.successor, seal.sealed_by),
            }),
            None => Ok(Verified::NotDone {
                seen: format!("open, ends at {}", tail.end),
            }),
        }
    }

    async fn sealed(
        &self,
        region: &RegionName,
        log: Log,
        promised: Option<Epoch>,
        lsn: Lsn,
        sealed_at: Timestamp,
    ) -> Result<Applied> {
        const HEADERS: usize = 16;
        let store = self.store(region)?;
        let summary = summarise(&**store, &ChainId::from(log), HEADERS, patience()).await?;
        let promise = summary
            .as_ref()
            .and_then(|summary| summary.promise.as_ref());
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
        Ok(self.applied(
            format!(
                "timeline {} of epoch {} is sealed at {lsn} in {region}",
                log.timeline, log.epoch
            ),
            sealed.to_evidence(),
        ))
    }

    pub(crate) fn actor(&self) -> Actor {
        self.parts().actor.clone()
    }
}
