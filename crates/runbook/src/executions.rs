//! Finding executions in the stores: for listings, for showing one, and for whether one has not ended yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Actor;
use dr_coordination::journal::{self, Journal};
use dr_coordination::register::EpochRecord;
use dr_model::{Clock, Epoch, ExecutionId, RegionName, WorkloadName};
use dr_provider::ObjectStore;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::execute::Error;
use crate::history::History;
use crate::old_primary::LOST_REGION_LIMIT;
use crate::outcome::State;
use crate::past::Past;
use crate::record::{Batch, Record};
use crate::sight::NotSeen;
use crate::site::Site;

/// How many executions in each store are looked at before a new one begins. An older one that has not ended has been
/// superseded by a newer epoch; and if not, the register still lets only one of them act.
const NEWEST: usize = 20;

/// How long listing a store may take.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// The stores that are looked in.
pub type Stores = BTreeMap<RegionName, Arc<dyn ObjectStore>>;

/// An execution in a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its id.
    pub execution: ExecutionId,
    /// The region whose store holds its journal.
    pub store: RegionName,
    /// The workload.
    pub workload: WorkloadName,
    /// The region left.
    pub from: RegionName,
    /// The region moved to.
    pub to: RegionName,
    /// The epoch opened, or that it would open.
    pub epoch: Epoch,
    /// Its state.
    pub state: State,
    /// Whether it can still be ended, and what it did be undone, as far as its journal tells.
    #[serde(default)]
    pub may_be_aborted: bool,
    /// When it began.
    pub started_at: Timestamp,
    /// Who runs it, or ran it last.
    pub holder: Actor,
    /// When the newest entry of its journal was written, by its writer's clock.
    pub last_entry_at: Timestamp,
}

/// An execution that has not ended, with where its journal is.
pub type Unfinished = Summary;

impl Summary {
    /// Tells whether the execution could still act, given the newest record of the register: no newer epoch has been
    /// opened, and not its own epoch by another.
    #[must_use]
    pub fn may_go_on(&self, head: &EpochRecord) -> bool {
        let waits = head.epoch < self.epoch;
        let holds = head.epoch == self.epoch && head.execution.as_ref() == Some(&self.execution);
        !self.state.is_final() && (waits || holds)
    }
}

impl Summary {
    /// Says how somebody goes on with it, or ends it where that is still possible.
    #[must_use]
    pub fn ways_on(&self) -> String {
        let id = &self.execution;
        match self.may_be_aborted {
            true => format!(
                "go on with it: `dr execution resume {id}`; or end it: `dr execution abort {id}`"
            ),
            false => format!("go on with it: `dr execution resume {id}`"),
        }
    }
}

/// An execution as found in a store.
#[derive(Debug)]
pub struct Found {
    /// The region whose store holds its journal.
    pub store: RegionName,
    /// Its journal, open for reading.
    pub journal: Journal<Batch>,
    /// What the journal tells.
    pub history: History,
}

/// Lists the executions in all stores, oldest first, and the stores that could not be read.
pub async fn list(stores: &Stores, clock: &Arc<dyn Clock>) -> (Vec<Summary>, Vec<String>) {
    let (found, unseen) = look(stores, clock, usize::MAX, LIST_LIMIT).await;
    let unseen = unseen
        .into_iter()
        .map(|silent| silent.not_seen.to_string())
        .collect();
    (found.iter().map(Found::summary).collect(), unseen)
}

/// Finds an execution in any of the stores.
///
/// # Errors
///
/// [`Error::NotFound`]; [`Error::NotSeen`] if it may be in a store that could not be read; [`Error::Journal`] if its journal
/// is damaged.
pub async fn find(
    stores: &Stores,
    clock: &Arc<dyn Clock>,
    execution: &ExecutionId,
) -> Result<Found, Error> {
    let looks = stores.iter().map(|(region, store)| async move {
        let open = open(region, store, clock, execution.clone());
        match tokio::time::timeout(crate::world::LOOK_LIMIT, open).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(journal::Error::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(Unseen::Journal(error)),
            Err(_) => Err(Unseen::Silent),
        }
        .map_err(|why| (region, why))
    });
    // The first that has it will do: the store of a lost region may take its time to say nothing (L1).
    let mut looks: FuturesUnordered<_> = looks.collect();
    let mut silent = Vec::new();
    while let Some(look) = looks.next().await {
        match look {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err((_, Unseen::Journal(error @ journal::Error::Damaged { .. }))) => {
                return Err(Error::journal(execution, error));
            }
            Err((region, Unseen::Journal(error))) => {
                silent.push(unseen(region, &dr_provider::error::chain(&error)).to_string());
            }
            Err((region, Unseen::Silent)) => {
                silent.push(unseen(region, "no answer in time").to_string());
            }
        }
    }
    let execution = execution.clone();
    Err(match silent.is_empty() {
        true => Error::NotFound { execution },
        false => Error::NotSeen {
            execution,
            unseen: silent,
        },
    })
}

/// Why a store did not show an execution.
enum Unseen {
    Journal(journal::Error),
    Silent,
}

/// The newest executions for a workload.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    /// Those that have not ended.
    pub(crate) unfinished: Vec<Unfinished>,
    /// How long the others took, oldest first.
    pub(crate) past: Vec<Past>,
    /// The stores that could not be read, and the journals that nobody can believe.
    pub(crate) unseen: Vec<NotSeen>,
    /// The executions among them whose journals those are, with what is wrong.
    pub(crate) damaged: Vec<Unreadable>,
}

/// An execution whose journal nobody can believe, so that nobody can tell what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its id.
    pub execution: ExecutionId,
    /// What is wrong with its journal, and where that is.
    pub why: String,
}

/// What could not be seen: a store, or one execution in it.
struct Silent {
    not_seen: NotSeen,
    execution: Option<ExecutionId>,
}

/// Looks at the newest executions for the site's workload.
pub(crate) async fn newest(site: &Site) -> Newest {
    let (found, unseen) = look(&site.stores, &site.clock, NEWEST, LOST_REGION_LIMIT).await;
    let ours = found
        .iter()
        .filter(|found| found.history.plan.workload == site.workload);
    let (over, open): (Vec<_>, Vec<_>) = ours.partition(|found| found.history.state().is_final());
    Newest {
        unfinished: open.into_iter().map(Found::summary).collect(),
        past: over
            .into_iter()
            .filter_map(|found| Past::of(&found.history))
            .collect(),
        damaged: unseen.iter().filter_map(Silent::unreadable).collect(),
        unseen: unseen.into_iter().map(|silent| silent.not_seen).collect(),
    }
}

async fn look(
    stores: &Stores,
    clock: &Arc<dyn Clock>,
    newest: usize,
    limit: Duration,
) -> (Vec<Found>, Vec<Silent>) {
    let looks = stores.iter().map(|(region, store)| {
        let look = in_store(region, store, clock, newest);
        async move {
            match tokio::time::timeout(limit, look).await {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) => Err(Silent::store(region, &dr_provider::error::chain(&error))),
                Err(_) => Err(Silent::store(region, "no answer in time")),
            }
        }
    });
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for look in join_all(looks).await {
        match look {
            Ok((found, damaged)) => {
                all.extend(found);
                silent.extend(damaged);
            }
            Err(why) => silent.push(why),
        }
    }
    all.sort_by(|a, b| a.history.execution.cmp(&b.history.execution));
    (all, silent)
}

/// Returns the executions in a store, and which of them have a journal that nobody can believe.
async fn in_store(
    region: &RegionName,
    store: &Arc<dyn ObjectStore>,
    clock: &Arc<dyn Clock>,
    newest: usize,
) -> Result<(Vec<Found>, Vec<Silent>), dr_provider::Error> {
    let ids = journal::list(store.as_ref()).await?;
    let newest = ids.into_iter().rev().take(newest);
    let opens = newest.map(|id| open(region, store, clock, id));
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for open in join_all(opens).await {
        match open {
            // A journal whose first entry is not a plan is not one of ours.
            Ok(open) => found.extend(open),
            Err(journal::Error::Damaged {
                execution,
                sequence,
                why,
            }) => damaged.push(Silent {
                execution: Some(execution.clone()),
                not_seen: NotSeen {
                    what: format!("execution {execution} in the store of {region}"),
                    why: journal::Error::Damaged {
                        execution,
                        sequence,
                        why,
                    }
                    .to_string(),
                },
            }),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((found, damaged))
}

/// Reads an execution. One that has not ended is looked at more closely, since somebody may go on with it: no entry may be
/// missing at its end, and its plan has to be the one that was shown.
async fn open(
    region: &RegionName,
    store: &Arc<dyn ObjectStore>,
    clock: &Arc<dyn Clock>,
    execution: ExecutionId,
) -> Result<Option<Found>, journal::Error> {
    let mut journal = Journal::open(Arc::clone(store), Arc::clone(clock), execution).await?;
    let Some(mut history) = read(&journal) else {
        return Ok(None);
    };
    if !history.state().is_final() {
        journal.check_end().await?;
        history = read(&journal).unwrap_or(history);
        if !history.plan.has_its_hash() {
            return Err(journal::Error::Damaged {
                execution: history.execution,
                sequence: 1,
                why: "its plan is not the one that its hash is of".to_owned(),
            });
        }
    }
    Ok(Some(Found {
        store: region.clone(),
        journal,
        history,
    }))
}

fn read(journal: &Journal<Batch>) -> Option<History> {
    History::from_records(journal.execution().clone(), records(journal))
}

fn records(journal: &Journal<Batch>) -> impl Iterator<Item = &Record> {
    let batches = journal.entries().iter().filter_map(|entry| entry.record());
    batches.flatten()
}

impl Found {
    /// Returns what its journal records, in order.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        records(&self.journal)
    }

    /// Returns the execution as in a listing.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let plan = &self.history.plan;
        let holder = self.journal.holder().cloned();
        let last = self.journal.entries().last();
        Summary {
            execution: self.history.execution.clone(),
            store: self.store.clone(),
            workload: plan.workload.clone(),
            from: plan.from.clone(),
            to: plan.to.clone(),
            epoch: plan.opens,
            state: self.history.state(),
            may_be_aborted: self.history.may_be_aborted(),
            started_at: self.history.started_at,
            holder: holder.unwrap_or_else(|| Actor::new("unknown", "unknown", 0)),
            last_entry_at: last.map_or(self.history.started_at, |entry| entry.at),
        }
    }
}

impl Silent {
    fn store(region: &RegionName, why: &str) -> Self {
        Self {
            not_seen: unseen(region, why),
            execution: None,
        }
    }

    fn unreadable(&self) -> Option<Unreadable> {
        Some(Unreadable {
            execution: self.execution.clone()?,
            why: self.not_seen.to_string(),
        })
    }
}

fn unseen(region: &RegionName, why: &str) -> NotSeen {
    NotSeen {
        what: format!("the executions in the store of {region}"),
        why: why.to_owned(),
    }
}
