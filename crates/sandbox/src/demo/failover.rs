//! What `dr failover --json` says it did: the part of its contract that the demo reads.

use std::collections::BTreeMap;

use dr_model::loss::{Bound, Estimate};
use jiff::Timestamp;
use serde::Deserialize;

/// The outcome of an execution.
#[derive(Clone, Debug, Deserialize)]
pub struct Failover {
    /// Its id.
    pub execution: String,
    /// Its state; only `completed` is a success.
    pub state: String,
    /// Why it is not `completed`, if it is not.
    #[serde(default)]
    pub reason: Option<String>,
    /// The epoch that it opened.
    pub epoch: u64,
    /// How the database came back: `promote` or `restore`.
    pub rung: String,
    /// What proves that the old primary has stopped.
    pub fence: String,
    /// Where the log was sealed.
    pub sealed: serde_json::Value,
    /// What the plan said would be lost.
    pub loss: Loss,
    /// When it began.
    pub started_at: Timestamp,
    /// Time to recover as it was, from the start of the execution; `None` if it did not come so far.
    pub rta_seconds: Option<f64>,
    /// What the engine itself took of the execution's time; `None` if it was resumed.
    pub overhead_seconds: Option<f64>,
    /// How much was lost by the heartbeat; `None` if that could not be read, or nobody saw when the disruption began.
    pub rpa_seconds: Option<f64>,
    /// How exactly the heartbeat measures.
    pub rpa_interval_seconds: Option<f64>,
    /// By resource.
    #[serde(default)]
    pub resources: BTreeMap<String, Resource>,
    /// The steps, in the order in which they ran.
    pub steps: Vec<Step>,
}

/// What came of one database.
#[derive(Clone, Debug, Deserialize)]
pub struct Resource {
    /// The newest heartbeat of the old primary found in the recovered copy.
    pub heartbeat: Option<Timestamp>,
    /// When the newest commit was made that the recovered copy has replayed.
    #[serde(default)]
    pub newest_commit: Option<Timestamp>,
}

impl Failover {
    /// Returns how much was lost by the heartbeat, or by the newest commit if that is younger, if the primary was lost at `lost_at`, in
    /// seconds.
    #[must_use]
    pub fn rpa_since(&self, lost_at: Timestamp) -> Option<f64> {
        let reached = self.resources.values();
        let reached: Option<Vec<_>> = reached.map(|r| r.heartbeat.max(r.newest_commit)).collect();
        let oldest = reached?.into_iter().min()?;
        Some(lost_at.duration_since(oldest).as_secs_f64().max(0.0))
    }
}

/// The loss that a plan states, as two numbers.
#[derive(Clone, Debug, Deserialize)]
pub struct Loss {
    /// What was being lost at last contact; `None` if nothing is known.
    pub estimate: Option<Estimate>,
    /// What cannot be exceeded.
    pub bound: Bound,
}

/// One step of an execution.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// Its id in the runbook.
    pub id: String,
    /// What it does.
    pub uses: String,
    /// How it ended.
    pub state: String,
    /// When it began; `None` if it never did.
    pub started_at: Option<Timestamp>,
    /// How long it took.
    pub took_seconds: Option<f64>,
    /// What it says of itself.
    #[serde(default)]
    pub summary: Option<String>,
}

impl Loss {
    /// Tells whether losing a commit that was acknowledged at `acknowledged_at` was announced.
    #[must_use]
    pub fn allows(&self, acknowledged_at: Timestamp) -> bool {
        match &self.bound {
            Bound::Zero => false,
            Bound::Seconds { since, .. } | Bound::Growing { since: Some(since) } => {
                acknowledged_at >= *since
            }
            Bound::Growing { since: None } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_announces_what_was_acknowledged_after_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let loss = |bound| Loss {
            estimate: None,
            bound,
        };
        let seconds = loss(Bound::Seconds {
            since: at(10),
            seconds: 3.0,
        });
        assert!(seconds.allows(at(11)));
        assert!(!seconds.allows(at(9)));
        assert!(!loss(Bound::Zero).allows(at(11)));
        assert!(loss(Bound::Growing { since: None }).allows(at(0)));
    }
}
