//! Reading the data directory while the server holds a backup open.
//!
//! In order: begin, prove that the directory is the server's, read everything but the control file, read that, look once
//! more at what seemed damaged, end. What was read is worth something only if the session lived through all of it (R1).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dr_model::RegionName;
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupWriter, Metadata};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::control;
use super::copy::{Copied, Copying};
use super::file::Inspection;
use super::parent::{self, Parent};
use super::reach::{prove, read_control};
use super::session::Session;
use super::walk::Walk;
use crate::backup::base::ReadBy;
use crate::backup::configuration;
use crate::backup::server::Server;
use crate::backup::take::{OPERATION, Taken};
use crate::driver::PostgresDriver;

/// Mode of files that are written here from what the server said.
const FILE_MODE: u32 = 0o600;

/// Backs up the data directory of a server on this machine.
pub(in crate::backup) async fn take(
    driver: &PostgresDriver,
    region: &RegionName,
    server: &Server,
    directory: &Path,
    writer: &mut BackupWriter,
) -> Result<Taken> {
    let label = format!("dr {}", writer.label());
    let mut session = Session::begin(driver, region, &label).await?;
    let subject = session.instance.subject().to_owned();
    let start = session.start;
    let (control, _) = control_file(directory, &subject).await?;
    prove(&control, start, directory, &subject)?;

    let (parent, mut remarks) = parent::choose(driver, region, server, directory, start).await?;
    let (finished, is_finished) = oneshot::channel();
    let reading = async {
        let copied = read_all(server, directory, parent.as_ref(), writer, &subject).await;
        drop(finished);
        copied
    };
    let (copied, ()) = tokio::try_join!(reading, session.watch(is_finished))?;

    // Nothing of it may have changed without the session's end, and it is asked all the same (R10).
    let now = Server::ask(&mut session.instance, true).await?;
    if (now.system_identifier, now.timeline, now.in_recovery)
        != (server.system_identifier, server.timeline, false)
    {
        let why = "it is not the primary that it was when the backup began".to_owned();
        return Err(Error::new(ErrorKind::Superseded, OPERATION, &subject).because(why));
    }
    let stopped = session.stop().await?;
    add_file(
        writer,
        "backup_label",
        FILE_MODE,
        stopped.label_file.clone().into(),
    )
    .await?;

    let Copied {
        walk,
        inspection,
        changed_bytes,
        damaged_pages,
        more_damaged_pages,
    } = copied;
    remarks.extend(
        walk.passed_over
            .into_iter()
            .map(|what| format!("left out {what}")),
    );
    Ok(Taken {
        read_by: ReadBy::Agent,
        start,
        start_timeline: stopped.start_timeline,
        stop: stopped.stop,
        stop_timeline: now.timeline,
        tablespaces: walk.tablespaces,
        incremental: parent.map(|parent| parent.incremental),
        read_bytes: inspection.read_bytes(),
        changed_bytes,
        damaged_pages,
        more_damaged_pages,
        present: configuration::present(directory),
        configuration: BTreeMap::new(),
        remarks,
    })
}

/// Reads everything, the control file last (R5).
async fn read_all(
    server: &Server,
    directory: &Path,
    parent: Option<&Parent>,
    writer: &mut BackupWriter,
    subject: &str,
) -> Result<Copied> {
    let inspection = Inspection::new(server.page_bytes as usize, server.checksums);
    let walk = Walk::new(directory, server.major, server.catalog_version)
        .map_err(|error| cannot_read(error, subject))?;
    let copying = Copying::new(server, parent, Arc::clone(&inspection), subject);
    let (walk, changed_bytes) = copying.run(walk, writer).await?;
    let (_, content) = control_file(directory, subject).await?;
    let changed_bytes = changed_bytes + content.len() as u64;
    add_file(writer, control::PATH, FILE_MODE, content.into()).await?;
    let looking = Arc::clone(&inspection);
    let (damaged_pages, more_damaged_pages) = spawn_blocking(move || looking.damaged())
        .await
        .map_err(|error| stopped(error, subject))?
        .map_err(|error| cannot_read(error, subject))?;
    Ok(Copied {
        walk,
        inspection,
        changed_bytes,
        damaged_pages,
        more_damaged_pages,
    })
}

async fn control_file(directory: &Path, subject: &str) -> Result<(control::Control, Vec<u8>)> {
    let directory: PathBuf = directory.to_owned();
    spawn_blocking(move || read_control(&directory))
        .await
        .map_err(|error| stopped(error, subject))?
        .map_err(|error| cannot_read(error, subject))
}

/// Adds a file that was made or read here.
pub(in crate::backup) async fn add_file(
    writer: &mut BackupWriter,
    path: &str,
    mode: u32,
    content: Bytes,
) -> Result<()> {
    writer.begin_file(path, Metadata { mode, mtime: 0 })?;
    writer.write(content).await?;
    writer.end_file().await?;
    Ok(())
}

pub(super) fn cannot_read(error: std::io::Error, subject: &str) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        std::io::ErrorKind::InvalidData => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    };
    let denied = kind == ErrorKind::Denied;
    let error = Error::new(kind, OPERATION, subject).because(error);
    if denied {
        error.with_hint("run the daemon as the user that the server runs as, or set `backup: { source: remote }`")
    } else {
        error
    }
}

pub(super) fn stopped(error: tokio::task::JoinError, subject: &str) -> Error {
    let kind = if error.is_cancelled() {
        ErrorKind::Cancelled
    } else {
        ErrorKind::Failed
    };
    Error::new(kind, OPERATION, subject).because(error)
}
