//! Removing what a backup does not hold, before it is restored over what is there.
//!
//! The tree of the backup and the directories are gone through side by side, in the same order, so that no more than the
//! names of one directory on each level are in memory. What stays is of the kind that the backup has at that path: a link is
//! never written through.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::place::{Placed, Plan};
use crate::manifest::Entry;
use crate::{Error, Result};

/// A directory that is being gone through.
struct Level {
    /// Its path in the tree; empty for the root.
    path: String,
    /// Where it is.
    at: PathBuf,
    /// What it holds, in the order of the tree.
    names: Vec<OsString>,
    /// The first that has not been looked at.
    next: usize,
}

/// Refuses directories elsewhere that hold something else. Only what a link of the same directory leads to already may hold
/// anything, and only what the backup holds there too.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let mut ours = BTreeMap::new();
    for (path, place) in &plan.elsewhere {
        let names = names_in(place)?;
        if names.is_empty() {
            continue;
        }
        if !leads_to(&plan.root.join(path), place) {
            return Err(Error::Occupied(place.clone()));
        }
        ours.insert(path.as_str(), BTreeSet::from_iter(names));
    }
    if ours.is_empty() {
        return Ok(());
    }
    plan.each(|placed| {
        for (path, names) in &mut ours {
            let below = placed.path.strip_prefix(*path);
            if let Some(below) = below.and_then(|below| below.strip_prefix('/')) {
                names.remove(OsStr::new(below.split('/').next().unwrap_or(below)));
            }
        }
        Ok(())
    })?;
    match ours
        .iter()
        .find_map(|(path, names)| Some((path, names.first()?)))
    {
        Some((path, name)) => Err(Error::Foreign(plan.elsewhere[*path].join(name))),
        None => Ok(()),
    }
}

/// Tells whether something is a symbolic link to a place.
pub(super) fn leads_to(link: &Path, place: &Path) -> bool {
    fs::read_link(link).is_ok_and(|to| to == place)
}

/// Removes what does not belong to the plan; `left_alone` are paths that are not looked at. Returns how many files and
/// directories have gone.
pub(super) fn sweep(plan: &Plan, left_alone: &BTreeSet<String>) -> Result<u64> {
    let mut sweep = Sweep {
        plan,
        left_alone,
        levels: vec![Level::open(String::new(), plan.root.clone())?],
        removed: 0,
    };
    plan.each(|placed| sweep.visit(&placed))?;
    while let Some(level) = sweep.levels.pop() {
        sweep.finish(&level)?;
    }
    Ok(sweep.removed)
}

struct Sweep<'a> {
    plan: &'a Plan,
    left_alone: &'a BTreeSet<String>,
    /// From the root to the directory of the last entry.
    levels: Vec<Level>,
    removed: u64,
}

impl Level {
    fn open(path: String, at: PathBuf) -> Result<Self> {
        let mut names = names_in(&at)?;
        // Whatever rights it had: it is ours until it is whole.
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("change mode of", &at))?;
        names.sort_unstable();
        Ok(Self {
            path,
            at,
            names,
            next: 0,
        })
    }

    fn holds(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            _ if self.path.is_empty() => true,
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }

    /// Returns the path of something in it.
    fn below(&self, name: &OsStr) -> String {
        let name = name.to_string_lossy();
        if self.path.is_empty() {
            name.into_owned()
        } else {
            format!("{}/{name}", self.path)
        }
    }
}

impl Sweep<'_> {
    fn visit(&mut self, placed: &Placed) -> Result<()> {
        while self
            .levels
            .last()
            .is_some_and(|level| !level.holds(&placed.path))
        {
            if let Some(level) = self.levels.pop() {
                self.finish(&level)?;
            }
        }
        // Directories on the way that are not entries of their own.
        let begun = self
            .levels
            .last()
            .map_or(0, |level| match level.path.len() {
                0 => 0,
                length => length + 1,
            });
        for (index, _) in placed
            .path
            .match_indices('/')
            .filter(|(index, _)| *index > begun)
        {
            self.directory(&placed.path[..index])?;
        }
        match &placed.entry {
            Entry::Directory { .. } => self.directory(&placed.path),
            Entry::File(_) if placed.turn.is_none() => {
                let kept = |_: &Path, kind: fs::FileType| kind.is_file();
                self.reach(&placed.path, kept).map(drop)
            }
            // Made anew: it may have led elsewhere. A file that gets its name last is under another until then.
            Entry::File(_) | Entry::Symlink { .. } => {
                self.reach(&placed.path, |_, _| false).map(drop)
            }
        }
    }

    /// Goes into a directory, if there is one.
    fn directory(&mut self, path: &str) -> Result<()> {
        if let Some(place) = self.plan.elsewhere.get(path) {
            self.reach(path, |at, _| leads_to(at, place))?;
            if place.is_dir() {
                self.levels
                    .push(Level::open(path.to_owned(), place.clone())?);
            }
        } else if self.reach(path, |_, kind| kind.is_dir())?
            && let Some(parent) = self.levels.last()
        {
            // The parent may be elsewhere.
            let at = parent.at.join(file_name(path));
            self.levels.push(Level::open(path.to_owned(), at)?);
        }
        Ok(())
    }

    /// Removes what comes before a path in its directory, and what is at it unless that is of the kind to be kept. Returns
    /// whether it is there.
    fn reach(&mut self, path: &str, keep: impl Fn(&Path, fs::FileType) -> bool) -> Result<bool> {
        let Some(mut level) = self.levels.pop() else {
            return Ok(false);
        };
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let mut found = false;
        // Only if the directory is there at all.
        if level.path == parent {
            while let Some(name) = level.names.get(level.next) {
                match name.as_os_str().cmp(OsStr::new(file_name(path))) {
                    std::cmp::Ordering::Less => self.remove(&level, name)?,
                    std::cmp::Ordering::Equal => {
                        let at = level.at.join(name);
                        let kind = fs::symlink_metadata(&at);
                        let kind = kind.map_err(Error::io("look at", &at))?.file_type();
                        found = keep(&at, kind);
                        if !found {
                            remove(&at)?;
                            self.removed += 1;
                        }
                    }
                    std::cmp::Ordering::Greater => break,
                }
                level.next += 1;
            }
        }
        self.levels.push(level);
        Ok(found)
    }

    /// Removes what is left in a directory.
    fn finish(&mut self, level: &Level) -> Result<()> {
        level.names[level.next..]
            .iter()
            .try_for_each(|name| self.remove(level, name))
    }

    fn remove(&mut self, level: &Level, name: &OsStr) -> Result<()> {
        if self.left_alone.contains(&level.below(name)) {
            return Ok(());
        }
        let at = level.at.join(name);
        self.removed += 1;
        remove(&at)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn remove(at: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(at).map_err(Error::io("look at", at))?;
    let removed = if kind.is_dir() {
        fs::remove_dir_all(at)
    } else {
        fs::remove_file(at)
    };
    removed.map_err(Error::io("remove", at))
}

/// Returns what a directory holds; nothing if it is not there.
fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("look into", directory)(error)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names: io::Result<Vec<OsString>> = names.collect();
    names.map_err(Error::io("look into", directory))
}
