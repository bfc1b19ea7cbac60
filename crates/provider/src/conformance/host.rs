//! The suite of [`Host`](crate::Host).
//!
//! The functions panic where the host breaks the contract. They need a shell on it, and a directory there that is empty.

// Tests by nature, though they are compiled for other crates.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dr_model::{Epoch, WorkloadName};

use crate::host::{Command, PathKind};
use crate::{ErrorKind, Host};

/// How long a command may take that is not meant to hang.
const LIMIT: Duration = Duration::from_secs(20);

/// A host under test.
pub struct Subject {
    /// The host.
    pub host: Arc<dyn Host>,
    /// A directory on it, empty and writable.
    pub directory: PathBuf,
    kept: Option<Box<dyn Any + Send>>,
}

impl Subject {
    /// Takes a host and an empty directory on it.
    pub fn new(host: Arc<dyn Host>, directory: impl Into<PathBuf>) -> Self {
        Self {
            host,
            directory: directory.into(),
            kept: None,
        }
    }

    /// Keeps something alive for as long as the host is used, such as its server.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send) -> Self {
        self.kept = Some(Box::new(kept));
        self
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Makes one `#[tokio::test]` of each function of the suite; the argument is an `async fn() -> Option<Subject>`, which
/// returns `None` where this machine lacks what it takes, after saying so.
#[macro_export]
macro_rules! host_conformance {
    ($subject:path) => {
        $crate::host_conformance! { @tests $subject:
            a_command_gives_its_status_and_all_it_wrote
            a_command_that_hangs_is_ended_and_unknown
            a_program_that_is_not_there_was_not_run
            a_file_is_written_whole_and_removed
            what_stands_at_a_path_is_said
            an_epoch_is_never_lowered
        }
    };
    (@tests $subject:path: $($name:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(subject) = $subject().await {
                    $crate::conformance::host::$name(subject).await;
                }
            }
        )*
    };
}

fn shell(script: &str) -> Command {
    Command::new(["/bin/sh", "-c", script])
}

/// Words arrive as they are, bytes come back as they are, and a status is no error.
pub async fn a_command_gives_its_status_and_all_it_wrote(subject: Subject) {
    let host = &subject.host;
    let words = ["", "two words", "it's", "$HOME", "*", "a\nb", "\"\\"];
    let mut argv = vec![
        "/bin/sh",
        "-c",
        "printf '<%s>' \"$@\"; printf '%s' \"$ADDED\" >&2; exit 3",
        "sh",
    ];
    argv.extend(words);
    let mut command = Command::new(argv);
    command
        .environment
        .push(("ADDED".into(), "it's; $x".into()));
    let output = host.run(&command, LIMIT).await.unwrap();
    assert_eq!(output.status, Some(3));
    let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
    assert_eq!(output.stdout, expected);
    assert_eq!(output.stderr, "it's; $x");

    let script = "head -c 300000 /dev/zero; printf '\\377'; kill -9 $$";
    let output = host.run(&shell(script), LIMIT).await.unwrap();
    assert_eq!(output.status, None);
    assert_eq!(output.stdout.len(), 300_001);
    assert_eq!(output.stdout.last(), Some(&0xff));
}

/// It is not known what a command did that was ended.
pub async fn a_command_that_hangs_is_ended_and_unknown(subject: Subject) {
    let begun = subject.directory.join("begun");
    let script = format!("echo $$ > '{}'; exec sleep 1000", begun.display());
    let run = subject
        .host
        .run(&shell(&script), Duration::from_secs(1))
        .await;
    assert_eq!(run.unwrap_err().kind(), ErrorKind::Unknown);
    let process = subject.host.read(&begun, 0, 20).await.unwrap();
    let process = String::from_utf8(process.to_vec()).unwrap();
    // Gone, or dead and not yet fetched by whoever adopted it.
    let gone = format!(
        "while kill -0 {0} 2>/dev/null && ! grep -q ') Z ' /proc/{0}/stat; do :; done",
        process.trim()
    );
    let output = subject.host.run(&shell(&gone), LIMIT).await.unwrap();
    assert_eq!(output.status, Some(0));
}

/// What cannot be started was not done, so something else may be.
pub async fn a_program_that_is_not_there_was_not_run(subject: Subject) {
    let missing = Command::new(["dr-no-such-program"]);
    let missing = subject.host.run(&missing, LIMIT).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.is_definite());
}

/// A file is replaced, read in part, listed, and removed as often as anybody likes.
pub async fn a_file_is_written_whole_and_removed(subject: Subject) {
    let host = &subject.host;
    let file = subject.directory.join("standby's signal");
    host.write(&file, b"one").await.unwrap();
    host.write(&file, b"\xfftwo\n").await.unwrap();
    assert_eq!(&host.read(&file, 0, 100).await.unwrap()[..], b"\xfftwo\n");
    assert_eq!(host.read(&file, 1, 2).await.unwrap(), "tw");
    assert_eq!(host.read(&file, 9, 1).await.unwrap(), "");
    let names = host.list(&subject.directory).await.unwrap();
    assert_eq!(names, [PathBuf::from("standby's signal")]);
    host.remove(&file).await.unwrap();
    host.remove(&file).await.unwrap();
    let gone = host.read(&file, 0, 1).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let nowhere = subject.directory.join("nowhere/file");
    assert_eq!(
        host.write(&nowhere, b"").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// Every kind is told from the others.
pub async fn what_stands_at_a_path_is_said(subject: Subject) {
    let host = &subject.host;
    let at = |name: &str| subject.directory.join(name);
    let script = format!(
        "cd '{}' && mkdir empty full && touch full/file && ln -s nowhere dangling",
        subject.directory.display()
    );
    host.run(&shell(&script), LIMIT).await.unwrap();
    for (name, expected) in [
        ("empty", PathKind::EmptyDirectory),
        ("full", PathKind::Directory),
        ("full/file", PathKind::File),
        ("dangling", PathKind::Other),
        ("missing", PathKind::Missing),
        ("full/file/below", PathKind::Missing),
    ] {
        assert_eq!(host.kind(&at(name)).await.unwrap(), expected, "{name}");
    }
}

/// Whoever comes with a lower epoch than one that was seen is refused, workload by workload.
pub async fn an_epoch_is_never_lowered(subject: Subject) {
    let workload = |name: &str| name.parse::<WorkloadName>().unwrap();
    let (orders, other) = (workload("orders"), workload("billing"));
    let host = &subject.host;
    for epoch in [1, 3, 3] {
        host.admit(&orders, Epoch(epoch)).await.unwrap();
    }
    let late = host.admit(&orders, Epoch(2)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    host.admit(&other, Epoch(1)).await.unwrap();
}
