//! What can go wrong with a backup, and on which object or file.

use std::io;
use std::path::{Path, PathBuf};

use dr_provider::ErrorKind;

use dr_encryption::KeyId;

use crate::Label;

/// What is done where a list of files is too long for memory.
pub(crate) const KEEP_LIST: &str = "keep the list of files in";

/// The result of an operation on backups.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on a backup that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("cannot {operation}")]
    Store {
        /// What was being done, with its subject.
        operation: String,
        /// The store's error.
        #[source]
        source: Box<dr_provider::Error>,
    },
    /// There is no such backup, or only an unfinished one.
    #[error("`{location}` holds no complete backup `{label}`")]
    Missing {
        /// The backup.
        label: Label,
        /// Where it was looked for.
        location: String,
    },
    /// What was read is not what was written.
    #[error("`{object}` is damaged: {what}")]
    Damaged {
        /// The object, with the store that it is in.
        object: String,
        /// What is wrong, with the file that it is part of.
        what: String,
    },
    /// Packs are not what was written, or are gone.
    #[error("{first}{}", and_more(.packs))]
    DamagedPacks {
        /// All of them, by the label that they lie under, and number.
        packs: Vec<(Label, u32)>,
        /// What is wrong with the first.
        first: Box<Error>,
    },
    /// The manifest needs something that this version does not know.
    #[error("`{object}` needs `{feature}`, which this version does not know")]
    Unsupported {
        /// The manifest.
        object: String,
        /// The format or feature.
        feature: String,
    },
    /// Another object stands where one should be written.
    #[error("`{object}` exists already with other content")]
    Different {
        /// The object.
        object: String,
    },
    /// The backup is going to be deleted: nothing new may refer to it.
    #[error("`{location}` is giving backup `{label}` up")]
    GivenUp {
        /// The backup.
        label: Label,
        /// Where it is.
        location: String,
    },
    /// The backup is encrypted, and its key is not at hand.
    #[error("`{object}` is encrypted with key {key}; {}", known_keys(.have))]
    Locked {
        /// The manifest.
        object: String,
        /// The name of the key.
        key: KeyId,
        /// The names of the keys that are at hand.
        have: Vec<KeyId>,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes to encrypt with")]
    Random,
    /// A path would lead out of the directory restored into, or through something that is not a directory.
    #[error("`{path}` is not a usable path: {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The directory to restore into is not empty.
    #[error("`{}` is not an empty directory", .0.display())]
    Occupied(PathBuf),
    /// A directory elsewhere, which is restored over, holds something that the backup does not.
    #[error("`{}` does not belong to what is restored there", .0.display())]
    Foreign(PathBuf),
    /// The file system failed.
    #[error("cannot {operation} `{}`", .path.display())]
    Io {
        /// A verb phrase.
        operation: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The source identifier cannot be part of an object's key.
    #[error("`{0}` cannot be part of an object's key")]
    Source(String),
    /// The writer was called out of turn, or again after it had failed.
    #[error("cannot {operation}: {why}")]
    OutOfTurn {
        /// What was asked for.
        operation: &'static str,
        /// Why it cannot be done now.
        why: &'static str,
    },
    /// A worker did not finish: the process is shutting down, or it panicked.
    #[error("a worker did not finish")]
    Worker(#[source] tokio::task::JoinError),
}

impl Error {
    pub(crate) fn damaged(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged {
            object: object.into(),
            what: what.into(),
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Returns the kind, in the terms of the seams.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => source.kind(),
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Damaged { .. } | Self::DamagedPacks { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Different { .. } => ErrorKind::AlreadyExists,
            Self::GivenUp { .. } => ErrorKind::Conflict,
            Self::Locked { .. } => ErrorKind::Denied,
            Self::Random => ErrorKind::Failed,
            Self::Path { .. } | Self::Occupied(_) | Self::Foreign(_) | Self::Source(_) => {
                ErrorKind::Invalid
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Failed,
            },
            Self::OutOfTurn { .. } => ErrorKind::Failed,
            Self::Worker(error) if error.is_cancelled() => ErrorKind::Cancelled,
            Self::Worker(_) => ErrorKind::Failed,
        }
    }
}

impl From<Error> for dr_provider::Error {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        match error {
            Error::Store { source, .. } => *source,
            // A file of this machine's, and no part of a backup.
            Error::Io {
                operation,
                path,
                source,
            } => {
                let error = Self::new(kind, operation, path.display().to_string()).because(source);
                if kind == ErrorKind::Full && operation == KEEP_LIST {
                    return error.with_hint(
                        "make room there, or set `TMPDIR` to a directory that has some",
                    );
                }
                error
            }
            Error::Occupied(directory) => Self::new(
                ErrorKind::Invalid,
                "restore into",
                directory.display().to_string(),
            )
            .because("the directory is not empty")
            .with_hint("restore into a directory that does not exist yet"),
            Error::Foreign(ref path) => Self::new(
                ErrorKind::Invalid,
                "restore over",
                path.display().to_string(),
            )
            .because("it does not belong to what is restored there")
            .with_hint("move it away, or name another directory"),
            Error::Locked { ref key, .. } => {
                let hint =
                    format!("name the key file of key {key} under `encryption` in `dr.yaml`");
                Self::new(error.kind(), "use backup", subject(&error))
                    .because(error)
                    .with_hint(hint)
            }
            other => Self::new(other.kind(), "use backup", subject(&other)).because(other),
        }
    }
}

fn and_more(packs: &[(Label, u32)]) -> String {
    match packs.len() {
        0 | 1 => String::new(),
        count => format!("; {} more packs are damaged as well", count - 1),
    }
}

fn known_keys(keys: &[KeyId]) -> String {
    if keys.is_empty() {
        return "no key is configured".to_owned();
    }
    let names: Vec<&str> = keys.iter().map(KeyId::as_str).collect();
    format!("the keys at hand are {}", names.join(", "))
}

fn subject(error: &Error) -> String {
    match error {
        Error::Missing { label, .. } | Error::GivenUp { label, .. } => label.to_string(),
        Error::Damaged { object, .. }
        | Error::Unsupported { object, .. }
        | Error::Locked { object, .. }
        | Error::Different { object } => object.clone(),
        Error::DamagedPacks { first, .. } => subject(first),
        Error::Path { path, .. } => path.clone(),
        Error::Io { path, .. } => path.display().to_string(),
        Error::Source(text) => text.clone(),
        _ => "repository".to_owned(),
    }
}
