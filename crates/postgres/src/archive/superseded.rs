//! Segments of a timeline that has been left.
//!
//! Up to the fork a superseded primary has written what everybody has. What it wrote after that was never promised to
//! anybody, but somebody may want to look at it: it is put where no recovery finds it (PROTOCOL 7).

use std::sync::Arc;

use dr_coordination::chain::{
    Available, ChainId, Section, available, find_tail, open_gaps_of, read_history,
};
use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::{Error, ErrorKind, ObjectStore, Result};

use super::file::{keep, quarantine_key};
use super::push::{OPERATION, compare, keep_aside};
use super::segment::Segment;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::wal::TimelineHistory;

impl PostgresDriver {
    /// Takes a segment of a timeline older than that of `log`, the newest epoch's.
    pub(super) async fn push_superseded(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        segment: &Segment,
    ) -> Result<String> {
        let timeline = segment.info.timeline;
        // One that came and went without `dr` was never claimed.
        let claimed = self.epoch_of(timeline).await?;
        let unclaimed = || {
            let why = format!("no epoch has ever claimed timeline {timeline}");
            self.failed(OPERATION, why)
        };
        let fork = match self.fork_by_history(store, log, timeline).await? {
            Some(fork) => fork,
            None => {
                let epoch = claimed.ok_or_else(unclaimed)?;
                self.fork_by_seal(store, log, timeline, epoch).await?
            }
        };
        let pieces = available(
            &**store,
            Section::new(
                log.system_identifier,
                timeline,
                segment.start(),
                segment.end(),
            ),
            patience(),
        )
        .await?;
        let holds =
            |piece: &&Available| piece.from <= segment.start() && segment.start() < piece.to;
        let held = pieces
            .iter()
            .find(holds)
            .map_or(segment.start(), |piece| piece.to);
        // After the fork the store may hold anything: what was streamed before the seal, or nothing (R17).
        let known = held.min(fork).min(segment.end());
        if known > segment.start() {
            compare((store, self.keys()), log, segment, (segment.start(), known)).await?;
        }
        if segment.end() <= fork {
            if known == segment.end() {
                return Ok(format!(
                    "{} is in {} already",
                    segment.name,
                    store.location()
                ));
            }
            if !self.is_lost(store, log, segment).await? {
                return keep_aside(store, log, segment, known).await;
            }
            let left = Log {
                timeline,
                epoch: claimed.unwrap_or(log.epoch),
                ..log
            };
            let part = (pieces.as_slice(), segment.end());
            if let Some(said) = self.fill_hole(store, left, segment, part).await? {
                return Ok(said);
            }
            return Ok(format!(
                "{} is in {}, which lacked it",
                segment.name,
                store.location()
            ));
        }
        let epoch = claimed.ok_or_else(unclaimed)?;
        let key = quarantine_key(log.system_identifier, epoch, &segment.name);
        keep(store, &key, &segment.content, &segment.name).await?;
        Ok(format!(
            "{} was written after timeline {timeline} was left at {fork}: it is in quarantine in {}",
            segment.name,
            store.location()
        ))
    }

    /// Tells whether some of a segment is recorded as lost and still missing: a receiver found that its store lacks it of a timeline
    /// before its own. What follows belongs to another timeline, so that it stands in no chain's way.
    async fn is_lost(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        segment: &Segment,
    ) -> Result<bool> {
        let (cluster, timeline) = (log.system_identifier, segment.info.timeline);
        let gaps = open_gaps_of(&**store, cluster, timeline, patience()).await?;
        Ok(gaps
            .iter()
            .any(|gap| gap.from < segment.end() && gap.to.is_none_or(|to| segment.start() < to)))
    }

    /// Returns the last epoch whose primary wrote on `timeline`, as the chain is named; `None` if none has ever claimed it.
    async fn epoch_of(&self, timeline: TimelineId) -> Result<Option<Epoch>> {
        let records = self
            .parts()
            .register
            .read_all()
            .await
            .map_err(Error::from)?;
        let wrote = records.iter().rev().find(|record| {
            let claim = record.clusters.get(&self.resource().resource);
            claim.is_some_and(|claim| claim.timeline == timeline)
        });
        let chain = wrote.and_then(|record| record.chain(&self.resource().resource));
        Ok(chain.map(|chain| chain.epoch))
    }

    /// Returns where `timeline` was left by the history of the newest one; `None` if the store does not have that.
    async fn fork_by_history(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        timeline: TimelineId,
    ) -> Result<Option<Lsn>> {
        let content = read_history(&**store, log.system_identifier, log.timeline).await?;
        let Some(content) = content else {
            return Ok(None);
        };
        let history = TimelineHistory::parse(log.timeline, &content).map_err(|error| {
            Error::new(ErrorKind::Corrupt, OPERATION, self.resource().to_string()).because(error)
        })?;
        let mut ancestors = history.ancestors().iter();
        let ancestor = ancestors.find(|ancestor| ancestor.timeline == timeline);
        // A timeline that nobody descends from was left as a whole.
        Ok(Some(ancestor.map_or(Lsn::INVALID, |ancestor| ancestor.end)))
    }

    /// Returns where `timeline` was left by the seal of its chain.
    async fn fork_by_seal(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        timeline: TimelineId,
        epoch: Epoch,
    ) -> Result<Lsn> {
        let chain = ChainId {
            system_identifier: log.system_identifier,
            timeline,
            epoch,
        };
        let tail = find_tail(&**store, &chain, patience()).await?;
        tail.filter(|tail| tail.seal.is_some()).map(|tail| tail.end).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, OPERATION, self.resource().to_string())
                .because(format!("{} does not say yet where timeline {timeline} was left", store.location()))
                .with_hint("the receiver of the region stores the history of the new timeline when it runs")
        })
    }
}
