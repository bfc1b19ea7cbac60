//! What can go wrong in the sandbox, each with what a person can do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Something in the sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be handled.
    #[error("cannot {operation} `{path}`")]
    File {
        /// What was attempted, such as `create`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed ({status}): {detail}")]
    Program {
        /// The program and what it was to do.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        detail: String,
    },
    /// PostgreSQL's programs are not on this machine.
    #[error(
        "PostgreSQL's programs (`postgres`, `initdb`, `pg_basebackup`, …) were not found {place}"
    )]
    NoPostgres {
        /// Where they were looked for.
        place: String,
    },
    /// One of the product's own programs is not beside this one.
    #[error("`{program}` was not found in {places}")]
    NoBinary {
        /// The program's name.
        program: &'static str,
        /// The directories in which it was looked for.
        places: String,
    },
    /// No account is there to run the servers, which refuse to run as root.
    #[error("running as root, and there is neither a user `postgres` nor a user `nobody`")]
    NoUser,
    /// The directory cannot be used.
    #[error("the directory `{directory}` cannot be used: {reason}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No free port was found, or a socket could not be opened.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address, with its port.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A condition did not come about in time.
    #[error("{what} did not come about within {seconds:.1} s: {last}", seconds = limit.as_secs_f64())]
    Late {
        /// The condition.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// What was seen last.
        last: String,
    },
    /// A database did not do what it was asked.
    #[error("cannot {operation} on the database of `{region}`")]
    Sql {
        /// What was asked.
        operation: &'static str,
        /// The region of the database.
        region: String,
        /// Why not.
        source: tokio_postgres::Error,
    },
    /// A DNS message could not be read, written or signed.
    #[error("cannot {operation} a DNS message: {detail}")]
    Dns {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        detail: String,
    },
    /// A program's output was not what its contract says.
    #[error("the output of `{program}` could not be read")]
    Output {
        /// The program and its arguments.
        program: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The sandbox has no such region.
    #[error("the sandbox has no region `{0}`")]
    NoRegion(String),
    /// Something failed, and the disk is full.
    #[error("the disk of `{directory}` is full: {free_megabytes} MB are free")]
    DiskFull {
        /// The sandbox's directory.
        directory: PathBuf,
        /// What is left of the disk, in MB.
        free_megabytes: u64,
        /// What failed.
        source: Box<Error>,
    },
    /// The person asked to stop.
    #[error("interrupted")]
    Interrupted,
}

const ROOM: &str = "free about 500 MB, or name a directory on another disk with --directory";

impl Error {
    /// Makes the error of a file, for use with `map_err`.
    pub fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }

    /// Names the disk of the sandbox's directory if it is full: whoever could not write to it mostly says something else, or nothing.
    #[must_use]
    pub fn on_disk(self, directory: &Path) -> Self {
        // A server that finds no room for the next piece of its log removes what it has of it.
        const LEAST: u64 = 32 << 20;
        let Ok(disk) = rustix::fs::statvfs(directory) else {
            return self;
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match self {
            Self::Interrupted | Self::DiskFull { .. } => self,
            _ if free >= LEAST => self,
            source => Self::DiskFull {
                directory: directory.to_owned(),
                free_megabytes: free / 1_000_000,
                source: Box::new(source),
            },
        }
    }

    /// Says what a person can do about it, where something can be said.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoPostgres { .. } => Some(
                "install the package `postgresql` (Debian, Ubuntu), or set DR_POSTGRES_BIN to the \
                 directory that holds `postgres` and `initdb`",
            ),
            Self::NoBinary { .. } => {
                Some("build it with `cargo build -p dr-cli -p dr-sandbox`, or run `make demo`")
            }
            Self::NoUser => Some("create a user for it, or run as an ordinary user"),
            Self::Directory { .. } => {
                Some("name another with --directory; as root it must be reachable by `postgres`")
            }
            Self::Listen { .. } => Some("run again: another program took the port meanwhile"),
            Self::DiskFull { .. } => Some(ROOM),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some(ROOM)
            }
            Self::Late { .. } | Self::Program { .. } => {
                Some("the logs are in `*/log/` and `log/` of the sandbox's directory")
            }
            _ => None,
        }
    }
}

/// The result of something in the sandbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;
