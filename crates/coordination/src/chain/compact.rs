//! Merges the chunks of a timeline into pieces, and removes what pieces hold once it is old.
//!
//! Only log that hangs together is merged: up to a tail, which from then on may move but not shrink. Everything created here
//! is create-only and the same whoever creates it, so that a run may be killed anywhere and repeated.
//!
//! Removing follows PROTOCOL 3. A chunk goes only
//! - when a piece that was read back and verified holds all of it,
//! - when that has been so for longer than the grace time, by the clock of this process alone: what a receiver knew of the
//!   tail before is then too old for it to act on,
//! - when at least [`KEPT_LINKS`] links that pieces hold too follow it, so that the tail is found without pieces,
//! - and when a [`Floor`](super::Floor) says that the chain begins behind it, so that nothing that is created there late counts.
//!
//! A seal, an origin and a link that says that log is lost are never removed. After a restart the time begins anew.

mod merge;
mod remove;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dr_encryption::Keys;
use dr_model::{Clock, Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::{Key, ObjectStore};

use super::catalogue::chains_of_timeline;
use super::coverage::gaps;
use super::piece::{Span, pieces};
use super::section::Section;
use super::start::log_start;
use super::uploader::BootTime;
use super::{ChainId, Error, boot_time, find_tail};
use crate::operation::Patience;

/// Links before a chain's tail that are never removed, nor merged while the chain is open: what finds the tail, and what the
/// headers say of loss, needs no more.
pub const KEPT_LINKS: usize = 128;

/// How compaction is done.
#[derive(Clone)]
pub struct CompactOptions {
    /// How long what a piece holds stays beside it; the same as the writers'.
    pub grace: Duration,
    /// How long a store is waited for.
    pub patience: Patience,
    /// What chunks are read with and pieces encrypted.
    pub keys: Keys,
    /// Who does it, for people.
    pub writer: String,
    /// The clock for what is written down.
    pub clock: Arc<dyn Clock>,
    /// The clock for how old something is.
    pub boot_time: BootTime,
}

impl CompactOptions {
    /// Returns a grace of an hour, no keys, and the machine's boot time.
    #[must_use]
    pub fn new(writer: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            grace: Duration::from_secs(3600),
            patience: Patience::default(),
            keys: Keys::default(),
            writer: writer.into(),
            clock,
            boot_time: boot_time(),
        }
    }
}

impl std::fmt::Debug for CompactOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactOptions")
            .field("grace", &self.grace)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

/// What one run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Pieces written.
    pub pieces: u64,
    /// Bytes of log in them.
    pub log_bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// Objects removed.
    pub removed: u64,
    /// Whether objects that may go stayed because the store refused to remove them.
    pub removal_denied: bool,
    /// Log that is missing, from and to.
    pub holes: Vec<Span>,
}

/// Compacts, and remembers between runs how long something has been so.
#[derive(Debug, Default)]
pub struct Compactor {
    /// By chain: until where pieces were seen to hold it, and since when.
    marks: BTreeMap<ChainId, VecDeque<(Duration, Lsn)>>,
    /// Pieces that were seen to be part of a longer one, and since when.
    superseded: BTreeMap<Key, Duration>,
}

/// One timeline of one cluster in one store, during one run.
struct Run<'a> {
    store: &'a Arc<dyn ObjectStore>,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    /// How long a piece may become; none crosses a multiple of it.
    slot: SegmentSize,
    /// Below this, log was given up on purpose.
    log_start: Lsn,
    options: &'a CompactOptions,
    /// Log that chains say is lost.
    lost: Vec<Span>,
    report: Compacted,
}

impl Compactor {
    /// Does what there is to do for one timeline.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] and [`Error::CorruptPiece`] name what is damaged; nothing that might still be needed is removed
    /// then. [`Error::Store`]: try again.
    pub async fn run(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
        segment_size: SegmentSize,
        options: &CompactOptions,
    ) -> Result<Compacted, Error> {
        let mut run = Run {
            store,
            system_identifier,
            timeline,
            slot: if segment_size.bytes() < SegmentSize::DEFAULT.bytes() {
                segment_size
            } else {
                SegmentSize::DEFAULT
            },
            log_start: log_start(&**store, system_identifier, timeline, options.patience).await?,
            options,
            lost: Vec::new(),
            report: Compacted::default(),
        };
        let chains = chains_of_timeline(&**store, system_identifier, timeline)
            .await
            .map_err(|error| Error::store(run.subject(), error))?;
        let mut held = run.pieces().await?;
        let mut tails = Vec::new();
        for chain in chains {
            let Some(tail) = find_tail(&**store, &chain, options.patience).await? else {
                continue;
            };
            run.merge(&chain, &tail, &mut held).await?;
            tails.push((chain, tail));
        }
        let now = (options.boot_time)();
        // What is lost needs no piece for what is before it to go.
        let mut settled = held.clone();
        settled.extend(&run.lost);
        settled.sort_unstable();
        for (chain, tail) in &tails {
            let begin = tail.origin.start_lsn.max(run.log_start);
            if begin >= tail.end {
                continue;
            }
            let missing = gaps(&settled, begin, tail.end);
            let through = missing.first().map_or(tail.end, |gap| gap.from);
            let ripe = self.ripe(chain, through, now, options.grace);
            if let Some(ripe) = ripe.filter(|ripe| *ripe <= through) {
                run.remove_links(chain, tail, ripe, &held).await?;
            }
        }
        run.remove_superseded(&mut self.superseded, &held, now)
            .await?;
        Ok(run.report)
    }

    /// Notes that pieces hold a chain up to `through`, and returns until where they have done so for longer than the grace.
    fn ripe(
        &mut self,
        chain: &ChainId,
        through: Lsn,
        now: Duration,
        grace: Duration,
    ) -> Option<Lsn> {
        let marks = self.marks.entry(*chain).or_default();
        // A piece that has gone takes the time of what it held with it.
        marks.retain(|(_, lsn)| *lsn <= through);
        if marks.back().is_none_or(|(_, lsn)| *lsn < through) {
            marks.push_back((now, through));
        }
        let is_old = |(since, _): &&(Duration, Lsn)| now.saturating_sub(*since) > grace;
        let old = marks.iter().take_while(is_old).count();
        let ripe = old.checked_sub(1).map(|last| marks[last].1);
        // Only the last of those that are old is needed.
        marks.drain(..old.saturating_sub(1));
        ripe
    }
}

impl Run<'_> {
    fn subject(&self) -> String {
        self.whole().to_string()
    }

    /// Returns all that there is to be merged.
    fn whole(&self) -> Section {
        Section::whole(self.system_identifier, self.timeline)
    }

    async fn pieces(&self) -> Result<Vec<Span>, Error> {
        let all = pieces(&**self.store, self.whole(), self.options.patience);
        all.await
            .map_err(|error| Error::store(self.subject(), error))
    }
}
