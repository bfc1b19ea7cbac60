//! Errors of a directory store from the system's error numbers.

use dr_provider::{Error, ErrorKind};
use rustix::io::Errno;

use crate::errno::kind;

/// Who asks for what: turns error numbers into errors that name the operation and its subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) location: &'a str,
    pub(super) subject: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, location: &'a str, subject: &'a str) -> Self {
        Self {
            operation,
            location,
            subject,
        }
    }

    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        let subject = if self.subject.is_empty() {
            self.location.to_owned()
        } else {
            format!("{}/{}", self.location, self.subject)
        };
        Error::new(kind, self.operation, subject)
    }

    /// Makes the error for a call that failed and changed nothing.
    pub(super) fn errno(&self, errno: Errno) -> Error {
        let error = self.error(kind(errno)).because(std::io::Error::from(errno));
        match errno {
            Errno::NOTDIR => error.with_hint(
                "a part of this key is an object itself; in a directory store no object's key is \
                 the beginning of another's",
            ),
            Errno::MFILE | Errno::NFILE => error.with_hint("raise the limit of open files"),
            Errno::ROFS => error.with_hint("the file system is mounted read-only"),
            _ => error,
        }
    }
}
