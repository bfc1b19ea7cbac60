//! What a server says of itself before it is backed up, and whether it may be (R10).

use dr_coordination::register::EpochRecord;
use dr_model::{SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;

use super::take::OPERATION;
use crate::actions::Log;
use crate::instance::{Instance, translate};

/// The major versions that backups are tested with.
const TESTED: [u32; 4] = [15, 16, 17, 18];

/// The oldest whose backups begin and end as they do today.
const OLDEST: u32 = 15;

/// A server, as far as a backup depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) major: u32,
    /// As it writes it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) version: String,
    pub(super) system_identifier: SystemIdentifier,
    pub(super) catalog_version: u32,
    pub(super) in_recovery: bool,
    pub(super) timeline: TimelineId,
    pub(super) segment_bytes: SegmentSize,
    pub(super) page_bytes: u32,
    /// Pages in each file of a relation but the last.
    pub(super) file_pages: u32,
    pub(super) checksums: bool,
    /// `wal_log_hints`, which only a start can change.
    pub(super) logs_hints: bool,
    pub(super) wal_level: String,
    /// When it was started.
    pub(super) started_at: Timestamp,
    /// Whether it writes summaries of its log.
    pub(super) summarizes: bool,
    /// Whether this role may begin and end a backup by itself.
    pub(super) may_begin: bool,
}

const SQL: &str = "select s.system_identifier, s.catalog_version_no, i.database_block_size, i.blocks_per_segment, \
    i.bytes_per_wal_segment, pg_is_in_recovery() as in_recovery, \
    case when pg_is_in_recovery() then c.timeline_id \
         else ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int end as timeline, \
    current_setting('data_checksums') = 'on' as checksums, \
    current_setting('wal_log_hints') = 'on' as logs_hints, current_setting('wal_level') as wal_level, \
    (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint as started, \
    coalesce(current_setting('summarize_wal', true) = 'on', false) as summarizes, \
    has_function_privilege('pg_backup_start(text, boolean)', 'execute') \
        and has_function_privilege('pg_backup_stop(boolean)', 'execute') as may_begin, \
    current_setting('server_version') as version \
    from pg_control_system() s cross join pg_control_init() i cross join pg_control_checkpoint() c";

impl Server {
    /// Asks the server; refuses versions that this one was not tested with, unless `force`.
    pub(super) async fn ask(instance: &mut Instance, force: bool) -> Result<Self> {
        let major = instance.major_version()?;
        check_version(major, force, instance.subject())?;
        let rows = instance.query("look at", SQL).await?;
        let subject = instance.subject();
        let not = |column: &str, value: String, expected| dr_pgwire::Error::Value {
            column: column.to_owned(),
            value,
            expected,
        };
        let read = || -> std::result::Result<Self, dr_pgwire::Error> {
            let row = rows.only()?;
            let segment: u32 = row.get("bytes_per_wal_segment")?;
            let started: i64 = row.get("started")?;
            // Two times that could not be read would be taken for the same.
            let started_at = Timestamp::from_microsecond(started)
                .map_err(|_| not("started", started.to_string(), "a time in microseconds"))?;
            let segment_bytes = SegmentSize::try_from(segment).map_err(|_| {
                let column = "bytes_per_wal_segment";
                not(column, segment.to_string(), "the length of a segment")
            })?;
            Ok(Self {
                major,
                version: row.get("version")?,
                system_identifier: row.get("system_identifier")?,
                catalog_version: row.get("catalog_version_no")?,
                in_recovery: row.get("in_recovery")?,
                timeline: row.get("timeline")?,
                segment_bytes,
                page_bytes: row.get("database_block_size")?,
                file_pages: row.get("blocks_per_segment")?,
                checksums: row.get("checksums")?,
                logs_hints: row.get("logs_hints")?,
                wal_level: row.get("wal_level")?,
                started_at,
                summarizes: row.get("summarizes")?,
                may_begin: row.get("may_begin")?,
            })
        };
        read().map_err(|error| translate(OPERATION, subject, error))
    }

    /// Refuses a server that is not the primary of this epoch, or whose log does not say enough.
    pub(super) fn check(&self, record: &EpochRecord, log: Log, subject: &str) -> Result<()> {
        let epoch = record.epoch;
        let why = if self.system_identifier != log.system_identifier {
            format!(
                "it is cluster {}, epoch {epoch} is about cluster {}",
                self.system_identifier, log.system_identifier
            )
        } else if self.in_recovery {
            format!("it is a standby, epoch {epoch} names it as primary")
        } else if self.timeline != log.timeline {
            format!(
                "it runs on timeline {}, epoch {epoch} claims timeline {}",
                self.timeline, log.timeline
            )
        } else if self.wal_level == "minimal" {
            let error = Error::new(ErrorKind::Invalid, OPERATION, subject).because(
                "its `wal_level` is `minimal`: the log does not hold what a backup needs"
                    .to_owned(),
            );
            return Err(error.with_hint("set `wal_level = replica` and restart the server"));
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Invalid, OPERATION, subject).because(why))
    }
}

/// Refuses a version that backups were not tested with.
fn check_version(major: u32, force: bool, subject: &str) -> Result<()> {
    if TESTED.contains(&major) || (force && major >= OLDEST) {
        return Ok(());
    }
    let tested = TESTED.map(|major| major.to_string()).join(", ");
    let error = Error::new(ErrorKind::Unsupported, OPERATION, subject).because(format!(
        "it is PostgreSQL {major}; backups are tested with {tested}"
    ));
    Err(if major < OLDEST {
        error.with_hint(format!(
            "upgrade it: before {OLDEST} backups begin and end in another way"
        ))
    } else {
        error.with_hint("`backup: { force_version: true }` of the resource takes them all the same: test a restore then")
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(14, false, Some("upgrade it"))]
    #[case(14, true, Some("upgrade it"))]
    #[case(15, false, None)]
    #[case(17, false, None)]
    #[case(19, false, Some("force_version: true"))]
    #[case(19, true, None)]
    fn untested_versions_are_refused_unless_forced(
        #[case] major: u32,
        #[case] force: bool,
        #[case] hint: Option<&str>,
    ) {
        match (check_version(major, force, "db"), hint) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => assert!(error.hint().unwrap().contains(expected)),
            (result, _) => panic!("{result:?}"),
        }
    }
}
