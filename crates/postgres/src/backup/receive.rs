//! From the server's stream of archives to the repository.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dr_pgwire::{BackupPosition, BaseBackupEvent, BaseBackupStream, sql_state};
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupWriter, Metadata};

use super::base::TABLESPACES;
use super::take::OPERATION;
use super::tar::{self, Event, Kind};
use crate::instance::translate;

/// How long the server may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Mode of the directories that stand for tablespaces.
const DIRECTORY_MODE: u32 = 0o700;

/// What came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) stop: BackupPosition,
    /// Where each tablespace was, by its object identifier.
    pub(super) tablespaces: BTreeMap<u32, String>,
}

/// The archive being read, and where its entries belong.
struct Archive {
    prefix: String,
    reader: tar::Reader,
}

/// Writes everything that the server sends into the backup.
pub(super) async fn receive(
    stream: &mut BaseBackupStream,
    writer: &mut BackupWriter,
    subject: &str,
) -> Result<Received> {
    let tablespaces: BTreeMap<u32, String> = stream
        .tablespaces()
        .iter()
        .filter_map(|tablespace| tablespace.link.clone())
        .collect();
    let mut archive: Option<Archive> = None;
    loop {
        match next(stream, subject).await? {
            BaseBackupEvent::ArchiveStart { name, .. } => {
                finish(archive.take(), subject)?;
                archive = Some(open(&name, &tablespaces, writer, subject)?);
            }
            BaseBackupEvent::Data(data) => match &mut archive {
                Some(archive) => archive.take(data, &tablespaces, writer, subject).await?,
                None => return Err(broken(subject, "it sent data before an archive")),
            },
            BaseBackupEvent::Progress(_) => {}
            BaseBackupEvent::ManifestStart => {
                return Err(broken(subject, "it sent a manifest that nobody asked for"));
            }
            BaseBackupEvent::End(stop) => {
                finish(archive.take(), subject)?;
                return Ok(Received { stop, tablespaces });
            }
        }
    }
}

async fn next(stream: &mut BaseBackupStream, subject: &str) -> Result<BaseBackupEvent> {
    let Ok(answer) = tokio::time::timeout(SILENCE_LIMIT, stream.next()).await else {
        return Err(
            Error::new(ErrorKind::Unavailable, OPERATION, subject).because(format!(
                "it has been silent for {} s",
                SILENCE_LIMIT.as_secs()
            )),
        );
    };
    answer.map_err(|error| {
        if error.sql_state() != Some(sql_state::DATA_CORRUPTED) {
            return translate(OPERATION, subject, error);
        }
        // The server names each damaged file in a warning before it fails in the end.
        let pages: Vec<String> = stream
            .notices()
            .iter()
            .filter(|notice| notice.severity == "WARNING")
            .map(|notice| notice.message.clone())
            .collect();
        Error::new(ErrorKind::Corrupt, OPERATION, subject)
            .because(format!("pages are damaged: {}", pages.join("; ")))
            .with_hint("nothing was kept of this backup; older recovery points are as they were")
    })
}

fn broken(subject: &str, what: &str) -> Error {
    Error::new(ErrorKind::Failed, OPERATION, subject).because(what.to_owned())
}

fn finish(archive: Option<Archive>, subject: &str) -> Result<()> {
    let finished = archive.map_or(Ok(()), |archive| archive.reader.finish());
    finished.map_err(|error| Error::new(ErrorKind::Failed, OPERATION, subject).because(error))
}

/// Begins the archive `name`: `base.tar`, or that of a tablespace, whose files go where the data directory shows them.
fn open(
    name: &str,
    tablespaces: &BTreeMap<u32, String>,
    writer: &mut BackupWriter,
    subject: &str,
) -> Result<Archive> {
    let prefix = if name == "base.tar" {
        String::new()
    } else {
        let oid = name
            .strip_suffix(".tar")
            .and_then(|oid| oid.parse::<u32>().ok());
        let Some(oid) = oid.filter(|oid| tablespaces.contains_key(oid)) else {
            return Err(broken(
                subject,
                &format!("it sent an archive `{name}`, which is of no tablespace"),
            ));
        };
        let directory = format!("{TABLESPACES}/{oid}");
        writer.add_directory(
            &directory,
            Metadata {
                mode: DIRECTORY_MODE,
                mtime: 0,
            },
        )?;
        format!("{directory}/")
    };
    Ok(Archive {
        prefix,
        reader: tar::Reader::new(),
    })
}

impl Archive {
    async fn take(
        &mut self,
        mut data: Bytes,
        tablespaces: &BTreeMap<u32, String>,
        writer: &mut BackupWriter,
        subject: &str,
    ) -> Result<()> {
        let damaged = |error| Error::new(ErrorKind::Failed, OPERATION, subject).because(error);
        while let Some(event) = self.reader.next(&mut data).map_err(damaged)? {
            match event {
                Event::Data(data) => writer.write(data).await?,
                Event::FileEnd => writer.end_file().await?,
                Event::Entry(entry) => {
                    let path = format!("{}{}", self.prefix, entry.path);
                    let metadata = Metadata {
                        mode: entry.mode,
                        mtime: entry.mtime,
                    };
                    // The link, or the directory of one in place, that the tablespace's own archive stands for.
                    if is_tablespace(&path, tablespaces) {
                        continue;
                    }
                    match entry.kind {
                        Kind::File => writer.begin_file(&path, metadata)?,
                        Kind::Directory => writer.add_directory(&path, metadata)?,
                        Kind::Symlink(target) => {
                            let what = format!(
                                "it sent a link `{path}` to `{target}`, which is of no tablespace"
                            );
                            return Err(broken(subject, &what));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_tablespace(path: &str, tablespaces: &BTreeMap<u32, String>) -> bool {
    let oid = path
        .strip_prefix(TABLESPACES)
        .and_then(|rest| rest.strip_prefix('/'));
    oid.and_then(|oid| oid.parse::<u32>().ok())
        .is_some_and(|oid| tablespaces.contains_key(&oid))
}
