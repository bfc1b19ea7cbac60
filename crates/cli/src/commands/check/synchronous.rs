//! Whether commits on a primary wait for whom the newest epoch says that they wait for. Pure.
//!
//! The configuration says what is wished for; the record says what is promised. After a failover nobody
//! can acknowledge for the new primary, so its record promises nothing and naming a store would only
//! make commits hang. A primary never waits for the receiver of its own region: that dies with it.

use dr_coordination::register::EpochRecord;
use dr_model::{RegionName, ResourceName};
use dr_postgres::Options;

use super::findings::{Finding, Level};

/// Judges the `synchronous_standby_names` of the primary in `region`.
pub(super) fn judge(
    subject: &str,
    names: &str,
    region: &RegionName,
    resource: &ResourceName,
    configured: &[RegionName],
    newest: Option<&EpochRecord>,
) -> Finding {
    let finding = |level, found: String| Finding::new(level, subject, found);
    let promised = match newest {
        Some(record) if record.primary != *region => {
            return finding(
                Level::Failed,
                format!(
                    "it is no standby, and {} is the primary of epoch {}",
                    record.primary, record.epoch
                ),
            )
            .remedy("stop this server before anybody writes to it");
        }
        Some(record) => record.sync.get(resource).map_or(&[][..], Vec::as_slice),
        // The first epoch is opened as the configuration says.
        None => configured,
    };
    let others: Vec<RegionName> = promised.iter().filter(|r| *r != region).cloned().collect();
    let wanted = Options::standby_names_of(&others);
    let found = format!("synchronous_standby_names is {}", shown(names));
    match newest {
        _ if names != wanted => finding(
            Level::Failed,
            match newest {
                Some(record) => format!(
                    "{found}, and epoch {} means {}",
                    record.epoch,
                    shown(&wanted)
                ),
                None => format!("{found}, and `sync` means {}", shown(&wanted)),
            },
        )
        .remedy(format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{wanted}'; SELECT pg_reload_conf();"
        )),
        Some(record) if wanted.is_empty() && !configured.is_empty() => finding(
            Level::Ok,
            format!("{found}: asynchronous since epoch {}", record.epoch),
        )
        .remedy(format!(
            "`dr sync enable {}/{resource}` makes commits wait again",
            record.workload
        )),
        _ => finding(Level::Ok, found),
    }
}

fn shown(names: &str) -> String {
    if names.is_empty() {
        "empty".to_owned()
    } else {
        format!("`{names}`")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dr_coordination::Actor;
    use dr_coordination::register::FORMAT_VERSION;
    use dr_model::Epoch;
    use jiff::Timestamp;

    use super::*;

    const WEST: &str = "FIRST 1 (dr_west)";

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    /// The newest record, and what the configuration wishes for: commits that wait for west.
    fn judged(primary: &str, promised: &[&str], region_of_server: &str, names: &str) -> Finding {
        let resource: ResourceName = "database".parse().unwrap();
        let record = EpochRecord {
            version: FORMAT_VERSION,
            epoch: Epoch(2),
            workload: "orders".parse().unwrap(),
            primary: region(primary),
            register: region("west"),
            clusters: BTreeMap::new(),
            sync: BTreeMap::from([(
                resource.clone(),
                promised.iter().map(|name| region(name)).collect(),
            )]),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: Actor::new("test", "test", 1),
            reason: "test".to_owned(),
            sync_lost: std::collections::BTreeMap::new(),
            guards: std::collections::BTreeMap::new(),
            execution: None,
            override_reason: None,
        };
        let server = region(region_of_server);
        judge(
            "s",
            names,
            &server,
            &resource,
            &[region("west")],
            Some(&record),
        )
    }

    #[test]
    fn the_record_says_whom_commits_wait_for() {
        assert_eq!(judged("east", &["west"], "east", WEST).level, Level::Ok);
        let empty = judged("east", &["west"], "east", "");
        assert_eq!(empty.level, Level::Failed);
        assert!(empty.remedy.unwrap().contains(WEST));
    }

    #[test]
    fn a_failover_leaves_it_asynchronous_and_that_is_no_failure() {
        let moved = judged("west", &[], "west", "");
        assert_eq!(moved.level, Level::Ok);
        assert!(moved.found.ends_with("asynchronous since epoch 2"));
        // Waiting for the receiver beside the primary is wrong, whoever says it.
        for promised in [&[][..], &["west"]] {
            let own = judged("west", promised, "west", WEST);
            assert_eq!(own.level, Level::Failed);
            assert!(own.remedy.unwrap().contains("= ''"));
        }
    }

    #[test]
    fn a_second_primary_is_not_told_to_wait_but_to_stop() {
        let other = judged("west", &[], "east", WEST);
        assert_eq!(other.level, Level::Failed);
        assert!(other.found.contains("west is the primary of epoch 2"));
    }

    #[test]
    fn before_the_first_epoch_the_configuration_says_it() {
        let resource = "database".parse().unwrap();
        let of = |server: &str, names| {
            judge(
                "s",
                names,
                &region(server),
                &resource,
                &[region("west")],
                None,
            )
            .level
        };
        assert_eq!(of("east", WEST), Level::Ok);
        assert_eq!(of("east", ""), Level::Failed);
        assert_eq!(of("west", ""), Level::Ok);
    }
}
