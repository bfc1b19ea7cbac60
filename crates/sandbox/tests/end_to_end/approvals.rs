//! A move that other people have to approve: nothing happens before they have, and then it goes on by itself.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::Value;

use crate::executions::{Running, epochs, executions, moved_once};
use crate::support::{
    LIMIT, acknowledge, acknowledge_after, dr, dr_json, end, judged, refused, says, start, until,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_move_waits_for_two_others_and_is_resumed_where_it_was_cut_short() {
    let sandbox = start(Sandbox::builder()).await;
    let mut keys = Vec::new();
    for name in ["ada", "grace", "mary", "eve"] {
        keys.push(keygen(&sandbox, name).await);
    }
    let approvers: Vec<_> = ["ada", "grace", "mary"]
        .iter()
        .zip(&keys)
        .map(|(name, (public, _))| format!("{{ name: {name}, key: \"{public}\" }}"))
        .collect();
    let file = sandbox.layout().directory.join("dr.yaml");
    let without = std::fs::read_to_string(&file).unwrap();
    let approval = format!(
        "    approval: {{ quorum: 2, approvers: [{}] }}\n    resources:\n",
        approvers.join(", ")
    );
    let with = without.replacen("    resources:\n", &approval, 1);
    sandbox.launcher().write_file(&file, &with).unwrap();

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
    refused(&sandbox, &stranger, 12, &["eve.key", &keys[3].0, "hint:"]).await;
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
