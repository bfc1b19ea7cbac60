//! What a restored server has to be told.
//!
//! Its configuration is the old primary's, as is `postgresql.auto.conf`, which may hold the targets of an earlier restore
//! or the connection to a primary: everything that decides how recovery runs and ends is set, none is left as it was.

use std::fmt::Write as _;

use dr_model::{Lsn, TimelineId};
use dr_provider::driver::TargetAction;
use jiff::Timestamp;

use crate::options::InstanceOptions;

/// The settings that each say where a recovery ends. An empty one overrides one in another file, which a line that is missing
/// would let count again.
pub(crate) const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// How a recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, at a target.
    Target {
        /// No log after this position is served.
        through: Lsn,
        /// What recovery stops at.
        stop: Stop,
        /// Whether what the target names is replayed.
        inclusive: bool,
        /// What the server does then.
        action: TargetAction,
    },
    /// By a promotion.
    Standby {
        /// No log after this position is served; `None` while the end is open.
        through: Option<Lsn>,
    },
}

/// What a recovery stops at; the server fails if it does not meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The end of the log that is served: the one target that the server cannot miss.
    EndOfLog,
    /// The first commit after this instant.
    Time(Timestamp),
    /// The first record that begins here or later.
    Position(Lsn),
    /// The end of a transaction.
    Transaction(u64),
    /// A restore point.
    Name(String),
    /// Consistency.
    Consistent,
}

/// What the restored server is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose<'a> {
    /// A copy beside the cluster that it is one of: it must do nothing to it (R30).
    Copy {
        port: u16,
        /// Where it is started, maybe.
        instance: Option<&'a InstanceOptions>,
    },
    /// The next primary, in another region than the last one, or in one whose own directory is lost.
    Failover(&'a InstanceOptions),
    /// The server that stands there already, put back to a moment.
    InPlace(&'a InstanceOptions),
}

/// A recovery to be set up.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    pub(super) label: String,
    pub(super) timeline: TimelineId,
    pub(super) restore_command: String,
    pub(super) ending: Ending,
}

impl Ending {
    pub(super) fn through(&self) -> Option<Lsn> {
        match self {
            Self::Target { through, .. } => Some(*through),
            Self::Standby { through } => *through,
        }
    }

    /// Returns the file whose presence starts this kind of recovery.
    pub(super) fn signal(&self) -> &'static str {
        match self {
            Self::Target { .. } => "recovery.signal",
            Self::Standby { .. } => "standby.signal",
        }
    }
}

/// Returns the text to be added to `postgresql.auto.conf`, in which the last of several values counts.
pub(super) fn settings(recovery: &Recovery, purpose: &Purpose<'_>) -> String {
    let mut all: Vec<(&str, String)> = vec![("restore_command", recovery.restore_command.clone())];
    let mut set = |name, value: &str| all.push((name, value.to_owned()));
    let others = [
        "recovery_end_command",
        "archive_cleanup_command",
        "primary_conninfo",
        "primary_slot_name",
        "synchronous_standby_names",
    ];
    for none in TARGETS.iter().chain(&others) {
        set(none, "");
    }
    // A restored server must not archive into the place that it was restored from (R30). One that is put back into its own place archives
    // where it did: under the number of a new timeline, once it is promoted.
    if !matches!(purpose, Purpose::InPlace(_)) {
        set("archive_mode", "off");
    }
    set("recovery_min_apply_delay", "0");
    match &recovery.ending {
        Ending::Target {
            stop,
            inclusive,
            action,
            ..
        } => {
            set("recovery_target_timeline", &recovery.timeline.to_string());
            set(
                "recovery_target_inclusive",
                if *inclusive { "on" } else { "off" },
            );
            let (action, answers) = match action {
                TargetAction::Promote => ("promote", None),
                // Without it the server would stop instead of pausing.
                TargetAction::Pause => ("pause", Some("on")),
                TargetAction::Shutdown => ("shutdown", None),
            };
            set("recovery_target_action", action);
            if let Some(on) = answers {
                set("hot_standby", on);
            }
            match stop {
                Stop::EndOfLog => {}
                Stop::Time(at) => set(
                    "recovery_target_time",
                    &at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
                ),
                Stop::Position(lsn) => set("recovery_target_lsn", &lsn.to_string()),
                Stop::Transaction(number) => set("recovery_target_xid", &number.to_string()),
                Stop::Name(name) => set("recovery_target_name", name),
                Stop::Consistent => set("recovery_target", "immediate"),
            }
        }
        Ending::Standby { .. } => {
            // Kept after the promotion, where a number would stop a later standby from following.
            set("recovery_target_timeline", "latest");
            set("wal_retrieve_retry_interval", "100ms");
            set("hot_standby", "on");
        }
    }
    let (instance, port) = match purpose {
        Purpose::Copy { port, instance } => (*instance, *port),
        Purpose::Failover(instance) | Purpose::InPlace(instance) => {
            (Some(*instance), instance.port)
        }
    };
    for (name, value) in instance.iter().flat_map(|instance| &instance.settings) {
        set(name, value);
    }
    set("port", &port.to_string());
    if matches!(purpose, Purpose::Copy { .. }) {
        // Once more, after what the configuration sets for the region's own server: a copy that archived would mix its
        // timeline into the log of the cluster.
        set("archive_mode", "off");
        set("archive_command", "/bin/false");
        set("archive_library", "");
        set("primary_conninfo", "");
        set("primary_slot_name", "");
        set("synchronous_standby_names", "");
        // Its subscriptions would take what is meant for the cluster's.
        set("max_logical_replication_workers", "0");
    }
    let remark = match purpose {
        Purpose::Copy { .. } => {
            " An isolated copy: it archives nothing, follows nobody, and has a port of its own."
        }
        Purpose::Failover(_) | Purpose::InPlace(_) => "",
    };
    let mut text = format!(
        "\n# Restored by dr from recovery point {}.{remark}\n",
        recovery.label
    );
    for (name, value) in all {
        writeln!(text, "{name} = '{}'", quoted(&value)).expect("writing to a string cannot fail");
    }
    text
}

/// Escapes a value as the configuration file's reader undoes it (`guc-file.l`).
pub(crate) fn quoted(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('\'', "''")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn text(stop: Stop, action: TargetAction) -> String {
        let recovery = Recovery {
            label: "20261121T093005Z-7f3a".to_owned(),
            timeline: TimelineId(2),
            restore_command: r"'/a b/dr' wal fetch \ %f".to_owned(),
            ending: Ending::Target {
                through: Lsn(7),
                stop,
                inclusive: true,
                action,
            },
        };
        let mut instance = crate::options::tests::options()
            .instances
            .remove(&"us-west-2".parse().unwrap())
            .unwrap();
        instance.settings = [("archive_mode", "on"), ("work_mem", "8MB")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let instance = Some(&instance);
        settings(
            &recovery,
            &Purpose::Copy {
                port: 54321,
                instance,
            },
        )
    }

    /// Returns the value that counts: the last one.
    fn last<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines
            .rfind(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn everything_that_decides_a_recovery_is_set() {
        let at = "2026-11-21T10:00:00.123456789+02".parse().unwrap();
        let text = text(Stop::Time(at), TargetAction::Promote);
        assert_eq!(
            last(&text, "restore_command"),
            Some(r"'''/a b/dr'' wal fetch \\ %f'")
        );
        assert_eq!(
            last(&text, "recovery_target_time"),
            Some("'2026-11-21 08:00:00.123456+00'")
        );
        assert_eq!(last(&text, "recovery_target_timeline"), Some("'2'"));
        assert_eq!(last(&text, "recovery_target_lsn"), Some("''"));
        assert_eq!(last(&text, "archive_mode"), Some("'off'"));
        assert_eq!(last(&text, "port"), Some("'54321'"));
        assert_eq!(last(&text, "work_mem"), Some("'8MB'"));
    }

    /// It is put back to where it was, and goes on archiving as it did; in another place it would archive into where it came from.
    #[test]
    fn only_a_server_that_is_put_back_in_place_archives() {
        let options = crate::options::tests::options();
        let instance = &options.instances[&"us-east-1".parse().unwrap()];
        let recovery = Recovery {
            label: "20261121T093005Z-7f3a".to_owned(),
            timeline: TimelineId(2),
            restore_command: "dr wal fetch".to_owned(),
            ending: Ending::Standby { through: None },
        };
        let text = settings(&recovery, &Purpose::InPlace(instance));
        assert_eq!(last(&text, "archive_mode"), None);
        let text = settings(&recovery, &Purpose::Failover(instance));
        assert_eq!(last(&text, "archive_mode"), Some("'off'"));
    }

    #[rstest]
    #[case(Stop::Position(Lsn(0x0300_0148)), "recovery_target_lsn", "'0/3000148'")]
    #[case(Stop::Transaction(771), "recovery_target_xid", "'771'")]
    #[case(Stop::Name("it's".to_owned()), "recovery_target_name", "'it''s'")]
    #[case(Stop::Consistent, "recovery_target", "'immediate'")]
    fn a_target_is_the_only_one(#[case] stop: Stop, #[case] name: &str, #[case] value: &str) {
        let text = text(stop, TargetAction::Pause);
        assert_eq!(last(&text, name), Some(value));
        // The server refuses to start with two.
        let targets =
            ["", "_lsn", "_xid", "_name", "_time"].map(|kind| format!("recovery_target{kind}"));
        let set = targets
            .iter()
            .filter(|name| last(&text, name) != Some("''"));
        assert_eq!(set.count(), 1, "{text}");
        assert_eq!(last(&text, "hot_standby"), Some("'on'"));
    }
}
