//! What the system's error numbers mean.

use dr_provider::ErrorKind;
use rustix::io::Errno;

/// Says what kind of failure a number is, when it is certain that nothing was changed.
pub(crate) fn kind(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOSPC | Errno::DQUOT => ErrorKind::Full,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
        Errno::NOTDIR | Errno::ISDIR | Errno::NAMETOOLONG | Errno::FBIG => ErrorKind::Invalid,
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK | Errno::XDEV => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    }
}

/// The same for the standard library's errors, and *not found*, which a store must prove first.
pub(crate) fn io_kind(error: &std::io::Error) -> ErrorKind {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => ErrorKind::NotFound,
        Some(errno) => kind(errno),
        None => ErrorKind::Failed,
    }
}
