//! What was proven, as it stands in a store: one object for each look, never changed. Its name alone says what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_model::SystemIdentifier;
use dr_provider::driver::{Proofs, VerifyMark, VerifyMeans, VerifyRecord};
use dr_provider::store::{list_all, record};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The version of a record that this code writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;

const OPERATION: &str = "read proof";

/// The time in a name, to the microsecond.
const TIME: &str = "%Y%m%dT%H%M%S.%6fZ";

const MEANS: [(&str, VerifyMeans); 3] = [
    ("boot", VerifyMeans::Boot),
    ("hash", VerifyMeans::Hash),
    ("sample", VerifyMeans::Sample),
];

fn prefix(cluster: SystemIdentifier) -> String {
    format!("postgres/{cluster}/proof/")
}

/// Returns the last part of a record's name: `20261121T093005.000000Z-hash`, with `-failed` behind it if it did.
fn name(mark: &VerifyMark) -> String {
    let means = MEANS.iter().find(|(_, means)| *means == mark.means);
    let means = means.map_or("unknown", |(name, _)| name);
    let failed = if mark.passed { "" } else { "-failed" };
    format!("{}-{means}{failed}", mark.at.strftime(TIME))
}

/// Reads a name; `None` if it is none of ours.
fn mark(name: &str) -> Option<VerifyMark> {
    let (time, means) = name.split_once('-')?;
    let (means, passed) = match means.strip_suffix("-failed") {
        Some(means) => (means, false),
        None => (means, true),
    };
    let (_, means) = MEANS.iter().find(|(name, _)| *name == means)?;
    let at = DateTime::strptime(TIME, time).ok()?;
    let at: Timestamp = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(VerifyMark {
        at,
        means: *means,
        passed,
    })
}

/// Writes a record.
pub(super) async fn write(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    proof: &VerifyRecord,
) -> Result<()> {
    let mark = VerifyMark {
        at: proof.began_at,
        means: proof.means,
        passed: proof.failure.is_none(),
    };
    let key = format!("{}{}/{}", prefix(cluster), proof.label, name(&mark));
    let invalid = |error: String| Error::new(ErrorKind::Failed, "write proof", &key).because(error);
    let name = Key::new(key.clone()).map_err(|error| invalid(error.to_string()))?;
    store.create(&name, record::encode(proof)).await
}

/// Returns what the names of a cluster's records say, by recovery point.
pub(crate) async fn marks(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
) -> Result<BTreeMap<String, Proofs>> {
    let prefix = prefix(cluster);
    let mut all: BTreeMap<String, Proofs> = BTreeMap::new();
    for object in list_all(&**store, &prefix).await? {
        let rest = &object.key.as_str()[prefix.len()..];
        if let Some((label, name)) = rest.split_once('/')
            && let Some(mark) = mark(name)
        {
            all.entry(label.to_owned()).or_default().marks.push(mark);
        }
    }
    Ok(all)
}

/// Reads the records of one recovery point, oldest first.
pub(super) async fn read(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    label: &str,
) -> Result<Vec<VerifyRecord>> {
    let mut records = Vec::new();
    for object in list_all(&**store, &format!("{}{label}/", prefix(cluster))).await? {
        records.push(read_object(store, &object.key).await?);
    }
    Ok(records)
}

/// Reads the record that a mark stands for.
pub(super) async fn read_one(
    store: &Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    label: &str,
    mark: &VerifyMark,
) -> Result<VerifyRecord> {
    let key = format!("{}{label}/{}", prefix(cluster), name(mark));
    let invalid = |error: String| Error::new(ErrorKind::Failed, OPERATION, &key).because(error);
    let key = Key::new(key.clone()).map_err(|error| invalid(error.to_string()))?;
    read_object(store, &key).await
}

async fn read_object(store: &Arc<dyn ObjectStore>, key: &Key) -> Result<VerifyRecord> {
    let body = store.get(key).await?;
    let refuse = |kind, why: String| Error::new(kind, OPERATION, key.to_string()).because(why);
    let damaged = |why: String| refuse(ErrorKind::Corrupt, why);
    let value: serde_json::Value = record::decode(&body).map_err(damaged)?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(VERSION)) {
        let why = format!("it has version {version:?}, this `dr` knows {VERSION}");
        return Err(refuse(ErrorKind::Unsupported, why));
    }
    serde_json::from_value(value).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_came_of_it() {
        for (means, passed) in [
            (VerifyMeans::Boot, true),
            (VerifyMeans::Hash, false),
            (VerifyMeans::Sample, true),
        ] {
            let at = Timestamp::from_microsecond(1_795_253_405_000_007).unwrap();
            let expected = VerifyMark { at, means, passed };
            let name = name(&expected);
            assert_eq!(mark(&name), Some(expected), "{name}");
        }
        for other in [
            "",
            "20261121T093005.000000Z",
            "20261121T093005.000000Z-guess",
            "x-hash",
        ] {
            assert_eq!(mark(other), None, "{other}");
        }
    }
}
