//! From the server's stream of archives to the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dr_pgwire::{BackupPosition, BaseBackupEvent, BaseBackupStream};
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupWriter, Metadata};

use super::base::{DamagedPage, TABLESPACES};
use super::configuration::FILES;
use super::damage;
use super::take::OPERATION;
use super::tar::{self, Event, Kind};
use crate::instance::translate;

/// How long the server may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The server's list of tablespaces; what is kept of it stands in the backup's description.
const TABLESPACE_MAP: &str = "tablespace_map";

/// Mode of the directories that stand for tablespaces.
const DIRECTORY_MODE: u32 = 0o700;

/// What came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) stop: BackupPosition,
    /// Where each tablespace outside the data directory was, by its object identifier.
    pub(super) tablespaces: BTreeMap<u32, String>,
    /// Bytes of the files.
    pub(super) bytes: u64,
    pub(super) damaged_pages: Vec<DamagedPage>,
    pub(super) more_damaged_pages: u64,
    /// The configuration files among what came.
    pub(super) present: BTreeSet<String>,
}

/// The archive being read, and where its entries belong.
struct Archive {
    prefix: String,
    reader: tar::Reader,
    bytes: u64,
    /// Whether the file being read is left out.
    skipping: bool,
    configuration: Vec<String>,
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
    let mut bytes = 0;
    let mut present = BTreeSet::new();
    loop {
        match next(stream, subject).await? {
            BaseBackupEvent::ArchiveStart { name, .. } => {
                bytes += finish(archive.take(), &mut present, subject)?;
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
            BaseBackupEvent::End { position, damaged } => {
                bytes += finish(archive.take(), &mut present, subject)?;
                let (damaged_pages, more_damaged_pages) = if damaged {
                    damage::read(stream.notices())
                } else {
                    (Vec::new(), 0)
                };
                // Those in place are directories of the data directory like others.
                let outside = tablespaces
                    .into_iter()
                    .filter(|(_, place)| place.starts_with('/'));
                return Ok(Received {
                    stop: position,
                    tablespaces: outside.collect(),
                    bytes,
                    damaged_pages,
                    more_damaged_pages,
                    present,
                });
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
    answer.map_err(|error| translate(OPERATION, subject, error))
}

fn broken(subject: &str, what: &str) -> Error {
    Error::new(ErrorKind::Failed, OPERATION, subject).because(what.to_owned())
}

/// Ends an archive; returns the bytes of its files.
fn finish(archive: Option<Archive>, present: &mut BTreeSet<String>, subject: &str) -> Result<u64> {
    let Some(archive) = archive else {
        return Ok(0);
    };
    let finished = archive.reader.finish();
    finished.map_err(|error| Error::new(ErrorKind::Failed, OPERATION, subject).because(error))?;
    present.extend(archive.configuration);
    Ok(archive.bytes)
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
        bytes: 0,
        skipping: false,
        configuration: Vec::new(),
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
                Event::Data(_) if self.skipping => {}
                Event::FileEnd if self.skipping => self.skipping = false,
                Event::Data(data) => {
                    self.bytes += data.len() as u64;
                    writer.write(data).await?;
                }
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
                    // It would have a restored server point its tablespaces to where they were.
                    if path == TABLESPACE_MAP {
                        self.skipping = entry.kind == Kind::File;
                        continue;
                    }
                    if FILES.iter().any(|(_, name)| *name == path) {
                        self.configuration.push(path.clone());
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
