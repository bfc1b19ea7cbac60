//! From the data directory to the repository: each directory in turn, several files of it at a time.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupWriter, Metadata, StoredFile};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::changes::{self, Method, Shape};
use super::file::{DataFile, Inspection, Outstanding};
use super::parent::Parent;
use super::take::{cannot_read, stopped};
use super::walk::{Found, Item, Walk, about};
use crate::backup::base::DamagedPage;
use crate::backup::server::Server;

/// The file in a database's directory that is made when the database is.
const VERSION_FILE: &str = "PG_VERSION";

/// What was read.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) walk: Walk,
    pub(super) inspection: Arc<Inspection>,
    /// Bytes that are not the parent's.
    pub(super) changed_bytes: u64,
    pub(super) damaged_pages: Vec<DamagedPage>,
    pub(super) more_damaged_pages: u64,
}

/// Reads everything that a walk finds.
pub(super) struct Copying<'a> {
    parent: Option<&'a Parent>,
    shape: Shape,
    inspection: Arc<Inspection>,
    subject: &'a str,
    /// Files looked at at a time.
    looks: usize,
    /// Databases that are the parent's.
    same: Mutex<HashSet<u32>>,
}

/// A file that is about to be read.
struct Ready {
    path: String,
    metadata: Metadata,
    size: u64,
    file: Arc<DataFile>,
    /// What the parent has of it, and the stretches that it does not have.
    patch: Option<(StoredFile, Vec<Range<u64>>)>,
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        server: &Server,
        parent: Option<&'a Parent>,
        inspection: Arc<Inspection>,
        subject: &'a str,
    ) -> Self {
        Self {
            parent,
            shape: Shape {
                page_bytes: u64::from(server.page_bytes),
                file_pages: server.file_pages,
            },
            inspection,
            subject,
            looks: std::thread::available_parallelism().map_or(2, usize::from),
            same: Mutex::default(),
        }
    }

    /// Reads everything; returns once the last byte has been read, with the number of those that the parent does not have.
    pub(super) async fn run(
        &self,
        mut walk: Walk,
        writer: &mut BackupWriter,
    ) -> Result<(Walk, u64)> {
        let (outstanding, mut all_read) = mpsc::channel(1);
        let mut changed_bytes = 0;
        loop {
            let (back, items) = spawn_blocking(move || {
                let items = walk.next();
                (walk, items)
            })
            .await
            .map_err(|error| stopped(error, self.subject))?;
            walk = back;
            let Some(items) = items.map_err(|error| cannot_read(error, self.subject))? else {
                break;
            };
            changed_bytes += self.directory(items, writer, &outstanding).await?;
        }
        drop(outstanding);
        // Nothing is ever sent: it ends when everything outstanding has been read, or will not be.
        let _ended = all_read.recv().await;
        Ok((walk, changed_bytes))
    }

    async fn directory(
        &self,
        items: Vec<Item>,
        writer: &mut BackupWriter,
        outstanding: &Outstanding,
    ) -> Result<u64> {
        let mut files = Vec::new();
        for item in items {
            match item {
                Item::Directory { path, mode, mtime } => {
                    writer.add_directory(&path, Metadata { mode, mtime })?
                }
                Item::File(found) => files.push(found),
            }
        }
        let comparable = self.same_database(&files).await?;
        let mut ready = stream::iter(files)
            .map(|found| self.look(found, comparable))
            .buffered(self.looks);
        let mut changed_bytes = 0;
        while let Some(ready) = ready.try_next().await? {
            let Some(Ready {
                path,
                metadata,
                size,
                file,
                patch,
            }) = ready
            else {
                continue;
            };
            match patch {
                None => {
                    changed_bytes += size;
                    file.expect(size, outstanding.clone());
                    let read = writer.read_file(&path, metadata, size, file).await;
                    read.map_err(|error| unreadable(error.into()))?;
                }
                Some((parent, ranges)) => {
                    let changed = ranges.iter().map(|range| range.end - range.start).sum();
                    changed_bytes += changed;
                    file.expect(changed, outstanding.clone());
                    let read = writer
                        .patch_file(&path, metadata, size, &parent, &ranges, file)
                        .await;
                    read.map_err(|error| unreadable(error.into()))?;
                }
            }
        }
        Ok(changed_bytes)
    }

    /// Tells whether files of a directory can be compared with the parent's. Of a database that has been dropped and made
    /// again under the same number they cannot: copied from another one, its pages are older than they look.
    async fn same_database(&self, files: &[Found]) -> Result<bool> {
        let Some(parent) = self.parent else {
            return Ok(false);
        };
        let pages = files.iter().find_map(|found| found.pages);
        let Some(database) = pages
            .map(|pages| pages.database)
            .filter(|database| *database != 0)
        else {
            // What all databases share is never copied.
            return Ok(true);
        };
        let of_database = |found: &&Found| found.path.rsplit('/').next() == Some(VERSION_FILE);
        let same = match files.iter().find(of_database) {
            Some(version) => {
                let stored = parent.reader.file(&version.path).await?;
                let now = fs::metadata(&version.place);
                stored
                    .zip(now.ok())
                    .is_some_and(|(stored, now)| stored.entry.metadata.mtime == now.mtime())
            }
            // Only the directory in its own tablespace has one, which comes first if that is the usual one.
            None => self
                .same
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&database),
        };
        if same {
            self.same
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(database);
        }
        Ok(same)
    }

    /// Looks at a file, and finds out what of it changed; `None` if it has vanished (R6).
    async fn look(&self, found: Found, comparable: bool) -> Result<Option<Ready>> {
        let stored = match self.parent {
            Some(parent) if comparable && found.pages.is_some() => {
                parent.reader.file(&found.path).await?
            }
            _ => None,
        };
        let method = self.parent.map(|parent| Arc::clone(&parent.method));
        let (shape, inspection) = (self.shape, Arc::clone(&self.inspection));
        spawn_blocking(move || prepare(found, stored.zip(method), shape, &inspection))
            .await
            .map_err(|error| stopped(error, self.subject))?
            .map_err(|error| cannot_read(error, self.subject))
    }
}

fn prepare(
    found: Found,
    parent: Option<(StoredFile, Arc<Method>)>,
    shape: Shape,
    inspection: &Arc<Inspection>,
) -> io::Result<Option<Ready>> {
    match prepare_present(&found, parent, shape, inspection) {
        Ok(ready) => Ok(Some(ready)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn prepare_present(
    found: &Found,
    parent: Option<(StoredFile, Arc<Method>)>,
    shape: Shape,
    inspection: &Arc<Inspection>,
) -> io::Result<Ready> {
    let metadata = fs::metadata(&found.place).map_err(|error| about(&found.place, error))?;
    let first_block = found.pages.map(|pages| shape.first_block(&pages));
    let file = DataFile::new(
        found.path.clone(),
        found.place.clone(),
        first_block,
        inspection,
    );
    let mut ready = Ready {
        path: found.path.clone(),
        metadata: Metadata {
            mode: metadata.mode() & 0o7777,
            mtime: metadata.mtime(),
        },
        size: metadata.len(),
        file,
        patch: None,
    };
    if let (Some(pages), Some((stored, method))) = (&found.pages, parent)
        && changes::is_comparable(pages, ready.size, stored.entry.size, shape)
        && let Some((size, ranges)) = changes::find(
            &method,
            &ready.file,
            pages,
            ready.size,
            stored.entry.size,
            shape,
        )?
    {
        if !ranges.is_empty() {
            ready.file.pad()?;
        }
        ready.size = size;
        ready.patch = Some((stored, ranges));
    }
    Ok(ready)
}

/// Says what is done about a file that may not be read.
fn unreadable(error: Error) -> Error {
    match (error.kind(), error.hint()) {
        (ErrorKind::Denied, None) => error.with_hint(
            "let the user that `dr` runs as read it; move it away if it is none of the server's",
        ),
        _ => error,
    }
}
