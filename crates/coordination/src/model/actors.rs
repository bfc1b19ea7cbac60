//! Names and fixed values of the modelled world.

use std::collections::BTreeMap;

use bytes::Bytes;
use dr_model::{Epoch, Lsn, RegionName, ResourceName, SystemIdentifier, TimelineId, WorkloadName};

use crate::chain::{ChainId, Chunk, FORMAT_VERSION, Facts, Origin};
use crate::register::{ClusterClaim, EpochRecord};
use crate::testing::{actor, at};

/// Regions by index.
pub(super) const REGIONS: [&str; 3] = ["e", "w", "x"];
pub(super) const EAST: usize = 0;
pub(super) const WEST: usize = 1;
pub(super) const SOUTH: usize = 2;

pub(super) const ORIGIN: Lsn = Lsn(100);
pub(super) const CLUSTER: SystemIdentifier = SystemIdentifier(1);

pub(super) fn region(index: usize) -> RegionName {
    REGIONS[index].parse().unwrap()
}

pub(super) fn region_index(name: &RegionName) -> usize {
    REGIONS.iter().position(|r| *r == name.as_str()).unwrap()
}

pub(super) fn resource() -> ResourceName {
    "db".parse().unwrap()
}

pub(super) fn workload() -> WorkloadName {
    "orders".parse().unwrap()
}

/// The chain of the old primary.
pub(super) fn chain() -> ChainId {
    ChainId {
        system_identifier: CLUSTER,
        timeline: TimelineId(1),
        epoch: Epoch::FIRST,
    }
}

/// The log of timeline 1.
pub(super) fn chunk(start: Lsn, bytes: u64) -> Chunk {
    let log: Bytes = (start.0..start.0 + bytes)
        .map(|lsn| u8::try_from(lsn & 0xFF).unwrap())
        .collect();
    Chunk {
        start,
        log,
        facts: Facts {
            commits: 0,
            last_commit_at: None,
            received_at: at(0),
            primary_end: start,
            promise: None,
        },
    }
}

pub(super) fn origin() -> Origin {
    Origin {
        version: FORMAT_VERSION,
        system_identifier: CLUSTER,
        timeline: TimelineId(1),
        epoch: Epoch::FIRST,
        start_lsn: ORIGIN,
        created_at: at(0),
        writer: String::new(),
    }
}

pub(super) fn record(
    epoch: Epoch,
    primary: usize,
    timeline: TimelineId,
    execution: Option<String>,
    process: u32,
) -> EpochRecord {
    let claim = ClusterClaim {
        system_identifier: CLUSTER,
        timeline,
        start_lsn: None,
        log_epoch: None,
    };
    EpochRecord {
        version: crate::register::FORMAT_VERSION,
        epoch,
        workload: workload(),
        primary: region(primary),
        register: region(WEST),
        clusters: BTreeMap::from([(resource(), claim)]),
        sync: BTreeMap::new(),
        created_at: at(0),
        created_by: actor(process),
        reason: String::new(),
        sync_lost: std::collections::BTreeMap::new(),
        guards: std::collections::BTreeMap::new(),
        execution: execution.map(|id| id.parse().unwrap()),
        override_reason: None,
    }
}
