//! A move by appointment, there and back: no commit is lost, and each time the old primary becomes the standby.

use dr_sandbox::layout::StoreKind;
use dr_sandbox::ledger::outage;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rstest::rstest;
use serde_json::Value;

use crate::executions::executions;
use crate::gate::{Gate, Side, intends};
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, ask, at_terminal, backup, dr, dr_json, end, is_primary, judged,
    now_us, start, until,
};

/// Runs a planned move, which has to come to its end, and returns its report.
pub(crate) async fn move_by_plan(sandbox: &Sandbox, words: &[&str]) -> Value {
    let output = dr(sandbox, &[words, &["--yes", "--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{}", output.stderr);
    assert_eq!(report["mode"], "planned", "{report}");
    assert_eq!(report["loss"]["bound"]["kind"], "zero", "{report}");
    report
}

/// Waits until the server of a region is a standby that streams.
pub(crate) async fn streams(sandbox: &Sandbox, region: &str) {
    until(&format!("a standby in {region}"), async || {
        let query = "select string_agg(status, ',') from pg_stat_wal_receiver";
        let seen = ask(sandbox, region, query).await?;
        if seen == "streaming" {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_without_losing_a_commit() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    register_in(&sandbox, RECOVERY).await;

    let began = now_us(&sandbox);
    move_by_plan(&sandbox, &["failover", "--planned", "--to", RECOVERY]).await;
    let moved = now_us(&sandbox);
    assert!(is_primary(&sandbox, RECOVERY).await);
    streams(&sandbox, HOME).await;
    acknowledge_after(&load, moved).await;
    acknowledge(&load, 200).await;

    // The register is beside the new primary until the daemon there has moved it.
    register_in(&sandbox, HOME).await;
    // Somebody reads the plan and types the name, while the primary writes on.
    let (code, read) = at_terminal(&sandbox, &["failback", "ledger"], "ledger").await;
    assert_eq!(code, Some(0), "{read}");
    assert!(
        read.contains("Type ") && read.contains("completed"),
        "{read}"
    );
    let home = now_us(&sandbox);
    assert!(is_primary(&sandbox, HOME).await);
    streams(&sandbox, RECOVERY).await;
    acknowledge_after(&load, home).await;

    let record = load.stop().await.unwrap();
    assert!(outage(&record.commits, began).is_some());
    let verdict = judged(&sandbox, HOME, &record).await;
    assert_eq!(verdict.lost, vec![]);
    let timeline = "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    assert_eq!(ask(&sandbox, HOME, timeline).await.unwrap(), "00000003");

    // What came of each is in the store of the region moved to, and that something of it was changed is seen.
    let listed = dr_json(&sandbox, &["evidence", "list", "--json"]).await;
    let records = listed["records"].as_array().unwrap().iter();
    let records = records.map(|found| (&found["region"], &found["record"]));
    for (region, record) in records.clone() {
        assert_eq!(record["sequence"], 1, "{record}");
        assert_eq!(record["state"], "completed", "{record}");
        let report = &record["body"]["report"];
        assert_eq!(&report["to"], region, "{record}");
        assert_eq!(report["execution"], record["subject"], "{record}");
        assert!(report["rta_seconds"].is_f64(), "{record}");
    }
    assert_eq!(records.count(), 2, "{listed}");
    let verified = dr(&sandbox, &["evidence", "verify"]).await;
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let store = sandbox.region(RECOVERY).unwrap().place().store();
    let first = store.join("evidence/ledger/0000000001");
    let text = std::fs::read_to_string(&first).unwrap();
    let changed = text.replacen("completed", "forgotten", 1);
    assert_ne!(changed, text);
    std::fs::remove_file(&first).unwrap();
    sandbox.launcher().write_file(&first, &changed).unwrap();
    let told = dr(&sandbox, &["evidence", "verify"]).await;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let seen = format!("ledger in {RECOVERY}: record 1 cannot be read: its hash does not match");
    assert!(told.stdout.contains(&seen), "{told:?}");
    assert!(
        told.stdout.contains(&format!("ledger in {HOME}: 1 record")),
        "{told:?}"
    );
    end(sandbox);
}

/// Killed after the old primary was stopped, the move is called off: the old primary accepts writes again. Whether anything is known
/// of the seal makes no difference.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_called_off_gives_the_old_primary_back(
    #[values(Side::Before, Side::After)] side: Side,
) {
    let sandbox = start(Sandbox::builder().store(StoreKind::S3)).await;
    let gate = Gate::before(&sandbox, &[RECOVERY]).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    register_in(&sandbox, RECOVERY).await;

    let words = ["failover", "--planned", "--to", RECOVERY, "--yes"];
    gate.kill(&sandbox, &words, side, |_, text| intends(text, "seal"))
        .await;
    // Nobody answers there any more.
    assert!(ask(&sandbox, HOME, "select 1").await.is_err());
    let ids = executions(&sandbox);
    assert_eq!(ids.len(), 1, "{ids:?}");
    let output = dr(&sandbox, &["execution", "abort", &ids[0]]).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let back = now_us(&sandbox);
    assert!(is_primary(&sandbox, HOME).await);
    streams(&sandbox, RECOVERY).await;
    acknowledge_after(&load, back).await;
    acknowledge(&load, 100).await;
    register_in(&sandbox, RECOVERY).await;

    // What was taken back can be done after all.
    move_by_plan(&sandbox, &["failover", "--planned", "--to", RECOVERY]).await;
    acknowledge_after(&load, now_us(&sandbox)).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}
