//! Taking a base backup of the primary.

use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::RegionName;
use dr_pgwire::{BaseBackupOptions, Connection};
use dr_provider::driver::BackupReport;
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{Label, WriterOptions};
use jiff::Timestamp;

use super::base::{Base, Source, VERSION};
use super::receive::receive;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::receiver::segment_size;

pub(super) const OPERATION: &str = "back up";

/// How long the server may take for the checkpoint that begins a backup.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(30 * 60);

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
        let mut config = self.connection_config(region)?;
        config.replication = true;
        "dr backup".clone_into(&mut config.application_name);
        let subject = format!("{} in {region} ({})", self.resource(), config.target());
        let wire = |error| translate(OPERATION, &subject, error);
        let mut connection = Connection::connect(&config).await.map_err(wire)?;
        check_primary(&mut connection, &record, log, &subject).await?;
        refuse_tablespaces(&self.tablespaces(region).await?, &subject)?;
        let segment_bytes = segment_size(&mut connection, &subject).await?;
        let data_checksums = connection.show("data_checksums").await.map_err(wire)? == "on";
        let server_version = connection
            .parameter("server_version")
            .unwrap_or("unknown")
            .to_owned();

        let label = Label::new(self.clock().now(), rand::random());
        let repository = self.repository(self.store(region)?, log.system_identifier)?;
        let mut writer = repository.begin(label, WriterOptions::default());
        let started_at = self.server_time(region).await?;
        let options = BaseBackupOptions {
            manifest: false,
            ..BaseBackupOptions::new(writer.label().as_str())
        };
        let stream = tokio::time::timeout(CHECKPOINT_LIMIT, connection.base_backup(&options));
        let mut stream = match stream.await {
            Ok(started) => started.map_err(wire)?,
            Err(_) => {
                return Err(
                    Error::new(ErrorKind::Unavailable, OPERATION, &subject).because(format!(
                        "no checkpoint was made in {} s",
                        CHECKPOINT_LIMIT.as_secs()
                    )),
                );
            }
        };
        // One may have been made while the server was at its checkpoint.
        let places = stream.tablespaces().iter();
        let places: Vec<String> = places
            .filter_map(|tablespace| tablespace.link.as_ref())
            .map(|(id, place)| format!("{id} in {place}"))
            .collect();
        refuse_tablespaces(&places, &subject)?;
        let start = stream.start();
        let received = receive(&mut stream, &mut writer, &subject).await?;
        let (timeline, stop) = (received.stop.timeline, received.stop.lsn);
        if start.timeline != log.timeline || timeline != log.timeline {
            return Err(
                Error::new(ErrorKind::Superseded, OPERATION, &subject).because(format!(
                    "it went from timeline {} to {timeline} meanwhile; epoch {} claims {}",
                    start.timeline, record.epoch, log.timeline
                )),
            );
        }
        let source = Source {
            version: VERSION,
            system_identifier: log.system_identifier,
            timeline,
            start: start.lsn,
            stop,
            started_at,
            stopped_at: self.server_time(region).await?,
            server_version,
            segment_bytes,
            data_checksums,
            tablespaces: received.tablespaces,
        };
        self.await_log(region, &source).await?;
        let source =
            serde_json::to_value(source).expect("names, numbers and times always have a JSON form");
        let header = writer.finish(source).await?;
        let base = Base::read(header, log.system_identifier)?;
        Ok(BackupReport {
            recovery_point: base.recovery_point(),
            took: self.clock().elapsed().saturating_sub(begun),
        })
    }

    /// Returns the tablespaces that the server has beside its own two, each with its place.
    async fn tablespaces(&self, region: &RegionName) -> Result<Vec<String>> {
        let operation = "list the tablespaces of";
        let sql = "select spcname || ' in ' || pg_tablespace_location(oid) from pg_tablespace \
                   where spcname not in ('pg_default', 'pg_global') order by spcname";
        let rows = self.connect(region).await?.query(operation, sql).await?;
        rows.iter()
            .map(|row| row.get(0))
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| translate(operation, &self.resource().to_string(), error))
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

/// Refuses a cluster with tablespaces: a restore does not know yet where theirs go, and what is listed is restorable.
fn refuse_tablespaces(tablespaces: &[String], subject: &str) -> Result<()> {
    if tablespaces.is_empty() {
        return Ok(());
    }
    let why = format!(
        "it has tablespaces ({}), and this version does not restore them",
        tablespaces.join(", ")
    );
    let error = Error::new(ErrorKind::Unsupported, OPERATION, subject).because(why);
    Err(error.with_hint(
        "move what is in them to the default tablespace and drop them: nothing of this cluster is backed up until then",
    ))
}

/// Refuses a server that is not the primary of this epoch (R10).
async fn check_primary(
    connection: &mut Connection,
    record: &EpochRecord,
    log: Log,
    subject: &str,
) -> Result<()> {
    let wire = |error| translate(OPERATION, subject, error);
    let info = connection.identify_system().await.map_err(wire)?;
    let standby = connection.show("in_hot_standby").await.map_err(wire)? == "on";
    let why = if info.system_identifier != log.system_identifier {
        format!(
            "it is cluster {}, epoch {} is about cluster {}",
            info.system_identifier, record.epoch, log.system_identifier
        )
    } else if standby {
        format!(
            "it is a standby, epoch {} names it as primary",
            record.epoch
        )
    } else if info.timeline != log.timeline {
        format!(
            "it runs on timeline {}, epoch {} claims timeline {}",
            info.timeline, record.epoch, log.timeline
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, OPERATION, subject).because(why))
}
