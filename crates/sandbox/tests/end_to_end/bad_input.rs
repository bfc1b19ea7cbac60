//! What cannot work is refused with a reason, a hint and a documented exit code, and nothing is damaged.

use std::process::{Command, Stdio};

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{epochs, executions};
use crate::support::{
    acknowledge, backup, cluster, database_in, dr, dr_json, end, fail_over, is_primary, judged,
    refused, says, start, until,
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

    // A wrong password is said to be one, wherever it keeps a plan from being made.
    let password = sandbox.layout().password_file("dr");
    let right = std::fs::read_to_string(&password).unwrap();
    sandbox.launcher().write_file(&password, "wrong").unwrap();
    let words = [
        "password authentication failed",
        "hint: check the role, its password",
    ];
    refused(&sandbox, &to(RECOVERY), 12, &words).await;
    sandbox.launcher().write_file(&password, &right).unwrap();

    // One fence would stop both servers, and be taken for proof: that is said before the day, and on it.
    let [home, shared] = [HOME, RECOVERY].map(|region| {
        let place = sandbox.region(region).unwrap().place();
        place.data_directory()
    });
    std::os::unix::fs::symlink(&home, &shared).unwrap();
    let said = format!("is that of {RECOVERY} as well");
    let online = dr(&sandbox, &["check", "--online"]).await;
    assert!(!online.status.success(), "{online:?}");
    assert!(online.stdout.contains(&said), "{}", online.stdout);
    refused(&sandbox, &to(RECOVERY), 12, &[&said, "hint:"]).await;
    std::fs::remove_file(&shared).unwrap();

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

/// What the server, the store or the log says no to, with the code that `docs/exit-codes.md` gives it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_or_the_log_refuses_ends_with_its_code() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    backup(&sandbox, HOME).await;
    let directory = &sandbox.layout().directory;
    let into = directory.join("restored").display().to_string();

    // Before the first recovery point there is nothing to restore.
    let early = [
        "restore",
        "ledger/database",
        "--in",
        HOME,
        "--into",
        &into,
        "--at",
        "2020-01-01T00:00:00Z",
    ];
    let words = [
        "it was complete only at",
        "hint: the earliest moment that can be restored is",
    ];
    refused(&sandbox, &early, 1, &words).await;
    assert!(!directory.join("restored").exists());

    // A segment of another cluster, in a data directory of its own.
    let primary = cluster(&sandbox, HOME);
    let foreign = directory.join("foreign");
    for part in ["pg_wal", "global"] {
        let part = foreign.join(part);
        for made in [&foreign, &part] {
            if !made.exists() {
                sandbox.launcher().make_directory(made).unwrap();
            }
        }
    }
    let own = sandbox.region(HOME).unwrap().place().data_directory();
    let mut control = std::fs::read(own.join("global/pg_control")).unwrap();
    control[0] ^= 1;
    std::fs::write(foreign.join("global/pg_control"), control).unwrap();
    let segment = foreign.join("pg_wal/000000010000000000000001");
    std::fs::write(&segment, [0; 8192]).unwrap();
    let push = [
        "wal",
        "push",
        "ledger/database",
        segment.to_str().unwrap(),
        "--in",
        HOME,
    ];
    refused(
        &sandbox,
        &push,
        1,
        &["it is of cluster", "epoch 1 is about"],
    )
    .await;

    // A role that may not replicate, and slots that may keep everything.
    let client = primary.connect("postgres").await.unwrap();
    let sql = "alter role dr noreplication; alter system set max_slot_wal_keep_size = -1; select pg_reload_conf()";
    for sql in sql.split("; ") {
        client.batch_execute(sql).await.unwrap();
    }
    let online = until("a check that sees it", async || {
        let online = dr(&sandbox, &["check", "--online"]).await;
        match online
            .stdout
            .contains("max_slot_wal_keep_size is unlimited")
        {
            true => Ok(online),
            false => Err(online.stdout),
        }
    })
    .await;
    assert_eq!(online.status.code(), Some(1), "{online:?}");
    for said in ["ALTER SYSTEM SET max_slot_wal_keep_size", "REPLICATION"] {
        assert!(
            online.stdout.contains(said),
            "{said} is missing in {}",
            online.stdout
        );
    }
    client
        .batch_execute("alter role dr replication")
        .await
        .unwrap();
    client
        .batch_execute("alter system reset max_slot_wal_keep_size")
        .await
        .unwrap();
    client
        .batch_execute("select pg_reload_conf()")
        .await
        .unwrap();
    drop(client);
    end(sandbox);
}

/// With a mistyped directory nothing could be stopped: that is said before the day, and on the day nobody's word makes two
/// primaries of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_could_prove_nothing_is_announced_and_refused() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    backup(&sandbox, RECOVERY).await;
    let ready = format!("failover  to {RECOVERY}: would go by promote, stopped expected");
    until("a plan of a failover", async || {
        let status = dr(&sandbox, &["status"]).await;
        if status.status.success() && status.stdout.contains(&ready) {
            Ok(())
        } else {
            Err(status.stdout)
        }
    })
    .await;

    // Where a standby runs, nobody restores over it, whoever asks.
    let restore = ["failover", "--to", RECOVERY, "--rung", "restore", "--plan"];
    let words = [
        "is not proven to be empty",
        "hint: a restore never overwrites",
    ];
    refused(&sandbox, &restore, 12, &words).await;

    let file = sandbox.layout().directory.join("dr.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    let entry = format!("data_directory: \"{}", data.display());
    assert!(good.contains(&entry), "{good}");
    let bad = good.replace(&entry, &format!("{entry}-not"));
    sandbox.launcher().write_file(&file, &bad).unwrap();
    let status = dr(&sandbox, &["status"]).await;
    assert_eq!(status.status.code(), Some(10), "{status:?}");
    let said = format!("a failover to {RECOVERY} would be refused");
    assert!(status.stdout.contains(&said), "{}", status.stdout);
    let online = dr(&sandbox, &["check", "--online"]).await;
    assert!(!online.status.success(), "{online:?}");
    let said = "a failover could not prove that it has stopped";
    assert!(online.stdout.contains(said), "{}", online.stdout);
    let failover = [
        "failover",
        "--to",
        RECOVERY,
        "--yes",
        "--witness",
        "Ada: it is off",
    ];
    refused(
        &sandbox,
        &failover,
        12,
        &[
            "runs, and it could not be proven",
            "no such directory",
            "hint:",
        ],
    )
    .await;
    assert!(!is_primary(&sandbox, RECOVERY).await);
    assert_eq!(executions(&sandbox), Vec::<String>::new());

    sandbox.launcher().write_file(&file, &good).unwrap();
    acknowledge(&load, 50).await;
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
        12,
        &[HOME, RECOVERY, "it is the store of region", "hint:"],
    )
    .await;
    assert!(!is_primary(&sandbox, RECOVERY).await);
    // What it holds protects nothing here.
    let status = dr_json(&sandbox, &["status", "--json"]).await;
    assert_eq!(status["workloads"][0]["protected"], Value::Null, "{status}");
    let log = &database_in(&sandbox, RECOVERY).await["log"];
    assert_eq!(*log, Value::Null, "{log}");

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
