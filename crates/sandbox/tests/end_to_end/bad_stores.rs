//! Stores, servers and disks that cannot be used, seen through `dr`: each a reason, a hint and the code of `docs/exit-codes.md`.

use std::process::Command;

use dr_sandbox::layout::{STORE_BUCKET, StoreKind};
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rstest::rstest;
use rustix::process::Signal;

use crate::support::{apart, ask, backup, cluster, dr, end, refused, run, start, until};

/// A store on S3 that nobody has used yet, and what asks for it.
async fn fresh() -> Sandbox {
    start(
        Sandbox::builder()
            .store(StoreKind::S3)
            .standby(false)
            .daemons(false),
    )
    .await
}

const DAEMON: [&str; 3] = ["daemon", "--region", HOME];
const LIST: [&str; 4] = ["recovery-point", "list", "--region", HOME];

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_is_named() {
    let sandbox = fresh().await;
    let file = sandbox.layout().directory.join("dr.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let bad = good.replace(&format!("s3://{STORE_BUCKET}"), "s3://no-such-bucket");
    assert_ne!(bad, good);
    sandbox.launcher().write_file(&file, &bad).unwrap();
    let words = ["s3://no-such-bucket", "does not exist", "hint:"];
    refused(&sandbox, &DAEMON, 20, &words).await;
    refused(&sandbox, &LIST, 20, &words).await;
    let online = dr(&sandbox, &["check", "--online"]).await;
    assert!(!online.status.success(), "{online:?}");
    assert!(online.stdout.contains("s3://no-such-bucket"), "{online:?}");
    end(sandbox);
}

/// Keys that were taken back, or have expired: the store answers, and turns us away.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_taken_are_said() {
    let sandbox = fresh().await;
    let secret = sandbox.layout().store_secret_file();
    sandbox.launcher().write_file(&secret, "another").unwrap();
    let words = [&format!("s3://{STORE_BUCKET}"), "hint:"];
    refused(&sandbox, &DAEMON, 1, &words).await;
    refused(&sandbox, &LIST, 1, &words[..1]).await;
    let online = dr(&sandbox, &["check", "--online"]).await;
    assert_eq!(online.status.code(), Some(1), "{online:?}");
    end(sandbox);
}

/// Two could both win an epoch there, so nothing is kept in it (PROTOCOL 4).
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_where_several_win_a_create_is_refused(
    #[values("ignored", "checked-first")] conditions: &str,
) {
    let sandbox = fresh().await;
    let home = sandbox.region(HOME).unwrap();
    home.stop_store().await.unwrap();
    let words = ["--conditions", conditions];
    home.start_store_with(&words).await.unwrap();
    let said = [
        "cannot keep register and seals in",
        "creates of one key 16 succeeded",
        "hint: use a store with conditional creates",
    ];
    refused(&sandbox, &DAEMON, 1, &said).await;
    let online = dr(&sandbox, &["check", "--online"]).await;
    assert_eq!(online.status.code(), Some(1), "{online:?}");
    assert!(online.stdout.contains(said[1]), "{online:?}");
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_log_says_too_little_is_not_backed_up() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    backup(&sandbox, HOME).await;
    let before = sandbox.region(HOME).unwrap().backups();
    // Nothing starts at that level where there is a slot.
    for region in [HOME, RECOVERY] {
        sandbox.region(region).unwrap().signal_daemon(Signal::KILL);
    }
    let dropped = "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots";
    until("a server without slots", async || {
        ask(&sandbox, HOME, dropped).await?;
        match ask(&sandbox, HOME, "select count(*) from pg_replication_slots").await? {
            none if none == "0" => Ok(()),
            some => Err(some),
        }
    })
    .await;
    let primary = cluster(&sandbox, HOME);
    let client = primary.connect("postgres").await.unwrap();
    for sql in ["wal_level = minimal", "max_wal_senders = 0"] {
        let sql = format!("alter system set {sql}");
        client.batch_execute(&sql).await.unwrap();
    }
    drop(client);
    primary.stop().await.unwrap();
    primary.start().unwrap();
    primary.wait_ready().await.unwrap();
    let snapshot = ["job", "run", "snapshot", "--region", HOME];
    let words = [
        "`wal_level` is `minimal`",
        "hint: set `wal_level = replica`",
    ];
    refused(&sandbox, &snapshot, 1, &words).await;
    assert_eq!(sandbox.region(HOME).unwrap().backups(), before);
    end(sandbox);
}

/// What there is no room for is not begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_room_is_refused_before_it_writes() {
    if !apart(
        "bad_stores::a_restore_without_room_is_refused_before_it_writes",
        "--mount",
    ) {
        return;
    }
    let sandbox = start(Sandbox::builder().standby(false)).await;
    backup(&sandbox, HOME).await;
    let small = sandbox.layout().directory.join("small");
    sandbox.launcher().make_directory(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=8m,mode=777", "tmpfs"]);
    run(mount.arg(&small));
    let into = small.join("pgdata").display().to_string();
    let restore = ["restore", "ledger/database", "--in", HOME, "--into", &into];
    refused(&sandbox, &restore, 1, &["no space left", "hint: make room"]).await;
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0);
    run(Command::new("umount").arg("--lazy").arg(&small));
    end(sandbox);
}
