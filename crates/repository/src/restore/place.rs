//! Where everything goes, decided and checked before anything is written.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::RestoreOptions;
use crate::manifest::{Entry, FileEntry, Frame, Manifest, Metadata};
use crate::{Error, Result, path};

/// Put after the name of a file that gets its name last.
const UNFINISHED: &str = ".dr-unfinished";

/// A file to be written.
#[derive(Debug)]
pub(super) struct File {
    /// Where it is written.
    pub(super) at: PathBuf,
    /// Its final name, if that comes last.
    pub(super) rename_to: Option<PathBuf>,
    /// Its name in the backup, for messages.
    pub(super) path: String,
    pub(super) metadata: Metadata,
    pub(super) size: u64,
    pub(super) frames: Vec<Frame>,
}

/// What will be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) root: PathBuf,
    /// Parents first; without the root.
    pub(super) directories: Vec<(PathBuf, Metadata)>,
    pub(super) symlinks: Vec<(PathBuf, String)>,
    /// Those with a name to come are in the order in which they get it.
    pub(super) files: Vec<File>,
}

/// Decides where everything goes.
pub(super) fn plan(manifest: &Manifest, root: &Path, options: &RestoreOptions) -> Result<Plan> {
    let placed: Vec<(String, &Entry)> = manifest
        .entries
        .iter()
        .filter_map(|entry| {
            let path = entry.path();
            let target = match &options.place {
                Some(place) => place(path)?,
                None => path.to_owned(),
            };
            Some((target, entry))
        })
        .collect();
    path::check_tree(placed.iter().map(|(path, entry)| (path.as_str(), *entry)))?;
    let mut plan = Plan {
        root: root.to_owned(),
        directories: Vec::new(),
        symlinks: Vec::new(),
        files: Vec::new(),
    };
    let mut files: Vec<(Option<usize>, File)> = Vec::new();
    for (target, entry) in placed {
        let at = root.join(&target);
        match entry {
            Entry::Directory { metadata, .. } => plan.directories.push((at, *metadata)),
            Entry::Symlink { target, .. } => plan.symlinks.push((at, target.clone())),
            Entry::File(file) => {
                let turn = options.last.iter().position(|last| *last == target);
                files.push((turn, place_file(file, at, turn.is_some())));
            }
        }
    }
    // Byte order puts a directory before what is in it.
    plan.directories.sort_by(|(a, _), (b, _)| a.cmp(b));
    files.sort_by_key(|(turn, _)| *turn);
    plan.files = files.into_iter().map(|(_, file)| file).collect();
    Ok(plan)
}

fn place_file(file: &FileEntry, at: PathBuf, last: bool) -> File {
    let (at, rename_to) = if last {
        let mut unfinished = at.clone().into_os_string();
        unfinished.push(UNFINISHED);
        (unfinished.into(), Some(at))
    } else {
        (at, None)
    };
    File {
        at,
        rename_to,
        path: file.path.clone(),
        metadata: file.metadata,
        size: file.size,
        frames: file.frames.clone(),
    }
}

/// Makes the directories, open to the owner only until all is done; the root stays so.
pub(super) fn prepare(plan: &Plan) -> Result<()> {
    let root = &plan.root;
    match fs::read_dir(root) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::Occupied(root.clone()));
            }
            fs::set_permissions(root, fs::Permissions::from_mode(0o700))
                .map_err(Error::io("change mode of", root))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(parent) = root.parent() {
                fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
            }
            make(root)?;
        }
        Err(error) => return Err(Error::io("look into", root)(error)),
    }
    for (directory, _) in &plan.directories {
        make(directory)?;
    }
    let parents = plan.files.iter().map(|file| &file.at);
    for path in parents.chain(plan.symlinks.iter().map(|(at, _)| at)) {
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(directory)
        .map_err(Error::io("make directory", directory))
}
