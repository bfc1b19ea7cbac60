//! What a restored server has to be told.
//!
//! Its configuration is the old primary's, as is `postgresql.auto.conf`, which may hold the targets of an earlier restore
//! or the connection to a primary: everything that decides how recovery runs and ends is set, none is left as it was.

use std::fmt::Write as _;

use dr_model::{Lsn, TimelineId};
use jiff::Timestamp;

use crate::options::InstanceOptions;

/// How a recovery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with a timeline of its own.
    Promote {
        /// No log after this position is served.
        through: Lsn,
        /// Commits after this instant are left out.
        until: Option<Timestamp>,
    },
    /// By a promotion.
    Standby {
        /// No log after this position is served; `None` while the end is open.
        through: Option<Lsn>,
    },
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
            Self::Promote { through, .. } => Some(*through),
            Self::Standby { through } => *through,
        }
    }

    /// Returns the file whose presence starts this kind of recovery.
    pub(super) fn signal(&self) -> &'static str {
        match self {
            Self::Promote { .. } => "recovery.signal",
            Self::Standby { .. } => "standby.signal",
        }
    }
}

/// Returns the text to be added to `postgresql.auto.conf`, in which the last of several values counts.
pub(super) fn settings(recovery: &Recovery, instance: Option<&InstanceOptions>) -> String {
    let mut all: Vec<(&str, String)> = vec![("restore_command", recovery.restore_command.clone())];
    let mut set = |name, value: &str| all.push((name, value.to_owned()));
    for target in [
        "recovery_target",
        "recovery_target_lsn",
        "recovery_target_name",
        "recovery_target_time",
        "recovery_target_xid",
        "recovery_end_command",
        "archive_cleanup_command",
        "primary_conninfo",
        "primary_slot_name",
        "synchronous_standby_names",
    ] {
        set(target, "");
    }
    // A restored server must not archive into the place that it was restored from (R30).
    set("archive_mode", "off");
    set("recovery_min_apply_delay", "0");
    match recovery.ending {
        Ending::Promote { until, .. } => {
            set("recovery_target_timeline", &recovery.timeline.to_string());
            set("recovery_target_inclusive", "on");
            set("recovery_target_action", "promote");
            if let Some(until) = until {
                set(
                    "recovery_target_time",
                    &until.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
                );
            }
        }
        Ending::Standby { .. } => {
            // Kept after the promotion, where a number would stop a later standby from following.
            set("recovery_target_timeline", "latest");
            set("wal_retrieve_retry_interval", "100ms");
            set("hot_standby", "on");
        }
    }
    if let Some(instance) = instance {
        set("port", &instance.port.to_string());
        for (name, value) in &instance.settings {
            set(name, value);
        }
    }
    let mut text = format!(
        "\n# Restored by dr from recovery point {}.\n",
        recovery.label
    );
    for (name, value) in all {
        writeln!(text, "{name} = '{}'", quoted(&value)).expect("writing to a string cannot fail");
    }
    text
}

/// Escapes a value as the configuration file's reader undoes it (`guc-file.l`).
fn quoted(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('\'', "''")
        .replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_decides_a_recovery_is_set() {
        let recovery = Recovery {
            label: "20261121T093005Z-7f3a".to_owned(),
            timeline: TimelineId(2),
            restore_command: r"'/a b/dr' wal fetch \ %f".to_owned(),
            ending: Ending::Promote {
                through: Lsn(7),
                until: Some("2026-11-21T10:00:00.123456789+02".parse().unwrap()),
            },
        };
        let text = settings(&recovery, None);
        let last = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
            lines
                .rfind(|(found, _)| *found == name)
                .map(|(_, value)| value)
        };
        assert_eq!(
            last("restore_command"),
            Some(r"'''/a b/dr'' wal fetch \\ %f'")
        );
        assert_eq!(
            last("recovery_target_time"),
            Some("'2026-11-21 08:00:00.123456+00'")
        );
        assert_eq!(last("recovery_target_timeline"), Some("'2'"));
        assert_eq!(last("recovery_target_lsn"), Some("''"));
        assert_eq!(last("archive_mode"), Some("'off'"));
        assert_eq!(last("port"), None);
    }
}
