//! A region lost under load and its workload brought back by hand, without `dr`: what the sandbox itself must do right.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use dr_model::Clock;
use dr_sandbox::judge::judge;
use dr_sandbox::ledger::{Load, Options, outage};
use dr_sandbox::process::{Table, members};
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox, wait};
use hickory_proto::op::{Message, ResponseCode};

use support::{by_udp, sign, signer, switch};

const LIMIT: Duration = Duration::from_secs(30);

async fn acknowledge(load: &Load, more: u64) {
    let wanted = load.acknowledged() + more;
    wait::until("more commits", LIMIT, async || {
        let count = load.acknowledged();
        if count >= wanted {
            Ok(())
        } else {
            Err(format!("{count} of {wanted}"))
        }
    })
    .await
    .unwrap();
}

async fn switch_dns(sandbox: &Sandbox) {
    let layout = sandbox.layout();
    let address = |region: &str| layout.place(&region.parse().unwrap()).unwrap().address;
    let key = std::fs::read_to_string(layout.key_file()).unwrap();
    let mut update = switch(address(HOME), address(RECOVERY), 2);
    let reply = by_udp(
        layout.dns,
        &sign(&mut update, &signer("dr-sandbox", key.trim())),
    )
    .await;
    assert_eq!(
        Message::from_vec(&reply).unwrap().response_code,
        ResponseCode::NoError
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_region_is_left_and_the_client_follows() {
    let sandbox = Sandbox::builder().daemons(false).start().await.unwrap();
    let directory = sandbox.layout().directory.clone();
    let (home, recovery) = (
        sandbox.region(HOME).unwrap(),
        sandbox.region(RECOVERY).unwrap(),
    );
    let load = sandbox.load(Options::default()).unwrap();
    acknowledge(&load, 200).await;
    assert!(home.processes().len() > 5, "{:?}", home.processes());

    let lost_at_us = home.lose(LostStore::Empty).unwrap();
    assert_eq!(home.processes(), vec![]);
    assert_eq!(std::fs::read_dir(home.place().store()).unwrap().count(), 0);
    assert!(home.place().lost_store().exists());
    // Whoever asks for the process ids must hear that they are gone: nothing may be left unreaped.
    let zombies = || {
        Table::read()
            .iter()
            .filter(|p| p.is_zombie() && p.name == "postgres")
            .count()
    };
    assert!(wait::until_blocking(Duration::from_secs(5), || zombies() == 0));

    let replica = recovery.postgres().unwrap();
    replica.promote().await.unwrap();
    recovery.start_app().await.unwrap();
    recovery.start_app().await.unwrap();
    switch_dns(&sandbox).await;
    acknowledge(&load, 200).await;
    let record = load.stop().await.unwrap();

    let found: BTreeSet<i64> = replica.ledger().await.unwrap().into_iter().collect();
    let verdict = judge(&record.commits, &found);
    assert!(verdict.acknowledged >= 400);
    assert_eq!(verdict.holes, vec![]);
    assert_eq!(verdict.refused_found, Vec::<i64>::new());
    let outage = outage(&record.commits, lost_at_us).unwrap();
    assert!(outage.first_after_us > lost_at_us);
    assert!(outage.duration() < Duration::from_secs(10), "{outage:?}");
    let lines = std::fs::read_to_string(directory.join("commits.jsonl"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(lines, record.commits.len());

    drop(sandbox);
    assert_eq!(members(&Table::read(), &directory), vec![]);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_wait_was_cut_short_is_indeterminate() {
    let sandbox = Sandbox::builder()
        .daemons(false)
        .standby(false)
        .start()
        .await
        .unwrap();
    let primary = sandbox.region(HOME).unwrap().postgres().unwrap();
    let patient = Options {
        workers: 1,
        rate: 1000,
        limit: Duration::from_secs(20),
        ..Options::default()
    };
    let load = sandbox.load(patient).unwrap();
    acknowledge(&load, 20).await;

    // Nothing answers to that name: the next commit waits until its wait is cancelled.
    primary
        .set("synchronous_standby_names", "FIRST 1 (nobody)")
        .await
        .unwrap();
    let began = sandbox.clock().elapsed();
    let client = primary.connect("ledger").await.unwrap();
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait::until("a cancelled wait", LIMIT, async || {
        let rows = client
            .query(cancel, &[])
            .await
            .map_err(|error| error.to_string())?;
        if rows.is_empty() {
            Err("nobody waits".to_owned())
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    primary.set("synchronous_standby_names", "").await.unwrap();
    acknowledge(&load, 20).await;
    let record = load.stop().await.unwrap();

    let found = primary.ledger().await.unwrap().into_iter().collect();
    let verdict = judge(&record.commits, &found);
    assert!(verdict.indeterminate >= 1, "{verdict:?}");
    assert_eq!(
        verdict.indeterminate, verdict.indeterminate_found,
        "they were written all the same"
    );
    assert_eq!((verdict.lost.len(), verdict.holes.len()), (0, 0));
    let early = record
        .commits
        .iter()
        .filter(|c| u128::from(c.ended_us) < began.as_micros());
    assert!(early.count() >= 20);
    let directory = sandbox.layout().directory.clone();
    drop(sandbox);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_refuses() {
    let sandbox = Sandbox::builder().daemons(false).start().await.unwrap();
    let recovery = sandbox.region(RECOVERY).unwrap();
    recovery.start_app().await.unwrap();
    let name = RECOVERY.parse().unwrap();
    let error = dr_sandbox::service::check(sandbox.layout(), &name)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    switch_dns(&sandbox).await;
    let load = sandbox.load(Options::default()).unwrap();
    // The first answers come within a second; all of them are refusals.
    wait::until("a few attempts", LIMIT, async || {
        let path = sandbox.layout().directory.join("commits.jsonl");
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if size > 8192 {
            Ok(())
        } else {
            Err(format!("{size} bytes written"))
        }
    })
    .await
    .unwrap();
    let record = load.stop().await.unwrap();
    let verdict = judge(&record.commits, &BTreeSet::new());
    assert_eq!((verdict.acknowledged, verdict.indeterminate), (0, 0));
    let reason = record.commits[0].reason.clone().unwrap_or_default();
    assert!(reason.contains("read-only transaction"), "{reason}");
    dr_sandbox::service::stop(sandbox.layout(), &name).unwrap();
    dr_sandbox::service::stop(sandbox.layout(), &name).unwrap();
    assert!(
        dr_sandbox::service::check(sandbox.layout(), &name)
            .await
            .is_err()
    );
    let directory = sandbox.layout().directory.clone();
    drop(sandbox);
    std::fs::remove_dir_all(directory).unwrap();
}
