//! Backups whose files the server sends: `BASE_BACKUP`, with nothing on its machine.

use std::collections::BTreeMap;

use dr_model::RegionName;
use dr_pgwire::{BaseBackupOptions, Connection};
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::BackupWriter;

use super::base::ReadBy;
use super::receive::receive;
use super::take::{CHECKPOINT_LIMIT, OPERATION, Taken};
use crate::driver::PostgresDriver;
use crate::instance::translate;

impl PostgresDriver {
    /// Has the server send everything.
    pub(super) async fn receive_files(
        &self,
        region: &RegionName,
        writer: &mut BackupWriter,
        subject: &str,
    ) -> Result<Taken> {
        let wire = |error| translate(OPERATION, subject, error);
        let mut config = self.connection_config(region)?;
        config.replication = true;
        "dr backup".clone_into(&mut config.application_name);
        let connection = Connection::connect(&config).await.map_err(wire)?;
        let options = BaseBackupOptions {
            manifest: false,
            ..BaseBackupOptions::new(writer.label().as_str())
        };
        let stream = tokio::time::timeout(CHECKPOINT_LIMIT, connection.base_backup(&options));
        let mut stream = match stream.await {
            Ok(started) => started.map_err(wire)?,
            Err(_) => {
                return Err(
                    Error::new(ErrorKind::Unavailable, OPERATION, subject).because(format!(
                        "no checkpoint was made in {} s",
                        CHECKPOINT_LIMIT.as_secs()
                    )),
                );
            }
        };
        let start = stream.start();
        let received = receive(&mut stream, writer, subject).await?;
        Ok(Taken {
            read_by: ReadBy::Server,
            start: start.lsn,
            start_timeline: start.timeline,
            stop: received.stop.lsn,
            stop_timeline: received.stop.timeline,
            tablespaces: received.tablespaces,
            incremental: None,
            read_bytes: received.bytes,
            changed_bytes: received.bytes,
            damaged_pages: received.damaged_pages,
            more_damaged_pages: received.more_damaged_pages,
            present: received.present,
            configuration: BTreeMap::new(),
            remarks: Vec::new(),
        })
    }
}
