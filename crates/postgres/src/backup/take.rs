//! Taking a base backup of the primary.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dr_model::{Lsn, RegionName, TimelineId};
use dr_provider::driver::BackupReport;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupWriter, Label, WriterOptions};
use jiff::Timestamp;

use super::base::{Base, DamagedPage, Incremental, ReadBy, Source, VERSION};
use super::local;
use super::server::Server;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::options::BackupSource;

pub(super) const OPERATION: &str = "back up";

/// How long the server may take for the checkpoint that begins a backup.
pub(super) const CHECKPOINT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What a backup came to, whoever read the files.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) read_by: ReadBy,
    pub(super) start: Lsn,
    pub(super) start_timeline: TimelineId,
    pub(super) stop: Lsn,
    pub(super) stop_timeline: TimelineId,
    pub(super) tablespaces: BTreeMap<u32, String>,
    pub(super) incremental: Option<Incremental>,
    pub(super) read_bytes: u64,
    pub(super) changed_bytes: u64,
    pub(super) damaged_pages: Vec<DamagedPage>,
    pub(super) more_damaged_pages: u64,
    /// The configuration files that are in it.
    pub(super) present: BTreeSet<String>,
    /// Those that were added to it, and where they were.
    pub(super) configuration: BTreeMap<String, String>,
    pub(super) remarks: Vec<String>,
}

impl PostgresDriver {
    pub(super) async fn take_backup(&self, region: &RegionName) -> Result<BackupReport> {
        let begun = self.clock().elapsed();
        let record = self.read_register(OPERATION).await?;
        if record.primary != *region {
            return Err(self
                .failed(
                    OPERATION,
                    format!(
                        "epoch {} has its primary in {}, not in {region}",
                        record.epoch, record.primary
                    ),
                )
                .with_hint("recovery regions pull backups with `copy-recovery-points`"));
        }
        let log = self.log_of(&record, OPERATION)?;
        let options = self.options().backup;
        let mut instance = self.connect(region).await?;
        let subject = instance.subject().to_owned();
        let server = Server::ask(&mut instance, options.force_version).await?;
        server.check(&record, log, &subject)?;
        let started_at = self.server_time(region).await?;

        let label = Label::new(self.clock().now(), rand::random());
        let repository = self.repository(self.store(region)?, log.system_identifier)?;
        let mut writer = repository.begin(label, WriterOptions::default());
        let written = self
            .write_backup(
                region,
                (log, &server, started_at),
                &mut instance,
                &mut writer,
            )
            .await;
        let source = match written {
            Ok(source) => source,
            Err(error) => {
                writer.abandon().await;
                return Err(error);
            }
        };
        let source =
            serde_json::to_value(source).expect("names, numbers and times always have a JSON form");
        let header = writer.finish(source).await?;
        let base = Base::of(header, log.system_identifier)?;
        Ok(BackupReport {
            recovery_point: base.recovery_point(),
            took: self.clock().elapsed().saturating_sub(begun),
        })
    }

    /// Writes everything but the manifest, and returns what that says of where it comes from.
    async fn write_backup(
        &self,
        region: &RegionName,
        (log, server, started_at): (Log, &Server, Timestamp),
        instance: &mut Instance,
        writer: &mut BackupWriter,
    ) -> Result<Source> {
        let subject = instance.subject().to_owned();
        let mut taken = self.read_files(region, server, writer, &subject).await?;
        if taken.start_timeline != log.timeline || taken.stop_timeline != log.timeline {
            return Err(
                Error::new(ErrorKind::Superseded, OPERATION, &subject).because(format!(
                    "it went from timeline {} to {} meanwhile; epoch {} claims {}",
                    taken.start_timeline, taken.stop_timeline, log.epoch, log.timeline
                )),
            );
        }
        self.add_configuration(instance, &mut taken, writer).await?;
        for remark in &taken.remarks {
            tracing::warn!(resource = %self.resource(), label = %writer.label(), "{remark}");
        }
        let mut source = Source {
            version: VERSION,
            system_identifier: log.system_identifier,
            timeline: taken.stop_timeline,
            start: taken.start,
            stop: taken.stop,
            started_at,
            stopped_at: self.server_time(region).await?,
            server_version: server.version.clone(),
            segment_bytes: server.segment_bytes,
            data_checksums: server.checksums,
            tablespaces: taken.tablespaces,
            read_by: taken.read_by,
            incremental: taken.incremental,
            read_bytes: taken.read_bytes,
            changed_bytes: taken.changed_bytes,
            damaged_pages: taken.damaged_pages,
            more_damaged_pages: taken.more_damaged_pages,
            configuration: taken.configuration,
            remarks: taken.remarks,
            server_started_at: Some(server.started_at),
        };
        self.await_log(region, log, &source).await?;
        match self.superseded(region, log).await {
            Ok(None) => {}
            Ok(Some(error)) => return Err(error),
            // The backup is what it says, of its timeline. What goes on from there is looked up by whoever restores.
            Err(error) => source.remarks.push(format!(
                "whether its epoch is over was not to be seen at its end: {}",
                chain(&error)
            )),
        }
        Ok(source)
    }

    /// Says that the primary being backed up is none any more, if the register says so. Its files may be read on as if nothing had
    /// happened; what they hold behind the seal is on no timeline that anybody goes on with (PROTOCOL 2).
    pub(super) async fn superseded(&self, region: &RegionName, log: Log) -> Result<Option<Error>> {
        let record = self.follow_register(OPERATION).await?;
        let now = self.log_of(&record, OPERATION)?;
        let of = |log: Log| (log.system_identifier, log.timeline);
        if record.primary == *region && of(now) == of(log) {
            return Ok(None);
        }
        let why = format!(
            "epoch {} began meanwhile, with its primary in {} on timeline {}; what was read is timeline {} in {region}",
            record.epoch, record.primary, now.timeline, log.timeline
        );
        let subject = self.resource().to_string();
        let error = Error::new(ErrorKind::Superseded, OPERATION, subject).because(why);
        Ok(Some(error.with_hint(
            "nothing was kept of this backup; the next one is taken of the primary of that epoch",
        )))
    }

    /// Reads the files itself where it may and can, and has them sent by the server otherwise.
    async fn read_files(
        &self,
        region: &RegionName,
        server: &Server,
        writer: &mut BackupWriter,
        subject: &str,
    ) -> Result<Taken> {
        let source = self.options().backup.source;
        let mut remarks = Vec::new();
        if source != BackupSource::Remote {
            match local::reachable(self, region, server).await? {
                Ok(directory) => {
                    return local::take(self, region, server, &directory, writer).await;
                }
                Err(why) if source == BackupSource::Local => {
                    let error = Error::new(ErrorKind::Invalid, OPERATION, subject)
                        .because(format!("its data directory cannot be read here: {why}"));
                    return Err(error.with_hint(
                        "run the daemon on the server's machine as a user who may read the directory, or leave `backup: \
                         { source: auto }`, which has the server send its files then",
                    ));
                }
                Err(why) => remarks.push(format!("the server sent its files, because {why}")),
            }
        }
        let mut taken = self.receive_files(region, writer, subject).await?;
        taken.remarks.splice(0..0, remarks);
        Ok(taken)
    }

    /// Returns the server's time, which is the one that commits are stamped with and targets are compared with.
    async fn server_time(&self, region: &RegionName) -> Result<Timestamp> {
        let operation = "read the clock of";
        let sql = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
        let micros: i64 = self.connect(region).await?.scalar(operation, sql).await?;
        Timestamp::from_microsecond(micros)
            .map_err(|error| self.failed(operation, error.to_string()))
    }
}
