//! Reading objects.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use dr_provider::store::ObjectInfo;
use dr_provider::{ErrorKind, Key, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::errno::Call;
use super::tree::{TEMPORARY, Tree};

/// Reads `length` bytes from `offset`; `None` if there is no such object.
pub(super) fn range(
    call: Call<'_>,
    tree: &Tree,
    key: &Key,
    offset: u64,
    length: u64,
) -> Result<Option<Bytes>> {
    if is_reserved(key) {
        return Ok(None);
    }
    // Not to wait for the writer of what turns out to be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = match tree.open_at(key.as_str(), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(call.errno(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| call.errno(errno))?;
    let Some(size) = object_size(&stat) else {
        return Ok(None);
    };
    let length = length.min(size.saturating_sub(offset));
    let length = usize::try_from(length)
        .map_err(|error| call.error(ErrorKind::Unsupported).because(error))?;
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, offset)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => call
                .error(ErrorKind::Corrupt)
                .because("the file has become shorter while it was read"),
            _ => call.error(ErrorKind::Unavailable).because(error),
        })?;
    Ok(Some(content.into()))
}

/// Reads an object's length; `None` if there is no such object.
pub(super) fn head(call: Call<'_>, tree: &Tree, key: &Key) -> Result<Option<ObjectInfo>> {
    if is_reserved(key) {
        return Ok(None);
    }
    match rustix::fs::statat(&tree.directory, key.as_str(), AtFlags::empty()) {
        Ok(stat) => Ok(object_size(&stat).map(|size_bytes| ObjectInfo {
            key: key.clone(),
            size_bytes,
        })),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(call.errno(errno)),
    }
}

/// Returns the size of an object's file; `None` if it is something else.
pub(super) fn object_size(stat: &Stat) -> Option<u64> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    u64::try_from(stat.st_size).ok()
}

fn is_reserved(key: &Key) -> bool {
    key.as_str().split('/').next() == Some(TEMPORARY)
}
