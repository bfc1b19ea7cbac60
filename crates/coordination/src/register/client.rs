//! Reads and writes a register on real stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::{Epoch, RegionName, SystemIdentifier, TimelineId, WorkloadName};
use dr_provider::store::list_all;
use dr_provider::{ErrorKind, ObjectStore};

use super::{Ask, EpochRecord, Error, Walk, WalkEnd, claims};
use crate::operation::{Operation, Patience, back_off, carry_out, limited, read};
use crate::publish::{Published, publish};

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
    workload: WorkloadName,
    stores: BTreeMap<RegionName, Arc<dyn ObjectStore>>,
    initial: RegionName,
    patience: Patience,
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
        }
    }

    /// Sets how long stores are waited for.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Returns the newest record, which says who is primary; `None` if the workload has never had an epoch.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if the store that could name a newer record does not answer, [`Error::Damaged`] if a record
    /// is not what it should be, or if the register is empty while a store holds copies of its records.
    pub async fn read(&self) -> Result<Option<EpochRecord>, Error> {
        Ok(self.read_all().await?.pop())
    }

    /// Returns all records, oldest first. Errors as [`Register::read`].
    pub async fn read_all(&self) -> Result<Vec<EpochRecord>, Error> {
        let records = self.walk().await?.into_records();
        if records.is_empty() {
            self.refuse_traces(false).await?;
        }
        Ok(records)
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
            self.refuse_traces(true).await?;
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

    /// Puts copies of all records into the store of `region`; returns how many were new there.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if a copy is there and differs; [`Error::Write`]; and the errors of [`Register::read`].
    pub async fn copy_to(&self, region: &RegionName) -> Result<usize, Error> {
        let records = self.read_all().await?;
        let Some(store) = self.stores.get(region) else {
            return Err(Error::Unreachable {
                workload: self.workload.clone(),
                region: region.clone(),
                epoch: Epoch::FIRST,
                source: None,
            });
        };
        let mut copied = 0;
        // Oldest first, so that a walk over copies has no hole. What is there already is found from the newest back.
        let mut missing = records.len();
        while missing > 0 {
            let record = &records[missing - 1];
            let key = EpochRecord::copy_key(&self.workload, record.epoch);
            let present = read(&**store, &key, self.patience)
                .await
                .map_err(|source| self.write_error(region, record.epoch, source))?;
            match present {
                Some(bytes) if bytes == record.to_bytes() => break,
                Some(_) => return Err(self.damaged(region, record.epoch, "its copy differs")),
                None => missing -= 1,
            }
        }
        for record in &records[missing..] {
            let key = EpochRecord::copy_key(&self.workload, record.epoch);
            let published = publish(&**store, key, record.to_bytes(), self.patience)
                .await
                .map_err(|source| self.write_error(region, record.epoch, source))?;
            if published != Published::Ours {
                return Err(self.damaged(region, record.epoch, "its copy differs"));
            }
            copied += 1;
        }
        Ok(copied)
    }

    /// Returns what each store's copies say. Unproven: a newer record may exist in the register. For display.
    pub async fn read_copies(&self) -> Vec<CopyView> {
        let views = self.stores.iter().map(|(region, store)| async move {
            CopyView {
                region: region.clone(),
                newest: self.newest_trace(&**store).await,
            }
        });
        futures::future::join_all(views).await
    }

    async fn walk(&self) -> Result<Walk, Error> {
        let regions = self.stores.keys().cloned().collect();
        let mut walk = Walk::new(self.workload.clone(), self.initial.clone(), regions);
        let mut last_error = None;
        loop {
            let end = match walk.next() {
                Ok(ask) => {
                    let (answer, error) = self.ask(&ask).await;
                    last_error = error.or(last_error);
                    walk.feed(&ask, answer)
                }
                Err(end) => Some(end),
            };
            match end {
                None => {}
                Some(WalkEnd::Complete) => return Ok(walk),
                Some(WalkEnd::Unreachable { region, epoch }) => {
                    return Err(Error::Unreachable {
                        workload: self.workload.clone(),
                        region,
                        epoch,
                        source: last_error.map(Box::new),
                    });
                }
                Some(WalkEnd::Damaged { region, epoch, why }) => {
                    return Err(self.damaged(&region, epoch, &why));
                }
            }
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

    /// Fails if a store holds records although the register has none: the register was lost, or looked for in a wrong place.
    async fn refuse_traces(&self, strict: bool) -> Result<(), Error> {
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
                Err(source) if strict => {
                    return Err(Error::Unreachable {
                        workload: self.workload.clone(),
                        region: view.region,
                        epoch: Epoch::FIRST,
                        source: Some(Box::new(source)),
                    });
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn newest_trace(
        &self,
        store: &dyn ObjectStore,
    ) -> dr_provider::Result<Option<EpochRecord>> {
        let mut newest: Option<EpochRecord> = None;
        for prefix in ["copies/register", "register"] {
            let prefix = format!("{prefix}/{}/", self.workload);
            let listed = limited(
                self.patience.timeout,
                "list objects",
                || format!("{}/{prefix}", store.location()),
                list_all(store, &prefix),
            )
            .await?;
            let Some(last) = listed.last() else { continue };
            let epoch = last.key.file_name().parse().map(Epoch).unwrap_or(Epoch(0));
            let Some(bytes) = read(store, &last.key, self.patience).await? else {
                continue;
            };
            let record = EpochRecord::from_bytes(&bytes, &self.workload, epoch).map_err(|why| {
                let subject = format!("{}/{}", store.location(), last.key);
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

    fn damaged(&self, region: &RegionName, epoch: Epoch, why: &str) -> Error {
        Error::Damaged {
            workload: self.workload.clone(),
            region: region.clone(),
            epoch,
            why: why.to_owned(),
        }
    }

    fn write_error(&self, region: &RegionName, epoch: Epoch, source: dr_provider::Error) -> Error {
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
