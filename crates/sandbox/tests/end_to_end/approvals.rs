//! A move that other people have to approve: nothing happens before they have, and then it goes on by itself.

use dr_model::Clock;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{Running, epochs, executions, moved_once};
use crate::planned::streams;
use crate::second_loss::register_in;
use crate::support::{
    LIMIT, acknowledge, acknowledge_after, backup, cluster, dr, dr_json, end, is_primary, judged,
    refused, says, start, until,
};

/// Makes the key of a person; returns its public half and the name of its file.
async fn keygen(sandbox: &Sandbox, name: &str) -> (String, String) {
    let file = format!("{name}.key");
    let output = dr(sandbox, &["approval", "keygen", &file]).await;
    says(&output, 0, &["keep it to yourself"]);
    refused(
        sandbox,
        &["approval", "keygen", &file],
        1,
        &[&file, "hint:"],
    )
    .await;
    (output.stdout.trim().to_owned(), file)
}

/// Lets moves wait for so many of these people, each with a key of theirs.
pub(crate) async fn ask_for(sandbox: &Sandbox, quorum: usize, names: &[&str]) {
    ask_until(sandbox, quorum, names, "7d").await;
}

/// The same for so long.
async fn ask_until(sandbox: &Sandbox, quorum: usize, names: &[&str], expires: &str) {
    let mut approvers = Vec::new();
    for name in names {
        let (public, _) = keygen(sandbox, name).await;
        approvers.push(format!("{{ name: {name}, key: \"{public}\" }}"));
    }
    let file = sandbox.layout().directory.join("dr.yaml");
    let without = std::fs::read_to_string(&file).unwrap();
    let approval = format!(
        "    approval: {{ quorum: {quorum}, expires: {expires}, approvers: [{}] }}\n    resources:\n",
        approvers.join(", ")
    );
    let with = without.replacen("    resources:\n", &approval, 1);
    sandbox.launcher().write_file(&file, &with).unwrap();
}

/// Begins a planned move and waits until it waits for people; returns it with the id of its execution.
async fn waiting(sandbox: &Sandbox) -> (Running, String) {
    let before = executions(sandbox);
    let asks = [
        "failover",
        "--planned",
        "--to",
        RECOVERY,
        "--yes",
        "--json",
        "--key",
        "ada.key",
    ];
    let running = Running::start(sandbox, &asks);
    let id = until("a move that waits for people", async || {
        let mut found = executions(sandbox);
        found.retain(|id| !before.contains(id));
        let id = found.pop().ok_or("none so far")?;
        let shown = dr_json(sandbox, &["execution", "show", &id, "--json"]).await;
        match shown["state"].as_str() {
            Some("awaiting-approval") => Ok(id),
            _ => Err(shown.to_string()),
        }
    })
    .await;
    (running, id)
}

/// The standby goes while people think: nothing is changed, whoever calls the move off and whoever approves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_goes_while_people_approve_leaves_the_primary_alone() {
    let sandbox = start(Sandbox::builder()).await;
    ask_for(&sandbox, 1, &["ada", "grace"]).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    register_in(&sandbox, RECOVERY).await;
    let before = epochs(&sandbox);
    let standby = cluster(&sandbox, RECOVERY);

    let (running, id) = waiting(&sandbox).await;
    standby.stop().await.unwrap();
    let aborted = dr(&sandbox, &["execution", "abort", &id, "--json"]).await;
    says(&aborted, 0, &["is aborted; nothing was changed"]);
    assert_eq!(running.end().await.status.code(), Some(13));

    standby.start().unwrap();
    standby.wait_ready().await.unwrap();
    streams(&sandbox, RECOVERY).await;
    let (running, id) = waiting(&sandbox).await;
    standby.stop().await.unwrap();
    let approve = ["execution", "approve", &id, "--yes", "--key", "grace.key"];
    assert_eq!(dr(&sandbox, &approve).await.status.code(), Some(0));
    let output = running.end().await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "failed", "{output:?}");
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    let late = ["execution", "abort", &id];
    refused(
        &sandbox,
        &late,
        12,
        &["is over: failed", "dr execution show"],
    )
    .await;

    assert_eq!(epochs(&sandbox), before, "no epoch was opened");
    assert!(is_primary(&sandbox, HOME).await);
    acknowledge(&load, 100).await;
    let verdict = judged(&sandbox, HOME, &load.stop().await.unwrap()).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

/// Nobody approves in time: the move ends without a trace, and an approval that comes later counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expires_ends_the_move_and_takes_no_approval() {
    let sandbox = start(Sandbox::builder()).await;
    ask_until(&sandbox, 1, &["ada", "grace"], "6s").await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    register_in(&sandbox, RECOVERY).await;
    let before = epochs(&sandbox);

    // Its process is killed before that: the request expires all the same.
    let (running, id) = waiting(&sandbox).await;
    running.signal(Signal::KILL);
    running.end().await;
    let approve = ["execution", "approve", &id, "--yes", "--key", "grace.key"];
    let expired = until("the end of the request", async || {
        let shown = dr(&sandbox, &["execution", "show", &id]).await;
        let until = shown.stdout.split_once("of 1, until ").unwrap().1;
        let until: jiff::Timestamp = until.split_once(';').unwrap().0.parse().unwrap();
        // It is shown to the second.
        match sandbox.clock().now().as_second() > until.as_second() + 1 {
            true => Ok(dr(&sandbox, &approve).await),
            false => Err(shown.stdout),
        }
    })
    .await;
    let again = "ask again: `dr failover` makes a new plan";
    says(&expired, 12, &["expired", again]);
    let aborted = dr(&sandbox, &["execution", "abort", &id]).await;
    says(&aborted, 0, &["nothing was changed"]);

    // Whoever waits is told.
    let (running, id) = waiting(&sandbox).await;
    let output = running.end().await;
    says(&output, 1, &["0 of 1 approvals when the request expired"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "failed", "{output:?}");
    let late = ["execution", "approve", &id, "--yes", "--key", "grace.key"];
    refused(&sandbox, &late, 12, &["it is over, failed"]).await;

    assert_eq!(epochs(&sandbox), before, "no epoch was opened");
    assert!(is_primary(&sandbox, HOME).await);
    load.stop().await.unwrap();
    end(sandbox);
}

/// Whoever follows an execution sees it wait, be stopped, go on and end.
#[tokio::test(flavor = "multi_thread")]
async fn an_execution_is_followed_over_a_pause_to_its_end() {
    let sandbox = start(Sandbox::builder()).await;
    ask_for(&sandbox, 1, &["ada", "grace"]).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    register_in(&sandbox, RECOVERY).await;

    let (running, id) = waiting(&sandbox).await;
    let follow = ["execution", "show", &id, "--follow"];
    let follower = Running::start(&sandbox, &follow);
    let pause = ["execution", "pause", &id, "--reason", "not before lunch"];
    assert_eq!(dr(&sandbox, &pause).await.status.code(), Some(0));
    assert_eq!(running.end().await.status.code(), Some(14));
    // One who looks once comes back at once; one who follows has to be there for what is next.
    let once = dr(&sandbox, &follow[..3]).await;
    assert!(once.stdout.contains("not before lunch"), "{once:?}");
    assert!(!follower.has_ended());

    let resumed = Running::start(&sandbox, &["execution", "resume", &id]);
    let approve = ["execution", "approve", &id, "--yes", "--key", "grace.key"];
    assert_eq!(dr(&sandbox, &approve).await.status.code(), Some(0));
    assert_eq!(resumed.end().await.status.code(), Some(0));
    let followed = follower.end().await;
    let told = [
        "not before lunch",
        "[ 4/15] epoch  (next: stop)",
        "promote done",
        "record done",
    ];
    says(&followed, 0, &told);
    assert!(
        followed.stdout.contains("ledger is served from"),
        "{followed:?}"
    );
    load.stop().await.unwrap();
    end(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_waits_for_two_others_and_is_resumed_where_it_was_cut_short() {
    let sandbox = start(Sandbox::builder()).await;
    ask_for(&sandbox, 2, &["ada", "grace", "mary"]).await;
    let (eve, _) = keygen(&sandbox, "eve").await;

    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 200).await;
    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();

    // Who asks has to be known, and to be somebody.
    let anonymous = ["failover", "--to", RECOVERY, "--yes"];
    refused(&sandbox, &anonymous, 64, &["not known who asks", "--key"]).await;
    let stranger = [&anonymous[..], &["--key", "eve.key"]].concat();
    refused(&sandbox, &stranger, 12, &["eve.key", &eve, "hint:"]).await;
    assert_eq!(executions(&sandbox), Vec::<String>::new());

    let asks = [
        "failover", "--to", RECOVERY, "--yes", "--json", "--key", "ada.key",
    ];
    let running = Running::start(&sandbox, &asks);
    let id = until("an execution", async || {
        let found = executions(&sandbox);
        found
            .first()
            .cloned()
            .ok_or_else(|| "none so far".to_owned())
    })
    .await;
    let approve =
        |key: &'static str| ["execution", "approve", &id, "--yes", "--json", "--key", key];
    refused(&sandbox, &approve("ada.key"), 12, &["`ada` asked for it"]).await;
    refused(
        &sandbox,
        &approve("eve.key"),
        12,
        &["not of anybody who may approve"],
    )
    .await;
    refused(
        &sandbox,
        &approve("dr.yaml"),
        64,
        &["not the key of an approver"],
    )
    .await;
    let grace = dr_json(&sandbox, &approve("grace.key")).await;
    assert_eq!(
        (&grace["approvals"], &grace["quorum"]),
        (&1.into(), &2.into())
    );
    let again = dr(&sandbox, &approve("grace.key")).await;
    says(&again, 0, &["approved it already", "1 of 2"]);

    // Somebody stops it; whoever waits learns of it, and another goes on.
    let pause = [
        "execution",
        "pause",
        &id,
        "--reason",
        "the meeting is not over",
    ];
    assert_eq!(dr(&sandbox, &pause).await.status.code(), Some(0));
    let paused = running.end().await;
    says(
        &paused,
        14,
        &["the meeting is not over", "dr execution resume"],
    );
    refused(&sandbox, &pause, 12, &["paused", "hint:"]).await;
    let shown = dr(&sandbox, &["execution", "show", &id]).await;
    assert!(shown.stdout.contains("approvals: 1 of 2"), "{shown:?}");
    assert!(shown.stdout.contains("grace at "), "{shown:?}");
    assert_eq!(epochs(&sandbox), ["00000001"]);

    let resumed = Running::start(&sandbox, &["execution", "resume", &id, "--json"]);
    assert_eq!(
        dr(&sandbox, &approve("mary.key")).await.status.code(),
        Some(0)
    );
    let output = tokio::time::timeout(LIMIT, resumed.end()).await.unwrap();
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{output:?}");
    let approval = &report["approval"];
    assert_eq!(approval["requested_by"], "ada");
    assert_eq!(
        approval["approved_by"],
        serde_json::json!(["grace", "mary"])
    );
    let late = approve("mary.key");
    refused(&sandbox, &late, 12, &["it is over, completed"]).await;

    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}
