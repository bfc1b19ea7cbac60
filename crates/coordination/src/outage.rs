//! Outages: that a primary does not answer, seen from another region, and since when.
//!
//! An outage decides nothing. It is what a person is told, and what the time to recover is measured from: who fails over
//! finds it in the store of the region moved to. Each is up to four objects, written once by the daemon of the region that saw
//! it: it *began*, somebody was *told*, it *ended* without a failover, and who was told of it was told of that. One of an epoch
//! that has ended is history.

use bytes::Bytes;
use dr_model::{Epoch, RegionName, WorkloadName};
use dr_provider::store::{list_all, record};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Actor;
use crate::operation::{Patience, key, read};
use crate::publish::{Published, publish};
use crate::versioned;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// An outage, as written once it was beyond doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The workload.
    pub workload: WorkloadName,
    /// The epoch whose primary does not answer.
    pub epoch: Epoch,
    /// The region of that primary.
    pub primary: RegionName,
    /// The region that it was seen from: all times are by the clock of its daemon.
    pub seen_from: RegionName,
    /// When the last sign of the primary was: the disruption is not older. `None` if there is none.
    pub last_answered_at: Option<Timestamp>,
    /// What that sign was. Left out where it is an answer, as before there was another one.
    #[serde(default, skip_serializing_if = "Sign::is_answer")]
    pub last_sign: Sign,
    /// When the first look began that was not answered: the disruption is not younger.
    pub first_missed_at: Timestamp,
    /// When it was beyond doubt.
    pub detected_at: Timestamp,
    /// What was looked at and not answered, one line each.
    pub looks: Vec<String>,
    /// What answered meanwhile, so that it is not our own network that is broken, one line each.
    pub landmarks: Vec<String>,
    /// What is proposed.
    pub proposal: Proposal,
    /// Who reports it.
    pub reported_by: Actor,
}

/// A sign that a primary was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// It answered a look, which began at that time.
    #[default]
    Answered,
    /// It wrote a heartbeat, which a standby or this region's store holds: for a daemon that was started during the outage, and has
    /// never seen an answer. The time is by the primary's clock if a standby holds it, and by the receiver's otherwise.
    Heartbeat,
}

impl Sign {
    fn is_answer(&self) -> bool {
        *self == Self::Answered
    }
}

/// What a person is asked to decide about. Nothing is done by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The region to move to.
    pub to: RegionName,
    /// The hash of the plan as it was made then; `None` if there was none.
    pub plan: Option<String>,
    /// Why there was none.
    pub refusal: Option<String>,
    /// The command that makes the plan anew, asks, and carries it out.
    pub command: String,
}

/// An outage in a store, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The outage.
    pub outage: Outage,
    /// Whether those who are to be told were told.
    pub told: bool,
    /// Whether the primary answered again.
    pub ended: bool,
    /// When it did, if those who were told of the outage are still to be told that it is over.
    pub untold_end: Option<Timestamp>,
}

/// What happened to an outage after it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Everybody who is to be told was told.
    Told,
    /// The primary answers again.
    Ended {
        /// Whether somebody has been told of the outage, and is to be told of its end.
        announced: bool,
    },
    /// Everybody who is to be told that it answers again was told.
    EndTold,
}

impl Mark {
    fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Ended { .. } => ENDED,
            Self::EndTold => END_TOLD,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Marked {
    version: u32,
    at: Timestamp,
    /// Left out where it does not hold, as before there were messages about an end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    announced: bool,
}

const BEGAN: &str = "began";
const ENDED: &str = "ended";
const END_TOLD: &str = "end-told";

impl Outage {
    /// Returns its name: the same on every message about it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}{}", prefix(&self.workload, self.epoch), self.stamp())
    }

    fn stamp(&self) -> String {
        self.detected_at.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    fn key(&self, name: &str) -> Key {
        key(format!("{}/{name}", self.id()))
    }

    /// Returns the bytes that are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        record::encode(self)
    }

    /// Reads what is stored; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        Ok(versioned::decode(bytes, FORMAT_VERSION)?)
    }
}

fn prefix(workload: &WorkloadName, epoch: Epoch) -> String {
    format!("outage/{workload}/{}/", epoch.to_key())
}

/// Writes that an outage began. One of the same second is the same outage.
///
/// # Errors
///
/// Those of the store; nothing is written if they are definite.
pub async fn report(store: &dyn ObjectStore, outage: &Outage) -> Result<()> {
    let key = outage.key(BEGAN);
    match publish(store, key, outage.to_bytes(), Patience::default()).await? {
        Published::Ours | Published::Theirs(_) => Ok(()),
    }
}

/// Writes what happened to an outage. Writing it again changes nothing.
///
/// # Errors
///
/// Those of the store.
pub async fn mark(
    store: &dyn ObjectStore,
    outage: &Outage,
    mark: Mark,
    at: Timestamp,
) -> Result<()> {
    let marked = Marked {
        version: FORMAT_VERSION,
        at,
        announced: matches!(mark, Mark::Ended { announced: true }),
    };
    let key = outage.key(mark.name());
    publish(store, key, record::encode(&marked), Patience::default())
        .await
        .map(drop)
}

/// Returns the newest outage of an epoch; `None` if there was none.
///
/// # Errors
///
/// Those of the store, and `Corrupt` if it cannot be read.
pub async fn newest(
    store: &dyn ObjectStore,
    workload: &WorkloadName,
    epoch: Epoch,
) -> Result<Option<Seen>> {
    let prefix = prefix(workload, epoch);
    let listed = list_all(store, &prefix).await?;
    let stamp = |key: &Key| -> Option<String> {
        let (stamp, name) = key.as_str().strip_prefix(&prefix)?.split_once('/')?;
        (name == BEGAN).then(|| stamp.to_owned())
    };
    let Some(stamp) = listed.iter().filter_map(|info| stamp(&info.key)).max() else {
        return Ok(None);
    };
    let at = |name: &str| key(format!("{prefix}{stamp}/{name}"));
    let Some(bytes) = read(store, &at(BEGAN), Patience::default()).await? else {
        return Ok(None);
    };
    let damaged = |name: &str, why: String| {
        let subject = format!("{}/{}", store.location(), at(name));
        Error::new(ErrorKind::Corrupt, "read the outage", subject).because(why)
    };
    let outage = Outage::from_bytes(&bytes).map_err(|why| damaged(BEGAN, why))?;
    let is_there = |name: &str| listed.iter().any(|info| info.key == at(name));
    let ended = is_there(ENDED);
    let mut untold_end = None;
    if ended
        && !is_there(END_TOLD)
        && let Some(bytes) = read(store, &at(ENDED), Patience::default()).await?
    {
        let marked: Marked = versioned::decode(&bytes, FORMAT_VERSION)
            .map_err(|unreadable| damaged(ENDED, unreadable.to_string()))?;
        untold_end = marked.announced.then_some(marked.at);
    }
    Ok(Some(Seen {
        outage,
        told: is_there(Mark::Told.name()),
        ended,
        untold_end,
    }))
}

#[cfg(test)]
mod tests {
    use dr_provider::store::MemoryStore;

    use super::*;
    use crate::testing::at;

    fn outage(second: i64) -> Outage {
        Outage {
            version: FORMAT_VERSION,
            workload: "orders".parse().unwrap(),
            epoch: Epoch(3),
            primary: "east".parse().unwrap(),
            seen_from: "west".parse().unwrap(),
            last_answered_at: Some(at(second - 7)),
            last_sign: Sign::Answered,
            first_missed_at: at(second - 5),
            detected_at: at(second),
            looks: vec!["orders/database in east".to_owned()],
            landmarks: vec!["rfc2136 orders.example".to_owned()],
            proposal: Proposal {
                to: "west".parse().unwrap(),
                plan: Some("3f9a".to_owned()),
                refusal: None,
                command: "dr failover --to west orders".to_owned(),
            },
            reported_by: Actor::new("postgres", "db1.west", 7),
        }
    }

    #[tokio::test]
    async fn the_newest_outage_of_an_epoch_is_found_with_what_became_of_it() {
        let store = MemoryStore::new("west");
        let workload: WorkloadName = "orders".parse().unwrap();
        let find = async |epoch| newest(&store, &workload, epoch).await.unwrap();
        assert_eq!(find(Epoch(3)).await, None);
        report(&store, &outage(0)).await.unwrap();
        let ended = |announced| Mark::Ended { announced };
        mark(&store, &outage(0), ended(false), at(3)).await.unwrap();
        let found = find(Epoch(3)).await.unwrap();
        assert_eq!((found.ended, found.untold_end), (true, None));
        for _again in 0..2 {
            report(&store, &outage(60)).await.unwrap();
            mark(&store, &outage(60), Mark::Told, at(61)).await.unwrap();
        }
        let found = find(Epoch(3)).await.unwrap();
        assert_eq!(found.outage, outage(60));
        assert_eq!((found.told, found.ended), (true, false));
        assert_eq!(find(Epoch(4)).await, None);
        // Who was told of it is told of its end.
        mark(&store, &outage(60), ended(true), at(70))
            .await
            .unwrap();
        let found = find(Epoch(3)).await.unwrap();
        assert_eq!((found.ended, found.untold_end), (true, Some(at(70))));
        let over = outage(60);
        mark(&store, &over, Mark::EndTold, at(71)).await.unwrap();
        let found = find(Epoch(3)).await.unwrap();
        assert_eq!((found.ended, found.untold_end), (true, None));
    }

    #[test]
    fn a_sign_that_is_no_answer_is_said_to_be_none() {
        let text = |outage: &Outage| String::from_utf8(outage.to_bytes().to_vec()).unwrap();
        assert!(!text(&outage(0)).contains("last_sign"));
        let beaten = Outage {
            last_sign: Sign::Heartbeat,
            ..outage(0)
        };
        assert!(text(&beaten).contains("\"last_sign\": \"heartbeat\""));
        assert_eq!(Outage::from_bytes(&beaten.to_bytes()).unwrap(), beaten);
    }

    /// An end that was written before there was a message about it is told to nobody.
    #[tokio::test]
    async fn an_end_of_before_is_read() {
        let store = MemoryStore::new("west");
        report(&store, &outage(0)).await.unwrap();
        let body = Bytes::from_static(b"{\"version\":1,\"at\":\"2026-11-21T12:00:09Z\"}");
        store.create(&outage(0).key(ENDED), body).await.unwrap();
        let found = newest(&store, &outage(0).workload, Epoch(3)).await;
        let found = found.unwrap().unwrap();
        assert_eq!((found.ended, found.untold_end), (true, None));
    }

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let store = MemoryStore::new("west");
        let newer = Bytes::from_static(br#"{"version": 2, "more": true}"#);
        store.create(&outage(0).key(BEGAN), newer).await.unwrap();
        let error = newest(&store, &outage(0).workload, Epoch(3)).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
