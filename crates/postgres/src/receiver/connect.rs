//! Getting to the point where WAL flows: the right server, a slot, a place in the chain.

use std::sync::Arc;

use bytes::Bytes;
use dr_coordination::chain::{ChainId, ChainWriter, WritableTail, write_history};
use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName, SegmentSize};
use dr_pgwire::{Connection, ReplicationReader, StatusWriter, sql_state};
use dr_provider::{Error, ErrorKind, Result};

use super::slot::Way;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::observe::RECEIVER;
use crate::options::Options;
use crate::wal::TimelineHistory;

/// Everything that a session of streaming works with.
pub(super) struct Link {
    pub(super) record: EpochRecord,
    pub(super) log: Log,
    pub(super) segment_size: SegmentSize,
    pub(super) reader: ReplicationReader,
    pub(super) status: StatusWriter,
    pub(super) writer: ChainWriter,
    pub(super) subject: String,
    /// The process of the walsender.
    pub(super) pid: Option<i32>,
}

const OPERATION: &str = "stream the log of";

impl PostgresDriver {
    /// Connects to the primary of the newest epoch and starts streaming where this region's chain ends.
    pub(super) async fn link(&self, region: &RegionName) -> Result<Link> {
        // The daemon looks for contradictions beside this; commits may be waiting here.
        let record = self.follow_register(OPERATION).await?;
        let log = self.log_of(&record, OPERATION)?;
        let name = Options::receiver_name(region);
        let mut config = self.connection_config(&record.primary)?;
        config.replication = true;
        config.application_name.clone_from(&name);
        let subject = format!(
            "{} in {} ({})",
            self.resource(),
            record.primary,
            config.target()
        );
        let wire = |error| translate(OPERATION, &subject, error);

        let mut connection = Connection::connect(&config).await.map_err(wire)?;
        self.check_server(&mut connection, &record, log, &subject)
            .await?;
        let pid = connection.backend_pid();
        let segment_size = segment_size(&mut connection, &subject).await?;
        let reserved = self
            .ensure_slot(
                &record.primary,
                &mut connection,
                (&name, &subject),
                segment_size,
            )
            .await?;
        let way = Way {
            region,
            record: &record,
            log,
            segment_size,
            slot: &name,
            subject: &subject,
        };
        let history = self
            .keep_history(region, &mut connection, log, &subject)
            .await?;

        let store = Arc::clone(self.store(region)?);
        let chain = ChainId::from(log);
        let options = self.chain_options(format!("{RECEIVER}{region}"));
        let mut tail = WritableTail::find(&*store, &chain, &options).await?;
        reserved.report(&name, tail.is_some());
        if let Some(found) = &tail
            && self.go_on(way, found.end(), &reserved).await? != found.end()
        {
            tail = WritableTail::find(&*store, &chain, &options).await?;
        }
        let start = match &tail {
            Some(tail) => segment_size.start_of(tail.end()),
            // Every region's chain of an epoch begins where the epoch does, so that a backup taken anywhere can be
            // completed everywhere.
            None => {
                let fork = match &history {
                    Some(history) => {
                        self.record_ancestral_holes(region, log, history, segment_size)
                            .await?;
                        history.begin()
                    }
                    None => None,
                };
                let begin = claimed_start(&record, self)
                    .or(fork)
                    .unwrap_or(reserved.from);
                let begin = segment_size.start_of(begin);
                if begin < reserved.from && !self.has_wal(way, begin).await? {
                    tracing::warn!(%region, %begin, reserved = %reserved.from, "the primary has dropped the log of the epoch's beginning");
                    segment_size.start_of(reserved.from)
                } else {
                    begin
                }
            }
        };
        let stream = connection
            .start_physical_replication(Some(&name), start, log.timeline)
            .await
            .map_err(|error| match error.sql_state() {
                Some(sql_state::OBJECT_IN_USE) => {
                    let why = format!("another receiver of {region} streams from slot `{name}`: {error}");
                    let hint = format!(
                        "if that does not go away, a second daemon of {region} runs, with a `state_directory` of its own: stop one of them"
                    );
                    Error::new(ErrorKind::Conflict, OPERATION, &subject)
                        .because(why)
                        .with_hint(hint)
                }
                _ => wire(error),
            })?;
        let writer = match &tail {
            Some(tail) => ChainWriter::at(store, chain, tail, options),
            None => ChainWriter::open(store, chain, start, options).await?,
        };
        let (reader, status) = stream.split();
        Ok(Link {
            record,
            log,
            segment_size,
            reader,
            status,
            writer,
            subject,
            pid,
        })
    }

    /// Refuses a server that is another cluster, another timeline, or no primary (R10, R23).
    async fn check_server(
        &self,
        connection: &mut Connection,
        record: &EpochRecord,
        log: Log,
        subject: &str,
    ) -> Result<()> {
        let info = connection
            .identify_system()
            .await
            .map_err(|e| translate(OPERATION, subject, e))?;
        let refuse = |kind, why: String| Err(Error::new(kind, OPERATION, subject).because(why));
        if info.system_identifier != log.system_identifier {
            return refuse(
                ErrorKind::Invalid,
                format!(
                    "it is cluster {}, epoch {} is about cluster {}",
                    info.system_identifier, record.epoch, log.system_identifier
                ),
            );
        }
        if connection.parameter("in_hot_standby") == Some("on") {
            return refuse(
                ErrorKind::Unavailable,
                format!(
                    "epoch {} names it as primary, but it is a standby",
                    record.epoch
                ),
            );
        }
        if info.timeline != log.timeline {
            return refuse(
                ErrorKind::Unavailable,
                format!(
                    "it runs on timeline {}, epoch {} claims timeline {}",
                    info.timeline, record.epoch, log.timeline
                ),
            );
        }
        Ok(())
    }

    /// Stores the history files of the timeline and all its ancestors (R22), and returns it; the first timeline has none.
    async fn keep_history(
        &self,
        region: &RegionName,
        connection: &mut Connection,
        log: Log,
        subject: &str,
    ) -> Result<Option<TimelineHistory>> {
        let operation = "keep the timeline history of";
        if log.timeline.0 == 1 {
            return Ok(None);
        }
        let store = self.store(region)?;
        let parse = |timeline, content: &Bytes| {
            TimelineHistory::parse(timeline, content)
                .map_err(|error| Error::new(ErrorKind::Corrupt, operation, subject).because(error))
        };
        let file = connection
            .timeline_history(log.timeline)
            .await
            .map_err(|error| translate(operation, subject, error))?;
        let history = parse(log.timeline, &file.content)?;
        write_history(&**store, log.system_identifier, log.timeline, file.content).await?;
        for ancestor in history
            .ancestors()
            .iter()
            .filter(|ancestor| ancestor.timeline.0 > 1)
        {
            // A server need not have kept the files of all its ancestors; what it has is kept here.
            match connection.timeline_history(ancestor.timeline).await {
                Ok(file) => {
                    write_history(
                        &**store,
                        log.system_identifier,
                        ancestor.timeline,
                        file.content,
                    )
                    .await?;
                }
                Err(error) if error.sql_state() == Some(sql_state::UNDEFINED_FILE) => {}
                Err(error) => return Err(translate(operation, subject, error)),
            }
        }
        Ok(Some(history))
    }
}

fn claimed_start(record: &EpochRecord, driver: &PostgresDriver) -> Option<Lsn> {
    record
        .clusters
        .get(&driver.resource().resource)
        .and_then(|claim| claim.start_lsn)
}

/// Reads the size of the server's WAL segments, which `SHOW` writes with a unit: `16MB`.
pub(crate) async fn segment_size(
    connection: &mut Connection,
    subject: &str,
) -> Result<SegmentSize> {
    let operation = "read the WAL segment size of";
    let shown = connection
        .show("wal_segment_size")
        .await
        .map_err(|e| translate(operation, subject, e))?;
    let bytes = match (shown.strip_suffix("MB"), shown.strip_suffix("GB")) {
        (Some(count), _) => count
            .parse::<u32>()
            .ok()
            .and_then(|count| count.checked_mul(1 << 20)),
        (_, Some(count)) => count
            .parse::<u32>()
            .ok()
            .and_then(|count| count.checked_mul(1 << 30)),
        _ => shown.parse().ok(),
    };
    bytes
        .and_then(|bytes| SegmentSize::try_from(bytes).ok())
        .ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, operation, subject)
                .because(format!("it says `{shown}`"))
        })
}
