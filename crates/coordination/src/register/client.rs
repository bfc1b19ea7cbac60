//! Reads and writes a register on real stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dr_model::{Epoch, RegionName, SystemIdentifier, TimelineId, WorkloadName};
use dr_provider::store::list_all;
use dr_provider::{ErrorKind, Key, ObjectStore};
use tokio::time::Instant;

use super::audit::{Contradiction, Sighting, contradiction};
use super::walked::Walked;
use super::{Ask, EpochRecord, Error, Walk, WalkEnd, claims};
use crate::operation::{Operation, Patience, back_off, carry_out, limited, read};
use crate::publish::{Published, publish};

/// How long a store may take to say what it holds of a register. Whoever reads one waits for all stores, of which one may
/// be that of a dead region.
const SIGHTING_LIMIT: Duration = Duration::from_secs(1);

/// How long a store that took longer is asked only if nobody else will do: a dead one costs a failover this wait once.
const SILENCE: Duration = Duration::from_secs(30);

/// Where a store holds records of a register: copies, and those that count.
const PREFIXES: [&str; 2] = ["copies/register", "register"];

/// An epoch that is open and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The record as it stands in the register.
    pub record: EpochRecord,
    /// Whether it was there already, from an earlier try of the same execution.
    pub existed: bool,
}

/// What one store's copies say, which is not proven to be the newest.
#[derive(Debug)]
pub struct CopyView {
    /// The region.
    pub region: RegionName,
    /// The newest record that its store holds, as copy or in its own part of the register; `None` if it holds none.
    pub newest: dr_provider::Result<Option<EpochRecord>>,
}

/// The register of one workload.
#[derive(Clone, Debug)]
pub struct Register {
    pub(super) workload: WorkloadName,
    pub(super) stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    pub(super) initial: RegionName,
    pub(super) patience: Patience,
    /// Stores that did not say in time what they hold, and until when they are spared. Clones share it.
    silent: Arc<Mutex<BTreeMap<RegionName, Spared>>>,
    /// The records of the last complete walk: they never change, so who follows asks only for the next. Clones share it.
    walked: Arc<Mutex<Walked>>,
}

/// How long a store is spared.
#[derive(Clone, Copy, Debug)]
enum Spared {
    Since(Instant),
    ForGood,
}

impl Register {
    /// Makes a client; does no I/O. `initial` is the region whose store holds record 1: the first recovery region, or the
    /// home region if there is none.
    #[must_use]
    pub fn new(
        workload: WorkloadName,
        stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
        initial: RegionName,
    ) -> Self {
        let patience = Patience {
            attempts: 2,
            ..Patience::default()
        };
        Self {
            workload,
            stores,
            initial,
            patience,
            silent: Arc::default(),
            walked: Arc::default(),
        }
    }

    /// Sets how long stores are waited for.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Asks the store of `region` from now on only for what nobody else has: an execution is about to leave it (PROTOCOL 7).
    /// Clones are told too.
    pub fn leave(&self, region: &RegionName) {
        self.silent().insert(region.clone(), Spared::ForGood);
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<RegionName, Spared>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walked(&self) -> MutexGuard<'_, Walked> {
        self.walked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the regions whose stores are spared at present.
    fn spared(&self) -> BTreeSet<RegionName> {
        let spared = |how: &Spared| match how {
            Spared::Since(at) => at.elapsed() < SILENCE,
            Spared::ForGood => true,
        };
        let silent = self.silent();
        let found = silent.iter().filter(|(_, how)| spared(how));
        found.map(|(region, _)| region.clone()).collect()
    }

    /// Returns the newest record, which says who is primary; `None` if the workload has never had an epoch.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if the store that could name a newer record does not answer, [`Error::Damaged`] if a record
    /// is not what it should be, or if any store that answers holds a record or a copy that the register should have too.
    pub async fn read(&self) -> Result<Option<EpochRecord>, Error> {
        Ok(self.read_all().await?.pop())
    }

    /// Returns all records, oldest first. Errors as [`Register::read`].
    pub async fn read_all(&self) -> Result<Vec<EpochRecord>, Error> {
        Ok(self.walk().await?.into_records())
    }

    /// Returns the newest record without asking again for those that this process has read whole before: for whoever asks every
    /// second. The first time it is [`Register::read`]: a register that ends early is nobody's base. Errors as there, but for records that
    /// went missing or have changed since.
    pub async fn follow(&self) -> Result<Option<EpochRecord>, Error> {
        let known = self.walked().records().to_vec();
        if known.is_empty() {
            return self.read().await;
        }
        let began = now();
        let walk = self.walk_on(known).await?;
        self.walked().take(walk.records(), began);
        Ok(walk.into_records().pop())
    }

    /// Returns the newest record without looking for what contradicts it: quick, to know whom a look is about. Nothing may be decided by
    /// it. Errors as [`Register::follow`].
    pub async fn glance(&self) -> Result<Option<EpochRecord>, Error> {
        let known = self.walked().records().to_vec();
        Ok(self.walk_on(known).await?.into_records().pop())
    }

    /// Returns the newest record as this process read it last, if that was no longer ago than `limit`; asks nobody.
    #[must_use]
    pub fn read_lately(&self, limit: Duration) -> Option<EpochRecord> {
        self.walked().lately(limit).cloned()
    }

    /// Opens the epoch of `record`: the single flight of PROTOCOL 2.
    ///
    /// Meeting a record of the same execution is success, so that a resumed execution may call this again.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] with the winner's record if somebody else has opened that epoch; [`Error::Invalid`] if the epoch is
    /// not the next one or claims a timeline that it may not; [`Error::Write`] if the store failed, after which the record
    /// may exist unless the source is definite; and the errors of [`Register::read`]. Record 1 is created only if every
    /// store can be read and none holds a trace of the workload.
    pub async fn create(&self, record: &EpochRecord) -> Result<Opened, Error> {
        let walk = self.walk().await?;
        if let Some(present) = walk.records().iter().find(|old| old.epoch == record.epoch) {
            return met(present.clone(), record);
        }
        let invalid = |why: String| Error::Invalid {
            workload: self.workload.clone(),
            epoch: record.epoch,
            why,
        };
        let next = walk
            .records()
            .last()
            .map_or(Epoch::FIRST, |newest| newest.epoch.next());
        if record.workload != self.workload || record.epoch != next {
            return Err(invalid(format!(
                "the next epoch of `{}` is {next}",
                self.workload
            )));
        }
        claims::check(walk.records(), record).map_err(invalid)?;
        if next == Epoch::FIRST {
            self.refuse_traces().await?;
        }
        let region = walk.register().clone();
        let write = |source| Error::Write {
            workload: self.workload.clone(),
            region: region.clone(),
            epoch: record.epoch,
            source: Box::new(source),
        };
        let store = &self.stores[&region];
        let key = EpochRecord::key(&self.workload, record.epoch);
        let published = publish(&**store, key, record.to_bytes(), self.patience)
            .await
            .map_err(write)?;
        match published {
            Published::Ours => Ok(Opened {
                record: record.clone(),
                existed: false,
            }),
            Published::Theirs(bytes) => {
                let winner = self.decode(&region, record.epoch, &bytes)?;
                met(winner, record)
            }
        }
    }

    /// Returns what each store's copies say. Unproven: a newer record may exist in the register. For display.
    pub async fn read_copies(&self) -> Vec<CopyView> {
        self.read_copies_within(Duration::MAX).await
    }

    /// As [`Register::read_copies`], but waits for each store so long at most: one that hangs keeps nobody from hearing what the others say.
    pub async fn read_copies_within(&self, limit: Duration) -> Vec<CopyView> {
        let views = self.stores.iter().map(|(region, store)| async move {
            let subject = || store.location().to_owned();
            let trace = self.newest_trace(&**store);
            CopyView {
                region: region.clone(),
                newest: limited(limit, "read epoch record", subject, trace).await,
            }
        });
        futures::future::join_all(views).await
    }

    /// Walks, and refuses what a store contradicts.
    async fn walk(&self) -> Result<Walk, Error> {
        // First, so that the walk knows whom not to wait for.
        let seen = self.sightings().await;
        let mut began = now();
        let mut walk = self.walk_on(Vec::new()).await?;
        if contradiction(&self.workload, &walk, &seen).is_some() {
            // It may have been written meanwhile. Nothing of what has been seen is newer than this walk.
            began = now();
            walk = self.walk_on(Vec::new()).await?;
            if let Some(found) = contradiction(&self.workload, &walk, &seen) {
                let Contradiction {
                    region,
                    epoch,
                    why,
                    hint,
                } = found;
                return Err(Error::Damaged {
                    workload: self.workload.clone(),
                    region,
                    epoch,
                    why,
                    hint: Some(hint),
                });
            }
        }
        self.walked().take(walk.records(), began);
        Ok(walk)
    }

    /// Returns what the stores hold of the register, as far as they answer in time.
    async fn sightings(&self) -> Vec<Sighting> {
        let spared = self.spared();
        let asked = self.stores.iter().filter(|(r, _)| !spared.contains(*r));
        let looks = asked.map(|(region, store)| async move {
            let looks = PREFIXES.map(|prefix| self.sighting(region, &**store, prefix));
            let look = futures::future::join_all(looks);
            match tokio::time::timeout(SIGHTING_LIMIT, look).await {
                Ok(found) => found.into_iter().filter_map(Result::ok).collect(),
                Err(_) => {
                    let mut silent = self.silent();
                    let known = silent.entry(region.clone());
                    let how = known.or_insert(Spared::Since(now()));
                    if let Spared::Since(at) = how {
                        *at = now();
                    }
                    Vec::new()
                }
            }
        });
        let found = futures::future::join_all(looks).await;
        found.into_iter().flatten().collect()
    }

    async fn sighting(
        &self,
        region: &RegionName,
        store: &dyn ObjectStore,
        prefix: &str,
    ) -> dr_provider::Result<Sighting> {
        let keys = self.keys(store, prefix).await?;
        let newest: Option<Bytes> = match keys.last() {
            Some((_, key)) => read(store, key, self.patience).await?,
            None => None,
        };
        Ok(Sighting {
            region: region.clone(),
            keys,
            newest,
        })
    }

    /// Lists the records or copies in a store, oldest first.
    async fn keys(
        &self,
        store: &dyn ObjectStore,
        prefix: &str,
    ) -> dr_provider::Result<Vec<(Epoch, Key)>> {
        let prefix = format!("{prefix}/{}/", self.workload);
        let listed = limited(
            self.patience.timeout,
            "list objects",
            || format!("{}/{prefix}", store.location()),
            list_all(store, &prefix),
        )
        .await?;
        let of = |info: dr_provider::store::ObjectInfo| {
            let epoch = info.key.file_name().parse().ok().map(Epoch)?;
            Some((epoch, info.key))
        };
        Ok(listed.into_iter().filter_map(of).collect())
    }

    /// Walks on behind records that were read before.
    async fn walk_on(&self, known: Vec<EpochRecord>) -> Result<Walk, Error> {
        let spared = self.spared();
        match self.walk_without(known.clone(), spared.clone()).await {
            // Who was spared may be the only one to know.
            Err(Error::Unreachable { .. }) if !spared.is_empty() => {
                self.walk_without(known, BTreeSet::new()).await
            }
            end => end,
        }
    }

    async fn walk_without(
        &self,
        known: Vec<EpochRecord>,
        spared: BTreeSet<RegionName>,
    ) -> Result<Walk, Error> {
        let regions = self.stores.keys().cloned().collect();
        let walk = Walk::new(self.workload.clone(), self.initial.clone(), regions);
        let mut walk = walk.behind(known).without(spared);
        // The end is about one region's store, and others were asked as well.
        let mut errors = BTreeMap::new();
        let mut asked = None;
        loop {
            let end = match walk.next() {
                Ok(ask) => {
                    let (answer, error) = self.ask(&ask).await;
                    errors.extend(error.map(|error| (ask.region.clone(), error)));
                    asked = Some(ask.key.clone());
                    walk.feed(&ask, answer)
                }
                Err(end) => Some(end),
            };
            match end {
                None => {}
                Some(WalkEnd::Complete) => return Ok(walk),
                Some(WalkEnd::Unreachable { region, epoch }) => {
                    return Err(Error::Unreachable {
                        source: errors.remove(&region).map(Box::new),
                        workload: self.workload.clone(),
                        region,
                        epoch,
                    });
                }
                Some(WalkEnd::Damaged { region, epoch, why }) => {
                    return Err(self.unlike_itself(&region, epoch, asked.as_ref(), &why));
                }
            }
        }
    }

    /// Says of a record that is not what was written what to do: the other stores hold copies.
    fn unlike_itself(
        &self,
        region: &RegionName,
        epoch: Epoch,
        place: Option<&Key>,
        why: &str,
    ) -> Error {
        let record = EpochRecord::key(&self.workload, epoch);
        let place = place.unwrap_or(&record);
        let copy = EpochRecord::copy_key(&self.workload, epoch);
        let others = self.stores.keys().filter(|other| *other != region);
        let others: Vec<_> = others.map(|other| format!("`{other}`")).collect();
        Error::Damaged {
            workload: self.workload.clone(),
            region: region.clone(),
            epoch,
            why: why.to_owned(),
            hint: (!others.is_empty()).then(|| {
                format!(
                    "put the record back as it was: copy the object `{copy}` of the store of {} to `{place}` in the store of `{region}`, once \
                     it says what the servers and the execution that it names do; if no store has that copy, see by `dr execution list` and the \
                     timelines of the servers whether epoch {epoch} was ever opened: only an object that never was a record may be taken away",
                    others.join(" or ")
                )
            }),
        }
    }

    async fn ask(&self, ask: &Ask) -> (crate::operation::Answer, Option<dr_provider::Error>) {
        let store = &self.stores[&ask.region];
        let mut attempt = 0;
        loop {
            back_off(attempt).await;
            let operation = Operation::Get(ask.key.clone());
            let answer = carry_out(&**store, operation, self.patience.timeout).await;
            attempt += 1;
            let again = answer.1.as_ref().is_some_and(|error| !error.is_permanent());
            if !again || attempt >= self.patience.attempts {
                return answer;
            }
        }
    }

    /// Fails unless every store says that it holds nothing of the register: record 1 is created on no less.
    async fn refuse_traces(&self) -> Result<(), Error> {
        for view in self.read_copies().await {
            match view.newest {
                Ok(None) => {}
                Ok(Some(record)) => {
                    let why = format!(
                        "the register in `{}` is empty, but this store knows of epoch {}",
                        self.initial, record.epoch
                    );
                    return Err(self.damaged(&view.region, record.epoch, &why));
                }
                Err(source) => {
                    return Err(Error::Unreachable {
                        workload: self.workload.clone(),
                        region: view.region,
                        epoch: Epoch::FIRST,
                        source: Some(Box::new(source)),
                    });
                }
            }
        }
        Ok(())
    }

    async fn newest_trace(
        &self,
        store: &dyn ObjectStore,
    ) -> dr_provider::Result<Option<EpochRecord>> {
        let mut newest: Option<EpochRecord> = None;
        for prefix in PREFIXES {
            let keys = self.keys(store, prefix).await?;
            let Some((epoch, key)) = keys.last() else {
                continue;
            };
            let Some(bytes) = read(store, key, self.patience).await? else {
                continue;
            };
            let record =
                EpochRecord::from_bytes(&bytes, &self.workload, *epoch).map_err(|why| {
                    let subject = format!("{}/{key}", store.location());
                    dr_provider::Error::new(ErrorKind::Corrupt, "read epoch record", subject)
                        .because(why)
                })?;
            newest = newest.filter(|n| n.epoch >= record.epoch).or(Some(record));
        }
        Ok(newest)
    }

    fn decode(
        &self,
        region: &RegionName,
        epoch: Epoch,
        bytes: &[u8],
    ) -> Result<EpochRecord, Error> {
        EpochRecord::from_bytes(bytes, &self.workload, epoch)
            .map_err(|why| self.damaged(region, epoch, &why))
    }

    pub(super) fn damaged(&self, region: &RegionName, epoch: Epoch, why: &str) -> Error {
        Error::Damaged {
            workload: self.workload.clone(),
            region: region.clone(),
            epoch,
            why: why.to_owned(),
            hint: None,
        }
    }

    pub(super) fn write_error(
        &self,
        region: &RegionName,
        epoch: Epoch,
        source: dr_provider::Error,
    ) -> Error {
        Error::Write {
            workload: self.workload.clone(),
            region: region.clone(),
            epoch,
            source: Box::new(source),
        }
    }
}

/// Returns the timeline that the next promotion of a cluster has to claim: one above all claims in `records`; `None` if
/// no record claims one.
#[must_use]
pub fn next_timeline(
    records: &[EpochRecord],
    system_identifier: SystemIdentifier,
) -> Option<TimelineId> {
    records
        .iter()
        .flat_map(|record| record.clusters.values())
        .filter(|claim| claim.system_identifier == system_identifier)
        .map(|claim| claim.timeline)
        .max()
        .map(TimelineId::next)
}

fn met(present: EpochRecord, wanted: &EpochRecord) -> Result<Opened, Error> {
    if present.is_of_same_execution(wanted) {
        Ok(Opened {
            record: present,
            existed: true,
        })
    } else {
        Err(Error::Lost {
            winner: Box::new(present),
        })
    }
}

/// The time by which a silent store is left alone, in this process and nowhere else.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with itself only, and written down nowhere"
)]
fn now() -> Instant {
    Instant::now()
}
