//! Deleting what has expired, in an order that leaves every listed backup whole at every moment (R35–R37).
//!
//! Observe, plan, execute. A backup to be deleted is *marked* by a tombstone: it is not listed any more, nothing new may
//! refer to it, and for a grace time nothing else happens. Then its manifest goes, then its tree and those of its packs that
//! no manifest names, then its tombstone. Each of these may be interrupted and repeated. Only the caller of this needs the right to
//! delete: a backup that fails removes what it has written if it may, and what it may not is found here.

mod facts;
mod mark;
mod plan;

pub use facts::PruneFacts;
pub use mark::Hold;
pub use plan::{Kept, PrunePlan, Sweep};

use std::time::Duration;

use dr_provider::Key;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use crate::{Repository, Result, store};

/// Objects deleted at a time.
pub(crate) const DELETES_IN_FLIGHT: usize = 8;

/// When what is pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneOptions {
    /// How long a tombstone stands before anything of the backup is deleted. Longer than any backup, copy or restore takes,
    /// by a margin for clocks: whoever looked before there was a tombstone has finished by then.
    pub grace: Duration,
    /// Age, by its label, at which a backup without a manifest is taken for one that will never have one.
    pub abandoned_after: Duration,
}

impl Default for PruneOptions {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            grace: DAY,
            abandoned_after: 7 * DAY,
        }
    }
}

/// What pruning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneStats {
    /// Backups marked.
    pub marked: u64,
    /// Backups whose mark was taken back, since they are held.
    pub unmarked: u64,
    /// Backups of which everything that can go has gone.
    pub swept: u64,
    /// Objects deleted, tombstones aside.
    pub deleted_objects: u64,
}

impl Repository {
    /// Does what was planned. The plan must have been made just before; what has changed since by the grace time matters.
    pub async fn prune(&self, plan: &PrunePlan, now: Timestamp) -> Result<PruneStats> {
        let mut stats = PruneStats::default();
        for label in &plan.unmark {
            self.remove(&self.tombstone_key(label)).await?;
            stats.unmarked += 1;
        }
        for label in &plan.mark {
            self.mark(label, now).await?;
            stats.marked += 1;
        }
        for sweep in &plan.sweep {
            // While packs go, nobody finds a manifest that names them.
            if sweep.has_manifest {
                self.remove(&self.manifest_key(&sweep.label)).await?;
                stats.deleted_objects += 1;
            }
            stream::iter(sweep.objects.clone())
                .map(async |key| self.remove(&key).await)
                .buffer_unordered(DELETES_IN_FLIGHT)
                .try_collect::<()>()
                .await?;
            stats.deleted_objects += sweep.objects.len() as u64;
            self.remove(&self.tombstone_key(&sweep.label)).await?;
            stats.swept += 1;
        }
        for key in &plan.ended {
            self.remove(key).await?;
        }
        Ok(stats)
    }

    pub(crate) async fn remove(&self, key: &Key) -> Result<()> {
        let deleted = self.store().delete(key).await;
        deleted.map_err(store::failed(format!("delete `{key}`")))
    }
}
