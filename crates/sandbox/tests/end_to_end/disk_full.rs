//! The disk of the recovery region's store is full for a while: nothing is damaged, and the log catches up.

use std::path::Path;
use std::process::Command;

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};

use crate::executions::executions;
use crate::support::{
    acknowledge, acknowledge_after, apart, ask_lsn, backup, dr_json, end, fail_over, judged,
    lost_before, now_us, refused, run, start, stored, until,
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
