//! Commands that hang, files that are replaced, epochs that only rise.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dr_model::{Clock, Epoch, SystemClock, WorkloadName};
use dr_provider::conformance::{Missing, skipped};
use dr_provider::host::{Command, PathKind};
use dr_provider::{ErrorKind, Host};
use tempfile::TempDir;

use super::LocalHost;

const LIMIT: Duration = Duration::from_secs(20);

fn host() -> (TempDir, LocalHost) {
    let directory = tempfile::tempdir().unwrap();
    let host = LocalHost::new(directory.path().join("state"));
    (directory, host)
}

fn shell(script: &str) -> Command {
    Command::new(["/bin/sh", "-c", script])
}

/// Waits for a condition; fails the test if it does not come about.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !condition() {
        assert!(clock.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_command_gets_a_clean_environment_and_gives_all_it_wrote() {
    let (_directory, host) = host();
    let mut command = shell("env; head -c 300000 /dev/zero; echo trouble >&2; exit 3");
    command.environment.push(("ADDED".into(), "yes".into()));
    let output = host.run(&command, LIMIT).await.unwrap();
    assert_eq!(output.status, Some(3));
    assert_eq!(output.stderr, "trouble\n");
    let zeros = output.stdout.iter().filter(|byte| **byte == 0).count();
    assert_eq!(zeros, 300_000);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ADDED=yes\n"));
    assert!(text.contains("PATH="));
    assert!(!text.contains("CARGO"), "{text}");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let (directory, host) = host();
    let file = directory.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
    let error = host.run(&shell(&script), Duration::from_secs(1)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unknown);
    let child = std::fs::read_to_string(&file).unwrap();
    let process = format!("/proc/{}/stat", child.trim());
    // Gone, or dead and not yet fetched by whoever adopted it.
    eventually("the child lives on", || {
        std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn a_daemon_that_keeps_the_pipe_is_not_waited_for() {
    let (directory, host) = host();
    let file = directory.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while [ ! -s {0} ]; do :; done; echo up",
        file.display()
    );
    let output = host.run(&shell(&script), LIMIT).await.unwrap();
    assert_eq!((output.status, &*output.stdout), (Some(0), &b"up\n"[..]));
    let daemon = std::fs::read_to_string(&file).unwrap();
    let kill = Command::new(["/bin/kill", daemon.trim()]);
    let killed = host.run(&kill, LIMIT).await.unwrap();
    assert_eq!(killed.status, Some(0));
}

#[tokio::test]
async fn what_cannot_be_started_was_not_done() {
    let (directory, host) = host();
    let missing = host.run(&Command::new(["dr-no-such-program"]), LIMIT).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let file = directory.path().join("plain");
    std::fs::write(&file, "").unwrap();
    let plain = Command::new([file.to_str().unwrap()]);
    let denied = host.run(&plain, LIMIT).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let killed = host.run(&shell("kill -9 $$"), LIMIT).await.unwrap();
    assert_eq!(killed.status, None);
}

#[tokio::test]
async fn a_file_is_replaced_whole_and_keeps_its_permissions() {
    let (directory, host) = host();
    let file = directory.path().join("file");
    host.write(&file, b"one").await.unwrap();
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let before = std::fs::metadata(&file).unwrap().ino();
    host.write(&file, b"two").await.unwrap();
    assert_ne!(std::fs::metadata(&file).unwrap().ino(), before);
    assert_eq!(mode(), 0o640);
    assert_eq!(host.read(&file, 1, 100).await.unwrap(), "wo");
    assert_eq!(host.read(&file, 9, 100).await.unwrap(), "");
    assert_eq!(
        host.list(directory.path()).await.unwrap(),
        ["file".into()] as [std::path::PathBuf; 1]
    );
    host.remove(&file).await.unwrap();
    host.remove(&file).await.unwrap();
    let gone = host.read(&file, 0, 1).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_written_by_root_belongs_to_the_directorys_owner() {
    if !rustix::process::geteuid().is_root() {
        skipped(Missing::Right, "to give files away needs root");
        return;
    }
    let (directory, host) = host();
    std::os::unix::fs::chown(directory.path(), Some(1234), Some(4321)).unwrap();
    let file = directory.path().join("standby.signal");
    host.write(&file, b"").await.unwrap();
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321));
}

#[tokio::test]
async fn says_what_stands_at_a_path() {
    let (directory, host) = host();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    for (name, expected) in [
        ("empty", PathKind::EmptyDirectory),
        ("file", PathKind::File),
        ("dangling", PathKind::Other),
        ("missing", PathKind::Missing),
        ("file/below", PathKind::Missing),
        ("", PathKind::Directory),
    ] {
        assert_eq!(host.kind(&path(name)).await.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn an_epoch_is_never_lowered() {
    let (directory, host) = host();
    let orders: WorkloadName = "orders".parse().unwrap();
    let other: WorkloadName = "billing".parse().unwrap();
    for epoch in [1, 3, 3] {
        host.admit(&orders, Epoch(epoch)).await.unwrap();
    }
    let late = host.admit(&orders, Epoch(2)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    host.admit(&other, Epoch(1)).await.unwrap();

    std::fs::write(directory.path().join("state/epochs/orders/x"), "").unwrap();
    let damaged = host.admit(&orders, Epoch(9)).await.unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_admissions_keep_the_highest() {
    let (directory, _host) = host();
    let orders: WorkloadName = "orders".parse().unwrap();
    let state = Arc::new(directory.path().join("state"));
    let mut tasks = tokio::task::JoinSet::new();
    for epoch in 1..=40 {
        let (host, orders) = (LocalHost::new(state.as_path()), orders.clone());
        tasks.spawn(async move { (epoch, host.admit(&orders, Epoch(epoch)).await.is_ok()) });
    }
    let admitted = tasks.join_all().await;
    assert!(admitted.contains(&(40, true)));
    let late = LocalHost::new(state.as_path())
        .admit(&orders, Epoch(39))
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Superseded);
}

mod conformance {
    use super::*;
    use dr_provider::conformance::host::Subject;

    async fn subject() -> Option<Subject> {
        let (directory, host) = host();
        let work = directory.path().join("work");
        std::fs::create_dir(&work).unwrap();
        Some(Subject::new(Arc::new(host), work).keeping(directory))
    }

    dr_provider::host_conformance!(subject);
}

/// What the kernel tells has no length before it is read.
#[tokio::test]
async fn a_file_that_claims_to_be_empty_is_read() {
    let state = tempfile::tempdir().unwrap();
    let host = LocalHost::new(state.path());
    let read = async |path: &Path, length| host.read(path, 0, length).await.unwrap();
    let told = std::fs::read("/proc/self/comm").unwrap();
    assert!(!told.is_empty());
    assert_eq!(read(Path::new("/proc/self/comm"), 64).await, told);
    assert_eq!(read(Path::new("/proc/self/comm"), 2).await, told[..2]);
    let empty = state.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(read(&empty, u64::MAX).await, "");
}
