//! Files of this machine.

use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::errno::io_kind;

fn error(operation: &str, path: &Path, source: std::io::Error) -> Error {
    Error::new(io_kind(&source), operation, path.display().to_string()).because(source)
}

/// How much is read of a file that claims to be empty: those under `/proc` do, and are not.
const UNSIZED_BYTES: u64 = 1 << 16;

pub(super) fn read(path: &Path, offset: u64, length: u64) -> Result<Bytes> {
    let failed = |source| error("read file", path, source);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let there = match size {
        0 => UNSIZED_BYTES,
        size => size.saturating_sub(offset),
    };
    let length = length.min(there);
    let length = usize::try_from(length).map_err(|source| {
        Error::new(
            ErrorKind::Unsupported,
            "read file",
            path.display().to_string(),
        )
        .because(source)
    })?;
    let mut content = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut content[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(source) if source.kind() == IoErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
    content.truncate(filled);
    Ok(content.into())
}

/// Replaces a file whole: written beside it, synchronised, renamed over it, and the directory
/// synchronised.
///
/// The file keeps its permissions and, if this process may set it, its owner. A new one is readable
/// by its owner only, who is the directory's if this process is root: PostgreSQL must be able to
/// read what is put into its directory.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |source| error("write file", path, source);
    let parent = parent(path);
    let directory = File::open(parent).map_err(failed)?;
    let name = path.file_name().ok_or_else(|| {
        Error::new(ErrorKind::Invalid, "write file", path.display().to_string())
            .because("the path has no file name")
    })?;
    let temporary = parent.join(format!(
        ".{}.{:016x}.dr",
        name.to_string_lossy(),
        rand::random::<u64>()
    ));
    let replaced =
        prepare(path, parent, &temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(source) = replaced {
        std::fs::remove_file(&temporary).ok();
        return Err(failed(source));
    }
    directory.sync_all().map_err(|source| {
        Error::new(ErrorKind::Unknown, "write file", path.display().to_string()).because(source)
    })
}

fn prepare(path: &Path, parent: &Path, temporary: &Path, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let (owner, mode) = match std::fs::metadata(path) {
        Ok(there) => (
            there.clone(),
            Some(Mode::from_raw_mode(there.mode() & 0o7777)),
        ),
        Err(error) if error.kind() == IoErrorKind::NotFound => (std::fs::metadata(parent)?, None),
        Err(error) => return Err(error),
    };
    if rustix::process::geteuid().is_root() {
        let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        rustix::fs::fchown(&file, Some(user), Some(group))?;
    }
    if let Some(mode) = mode {
        rustix::fs::fchmod(&file, mode)?;
    }
    file.write_all(content)?;
    file.sync_all()
}

pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = |source| error("remove file", path, source);
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(source) if source.kind() == IoErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    }
    File::open(parent(path))
        .and_then(|directory| directory.sync_all())
        .map_err(|source| {
            Error::new(
                ErrorKind::Unknown,
                "remove file",
                path.display().to_string(),
            )
            .because(source)
        })
}

pub(super) fn kind(path: &Path) -> Result<PathKind> {
    let failed = |source| error("look at", path, source);
    let missing = |error: &std::io::Error| {
        matches!(
            error.kind(),
            IoErrorKind::NotFound | IoErrorKind::NotADirectory
        )
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if missing(&error) => {
            return match std::fs::symlink_metadata(path) {
                // A link to nothing is not nothing.
                Ok(_) => Ok(PathKind::Other),
                Err(error) if missing(&error) => Ok(PathKind::Missing),
                Err(error) => Err(failed(error)),
            };
        }
        Err(error) => return Err(failed(error)),
    };
    if metadata.is_file() {
        return Ok(PathKind::File);
    }
    if !metadata.is_dir() {
        return Ok(PathKind::Other);
    }
    match std::fs::read_dir(path).map_err(failed)?.next() {
        None => Ok(PathKind::EmptyDirectory),
        Some(entry) => entry.map(|_| PathKind::Directory).map_err(failed),
    }
}

pub(super) fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| error("list directory", path, source);
    let mut names = std::fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort_unstable();
    Ok(names)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
