//! Finds the files of a data directory, one directory after the other, while its server runs (R4, R6, R11).
//!
//! Only the listing of one directory is held at a time. What vanishes between two looks is dropped: replay knows that it
//! was removed. Links are followed: a tablespace where it stands, a configuration file that was moved away as the file
//! that it is. None may lead back into the directory, where the same files would be backed up twice.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::control;
use super::name::{Fork, Relation, is_emptied, is_left_out};
use crate::backup::base::TABLESPACES;

/// Object identifiers of the two tablespaces that every cluster has: `pg_default` and `pg_global`.
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;

/// Something that belongs into the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Directory { path: String, mode: u32, mtime: i64 },
    File(Found),
}

/// A file that was there when its directory was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its path in the backup.
    pub(crate) path: String,
    /// Where it is.
    pub(crate) place: PathBuf,
    /// What it is part of; `None` if it does not consist of pages.
    pub(crate) pages: Option<Pages>,
}

/// What a file of pages is part of, as the log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    pub(crate) tablespace: u32,
    /// Zero for what all databases share.
    pub(crate) database: u32,
    pub(crate) relation: Relation,
}

/// A directory still to be read.
#[derive(Debug)]
struct Pending {
    /// Its path in the backup, empty for the data directory.
    path: String,
    place: PathBuf,
    /// The tablespace and database whose relations stand in it.
    database: Option<(u32, u32)>,
}

/// Walks through a data directory.
#[derive(Debug)]
pub(crate) struct Walk {
    root: PathBuf,
    /// The name of the directories that tablespaces hold for this server: `PG_15_202209061`.
    version_directory: String,
    pending: Vec<Pending>,
    /// Where each tablespace is.
    pub(crate) tablespaces: BTreeMap<u32, String>,
    /// What is there and was left out although no rule says so, with the reason.
    pub(crate) passed_over: Vec<String>,
}

impl Walk {
    /// Begins at the data directory of a server with this major and catalog version.
    pub(crate) fn new(root: &Path, major: u32, catalog_version: u32) -> io::Result<Self> {
        let root = root.canonicalize()?;
        Ok(Self {
            version_directory: format!("PG_{major}_{catalog_version}"),
            pending: vec![Pending {
                path: String::new(),
                place: root.clone(),
                database: None,
            }],
            root,
            tablespaces: BTreeMap::new(),
            passed_over: Vec::new(),
        })
    }

    /// Reads the next directory; `None` when there are no more. Parents come before what is in them.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<Item>>> {
        let Some(directory) = self.pending.pop() else {
            return Ok(None);
        };
        let mut names = match list(&directory.place) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.path.is_empty() => {
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(about(&directory.place, error)),
        };
        names.sort_unstable();
        if directory.path == TABLESPACES {
            return self.tablespaces_in(&directory, &names).map(Some);
        }
        let unlogged = unlogged(&names, directory.database.is_some());
        let mut items = Vec::new();
        let mut below = Vec::new();
        for name in names {
            let path = join(&directory.path, &name);
            if is_left_out(&name, directory.path.is_empty()) || path == control::PATH {
                continue;
            }
            let relation = directory.database.and_then(|_| Relation::parse(&name));
            if relation.is_some_and(|relation| {
                relation.fork != Fork::Init && unlogged.contains(&relation.number)
            }) {
                continue;
            }
            let place = directory.place.join(&name);
            let Some(metadata) = look(&place)? else {
                continue;
            };
            if metadata.is_dir() {
                items.push(directory_item(&path, &metadata));
                if directory.path.is_empty() && is_emptied(&name) {
                    if name == "pg_wal" {
                        items.push(directory_item("pg_wal/archive_status", &metadata));
                    }
                    continue;
                }
                if self.leads_back(&place)? {
                    return Err(into_itself(&place, &self.root));
                }
                let database = databases_of(&directory.path, &name, &path);
                below.push(Pending {
                    path,
                    place,
                    database,
                });
            } else if metadata.is_file() {
                let pages =
                    directory
                        .database
                        .zip(relation)
                        .map(|((tablespace, database), relation)| Pages {
                            tablespace,
                            database,
                            relation,
                        });
                items.push(Item::File(Found { path, place, pages }));
            } else {
                self.passed_over
                    .push(format!("{path}: neither a file nor a directory"));
            }
        }
        // The last one pushed is read next.
        self.pending.extend(below.into_iter().rev());
        Ok(Some(items))
    }

    /// Reads `pg_tblspc`.
    fn tablespaces_in(&mut self, directory: &Pending, names: &[String]) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for name in names {
            let place = directory.place.join(name);
            let path = join(&directory.path, name);
            let Ok(oid) = name.parse::<u32>() else {
                self.passed_over.push(format!("{path}: not a tablespace"));
                continue;
            };
            let Some(metadata) = look(&place)? else {
                continue;
            };
            if !metadata.is_dir() {
                self.passed_over.push(format!("{path}: not a directory"));
                continue;
            }
            items.push(directory_item(&path, &metadata));
            // One in place is a directory of the data directory like others, and goes back to where it was.
            let target = match fs::read_link(&place) {
                Ok(target) => Some(target),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
                Err(error) => return Err(about(&place, error)),
            };
            if let Some(target) = target {
                if self.leads_back(&place)? {
                    return Err(into_itself(&place, &self.root));
                }
                let Some(target) = target.to_str() else {
                    return Err(about(
                        &place,
                        invalid("it leads to a name that is not text"),
                    ));
                };
                self.tablespaces.insert(oid, target.to_owned());
            }
            // Several clusters may share a tablespace's directory, each with its own in it.
            let place = place.join(&self.version_directory);
            let Some(metadata) = look(&place)? else {
                continue;
            };
            let path = join(&path, &self.version_directory);
            items.push(directory_item(&path, &metadata));
            self.pending.push(Pending {
                path,
                place,
                database: None,
            });
        }
        Ok(items)
    }

    /// Tells whether a link leads into the data directory, or around it.
    fn leads_back(&self, place: &Path) -> io::Result<bool> {
        let linked = match fs::symlink_metadata(place) {
            Ok(metadata) => metadata.is_symlink(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(about(place, error)),
        };
        if !linked {
            return Ok(false);
        }
        match place.canonicalize() {
            Ok(target) => Ok(target.starts_with(&self.root) || self.root.starts_with(&target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(about(place, error)),
        }
    }
}

/// Returns the tablespace and database whose relations stand in directory `name` of `parent`.
fn databases_of(parent: &str, name: &str, path: &str) -> Option<(u32, u32)> {
    if path == "global" {
        return Some((GLOBAL_TABLESPACE, 0));
    }
    let database = name.parse::<u32>().ok()?;
    if parent == "base" {
        return Some((DEFAULT_TABLESPACE, database));
    }
    let mut parts = parent
        .strip_prefix(TABLESPACES)?
        .strip_prefix('/')?
        .split('/');
    let tablespace = parts.next()?.parse::<u32>().ok()?;
    let _version_directory = parts.next()?;
    parts.next().is_none().then_some((tablespace, database))
}

/// Returns the numbers of the relations that are made empty after a crash: those with an `_init` fork (R4).
fn unlogged(names: &[String], relations: bool) -> HashSet<u32> {
    if !relations {
        return HashSet::new();
    }
    let init = |name: &String| Relation::parse(name).filter(|relation| relation.fork == Fork::Init);
    names
        .iter()
        .filter_map(init)
        .map(|relation| relation.number)
        .collect()
}

fn list(place: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(place)? {
        let name = entry?.file_name().into_string();
        names.push(name.map_err(|name| {
            invalid(&format!(
                "`{}` is a name that is not text, as none of the server's is: remove or rename it",
                name.display()
            ))
        })?);
    }
    Ok(names)
}

/// Looks at what a name or a link stands for; `None` if it is gone.
fn look(place: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(place) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::symlink_metadata(place) {
                Ok(metadata) if metadata.is_symlink() => {
                    Err(about(place, invalid("it is a link that leads nowhere")))
                }
                _ => Ok(None),
            }
        }
        Err(error) => Err(about(place, error)),
    }
}

fn directory_item(path: &str, metadata: &Metadata) -> Item {
    Item::Directory {
        path: path.to_owned(),
        mode: metadata.mode() & 0o7777,
        mtime: metadata.mtime(),
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn into_itself(place: &Path, root: &Path) -> io::Error {
    let what = format!(
        "it leads into the data directory `{}` itself",
        root.display()
    );
    about(place, invalid(&what))
}

/// Adds to an error which file it is about.
pub(super) fn about(place: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", place.display()))
}

#[cfg(test)]
mod tests;
