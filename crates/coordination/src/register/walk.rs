//! Follows the records of a register from the first to the newest: the state machine.
//!
//! Record *n* is looked for in the store that record *n−1* names. If that store does not answer, a copy in any other store
//! proves as much, because records never change and copies are made of records only. A copy's absence proves nothing. So
//! the walk ends well only with `NotFound` from the store that the newest record names. A region that did not answer once
//! is not asked again, so that a dead one costs one time-out at most.

use std::collections::BTreeSet;

use bytes::Bytes;
use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::Key;

use super::EpochRecord;
use crate::operation::Answer;

/// An object to be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    /// The region whose store is asked.
    pub(crate) region: RegionName,
    /// The object.
    pub(crate) key: Key,
}

/// How a walk ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WalkEnd {
    /// All records were read, and the register said that there is no newer one.
    Complete,
    /// It is not known whether there is a newer record.
    Unreachable {
        /// The region that could tell.
        region: RegionName,
        /// The record asked for.
        epoch: Epoch,
    },
    /// A record is there and is not what it should be.
    Damaged {
        /// The region that it was read from.
        region: RegionName,
        /// The record asked for.
        epoch: Epoch,
        /// What is wrong.
        why: String,
    },
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    workload: WorkloadName,
    initial: RegionName,
    regions: BTreeSet<RegionName>,
    silent: BTreeSet<RegionName>,
    records: Vec<EpochRecord>,
    /// Regions whose copies of the wanted record are still to be tried; `None` while the register itself is asked.
    copies: Option<Vec<RegionName>>,
}

impl Walk {
    /// Starts at record 1, which is in the store of `initial`.
    pub(crate) fn new(
        workload: WorkloadName,
        initial: RegionName,
        regions: BTreeSet<RegionName>,
    ) -> Self {
        Self {
            workload,
            initial,
            regions,
            silent: BTreeSet::new(),
            records: Vec::new(),
            copies: None,
        }
    }

    /// Takes these regions for silent without asking them: copies elsewhere have to do.
    pub(crate) fn without(mut self, silent: BTreeSet<RegionName>) -> Self {
        self.silent = silent;
        self
    }

    /// Starts behind these records, which were read before, oldest first.
    pub(crate) fn behind(mut self, records: Vec<EpochRecord>) -> Self {
        self.records = records;
        self
    }

    /// Returns the records read so far, oldest first.
    pub(crate) fn records(&self) -> &[EpochRecord] {
        &self.records
    }

    /// Gives up the records read.
    pub(crate) fn into_records(self) -> Vec<EpochRecord> {
        self.records
    }

    /// Returns the region in whose store the next record is, or will be.
    pub(crate) fn register(&self) -> &RegionName {
        self.records
            .last()
            .map_or(&self.initial, |record| &record.register)
    }

    /// Returns the region in whose store record `epoch` is, which was read.
    pub(crate) fn place_of(&self, epoch: Epoch) -> &RegionName {
        let before = self.records.iter().rfind(|record| record.epoch < epoch);
        before.map_or(&self.initial, |record| &record.register)
    }

    fn wanted(&self) -> Epoch {
        self.records
            .last()
            .map_or(Epoch::FIRST, |record| record.epoch.next())
    }

    /// Returns what to read next, or how the walk ended if that is known without reading.
    pub(crate) fn next(&mut self) -> Result<Ask, WalkEnd> {
        let epoch = self.wanted();
        let register = self.register();
        if self.copies.is_none()
            && self.regions.contains(register)
            && !self.silent.contains(register)
        {
            return Ok(Ask {
                region: register.clone(),
                key: EpochRecord::key(&self.workload, epoch),
            });
        }
        if self.copies.is_none() {
            let others = self.regions.iter().rev();
            let usable =
                |region: &&RegionName| *region != register && !self.silent.contains(*region);
            self.copies = Some(others.filter(usable).cloned().collect());
        }
        let next_copy = self.copies.as_ref().and_then(|left| left.last());
        match next_copy {
            Some(region) => Ok(Ask {
                region: region.clone(),
                key: EpochRecord::copy_key(&self.workload, epoch),
            }),
            None => Err(WalkEnd::Unreachable {
                region: self.register().clone(),
                epoch,
            }),
        }
    }

    /// Takes the answer to what [`Walk::next`] asked for; returns how the walk ended, once it has.
    pub(crate) fn feed(&mut self, ask: &Ask, answer: Answer) -> Option<WalkEnd> {
        let from_register = self.copies.is_none();
        match answer {
            Answer::Found(bytes) => return self.take(ask, &bytes),
            Answer::Missing if from_register => return Some(WalkEnd::Complete),
            Answer::Missing => {}
            Answer::Created | Answer::Exists | Answer::Failed(_) => {
                self.silent.insert(ask.region.clone());
            }
        }
        if let Some(left) = &mut self.copies {
            left.pop();
        }
        None
    }

    fn take(&mut self, ask: &Ask, bytes: &Bytes) -> Option<WalkEnd> {
        let epoch = self.wanted();
        match EpochRecord::from_bytes(bytes, &self.workload, epoch) {
            Ok(record) => {
                self.records.push(record);
                self.copies = None;
                None
            }
            Err(why) => Some(WalkEnd::Damaged {
                region: ask.region.clone(),
                epoch,
                why,
            }),
        }
    }
}
