//! Whatever ends `dr-demo`, nothing that it started outlives it.
//!
//! A stand-in for `dr` that answers nothing keeps the demo in its first chapter, so that the moments of the signals are
//! spread over the making of the clusters, the cloning of the standby and the waiting for daemons.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dr_sandbox::process::{Table, members};
use dr_sandbox::wait::until_blocking;
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_secs(60);

struct Demo {
    root: tempfile::TempDir,
    child: Child,
}

impl Demo {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        open(root.path());
        let demo = root.path().join("dr-demo");
        std::fs::copy(env!("CARGO_BIN_EXE_dr-demo"), &demo).unwrap();
        let dr = root.path().join("dr");
        std::fs::write(&dr, "#!/bin/sh\nsleep 1000 & wait\n").unwrap();
        open(&dr);
        let child = Command::new(demo)
            .arg("--directory")
            .arg(root.path().join("sandbox"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { root, child }
    }

    /// Tells how many of its processes live, the demo itself not among them.
    fn processes(&self) -> usize {
        members(&Table::read(), &self.root.path().join("sandbox")).len()
    }

    fn wait_for_processes(&self, count: usize) {
        assert!(
            until_blocking(LIMIT, || self.processes() >= count),
            "{} run",
            self.processes()
        );
    }

    fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().cast_signed()).unwrap(),
            signal,
        )
        .unwrap();
    }

    /// Waits for the end of the demo and tells its exit code.
    fn end(&mut self) -> Option<i32> {
        let mut ended = None;
        until_blocking(LIMIT, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.expect("the demo ends").code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only where an assertion has failed is there anything left.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The numbers of processes at which the demo is interrupted: with the keeper alone, with DNS, while the first cluster
/// is made, with a running primary, while cloning, and with all servers and the daemons up.
const MOMENTS: [usize; 6] = [1, 2, 3, 8, 12, 17];

#[test]
fn an_interrupt_at_any_moment_leaves_no_process() {
    for (number, count) in MOMENTS.into_iter().enumerate() {
        let mut demo = Demo::start();
        demo.wait_for_processes(count);
        demo.signal(if number % 2 == 0 {
            Signal::INT
        } else {
            Signal::TERM
        });
        assert_eq!(demo.end(), Some(130), "at {count} processes");
        assert_eq!(demo.processes(), 0, "at {count} processes");
    }
}

#[test]
fn a_second_interrupt_does_not_wait_and_leaves_no_process_either() {
    let mut demo = Demo::start();
    demo.wait_for_processes(12);
    demo.signal(Signal::INT);
    // The first one may have been enough already.
    let _ended = kill_process(
        Pid::from_raw(demo.child.id().cast_signed()).unwrap(),
        Signal::INT,
    );
    assert_eq!(demo.end(), Some(130));
    assert!(until_blocking(LIMIT, || demo.processes() == 0));
}

#[test]
fn a_killed_demo_is_cleaned_up_by_its_keeper() {
    let mut demo = Demo::start();
    demo.wait_for_processes(12);
    demo.signal(Signal::KILL);
    assert_eq!(demo.end(), None);
    assert!(
        until_blocking(LIMIT, || demo.processes() == 0),
        "{} still run",
        demo.processes()
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_named() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let demo = root.path().join("dr-demo");
    std::fs::copy(env!("CARGO_BIN_EXE_dr-demo"), &demo).unwrap();
    let output = Command::new(&demo).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("`dr` was not found") && said.contains("hint:"),
        "{said}"
    );

    let dr = root.path().join("dr");
    std::fs::write(&dr, "#!/bin/sh\necho cannot read the store >&2; exit 20\n").unwrap();
    std::fs::set_permissions(&dr, std::fs::Permissions::from_mode(0o755)).unwrap();
    let sandbox = root.path().join("sandbox");
    let output = Command::new(&demo)
        .arg("--directory")
        .arg(&sandbox)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("cannot read the store"), "{said}");
    assert_eq!(members(&Table::read(), &sandbox), vec![]);
}

#[test]
fn a_wrong_command_line_ends_with_64_and_starts_nothing() {
    for (words, code, said) in [
        (&["--nonsense"][..], 64, "--nonsense"),
        (&["--seconds", "0"], 64, "1..=3600"),
        (
            &["--rung", "restore", "--standby", "ahead"],
            64,
            "there is no standby",
        ),
        (&["--planned", "--standby", "ahead"], 64, "--planned"),
        (&["--help"], 0, "--standby"),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_dr-demo"))
            .args(words)
            .output()
            .unwrap();
        let text = [ended.stdout, ended.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(ended.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(said), "{words:?}: {text}");
    }
}
