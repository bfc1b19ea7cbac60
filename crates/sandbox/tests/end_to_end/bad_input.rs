//! What cannot work is refused with a reason, a hint and a documented exit code, and nothing is damaged.

use std::process::{Command, Stdio};

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;

use crate::executions::{epochs, executions};
use crate::support::{
    acknowledge, dr, end, fail_over, is_primary, judged, refused, says, start, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 50).await;

    let to = |region: &'static str| ["failover", "--to", region, "--yes"];
    refused(
        &sandbox,
        &to("eu-nowhere-1"),
        64,
        &["eu-nowhere-1", "hint:", RECOVERY],
    )
    .await;
    refused(&sandbox, &to(HOME), 12, &["already", "hint:"]).await;
    let daemon = ["daemon", "--region", RECOVERY];
    refused(&sandbox, &daemon, 13, &[RECOVERY, "hint:"]).await;
    refused(
        &sandbox,
        &["daemon", "--region", "eu-nowhere-1"],
        64,
        &["eu-nowhere-1", "hint:"],
    )
    .await;

    let file = sandbox.layout().directory.join("dr.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (bad, words) in [
        (
            good.replace("rpo: 15s", "rpo: soon"),
            ["dr.yaml:", "soon", "expected"],
        ),
        (
            good.replace("home: us-east-1", "home: us-east-9"),
            ["dr.yaml:", "us-east-9", "hint:"],
        ),
        (
            format!("{good}\n  - ]\n"),
            ["dr.yaml:", "not YAML", "cannot be used"],
        ),
    ] {
        sandbox.launcher().write_file(&file, &bad).unwrap();
        refused(&sandbox, &["status"], 65, &words).await;
        refused(&sandbox, &to(RECOVERY), 65, &words).await;
    }
    sandbox.launcher().write_file(&file, &good).unwrap();

    // The port of the recovery region's daemon is taken while it is away.
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.signal_daemon(Signal::TERM);
    until("the end of the daemon", async || {
        let left = recovery.daemon();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    let address = recovery.place().daemon_listen();
    let taken = std::net::TcpListener::bind(address).unwrap();
    let output = dr(&sandbox, &daemon).await;
    let code = output.status.code().unwrap();
    assert!(matches!(code, 1 | 20), "{output:?}");
    says(&output, code, &[&address.to_string(), "hint:"]);
    drop(taken);
    recovery.start_daemon().await.unwrap();

    acknowledge(&load, 50).await;
    assert_eq!(epochs(&sandbox), ["00000001"]);
    assert_eq!(executions(&sandbox), Vec::<String>::new());
    let verdict = judged(&sandbox, HOME, &load.stop().await.unwrap()).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

/// A disk that is mounted in the wrong place holds somebody's store, only not this region's.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_another_region_is_not_failed_over_to() {
    let sandbox = start(Sandbox::builder()).await;
    let [home, recovery] = [HOME, RECOVERY].map(|region| sandbox.region(region).unwrap());
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    recovery.signal_daemon(Signal::KILL);
    home.lose(LostStore::Renamed).unwrap();
    let (store, aside) = (recovery.place().store(), recovery.place().lost_store());
    std::fs::rename(&store, &aside).unwrap();
    std::fs::rename(home.place().lost_store(), &store).unwrap();
    let failover = ["failover", "--to", RECOVERY, "--yes"];
    refused(
        &sandbox,
        &failover,
        1,
        &[HOME, RECOVERY, "it is the store of region", "hint:"],
    )
    .await;
    assert!(!is_primary(&sandbox, RECOVERY).await);

    // In its place again, it is.
    std::fs::rename(&store, home.place().lost_store()).unwrap();
    std::fs::rename(&aside, &store).unwrap();
    recovery.start_daemon().await.unwrap();
    fail_over(&sandbox, &[]).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

#[test]
fn without_postgresql_the_demo_says_what_to_install() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dr-demo"))
        .arg("--directory")
        .arg(empty.path().join("sandbox"))
        .env("DR_POSTGRES_BIN", empty.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let place = empty.path().display().to_string();
    assert!(said.contains(&place) && said.contains("hint:"), "{said}");
    assert!(!empty.path().join("sandbox").exists());
}
