//! Recovery without leaving the region: a database or a service that died is started again, a database whose files are gone is
//! rebuilt, and one that was damaged by its users is put back to a moment before.

use std::collections::BTreeSet;
use std::path::Path;

use dr_sandbox::judge::judge;
use dr_sandbox::region::signal;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{Running, executions};
use crate::planned::streams;
use crate::second_loss::register_in;
use crate::self_fence::{is_stopped, server};
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, cluster, dr, end, is_primary, judged, now_us,
    refused, says, start, until,
};

/// Runs a runbook in place, which has to come to its end, and returns its report.
async fn recover(sandbox: &Sandbox, words: &[&str]) -> Value {
    let words = [&["runbook", "run"], words, &["--yes", "--json"]].concat();
    let output = dr(sandbox, &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{}", output.stderr);
    assert_eq!(report["mode"], "in-place", "{report}");
    report
}

async fn timeline(sandbox: &Sandbox) -> String {
    let query = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    ask(sandbox, HOME, query).await.unwrap()
}

/// Waits until the store of the region has the log up to where its primary stands now.
async fn shipped(sandbox: &Sandbox) {
    let here = ask(sandbox, HOME, "select pg_current_wal_flush_lsn()")
        .await
        .unwrap();
    until("the log in the store", async || {
        let query = format!(
            "select bool_and(flush_lsn >= '{here}') from pg_stat_replication where application_name like 'dr_%'"
        );
        match ask(sandbox, HOME, &query).await?.as_str() {
            "true" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_died_is_started_again_with_all_that_it_had() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    register_in(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    signal(&server(&sandbox), Signal::KILL);
    is_stopped(&sandbox).await;
    let died = now_us(&sandbox);
    let words = ["recover-component", "ledger", "--component", "database"];
    let report = recover(&sandbox, &words).await;
    assert_eq!(report["rung"], "restart", "{report}");
    let id = report["execution"].as_str().unwrap();
    let shown = dr(&sandbox, &["execution", "show", id]).await;
    let said = "nothing that database had acknowledged";
    assert!(shown.stdout.contains(said), "{shown:?}");
    assert!(is_primary(&sandbox, HOME).await);
    assert_eq!(timeline(&sandbox).await, "00000001");
    acknowledge_after(&load, died).await;
    streams(&sandbox, RECOVERY).await;
    register_in(&sandbox, RECOVERY).await;

    // The service alone; the database is not touched.
    let app = sandbox.region(HOME).unwrap().place().app();
    let mut all = sandbox.region(HOME).unwrap().processes();
    all.retain(|process| process.directory.as_deref() == Some(&app));
    assert!(!all.is_empty());
    let before: Vec<i32> = server(&sandbox)
        .iter()
        .map(|process| process.parent)
        .collect();
    signal(&all, Signal::STOP);
    let hung = now_us(&sandbox);
    let words = ["recover-component", "ledger", "--component", "app"];
    let words = [&["runbook", "run"], &words[..], &["--yes", "--json"]].concat();
    let output = dr(&sandbox, &words).await;
    // By now it is known how long a step takes.
    let mut told = output.stderr.lines();
    let lately = |line: &&str| line.contains("] epoch  (took ") && line.contains(" lately; next: ");
    assert!(told.any(|line| lately(&line)), "{output:?}");
    says(&output, 0, &["completed"]);
    acknowledge_after(&load, hung).await;
    let after: Vec<i32> = server(&sandbox)
        .iter()
        .map(|process| process.parent)
        .collect();
    assert!(before.iter().any(|pid| after.contains(pid)));

    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    refused(
        &sandbox,
        &["runbook", "plan", "recover-component", "ledger"],
        64,
        &["`app`", "`database`"],
    )
    .await;
    let unknown = [
        "runbook",
        "plan",
        "recover-component",
        "ledger",
        "--component",
        "cache",
    ];
    refused(&sandbox, &unknown, 64, &["cache", "`database`"]).await;
    let other = ["runbook", "run", "failover-region", "ledger", "--yes"];
    refused(&sandbox, &other, 64, &["dr failover --to"]).await;
    end(sandbox);
}

/// The number in its `postmaster.pid` is that of another process by now: PostgreSQL takes that for a server, and refuses to start another.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_left_behind_is_waited_for() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    let place = sandbox.region(HOME).unwrap().place().clone();
    let data = place.data_directory();
    signal(&server(&sandbox), Signal::KILL);
    is_stopped(&sandbox).await;
    let launcher = sandbox.launcher();
    let directory = &sandbox.layout().directory;
    let mut sleep = launcher.command(Path::new("sleep"), directory);
    sleep.arg("600");
    let other = launcher.start(sleep, &directory.join("other.log")).unwrap();
    let file = data.join("postmaster.pid");
    let left = std::fs::read_to_string(&file).unwrap();
    let (_, rest) = left.split_once('\n').unwrap();
    std::fs::write(&file, format!("{other}\n{rest}")).unwrap();

    let words = ["runbook", "run", "recover-component", "ledger"];
    let more = ["--component", "database", "--yes", "--json"];
    let running = Running::start(&sandbox, &[&words[..], &more].concat());
    until("a start that was refused", async || {
        let log = std::fs::read_to_string(place.log("postgres")).unwrap();
        match log.contains("lock file \"postmaster.pid\" already exists") {
            true => Ok(()),
            false if running.has_ended() => panic!("it has given up: {log}"),
            false => Err("none so far".to_owned()),
        }
    })
    .await;
    assert!(!running.has_ended());
    let other = rustix::process::Pid::from_raw(other).unwrap();
    rustix::process::kill_process(other, Signal::KILL).unwrap();
    let output = running.end().await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(is_primary(&sandbox, HOME).await);
    let record = load.stop().await.unwrap();
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_its_files_is_rebuilt_where_it_was() {
    let sandbox = start(Sandbox::builder().standby(false)).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, HOME).await;
    acknowledge(&load, 100).await;
    signal(&server(&sandbox), Signal::KILL);
    is_stopped(&sandbox).await;
    let died = now_us(&sandbox);
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    std::fs::rename(&data, data.with_extension("gone")).unwrap();
    let words = ["recover-component", "ledger", "--component", "database"];
    let report = recover(&sandbox, &words).await;
    assert_eq!(
        (&report["rung"], &report["fence"]),
        (&"restore".into(), &"stopped".into()),
        "{report}"
    );
    assert_eq!(timeline(&sandbox).await, "00000002");
    acknowledge_after(&load, died).await;
    let record = load.stop().await.unwrap();
    let found: BTreeSet<i64> = cluster(&sandbox, HOME)
        .ledger()
        .await
        .unwrap()
        .into_iter()
        .collect();
    // What was committed in the same region afterwards is no later part of the log that was lost.
    let (before, after): (Vec<_>, Vec<_>) = record
        .commits
        .into_iter()
        .partition(|commit| commit.ended_us <= died);
    let verdict = judge(&before, &found);
    assert_eq!(verdict.holes, vec![]);
    assert!(verdict.recovered > 0, "{verdict:?}");
    let verdict = judge(&after, &found);
    assert_eq!((verdict.holes, verdict.lost), (vec![], vec![]));
    end(sandbox);
}

/// The daemon of the primary's own region ended before the primary did: its store lacks what another region has.
#[rstest]
#[case::a_store(false)]
#[case::a_standby(true)]
#[tokio::test(flavor = "multi_thread")]
async fn what_another_region_holds_is_gathered_before_a_rebuild(#[case] by_standby: bool) {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, HOME).await;
    acknowledge(&load, 50).await;
    let west = sandbox.region(RECOVERY).unwrap();
    let mut ended = vec![sandbox.region(HOME).unwrap()];
    if by_standby {
        ended.push(west);
    }
    for region in &ended {
        region.signal_daemon(Signal::KILL);
    }
    acknowledge(&load, 200).await;
    let record = load.stop().await.unwrap();
    let follower = match by_standby {
        true => cluster(&sandbox, RECOVERY).standby_name(),
        false => west.receiver_name(),
    };
    until("all of the log in the other region", async || {
        let query = format!(
            "select bool_and(flush_lsn >= pg_current_wal_flush_lsn()) from pg_stat_replication where application_name = '{follower}'"
        );
        match ask(&sandbox, HOME, &query).await?.as_str() {
            "true" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    signal(&server(&sandbox), Signal::KILL);
    is_stopped(&sandbox).await;
    let data = sandbox.region(HOME).unwrap().place().data_directory();
    std::fs::rename(&data, data.with_extension("gone")).unwrap();
    for region in &ended {
        region.start_daemon().await.unwrap();
    }
    let words = ["recover-component", "ledger", "--component", "database"];
    let report = recover(&sandbox, &words).await;
    assert_eq!(report["rung"], "restore", "{report}");
    assert_eq!(judged(&sandbox, HOME, &record).await.lost, vec![]);
    end(sandbox);
}

/// Runs statements in a database of the primary.
async fn run(sandbox: &Sandbox, database: &str, statements: &[&str]) {
    let client = cluster(sandbox, HOME).connect(database).await.unwrap();
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_put_back_to_a_moment_before() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    run(&sandbox, "postgres", &["create database template_of_ours"]).await;
    run(
        &sandbox,
        "template_of_ours",
        &["create table x as select n as id, repeat('x', 100) as filler from generate_series(1, 20000) n",
          "create index on x (id)"],
    )
    .await;
    // Behind the table: replayed from before it, its files would be made again as they were when they are copied.
    let snapshot = dr(&sandbox, &["job", "run", "snapshot", "--region", HOME]).await;
    assert_eq!(snapshot.status.code(), Some(0), "{snapshot:?}");
    register_in(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    load.stop().await.unwrap();
    let whole: BTreeSet<i64> = cluster(&sandbox, HOME)
        .ledger()
        .await
        .unwrap()
        .into_iter()
        .collect();
    // Replayed twice from the recovery point on, the copy would be made again, of what the template has become since.
    run(
        &sandbox,
        "postgres",
        &["create database copied template template_of_ours strategy file_copy"],
    )
    .await;
    run(
        &sandbox,
        "copied",
        &["insert into x select n, 'new' from generate_series(30001, 30010) n"],
    )
    .await;
    run(
        &sandbox,
        "template_of_ours",
        &["vacuum full x", "checkpoint"],
    )
    .await;
    // As always with a moment right before a commit: what the transaction changed lies before it.
    let damage = cluster(&sandbox, HOME).connect("ledger").await.unwrap();
    damage
        .batch_execute("begin; delete from ledger")
        .await
        .unwrap();
    let client = cluster(&sandbox, HOME).connect("postgres").await.unwrap();
    client
        .batch_execute("select pg_create_restore_point('before')")
        .await
        .unwrap();
    damage.batch_execute("commit").await.unwrap();
    shipped(&sandbox).await;
    assert_eq!(
        cluster(&sandbox, HOME).ledger().await.unwrap(),
        Vec::<i64>::new()
    );

    // A moment that there is not is refused by the plan as by the run, before there is an execution.
    let before = executions(&sandbox);
    for verb in ["plan", "run"] {
        let never = [
            "runbook",
            verb,
            "restore-database",
            "ledger",
            "--at",
            "name:never",
            "--yes",
        ];
        refused(&sandbox, &never, 1, &["`never` is not in the log"]).await;
    }
    assert_eq!(executions(&sandbox), before);
    assert!(is_primary(&sandbox, HOME).await);
    assert_eq!(timeline(&sandbox).await, "00000001");

    let report = recover(
        &sandbox,
        &["restore-database", "ledger", "--at", "name:before"],
    )
    .await;
    assert_eq!(
        (&report["rung"], &report["fence"]),
        (&"restore".into(), &"stopped".into()),
        "{report}"
    );
    let back: BTreeSet<i64> = cluster(&sandbox, HOME)
        .ledger()
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(back, whole);
    let copied = cluster(&sandbox, HOME).connect("copied").await.unwrap();
    let found = copied
        .query_one("select count(*), sum(id)::bigint from x", &[])
        .await
        .unwrap();
    let expected = (20_010_i64, 200_310_055_i64);
    assert_eq!((found.get::<_, i64>(0), found.get::<_, i64>(1)), expected);
    assert_eq!(timeline(&sandbox).await, "00000002");
    let home = sandbox.region(HOME).unwrap().place();
    let kept = std::fs::read_dir(&home.directory).unwrap().flatten();
    let kept = kept.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("pgdata.kept-")
    });
    assert_eq!(kept.count(), 1);
    let beside = home.data_directory().with_file_name("pgdata.restored");
    assert!(!beside.exists(), "what it was prepared in is gone");
    // What was written after the moment is there, and nowhere else.
    let id = report["execution"].as_str().unwrap();
    let divergence = dr(&sandbox, &["execution", "divergence", id]).await;
    assert_eq!(divergence.status.code(), Some(10), "{divergence:?}");
    for said in ["pgdata.kept-", "behind", "changed ledger: public.ledger"] {
        assert!(divergence.stdout.contains(said), "{divergence:?}");
    }
    assert!(!divergence.stdout.contains("may"), "{divergence:?}");

    // It is served and protected again; the standby is made anew.
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 50).await;
    let create = ["standby", "create", "ledger", "--in", RECOVERY, "--yes"];
    // The old one went beyond that moment, and is stopped by nobody but its owner.
    refused(&sandbox, &create, 12, &["stop it", "pg_ctl stop"]).await;
    cluster(&sandbox, RECOVERY).stop().await.unwrap();
    let output = dr(&sandbox, &create).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    streams(&sandbox, RECOVERY).await;
    register_in(&sandbox, RECOVERY).await;
    acknowledge(&load, 50).await;
    load.stop().await.unwrap();
    end(sandbox);
}
