//! The disk of the recovery region's store is full for a while: nothing is damaged, and the log catches up.

use std::path::Path;
use std::process::Command;

use dr_sandbox::layout::WORKLOAD;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};

use crate::executions::executions;
use crate::support::{
    acknowledge, acknowledge_after, apart, ask_lsn, backup, dr_json, end, fail_over, judged,
    lost_before, now_us, refused, run, start, stored, task, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_log_catches_up_when_there_is_room_again() {
    let own = "disk_full::the_log_catches_up_when_there_is_room_again";
    if !apart(own, "--mount") {
        return;
    }
    let sandbox = start(Sandbox::builder().daemons(false)).await;
    let recovery = sandbox.region(RECOVERY).unwrap();
    let store = recovery.place().store();
    mount(&sandbox, &store);
    recovery.start_daemon().await.unwrap();
    sandbox.region(HOME).unwrap().start_daemon().await.unwrap();
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;

    let filler = store.join("filler");
    std::io::copy(
        &mut std::io::repeat(0),
        &mut std::fs::File::create(&filler).unwrap(),
    )
    .unwrap_err();
    until("a daemon that says so", async || {
        let status = dr_json(&sandbox, &["status", "--json"]).await;
        let daemons = status["daemons"].as_array().unwrap();
        let said = daemons
            .iter()
            .find(|daemon| daemon["region"] == RECOVERY)
            .unwrap();
        if said["status"] == "healthy" {
            Err(said.to_string())
        } else {
            Ok(())
        }
    })
    .await;
    acknowledge(&load, 100).await;
    // Nothing could be begun: whoever plans a move is told, and the daemon has found it out before.
    let words = ["takes no writes", "no space left", "hint: make room in it"];
    refused(
        &sandbox,
        &["failover", "--to", RECOVERY, "--plan"],
        20,
        &words,
    )
    .await;
    refused(
        &sandbox,
        &["failover", "--to", RECOVERY, "--yes"],
        20,
        &words,
    )
    .await;
    assert_eq!(executions(&sandbox), Vec::<String>::new());
    // The receiver could not write, which is a reason to look at once: nobody waits for the next assessment, or asks for one.
    let line = format!("readiness {WORKLOAD}");
    until("an assessment that has found it", async || {
        let seen = task(&sandbox, RECOVERY, &line).await?;
        let found = seen["status"] == "unhealthy";
        if found { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let assess = [
        "job",
        "run",
        "check-readiness",
        "--region",
        RECOVERY,
        "--json",
    ];
    let assessed = dr_json(&sandbox, &assess).await;
    let readiness = &assessed["detail"][0]["readiness"];
    assert_eq!(readiness["verdict"], "breach", "{readiness}");
    let mut checks = readiness["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["name"] == format!("store of {RECOVERY}"));
    assert_eq!(found.unwrap()["found"], "failed", "{readiness}");

    std::fs::remove_file(&filler).unwrap();
    let safe = now_us(&sandbox);
    let written = ask_lsn(&sandbox, HOME, "select pg_current_wal_flush_lsn()")
        .await
        .unwrap();
    stored(&sandbox, RECOVERY, written).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    fail_over(&sandbox, &[]).await;
    acknowledge_after(&load, lost_at).await;
    let verdict = judged(&sandbox, RECOVERY, &load.stop().await.unwrap()).await;
    assert_eq!(lost_before(&verdict, safe), 0, "{verdict:?}");
    run(Command::new("umount").arg("--lazy").arg(&store));
    end(sandbox);
}

/// Whoever runs the demo where there is no room is told of the disk, and not of what came of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_demo_without_room_names_the_disk() {
    if !apart("disk_full::a_demo_without_room_names_the_disk", "--mount") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let options = "size=30m,mode=777";
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at.path()));
    let directory = at.path().join("sandbox");
    let demo = Command::new(env!("CARGO_BIN_EXE_dr-demo"))
        .arg("--directory")
        .arg(&directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1), "{said}");
    let full = format!("error: the disk of `{}` is full", directory.display());
    assert!(said.contains(&full), "{said}");
    assert!(said.contains("hint: free about 500 MB"), "{said}");
    run(Command::new("umount").arg("--lazy").arg(at.path()));
}

/// Mounts a small disk that belongs to the sandbox's user.
fn mount(sandbox: &Sandbox, at: &Path) {
    let owner = sandbox.launcher().user();
    let owner = owner.map_or(String::new(), |user| {
        format!(",uid={},gid={}", user.uid, user.gid)
    });
    let options = format!("size=32m,mode=755{owner}");
    run(Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(at));
}
