//! What a step reads out of the evidence of a driver's actions.
//!
//! [`Applied::evidence`](super::Applied) is the driver's own data, except for these keys: `fenced`, `drained`,
//! `sealed` and `recovered`. A runbook decides by them whether a promotion is safe and computes what was lost and for how long, so
//! a driver MUST write them where they apply, and MUST write the same ones from `verify` as from `apply`.

use dr_model::{Lsn, TimelineId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A proof, given by a driver, that the old primary accepts no more writes (PROTOCOL 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopProof {
    /// The instance is gone and cannot come back writable by itself.
    Stopped,
    /// The platform confirmed that it stopped it.
    Provider,
    /// A dead-man is known to have stopped it.
    SelfStopped,
}

/// What came of fencing the old primary: the key `fenced`, for [`Goal::Fence`](super::Goal::Fence).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The proof; `None` if what was done is mitigation only.
    pub proof: Option<StopProof>,
    /// When the proof was seen, by the wall clock of who saw it.
    pub at: Timestamp,
    /// Whether it was found running and so may have acknowledged commits until then.
    #[serde(default)]
    pub ran: bool,
    /// What was seen of it if it was seen to be alive and could not be stopped: nobody's word outweighs that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<String>,
}

/// Where the log of a primary ends that was stopped in an orderly way: the key `drained`, for
/// [`Goal::StopWrites`](super::Goal::StopWrites).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The timeline that it wrote.
    pub timeline: TimelineId,
    /// Its end: the old primary has written nothing behind it.
    pub end: Lsn,
}

/// Where the log of the ended epoch stops: the key `sealed`, for [`Goal::Seal`](super::Goal::Seal).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The timeline that was sealed.
    pub timeline: TimelineId,
    /// Its end: everything before it is in the store, nothing behind it was ever acknowledged through the store.
    pub lsn: Lsn,
    /// Whether the promise conditions of synchronous mode held, and when that was last recorded; `None` without it.
    pub promise: Option<(bool, Timestamp)>,
    /// Newest instant at which the store covered all that the primary had reported.
    pub covered_at: Option<Timestamp>,
    /// When the seal was put there; the time of the first, if it was there already.
    pub sealed_at: Timestamp,
}

/// What came up in the region moved to: the key `recovered`, for [`Goal::Promote`](super::Goal::Promote) and
/// [`Goal::Restore`](super::Goal::Restore).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// The timeline that the new primary writes.
    pub timeline: TimelineId,
    /// Where it begins.
    pub start: Lsn,
    /// The newest heartbeat of the *old* primary found in it, read before a new one was written; `None` if there was
    /// none. The achieved recovery point is computed from it.
    pub heartbeat: Option<Timestamp>,
    /// When the newest commit of the *old* primary that it has replayed was made, by the clock of that; `None` if it has replayed none
    /// since it was started. It is younger than the heartbeat where nobody wrote one any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_commit: Option<Timestamp>,
    /// Why something that was acknowledged may be missing although the server was started again with its own files, one line each:
    /// it is set up so that it does not keep everything. Empty where nothing speaks against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

impl Recovered {
    /// Returns the newest moment of the old primary that is known to be in it.
    #[must_use]
    pub fn reaches(&self) -> Option<Timestamp> {
        self.heartbeat.max(self.newest_commit)
    }
}

/// A part of a driver's evidence with a name of its own.
pub trait Evidence: Serialize + DeserializeOwned {
    /// The key that it stands under.
    const KEY: &'static str;

    /// Returns evidence that holds this and nothing else.
    #[must_use]
    fn to_evidence(&self) -> Value {
        let mut map = Map::new();
        let value = serde_json::to_value(self)
            .expect("evidence is made of numbers, texts and times, which are always valid JSON");
        map.insert(Self::KEY.to_owned(), value);
        Value::Object(map)
    }

    /// Reads it out of a driver's evidence; `None` if it is not there or not readable.
    #[must_use]
    fn from_evidence(evidence: &Value) -> Option<Self> {
        serde_json::from_value(evidence.get(Self::KEY)?.clone()).ok()
    }
}

impl Evidence for Fenced {
    const KEY: &'static str = "fenced";
}

impl Evidence for Drained {
    const KEY: &'static str = "drained";
}

impl Evidence for Sealed {
    const KEY: &'static str = "sealed";
}

impl Evidence for Recovered {
    const KEY: &'static str = "recovered";
}
