//! Where everything goes, decided and checked before anything is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::delta::{Ciphers, Delta, There};
use super::join::Joiner;
use super::piece::{Piece, When};
use super::{Begin, RestoreOptions, blocking, output, sweep};
use crate::manifest::{Entry, Extent, FileEntry};
use crate::spill::{Sorted, Sorter};
use crate::tree::{self, Order};
use crate::{BackupReader, Error, Result};

/// Put after the name of a file that gets its name last.
const UNFINISHED: &str = ".dr-unfinished";

/// An entry and where it goes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Below the root.
    pub(super) path: String,
    pub(super) entry: Entry,
    /// A file's turn to get its name, if that comes last.
    pub(super) turn: Option<usize>,
}

impl Placed {
    /// Returns where a file is written.
    pub(super) fn at(&self) -> String {
        match self.turn {
            Some(_) => format!("{}{UNFINISHED}", self.path),
            None => self.path.clone(),
        }
    }
}

/// What will be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: PathBuf,
    /// [`Placed`] entries in the order of the tree that they make.
    pub(super) entries: Sorted,
    /// Directories that are made elsewhere.
    pub(super) elsewhere: BTreeMap<String, PathBuf>,
    /// Where long lists are kept.
    scratch: PathBuf,
    pub(super) files: u64,
    pub(super) total_bytes: u64,
    /// Of these, zeros that nothing is read for.
    pub(super) zero_bytes: u64,
}

impl Plan {
    /// Goes through the entries.
    pub(super) fn each(&self, mut visit: impl FnMut(Placed) -> Result<()>) -> Result<()> {
        let failed = |error| list_failed(&self.scratch)(error);
        let mut walk = self.entries.walk().map_err(failed)?;
        while let Some((_, value)) = walk.next().map_err(failed)? {
            let placed = serde_json::from_slice(value).map_err(io::Error::other);
            visit(placed.map_err(failed)?)?;
        }
        Ok(())
    }

    /// Makes a sorter beside the plan.
    pub(super) fn sorter(&self) -> Sorter {
        Sorter::new(self.scratch.clone())
    }
}

/// Says that a list could not be kept.
pub(super) fn list_failed(scratch: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::io("keep a list in", scratch)
}

/// Decides where everything goes.
pub(super) async fn plan(
    reader: &BackupReader,
    root: &Path,
    options: &RestoreOptions,
) -> Result<Arc<Plan>> {
    let scratch = {
        let root = root.to_owned();
        blocking(move || scratch(&root)).await?
    };
    let mut sorter = Sorter::new(scratch.clone());
    let mut parts = std::pin::pin!(reader.tree());
    while let Some(entries) = parts.try_next().await? {
        let (options, scratch) = (options.clone(), scratch.clone());
        sorter = blocking(move || {
            for entry in entries.iter() {
                place(entry, &options, &mut sorter).map_err(list_failed(&scratch))?;
            }
            Ok(sorter)
        })
        .await?;
    }
    let (root, elsewhere) = (root.to_owned(), options.elsewhere.clone());
    blocking(move || {
        let mut plan = Plan {
            root,
            elsewhere,
            entries: sorter.finish().map_err(list_failed(&scratch))?,
            scratch,
            files: 0,
            total_bytes: 0,
            zero_bytes: 0,
        };
        let (mut files, mut total, mut zeros) = (0, 0, 0);
        let mut order = Order::default();
        plan.each(|placed| {
            order.check(&placed.path, &placed.entry)?;
            if let Entry::File(file) = &placed.entry {
                files += 1;
                total += file.size;
                let empty = |extent: &&Extent| matches!(extent, Extent::Zeros { .. });
                zeros += file
                    .extents
                    .iter()
                    .filter(empty)
                    .map(Extent::bytes)
                    .sum::<u64>();
            }
            Ok(())
        })?;
        (plan.files, plan.total_bytes, plan.zero_bytes) = (files, total, zeros);
        Ok(Arc::new(plan))
    })
    .await
}

fn place(entry: &Entry, options: &RestoreOptions, sorter: &mut Sorter) -> io::Result<()> {
    let path = entry.path();
    let target = match &options.place {
        Some(place) => place(path),
        None => Some(path.to_owned()),
    };
    let Some(target) = target else { return Ok(()) };
    let is_file = matches!(entry, Entry::File(_));
    let turn = options.last.iter().position(|last| *last == target);
    let placed = Placed {
        turn: turn.filter(|_| is_file),
        path: target,
        entry: entry.clone(),
    };
    sorter.push(&tree::key(&placed.path), &serde_json::to_vec(&placed)?)
}

/// Finds a directory for lists on the file system restored to: the nearest one that exists. Nothing is seen of them.
fn scratch(root: &Path) -> Result<PathBuf> {
    for place in root.ancestors() {
        let place = if place.as_os_str().is_empty() {
            Path::new(".")
        } else {
            place
        };
        match fs::metadata(place) {
            Ok(_) => return Ok(place.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look at", place)(error)),
        }
    }
    Ok(PathBuf::from("."))
}

/// What is left to be done once the directories are there.
pub(super) struct Prepared {
    /// The pieces to be written, sorted by frame.
    pub(super) pieces: Sorted,
    /// Files and directories that have gone.
    pub(super) removed: u64,
    /// Bytes that are there already.
    pub(super) there_bytes: u64,
    /// Bytes that were made zero.
    pub(super) cleared_bytes: u64,
}

/// Makes the directories, open to the owner only until all is done; the root stays so. Over what is there, looks for what
/// has to be written.
pub(super) fn prepare(
    plan: &Plan,
    begin: Option<&Begin>,
    over: Option<&(Delta, Ciphers)>,
) -> Result<Prepared> {
    let root = &plan.root;
    let begin = || match begin {
        Some(begin) => begin().map_err(Error::io("begin to restore into", root)),
        None => Ok(()),
    };
    let removed = match over {
        Some((delta, _)) => {
            sweep::check(plan)?;
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
            }
            make(root)?;
            begin()?;
            sweep::sweep(plan, &delta.left_alone)?
        }
        None => {
            open_empty(root)?;
            begin()?;
            0
        }
    };
    for (path, place) in &plan.elsewhere {
        let link = root.join(path);
        let leads_there = sweep::leads_to(&link, place);
        // Whose content belongs there has been swept; any other has to be empty.
        if !(leads_there && place.is_dir()) {
            open_empty(place)?;
        }
        if leads_there {
            continue;
        }
        if let Some(parent) = link.parent() {
            make(parent)?;
        }
        symlink(place, &link).map_err(Error::io("make symbolic link", &link))?;
    }
    let mut needed = Needed {
        pieces: plan.sorter(),
        there_bytes: 0,
        cleared_bytes: 0,
    };
    // Most files are in the directory of the one before.
    let mut made = root.clone();
    plan.each(|placed| {
        let path = root.join(&placed.path);
        let directory = match &placed.entry {
            Entry::Directory { .. } => Some(path.as_path()),
            _ => path.parent(),
        };
        if let Some(directory) = directory.filter(|directory| *directory != made) {
            make(directory)?;
            directory.clone_into(&mut made);
        }
        if let Entry::File(file) = &placed.entry {
            let at = placed.at();
            let path = root.join(&at);
            let there = match over {
                Some((_, ciphers)) => Some((There::open(path.clone(), file)?, ciphers)),
                None => None,
            };
            needed.look(plan, file, &at, there)?;
            output::make_long(&path, file.size)?;
        }
        Ok(())
    })?;
    Ok(Prepared {
        pieces: needed.pieces.finish().map_err(list_failed(&plan.scratch))?,
        removed,
        there_bytes: needed.there_bytes,
        cleared_bytes: needed.cleared_bytes,
    })
}

/// What is found to be needed, file by file.
struct Needed {
    pieces: Sorter,
    there_bytes: u64,
    cleared_bytes: u64,
}

impl Needed {
    /// Notes what has to be written of a file, which goes to `at`.
    fn look(
        &mut self,
        plan: &Plan,
        file: &FileEntry,
        at: &str,
        mut there: Option<(There, &Ciphers)>,
    ) -> Result<()> {
        let Self {
            pieces,
            there_bytes,
            cleared_bytes,
        } = self;
        let mut note = |piece: Piece| {
            pieces
                .push(&piece.key(), &piece.value())
                .map_err(list_failed(&plan.scratch))
        };
        let mut joiner = Joiner::default();
        let mut position = 0;
        for extent in &file.extents {
            match (*extent, &mut there) {
                (Extent::Stored { frame, from, bytes }, there) => {
                    let piece = Piece {
                        frame,
                        from,
                        bytes,
                        position,
                        when: When::Alone,
                        at: at.to_owned(),
                    };
                    match there {
                        Some((there, ciphers)) => {
                            let cipher = ciphers[frame.pack as usize].as_ref();
                            if there.holds(&frame, (from, bytes), position, cipher)? {
                                *there_bytes += u64::from(bytes);
                            } else {
                                // Each is looked at by itself when it is written.
                                note(piece)?;
                            }
                        }
                        None => joiner.push(piece, &mut note)?,
                    }
                }
                (Extent::Zeros { bytes }, there) => {
                    // Nothing is written over zeros.
                    joiner.finish(&mut note)?;
                    if let Some((there, _)) = there {
                        *cleared_bytes += there.clear(position, bytes)?;
                    }
                }
            }
            position += extent.bytes();
        }
        joiner.finish(note)
    }
}

/// Makes a directory, or takes one that is empty, for nobody but its owner.
fn open_empty(directory: &Path) -> Result<()> {
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::Occupied(directory.to_owned()));
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                .map_err(Error::io("change mode of", directory))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = directory.parent() {
                fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
            }
            make(directory)
        }
        Err(error) => Err(Error::io("look into", directory)(error)),
    }
}

fn make(directory: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(directory)
        .map_err(Error::io("make directory", directory))
}
