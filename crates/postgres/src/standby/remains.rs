//! What a stopped server's directory holds beyond the history of the present primary.
//!
//! Read from its `pg_wal`, up to the first byte that PostgreSQL itself would not replay: what is counted here is what the old
//! primary would have after a crash recovery, and what nobody else has.

use std::collections::BTreeMap;
use std::path::Path;

use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Host, Result};

use super::beyond::{Beyond, Counting, Unread};
use super::lineage::{Parting, parting};
use super::log_files::LogFiles;
use crate::data_directory::{control_data, control_value};
use crate::wal::{Expected, TimelineHistory};

const OPERATION: &str = "read the log in";

/// What `pg_controldata` says that a stopped directory is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) system_identifier: SystemIdentifier,
    /// In its own words: `shut down`, `in production`, `shut down in recovery`, …
    pub(crate) state: String,
    /// Where the newest checkpoint record begins.
    pub(crate) checkpoint: Lsn,
    /// Where replay would begin.
    pub(crate) redo: Lsn,
    /// The newest timeline that the server wrote or followed.
    pub(crate) timeline: TimelineId,
    pub(crate) segment_size: SegmentSize,
    /// Whether pages carry checksums or hint bits are logged: what `pg_rewind` needs.
    pub(crate) may_be_rewound: bool,
    /// Settings that a standby may not have smaller.
    pub(crate) least: BTreeMap<String, String>,
}

impl Control {
    /// Reads the control file of a directory.
    pub(crate) async fn read(host: &dyn Host, binaries: &Path, directory: &Path) -> Result<Self> {
        let text = control_data(host, binaries, directory)
            .await?
            .map_err(|why| failed(directory, why))?;
        Self::parse(&text)
            .ok_or_else(|| failed(directory, "pg_controldata prints too little".to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| control_value(text, key);
        let timeline = |key: &str| value(key)?.parse().ok().map(TimelineId);
        let segment_bytes: u32 = value("Bytes per WAL segment")?.parse().ok()?;
        let least = [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            "max_prepared_xacts",
            "max_locks_per_xact",
        ];
        let setting = |name: &str| {
            let value = value(&format!("{name} setting"))?;
            let name = match name {
                "max_prepared_xacts" => "max_prepared_transactions",
                "max_locks_per_xact" => "max_locks_per_transaction",
                name => name,
            };
            Some((name.to_owned(), value.to_owned()))
        };
        Some(Self {
            system_identifier: value("Database system identifier")?.parse().ok()?,
            state: value("Database cluster state")?.to_owned(),
            checkpoint: value("Latest checkpoint location")?.parse().ok()?,
            redo: value("Latest checkpoint's REDO location")?.parse().ok()?,
            timeline: timeline("Latest checkpoint's TimeLineID")?
                .max(timeline("Min recovery ending loc's timeline")?),
            segment_size: SegmentSize::try_from(segment_bytes).ok()?,
            may_be_rewound: value("wal_log_hints setting") == Some("on")
                || value("Data page checksum version").is_some_and(|version| version != "0"),
            least: least.into_iter().filter_map(setting).collect(),
        })
    }

    /// Tells whether a primary ran here last: a server that recovers says so in its state.
    fn was_primary(&self) -> bool {
        let states = [
            "shut down",
            "shutting down",
            "in production",
            "in crash recovery",
        ];
        states.contains(&self.state.as_str())
    }

    /// Tells whether a primary may have ended here in an orderly way: it did, or a standby was started on what it left, however that ended.
    pub(crate) fn may_be_drained(&self) -> bool {
        let states = ["shut down", "shut down in recovery", "in archive recovery"];
        states.contains(&self.state.as_str())
    }
}

/// Where the log in a directory parts from another history, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    pub(crate) control: Control,
    pub(crate) parting: Parting,
    /// Where its last complete record ends.
    pub(crate) end: Lsn,
    pub(crate) beyond: Beyond,
}

impl Remains {
    /// Reads a directory in which no server runs.
    pub(crate) async fn read(
        host: &dyn Host,
        binaries: &Path,
        directory: &Path,
        present: &TimelineHistory,
    ) -> Result<Self> {
        let control = Control::read(host, binaries, directory).await?;
        let log = LogFiles {
            host,
            directory,
            size: control.segment_size,
        };
        let history = log.history(control.timeline).await?;
        let Some(parting) = parting(&history, present) else {
            return Err(failed(
                directory,
                format!(
                    "timeline {} has nothing in common with timeline {}",
                    control.timeline,
                    present.timeline()
                ),
            ));
        };
        // Files of a backup that nobody has started yet say what their primary did.
        let label = directory.join("backup_label");
        if parting.at.is_none()
            && control.was_primary()
            && host.kind(&label).await? == PathKind::Missing
        {
            return Err(failed(
                directory,
                format!(
                    "it ran as a primary on timeline {}, which the present primary writes as well: where their logs part no timeline tells, and \
                     what it wrote is nobody else's",
                    control.timeline
                ),
            ));
        }
        let from = parting.at.map_or(control.redo, |at| at.min(control.redo));
        // The log between the parting and the newest checkpoint may have been removed: then what it held is not known.
        let whole = log.holds(&history, from).await?;
        let from = if whole {
            from
        } else {
            log.size.start_of(control.redo)
        };
        let expected = Expected {
            system_identifier: control.system_identifier,
            timeline: control.timeline,
        };
        let mut counting = Counting::new(parting.at);
        let end = log
            .decode(&history, from, expected, |record| counting.take(&record))
            .await?;
        let (mut beyond, transactions) = counting.finish();
        if let Some(at) = parting.at {
            if !whole {
                let why = format!("the log from {at} to {from} is no longer in its `pg_wal`");
                beyond.unread.push(Unread::Commits(why));
            } else if let Some(oldest) = transactions.oldest() {
                // What they changed before the parting is as far from the present history as the rest of them.
                let earlier = log.changes_before(&history, expected, at, oldest, |record| {
                    if transactions.has(record.transaction) {
                        beyond.relations.extend(record.relation);
                    }
                });
                let why = earlier.await?;
                beyond.unread.extend(why.map(Unread::Tables));
            }
        }
        Ok(Self {
            control,
            parting,
            end,
            beyond,
        })
    }

    /// Tells whether the directory has log that the present history has not.
    pub(crate) fn is_ahead(&self) -> bool {
        self.control.timeline > self.parting.timeline
            || self.parting.at.is_some_and(|at| self.end > at)
    }
}

/// Finds where the log of a primary ends that was stopped in an orderly way: behind the checkpoint that it shut down with. A standby that
/// was started on it since has added nothing, or that is not its last record any more.
///
/// `None` if what stopped was a standby, and the log does not end as that of a primary does.
pub(crate) async fn drained(
    host: &dyn Host,
    directory: &Path,
    control: &Control,
) -> Result<Option<Lsn>> {
    let log = LogFiles {
        host,
        directory,
        size: control.segment_size,
    };
    let history = log.history(control.timeline).await?;
    let expected = Expected {
        system_identifier: control.system_identifier,
        timeline: control.timeline,
    };
    let mut last = None;
    let end = log
        .decode(&history, control.checkpoint, expected, |record| {
            last = Some((record.start, record.end, record.is_shutdown_checkpoint()));
        })
        .await?;
    match last {
        Some((start, last, true)) if start == control.checkpoint && last == end => Ok(Some(end)),
        _ if !control.was_primary() => Ok(None),
        _ => Err(failed(
            directory,
            format!(
                "it does not end with the checkpoint at {}",
                control.checkpoint
            ),
        )),
    }
}

pub(super) fn failed(directory: &Path, why: String) -> Error {
    Error::new(
        ErrorKind::Failed,
        OPERATION,
        directory.display().to_string(),
    )
    .because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Database system identifier:           7300000000000000001
Database cluster state:               shut down
Latest checkpoint location:           0/5000028
Latest checkpoint's REDO location:    0/5000028
Latest checkpoint's TimeLineID:       2
Min recovery ending loc's timeline:   0
wal_log_hints setting:                off
max_connections setting:              60
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn a_control_file_is_read() {
        let control = Control::parse(OUTPUT).unwrap();
        assert!(control.may_be_drained() && control.may_be_rewound);
        assert_eq!(
            (control.checkpoint, control.timeline),
            (Lsn(0x500_0028), TimelineId(2))
        );
        assert_eq!(control.least["max_locks_per_transaction"], "64");
        let plain = OUTPUT.replace("version:           1", "version:           0");
        assert!(!Control::parse(&plain).unwrap().may_be_rewound);
        assert!(Control::parse("").is_none());
    }
}
