//! When a lease is over, and what a look at the register says of the next one. Pure.

use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::RegionName;

/// What a look at the register and at the server says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Look {
    /// The server may run for another lease.
    Granted,
    /// It may not be known to run: why.
    Withheld(String),
    /// Another region has the primary.
    Superseded(Box<EpochRecord>),
}

/// Judges a look at the register that a server which is not a standby needs.
///
/// `newest` is `None` before the workload's first epoch, which is opened for a primary that runs at home: until then no record
/// says that there is a guard, and nobody counts on it.
pub(super) fn judge(
    newest: Result<Option<EpochRecord>, String>,
    region: &RegionName,
    home: &RegionName,
) -> Look {
    match newest {
        Err(why) => Look::Withheld(format!("the register cannot be read: {why}")),
        Ok(None) if region == home => Look::Granted,
        Ok(None) => Look::Withheld(format!(
            "there is no epoch yet, and the first primary is in {home}"
        )),
        Ok(Some(record)) if record.primary == *region => Look::Granted,
        Ok(Some(record)) => Look::Superseded(Box::new(record)),
    }
}

/// How long the watcher may leave a message unanswered: longer than a busy machine takes, and much shorter than a lease.
pub(super) fn silence(lease: Duration) -> Duration {
    (lease / 3).max(Duration::from_secs(1))
}

/// How often the lease is renewed: a look may fail twice before it is over.
pub(super) fn interval(lease: Duration) -> Duration {
    (lease / 4).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn record(primary: &str) -> EpochRecord {
        let text = serde_json::json!({
            "version": 1, "epoch": 2, "workload": "orders", "primary": primary, "register": "us-west-2",
            "clusters": {}, "sync": {}, "created_at": "2026-11-21T12:00:00Z",
            "created_by": { "user": "dr", "host": "east", "process_id": 1 },
            "reason": "a test", "execution": null, "override_reason": null,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn only_the_newest_record_renews_a_lease() {
        let (east, west) = (region("us-east-1"), region("us-west-2"));
        let look = |newest, at: &RegionName| judge(newest, at, &east);
        assert_eq!(look(Ok(Some(record("us-east-1"))), &east), Look::Granted);
        let newer = record("us-west-2");
        assert_eq!(
            look(Ok(Some(newer.clone())), &east),
            Look::Superseded(Box::new(newer))
        );
        // Unknown is not granted.
        assert!(matches!(
            look(Err("silent".into()), &east),
            Look::Withheld(_)
        ));
        assert_eq!(look(Ok(None), &east), Look::Granted);
        assert!(matches!(look(Ok(None), &west), Look::Withheld(_)));
    }

    #[test]
    fn two_looks_may_fail_and_the_watcher_is_given_up_before_the_lease_is_over() {
        for seconds in [3, 10, 300] {
            let lease = Duration::from_secs(seconds);
            assert!(interval(lease) * 3 < lease);
            assert!(interval(lease) + silence(lease) < lease);
        }
    }
}
