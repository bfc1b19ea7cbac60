//! What is said between `dr` here and `dr` on another machine, on its standard input and output.
//!
//! Requests and their answers in turn, each a line of JSON with the version of the form first. A version that the far side does not
//! know is refused there, before anything is done. The far side acts on its own machine as any process there does: it
//! remembers the highest epoch of every workload in its own state directory, and refuses a lower one.

mod serve;

use std::time::Duration;

use data_encoding::BASE64;
use dr_model::{Epoch, WorkloadName};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

pub use serve::serve;

/// The version of the form that this code speaks, and the only one.
pub const VERSION: u32 = 1;

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked for.
    pub call: Call,
}

/// What is asked for: the calls of [`Host`](dr_provider::Host).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// Run a command to its end.
    Run {
        /// The program and its arguments.
        argv: Vec<String>,
        /// Variables added to the environment.
        environment: Vec<(String, String)>,
        /// How long it may take; then it is killed there.
        limit_seconds: f64,
    },
    /// Read a part of a file.
    Read {
        /// The file.
        path: String,
        /// Where from.
        offset: u64,
        /// How much at most.
        length: u64,
    },
    /// Write a file whole.
    Write {
        /// The file.
        path: String,
        /// Its content, in Base64.
        content: String,
    },
    /// Remove a file.
    Remove {
        /// The file.
        path: String,
    },
    /// Say what stands at a path.
    Kind {
        /// The path.
        path: String,
    },
    /// List a directory.
    List {
        /// The directory.
        path: String,
    },
    /// Remember an epoch, or refuse a lower one.
    Admit {
        /// The workload.
        workload: WorkloadName,
        /// The epoch.
        epoch: Epoch,
    },
}

impl Call {
    /// Tells whether it may change something: then no answer means that it is unknown whether it did.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Read { .. } | Self::Kind { .. } | Self::List { .. }
        )
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`] of the side that answers.
    pub version: u32,
    /// What came of it.
    pub result: Result<Reply, Failure>,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// A command has ended.
    Ran {
        /// Its exit status; `None` if a signal ended it.
        status: Option<i32>,
        /// Standard output, in Base64.
        stdout: String,
        /// Standard error, in Base64.
        stderr: String,
    },
    /// What was read, in Base64.
    Content(String),
    /// What stands there: `missing`, `file`, `empty-directory`, `directory`, `other`.
    Kind(String),
    /// The names in a directory.
    Names(Vec<String>),
    /// It is done.
    Done,
}

/// A call that failed on the far side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of the error, one word.
    pub kind: String,
    /// What was tried.
    pub operation: String,
    /// On what.
    pub subject: String,
    /// Why it failed.
    pub why: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Every kind of error, which goes over the wire as its word.
const KINDS: [ErrorKind; 13] = [
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::Conflict,
    ErrorKind::Superseded,
    ErrorKind::Unavailable,
    ErrorKind::Unknown,
    ErrorKind::Denied,
    ErrorKind::Full,
    ErrorKind::Corrupt,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::Cancelled,
    ErrorKind::Failed,
];

impl Failure {
    fn of(error: &Error) -> Self {
        Self {
            kind: error.kind().as_str().to_owned(),
            operation: error.operation().to_owned(),
            subject: error.subject().to_owned(),
            why: std::error::Error::source(error).map(dr_provider::error::chain),
            hint: error.hint().map(str::to_owned),
        }
    }

    /// Makes it an error on this side again. A word that is not known says nothing about what was done.
    pub(crate) fn into_error(self, host: &str) -> Error {
        let kind = KINDS.into_iter().find(|kind| kind.as_str() == self.kind);
        let subject = format!("{} on {host}", self.subject);
        let mut error = Error::new(kind.unwrap_or(ErrorKind::Unknown), self.operation, subject);
        if let Some(why) = self.why {
            error = error.because(why);
        }
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

const PATH_KINDS: [(PathKind, &str); 5] = [
    (PathKind::Missing, "missing"),
    (PathKind::File, "file"),
    (PathKind::EmptyDirectory, "empty-directory"),
    (PathKind::Directory, "directory"),
    (PathKind::Other, "other"),
];

fn word_of(kind: PathKind) -> String {
    let known = PATH_KINDS.iter().find(|(known, _)| *known == kind);
    known.map_or("other", |(_, word)| word).to_owned()
}

pub(crate) fn kind_of(word: &str) -> Option<PathKind> {
    let known = PATH_KINDS.iter().find(|(_, known)| *known == word);
    known.map(|(kind, _)| *kind)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

/// Returns how long a call takes at most on the far side.
#[must_use]
pub fn limit_of(call: &Call) -> Duration {
    /// What is not a command touches a small file or a directory.
    const FILES: Duration = Duration::from_secs(10);
    match call {
        Call::Run { limit_seconds, .. } => {
            Duration::try_from_secs_f64(*limit_seconds).unwrap_or(FILES)
        }
        _ => FILES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_stays_as_it_is() {
        let request = |call| {
            serde_json::to_string(&Request {
                version: VERSION,
                call,
            })
            .unwrap()
        };
        for (call, text) in [
            (
                Call::Run {
                    argv: vec!["pg_ctl".to_owned(), "stop".to_owned()],
                    environment: vec![("A".to_owned(), "b".to_owned())],
                    limit_seconds: 1.5,
                },
                r#"{"version":1,"call":{"run":{"argv":["pg_ctl","stop"],"environment":[["A","b"]],"limit_seconds":1.5}}}"#,
            ),
            (
                Call::Write {
                    path: "/a".to_owned(),
                    content: encode(b"b\n"),
                },
                r#"{"version":1,"call":{"write":{"path":"/a","content":"Ygo="}}}"#,
            ),
            (
                Call::Admit {
                    workload: "orders".parse().unwrap(),
                    epoch: Epoch(3),
                },
                r#"{"version":1,"call":{"admit":{"workload":"orders","epoch":3}}}"#,
            ),
        ] {
            assert_eq!(request(call.clone()), text);
            let read: Request = serde_json::from_str(text).unwrap();
            assert_eq!(read.call, call);
        }
        let failed = Answer {
            version: VERSION,
            result: Err(Failure::of(
                &Error::new(ErrorKind::Superseded, "act for epoch 2 on", "here")
                    .because("epoch 3 has been seen"),
            )),
        };
        let text = r#"{"version":1,"result":{"Err":{"kind":"superseded","operation":"act for epoch 2 on","subject":"here","why":"epoch 3 has been seen","hint":null}}}"#;
        assert_eq!(serde_json::to_string(&failed).unwrap(), text);
        let error = failed.result.unwrap_err().into_error("ssh://b");
        assert_eq!(error.kind(), ErrorKind::Superseded);
    }

    #[test]
    fn every_kind_has_its_word() {
        for kind in KINDS {
            let failure = Failure::of(&Error::new(kind, "do", "it"));
            assert_eq!(failure.into_error("there").kind(), kind);
        }
    }
}
