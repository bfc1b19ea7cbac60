//! `dr failover` is killed wherever its journal has an entry, and whoever takes it over brings it to its end.

use dr_sandbox::layout::StoreKind;
use dr_sandbox::ledger::Load;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{Running, entries, executions, journal_files, moved_once, reaches};
use crate::gate::{Gate, Side, intends};
use crate::planned::streams;
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, cluster, dr, dr_json, end, is_primary, judged,
    now_us, refused, start,
};

/// More kills than an execution has entries, even if each of them had to be written twice.
const MOST_KILLS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_a_failover_over_is_killed_too_and_it_moves_once() {
    let (sandbox, load, lost_at) = lose().await;
    kill_again_and_again(&sandbox, &["failover", "--to", RECOVERY, "--yes"]).await;
    prove(sandbox, load, lost_at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_a_planned_move_over_is_killed_too_and_it_loses_nothing() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let words = ["failover", "--planned", "--to", RECOVERY, "--yes"];
    kill_again_and_again(&sandbox, &words).await;
    streams(&sandbox, HOME).await;
    acknowledge_after(&load, now_us(&sandbox)).await;
    let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(ask(&sandbox, RECOVERY, timeline).await.unwrap(), "00000002");
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

/// Kills a command, and whoever resumes it, every few entries, until nothing is left to do.
async fn kill_again_and_again(sandbox: &Sandbox, words: &[&str]) {
    let mut running = Running::start(sandbox, words);
    let mut wanted = 1;
    let mut kills = 0;
    while reaches(sandbox, &running, wanted).await {
        running.signal(Signal::KILL);
        running.end().await;
        kills += 1;
        assert!(kills < MOST_KILLS, "it makes no progress");
        let id = execution(sandbox);
        if state(sandbox, &id).await == "completed" {
            break;
        }
        // That it is taken over is an entry of its own. Killed after the next one for ever it would never get beyond
        // an intent.
        wanted = entries(sandbox) + 2 + kills % 3;
        running = Running::start(sandbox, &["execution", "resume", &id]);
    }
    let id = execution(sandbox);
    assert_eq!(state(sandbox, &id).await, "completed");
    assert!(kills >= 8, "killed {kills} times only");
}

/// Its journal is damaged before anything was promoted, and the region that was left is gone: what has to be done by hand is said, and
/// leads to a primary that has all that the store has.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_and_a_lost_region_leave_a_way_out(#[values(false, true)] sealed: bool) {
    let sandbox = start(Sandbox::builder().store(StoreKind::S3)).await;
    let gate = Gate::before(&sandbox, &[RECOVERY]).await;
    backup(&sandbox, RECOVERY).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let home = sandbox.region(HOME).unwrap();
    home.lose(LostStore::Renamed).unwrap();
    let place = sandbox.region(RECOVERY).unwrap().place().clone();
    let words = ["failover", "--to", RECOVERY, "--yes"];
    // The entry that says that it was sealed, or that it is to be.
    let wanted = move |number, text: &str| match sealed {
        true => number > 1 && text.contains("is sealed at"),
        false => intends(text, "seal"),
    };
    gate.kill(&sandbox, &words, Side::After, wanted).await;
    let id = execution(&sandbox);
    let second = &journal_files(&sandbox, RECOVERY)[1];
    std::fs::write(second, "{}").unwrap();
    // It has read its files when it was started.
    start_store_again(&sandbox).await;
    assert!(!is_primary(&sandbox, RECOVERY).await);

    let why = ["no primary is seen there", "is damaged", id.as_str()];
    refused(
        &sandbox,
        &words,
        12,
        &[&why[..], &["recover-component ledger", "execution abort"]].concat(),
    )
    .await;
    let recover = [
        "runbook",
        "run",
        "recover-component",
        "ledger",
        "--component",
        "database",
        "--yes",
    ];
    refused(&sandbox, &recover, 12, &why).await;

    // As it says. The check of the service is not waited for any longer than it takes to see that it fails.
    let runbook = include_str!("../../../../runbooks/recover-component.yaml");
    let hasty = "uses: check-health, with: { within: 1s } }";
    let hasty = runbook.replace("uses: check-health }", hasty);
    assert_ne!(hasty, runbook);
    let file = "runbooks/recover-component.yaml";
    let file = sandbox.layout().directory.join(file);
    sandbox.launcher().write_file(&file, &hasty).unwrap();
    cluster(&sandbox, RECOVERY).stop().await.unwrap();
    let data = place.data_directory();
    std::fs::rename(&data, data.with_extension("aside")).unwrap();
    let overridden = [
        &recover[..],
        &["--override", "test: the east is gone", "--json"],
    ]
    .concat();
    let output = dr(&sandbox, &overridden).await;
    assert!(is_primary(&sandbox, RECOVERY).await, "{output:?}");
    // The check of the service holds it up, which is there only afterwards.
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["stuck"]["step"], "verify", "{output:?}");
    let recovering = report["execution"].as_str().unwrap();
    let output = dr(&sandbox, &["execution", "abort", recovering]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    sandbox.launcher().write_file(&file, runbook).unwrap();
    let service = [
        "runbook",
        "run",
        "recover-component",
        "ledger",
        "--component",
        "app",
        "--yes",
    ];
    let output = dr(&sandbox, &service).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.holes, vec![]);
    end(sandbox);
}

/// Ends the S3 server of the recovery region's store, and starts it on the files that it has left.
async fn start_store_again(sandbox: &Sandbox) {
    let region = sandbox.region(RECOVERY).unwrap();
    region.stop_store().await.unwrap();
    region.start_store().await.unwrap();
}

/// Loses the home region under load; returns when.
async fn lose() -> (Sandbox, Load, u64) {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    (sandbox, load, lost_at)
}

async fn prove(sandbox: Sandbox, load: Load, lost_at: u64) {
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

/// Returns the id of the one execution.
fn execution(sandbox: &Sandbox) -> String {
    let ids = executions(sandbox);
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids[0].clone()
}

async fn state(sandbox: &Sandbox, id: &str) -> String {
    let shown = dr_json(sandbox, &["execution", "show", id, "--json"]).await;
    shown["state"].as_str().unwrap().to_owned()
}
