//! Evidence: what came of executions, for whoever asks a year later.
//!
//! One object a record, written once, in one chain for each workload and store: a record holds the hash of the object before it, so
//! that none can be changed, taken out or put in without the next one saying so. What is at the end of a chain is not held by
//! anything; it is by the next record. Whoever may write and delete everywhere can write it all anew: a store with object lock
//! is what stands against that.
//!
//! A record is written again only if the newest of its subject says something else: whoever is not sure whether it was written writes
//! it, and finds it. A chain is appended to at the cost of its names and of its newest 16 records, however long it is.

use bytes::Bytes;
use dr_model::WorkloadName;
use dr_provider::store::{list_all, record};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Actor;
use crate::operation::{Patience, key, read};
use crate::publish::{Published, publish};
use crate::versioned;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How often a record is tried under the next number before somebody else is blamed for writing without end.
const RIVALS: u64 = 16;

/// How many of the newest records are looked at for one that was written already. Executions of a workload come one after the other.
const LATELY: usize = 16;

/// How many records are read at a time.
const AT_ONCE: usize = 16;

/// A record of evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The workload that it is about.
    pub workload: WorkloadName,
    /// Its number in its chain, from 1.
    pub sequence: u64,
    /// The BLAKE3 hash of the object before it, in hexadecimal; `None` at the beginning.
    pub previous: Option<String>,
    /// What it is of: `execution`.
    pub kind: String,
    /// Which one: the id of the execution.
    pub subject: String,
    /// What it came to, in a word: the state of the execution. The newest record of a subject counts.
    pub state: String,
    /// When it was written, by its writer's clock.
    pub recorded_at: Timestamp,
    /// Who wrote it.
    pub recorded_by: Actor,
    /// What happened.
    pub body: Value,
}

/// A record to be written: what the chain does not add.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The workload.
    pub workload: WorkloadName,
    /// What it is of.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// What it came to, in a word.
    pub state: String,
    /// When.
    pub recorded_at: Timestamp,
    /// Who.
    pub recorded_by: Actor,
    /// What happened.
    pub body: Value,
}

/// One object of a chain as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its number, by its name.
    pub sequence: u64,
    /// The BLAKE3 hash of its bytes.
    pub hash: String,
    /// What it says, or why that cannot be read.
    pub record: std::result::Result<Evidence, String>,
}

fn prefix(workload: &WorkloadName) -> String {
    format!("evidence/{workload}/")
}

fn place(workload: &WorkloadName, sequence: u64) -> Key {
    key(format!("{}{sequence:010}", prefix(workload)))
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn found(sequence: u64, bytes: &[u8]) -> Found {
    Found {
        sequence,
        hash: hash(bytes),
        record: versioned::decode(bytes, FORMAT_VERSION).map_err(String::from),
    }
}

/// The chain of a workload in a store, as it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    /// Its records, in order of their numbers. One that is missing is missing here.
    pub records: Vec<Found>,
    /// The keys among them that are no name of a record. Whoever writes passes them over.
    pub strangers: Vec<String>,
}

/// Reads the chain of a workload.
///
/// # Errors
///
/// Those of the store.
pub async fn read_all(store: &dyn ObjectStore, workload: &WorkloadName) -> Result<Chain> {
    let (numbers, strangers) = names(store, workload).await?;
    let records = read_each(store, workload, numbers).await?;
    Ok(Chain { records, strangers })
}

/// Lists the numbers of the records, in order, and the keys that have none.
async fn names(
    store: &dyn ObjectStore,
    workload: &WorkloadName,
) -> Result<(Vec<u64>, Vec<String>)> {
    let prefix = prefix(workload);
    let (mut numbers, mut strangers) = (Vec::new(), Vec::new());
    for info in list_all(store, &prefix).await? {
        let name = info.key.as_str().strip_prefix(&prefix).unwrap_or_default();
        let number = name.parse().ok();
        match number.filter(|number| *number > 0 && place(workload, *number) == info.key) {
            Some(number) => numbers.push(number),
            None => strangers.push(info.key.as_str().to_owned()),
        }
    }
    numbers.sort_unstable();
    Ok((numbers, strangers))
}

/// Reads the records with these numbers, in this order; what was taken away meanwhile is missing.
async fn read_each(
    store: &dyn ObjectStore,
    workload: &WorkloadName,
    numbers: Vec<u64>,
) -> Result<Vec<Found>> {
    let reads = stream::iter(numbers).map(|sequence| async move {
        let read = read(store, &place(workload, sequence), Patience::default()).await;
        read.map(|bytes| bytes.map(|bytes| found(sequence, &bytes)))
    });
    let all: Vec<Option<Found>> = reads.buffered(AT_ONCE).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

/// Reads the newest records of a chain, the newest first.
async fn newest(store: &dyn ObjectStore, workload: &WorkloadName) -> Result<Vec<Found>> {
    let (numbers, _) = names(store, workload).await?;
    let newest = numbers.into_iter().rev().take(LATELY);
    read_each(store, workload, newest.collect()).await
}

/// Finds what is to be written among the newest records: the newest of its subject, if that says the same.
fn written(newest: &[Found], draft: &Draft) -> Option<Evidence> {
    let mut records = newest.iter().filter_map(|found| found.record.as_ref().ok());
    let of_it = records.find(|record| record.kind == draft.kind && record.subject == draft.subject);
    of_it.filter(|record| record.state == draft.state).cloned()
}

/// Looks whether a record is written already.
///
/// # Errors
///
/// Those of the store.
pub async fn find(store: &dyn ObjectStore, draft: &Draft) -> Result<Option<Evidence>> {
    let newest = newest(store, &draft.workload).await?;
    Ok(written(&newest, draft))
}

/// Writes a record at the end of the chain of its workload, unless the newest of its kind and subject has the same state.
///
/// # Errors
///
/// Those of the store; nothing is written if they are definite.
pub async fn append(store: &dyn ObjectStore, draft: &Draft) -> Result<Evidence> {
    let workload = &draft.workload;
    let newest = newest(store, workload).await?;
    if let Some(record) = written(&newest, draft) {
        return Ok(record);
    }
    let mut newest = newest
        .into_iter()
        .next()
        .map(|found| (found.sequence, found.hash));
    for _rival in 0..RIVALS {
        let (sequence, previous) = match &newest {
            None => (1, None),
            Some((sequence, hash)) => (sequence.saturating_add(1), Some(hash.clone())),
        };
        let record = Evidence {
            version: FORMAT_VERSION,
            workload: workload.clone(),
            sequence,
            previous,
            kind: draft.kind.clone(),
            subject: draft.subject.clone(),
            state: draft.state.clone(),
            recorded_at: draft.recorded_at,
            recorded_by: draft.recorded_by.clone(),
            body: draft.body.clone(),
        };
        let bytes: Bytes = record::encode(&record);
        let key = place(workload, sequence);
        match publish(store, key, bytes, Patience::default()).await? {
            Published::Ours => return Ok(record),
            Published::Theirs(theirs) => {
                let theirs = found(sequence, &theirs);
                // Somebody who took the execution over records the same.
                if let Some(record) = written(std::slice::from_ref(&theirs), draft) {
                    return Ok(record);
                }
                newest = Some((sequence, theirs.hash));
            }
        }
    }
    let subject = format!("{}/{}", store.location(), prefix(workload));
    Err(
        Error::new(ErrorKind::Unavailable, "append evidence", subject)
            .because(format!("others wrote {RIVALS} records meanwhile")),
    )
}

/// Says what is wrong with a chain, one line each, the first first. Nothing is wrong with one that is empty.
#[must_use]
pub fn faults(workload: &WorkloadName, chain: &Chain) -> Vec<String> {
    let mut faults = Vec::new();
    let mut before: Option<&Found> = None;
    for found in &chain.records {
        let expected = before.map_or(1, |before| before.sequence.saturating_add(1));
        let sequence = found.sequence;
        if sequence != expected {
            faults.push(match sequence.saturating_sub(expected) {
                1 => format!("record {expected} is missing"),
                _ => format!("records {expected} to {} are missing", sequence - 1),
            });
        }
        match &found.record {
            Err(why) => faults.push(format!("record {sequence} cannot be read: {why}")),
            Ok(record) if (record.sequence, &record.workload) != (sequence, workload) => {
                faults.push(format!("record {sequence} is that of another place"));
            }
            Ok(record) => {
                let is_next = sequence == expected;
                if is_next && record.previous.as_ref() != before.map(|before| &before.hash) {
                    faults.push(match before {
                        Some(before) => format!(
                            "record {} is not the one that record {sequence} was written behind: one of them was changed",
                            before.sequence
                        ),
                        None => format!("record {sequence} was written behind another one"),
                    });
                }
            }
        }
        before = Some(found);
    }
    let strangers = chain.strangers.iter();
    faults.extend(strangers.map(|key| format!("`{key}` is no record")));
    faults
}

#[cfg(test)]
mod tests;
