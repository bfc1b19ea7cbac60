//! What a stopped server's directory holds beyond the history of the present primary.
//!
//! Read from its `pg_wal`, up to the first byte that PostgreSQL itself would not replay: what is counted here is what the old
//! primary would have after a crash recovery, and what nobody else has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Host, Result};
use jiff::Timestamp;

use super::lineage::{Parting, parting};
use crate::data_directory::{control_data, control_value};
use crate::wal::{Decoder, Expected, Record, Relation, TimelineHistory, TransactionEnd};

const OPERATION: &str = "read the log in";

/// Bytes of a timeline history file that are read.
const HISTORY_BYTES: u64 = 1 << 20;

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

    /// Tells whether a primary ended here in an orderly way, its last record being the checkpoint.
    pub(crate) fn is_shut_down(&self) -> bool {
        self.state == "shut down"
    }
}

/// What a directory has beyond another history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// Transactions that committed.
    pub(crate) commits: u64,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    /// The tables whose rows they changed.
    pub(crate) relations: BTreeSet<Relation>,
    /// Whether log behind the parting is missing, so that there may have been more.
    pub(crate) partly: bool,
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
        let (from, partly) = match log.holds(&history, from).await? {
            true => (from, false),
            false => (control.redo, true),
        };
        let expected = Expected {
            system_identifier: control.system_identifier,
            timeline: control.timeline,
        };
        let mut counting = Counting::new(parting.at);
        let end = log
            .decode(&history, from, expected, |record| counting.take(&record))
            .await?;
        Ok(Self {
            control,
            parting,
            end,
            beyond: counting.finish(partly),
        })
    }

    /// Tells whether the directory has log that the present history has not.
    pub(crate) fn is_ahead(&self) -> bool {
        self.control.timeline > self.parting.timeline
            || self.parting.at.is_some_and(|at| self.end > at)
    }
}

/// Finds where the log of a primary ends that was stopped in an orderly way: behind its last checkpoint.
pub(crate) async fn drained(host: &dyn Host, directory: &Path, control: &Control) -> Result<Lsn> {
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
            last = Some((record.start, record.end));
        })
        .await?;
    match last {
        Some((start, last)) if start == control.checkpoint && last == end => Ok(end),
        _ => Err(failed(
            directory,
            format!(
                "it does not end with the checkpoint at {}",
                control.checkpoint
            ),
        )),
    }
}

/// The `pg_wal` of a directory.
struct LogFiles<'a> {
    host: &'a dyn Host,
    directory: &'a Path,
    size: SegmentSize,
}

impl LogFiles<'_> {
    /// Reads the history of a timeline; the first one has none.
    async fn history(&self, timeline: TimelineId) -> Result<TimelineHistory> {
        if timeline.0 == 1 {
            return Ok(TimelineHistory::root(timeline));
        }
        let path = self
            .directory
            .join("pg_wal")
            .join(timeline.history_file_name());
        let content = self.host.read(&path, 0, HISTORY_BYTES).await?;
        TimelineHistory::parse(timeline, &content)
            .map_err(|error| failed(self.directory, error.to_string()))
    }

    fn file(&self, history: &TimelineHistory, start: Lsn) -> String {
        // The segment in which a timeline begins is the new one's.
        let last = start.advance(self.size.bytes() - 1);
        self.size.file_name(history.timeline_at(last), start)
    }

    async fn segment(&self, history: &TimelineHistory, start: Lsn) -> Result<Option<bytes::Bytes>> {
        let path = self
            .directory
            .join("pg_wal")
            .join(self.file(history, start));
        match self.host.read(&path, 0, self.size.bytes()).await {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn holds(&self, history: &TimelineHistory, at: Lsn) -> Result<bool> {
        let path = self
            .directory
            .join("pg_wal")
            .join(self.file(history, self.size.start_of(at)));
        match self.host.read(&path, 0, 1).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hands out every record from the segment of `from` on, and returns the end of the last one.
    async fn decode(
        &self,
        history: &TimelineHistory,
        from: Lsn,
        expected: Expected,
        mut sink: impl FnMut(Record),
    ) -> Result<Lsn> {
        let mut at = self.size.start_of(from);
        let mut decoder = Decoder::new(at, self.size, Some(expected));
        while let Some(bytes) = self.segment(history, at).await? {
            if decoder.feed(&bytes, &mut sink).is_err() {
                break;
            }
            at = at.advance(self.size.bytes());
        }
        decoder.last_end().filter(|end| *end > from).ok_or_else(|| {
            failed(
                self.directory,
                format!("there is no complete record at {from}"),
            )
        })
    }
}

/// Counts what was committed behind a position.
struct Counting {
    /// `None` if nothing can be behind it.
    from: Option<Lsn>,
    found: Beyond,
    committed: BTreeSet<u32>,
    aborted: BTreeSet<u32>,
    has_children: bool,
    changed: BTreeMap<u32, BTreeSet<Relation>>,
}

impl Counting {
    fn new(from: Option<Lsn>) -> Self {
        Self {
            from,
            found: Beyond::default(),
            committed: BTreeSet::new(),
            aborted: BTreeSet::new(),
            has_children: false,
            changed: BTreeMap::new(),
        }
    }

    fn take(&mut self, record: &Record) {
        if self.from.is_none_or(|from| record.start < from) {
            return;
        }
        if let Some(relation) = record.relation {
            self.changed
                .entry(record.transaction)
                .or_default()
                .insert(relation);
        }
        if record.transaction_end() == Some(TransactionEnd::Abort) {
            self.aborted.insert(record.transaction);
        }
        let Some(commit) = record.commit else { return };
        // A record without a number commits nothing that anybody wrote, as after `vacuum`.
        if record.transaction != 0 || record.transaction_end() == Some(TransactionEnd::Prepared) {
            self.found.commits += 1;
            self.found.first.get_or_insert(commit.at);
            self.found.last = self.found.last.max(Some(commit.at));
        }
        self.committed.insert(record.transaction);
        self.has_children |=
            commit.has_children || record.transaction_end() == Some(TransactionEnd::Prepared);
    }

    fn finish(mut self, partly: bool) -> Beyond {
        for (transaction, relations) in std::mem::take(&mut self.changed) {
            // Of a subtransaction only its own number is known here, and no record ends it by itself when it commits.
            let open = self.has_children && !self.aborted.contains(&transaction);
            if self.committed.contains(&transaction) || open {
                self.found.relations.extend(relations);
            }
        }
        self.found.partly = partly;
        self.found
    }
}

fn failed(directory: &Path, why: String) -> Error {
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
        assert!(control.is_shut_down() && control.may_be_rewound);
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
