//! Two who want to move the same workload, to the same region or to different ones: one does, and the other is told who, when and where.

use dr_model::Clock;
use dr_sandbox::layout::StoreKind;
use dr_sandbox::ledger::Load;
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox, THIRD};
use rstest::rstest;
use rustix::process::Signal;

use crate::executions::{
    Running, comes_to, entries, epochs, epochs_in, executions, moved_once, reaches,
};
use crate::gate::{Gate, Side, intends};
use crate::support::{
    acknowledge, acknowledge_after, backup, dr, dr_json, end, is_primary, judged, refused, says,
    start, until,
};

const FAIL_OVER: [&str; 5] = ["failover", "--to", RECOVERY, "--yes", "--json"];

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_the_same_instant_one_wins() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    refused(
        &sandbox,
        &["failover", "--to", HOME, "--yes"],
        12,
        &[HOME, "already", "hint:"],
    )
    .await;
    assert_eq!(executions(&sandbox), Vec::<String>::new());
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();

    let (one, two) = tokio::join!(dr(&sandbox, &FAIL_OVER), dr(&sandbox, &FAIL_OVER));
    let (winners, losers): (Vec<Output>, Vec<Output>) = [one, two]
        .into_iter()
        .partition(|output| output.status.success());
    assert_eq!((winners.len(), losers.len()), (1, 1), "{losers:?}");
    let loser = &losers[0];
    let code = loser.status.code().unwrap();
    assert!(matches!(code, 12 | 13), "{loser:?}");
    // Who, where, when.
    let user = sandbox.launcher().user().map(|user| user.name.clone());
    let year = sandbox.clock().now().strftime("%Y-").to_string();
    says(
        loser,
        code,
        &[&format!("{}@", user.unwrap_or_default()), RECOVERY, &year],
    );

    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    refused(
        &sandbox,
        &FAIL_OVER,
        12,
        &[RECOVERY, "already; the newest epoch is 2", "hint:"],
    )
    .await;
    end(sandbox);
}

/// It stands still about the intent of a step: before that has landed, so that it comes too late, or before it has heard of it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_that_stands_still_is_named_and_taken_over_for_good(
    // Before the epoch, between the fence and the seal, and between the promotion and the traffic.
    #[values("epoch", "seal", "switch")] step: &'static str,
    #[values(Side::Before, Side::After)] side: Side,
) {
    let sandbox = start(Sandbox::builder().store(StoreKind::S3)).await;
    let gate = Gate::before(&sandbox, &[RECOVERY]).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();

    gate.hold(side, move |_, text| intends(text, step));
    let first = gate.start(&sandbox, &FAIL_OVER);
    assert!(gate.holds(&first).await, "{:?}", first.end().await);
    first.signal(Signal::STOP);
    let id = executions(&sandbox).remove(0);
    // Until it has the epoch, somebody else may have it.
    if step != "epoch" {
        let hint = format!("dr execution resume {id}");
        refused(
            &sandbox,
            &FAIL_OVER,
            13,
            &[&id, "has not ended", HOME, RECOVERY, "@", &hint],
        )
        .await;
    }
    assert_eq!(executions(&sandbox), std::slice::from_ref(&id));

    let second = dr(&sandbox, &["execution", "resume", &id]).await;
    assert_eq!(second.status.code(), Some(0), "{}", second.stderr);
    moved_once(&sandbox).await;
    let written = entries(&sandbox);
    gate.open();
    first.signal(Signal::CONT);
    let first = first.end().await;
    says(
        &first,
        13,
        &["Somebody else has the say", "was taken over by", "@"],
    );
    assert_eq!(entries(&sandbox), written, "{}", first.stderr);
    assert_eq!(epochs(&sandbox).len(), 2);

    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_want_opposite_things_the_one_under_way_goes_on() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    let back = ["failover", "--to", HOME, "--yes"];

    // At the same instant: one has nothing to do, whichever comes first.
    let first = Running::start(&sandbox, &FAIL_OVER);
    let mut told = vec![dr(&sandbox, &back).await];
    // And at every moment of the other's way.
    let mut boundary = 1;
    while reaches(&sandbox, &first, boundary).await {
        told.push(dr(&sandbox, &back).await);
        boundary = entries(&sandbox) + 1;
    }
    let first = first.end().await;
    assert_eq!(first.status.code(), Some(0), "{}", first.stderr);
    assert!(told.len() > 1, "the other was never met under way");
    for output in told {
        let code = output.status.code().unwrap();
        // The store of the region that is gone is needed to go back there.
        assert!(matches!(code, 12 | 13 | 20), "{output:?}");
        says(&output, code, &[HOME, "hint:"]);
    }
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

const TO_THIRD: [&str; 5] = ["failover", "--to", THIRD, "--yes", "--json"];

/// Three regions of which the home region is lost under load: either of the others could take the workload. Returns when it was.
async fn lose_one_of_three() -> (Sandbox, Load, u64) {
    let sandbox = start(Sandbox::builder().third(true)).await;
    let load = sandbox.load(Default::default()).unwrap();
    for region in [RECOVERY, THIRD] {
        backup(&sandbox, region).await;
    }
    until("a register away from the primary", async || {
        let status = dr_json(&sandbox, &["status", "--json"]).await;
        let workload = &status["workloads"][0];
        let safe = workload["protected"] == true && workload["register"]["region"] != HOME;
        match safe {
            true => Ok(()),
            false => Err(workload.to_string()),
        }
    })
    .await;
    acknowledge(&load, 200).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    (sandbox, load, lost_at)
}

/// Checks that `to` has the workload and `other` has not, and that nobody can say otherwise afterwards.
async fn moved_to(sandbox: Sandbox, load: Load, lost_at: u64, to: &str, other: &str) {
    assert!(is_primary(&sandbox, to).await);
    assert!(!is_primary(&sandbox, other).await);
    let both = [RECOVERY, THIRD].map(|region| epochs_in(&sandbox, region));
    let newest = both.iter().flatten().max().unwrap();
    assert_eq!(newest, "00000002", "{both:?}");
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, to, &record).await;
    refused(
        &sandbox,
        &["failover", "--to", to, "--yes"],
        12,
        &[to, "already; the newest epoch is 2", "hint:"],
    )
    .await;
    end(sandbox);
}

/// Each could have it, and each is asked for at the same instant.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_move_it_to_different_regions_one_wins() {
    let (sandbox, load, lost_at) = lose_one_of_three().await;
    let (one, two) = tokio::join!(dr(&sandbox, &FAIL_OVER), dr(&sandbox, &TO_THIRD));
    let [won, lost] = match (one.status.success(), two.status.success()) {
        (true, false) => [RECOVERY, THIRD],
        (false, true) => [THIRD, RECOVERY],
        _ => panic!("{one:?}; {two:?}"),
    };
    let loser = if lost == THIRD { &two } else { &one };
    let code = loser.status.code().unwrap();
    assert!(matches!(code, 12 | 13), "{loser:?}");
    says(loser, code, &[&format!("for {won} at "), "@"]);
    moved_to(sandbox, load, lost_at, won, lost).await;
}

/// One stands still on its way, and another wants it elsewhere: whoever has the epoch keeps it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_under_way_is_not_crossed_by_a_move_elsewhere(
    #[values("seal", "switch")] step: &str,
) {
    let (sandbox, load, lost_at) = lose_one_of_three().await;
    let first = Running::start(&sandbox, &FAIL_OVER);
    assert!(comes_to(&sandbox, &first, step).await);
    first.signal(Signal::STOP);
    let id = executions(&sandbox).remove(0);
    let hint = format!("dr execution resume {id}");
    let said = ["has not ended", RECOVERY, "@", &hint];
    refused(&sandbox, &TO_THIRD, 13, &said).await;
    first.signal(Signal::CONT);
    let first = first.end().await;
    assert_eq!(first.status.code(), Some(0), "{}", first.stderr);
    moved_to(sandbox, load, lost_at, RECOVERY, THIRD).await;
}
