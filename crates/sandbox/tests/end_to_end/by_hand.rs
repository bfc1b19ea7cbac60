//! A name server that takes no update from us: whoever leads the clients by hand is not kept from recovering the workload.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::executions::{Running, entries, epochs, executions, moved_once, reaches};
use crate::support::{
    acknowledge, backup, dr, dr_json, end, is_primary, judged, refused, says, start,
};

/// A secret that is one, and not the server's.
const OTHER: &str = "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC1vdGhlci0=";

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_led_by_hand_where_the_key_is_refused() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let key = sandbox.layout().key_file();
    sandbox.launcher().write_file(&key, OTHER).unwrap();
    let home = sandbox.region(HOME).unwrap();
    home.lose(LostStore::Renamed).unwrap();

    let to = ["failover", "--to", RECOVERY, "--yes", "--json"];
    let words = ["would be refused", "hint:", "--clients-by-hand"];
    refused(&sandbox, &to, 65, &words).await;
    assert_eq!(executions(&sandbox), Vec::<String>::new());

    // It goes as far as the switch, with the workload up.
    let by_hand = ["--clients-by-hand", "the load balancer is moved"];
    let output = dr(&sandbox, &[&to[..], &by_hand].concat()).await;
    says(&output, 14, &["warning:", "stops at step `switch`"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "stuck", "{report}");
    assert_eq!(report["stuck"]["step"], "switch", "{report}");
    assert_eq!(report["clients_by_hand"], by_hand[1]);
    assert_eq!(report["override_reason"], Value::Null);
    assert!(is_primary(&sandbox, RECOVERY).await);

    let id = executions(&sandbox).remove(0);
    let resume = ["execution", "resume", &id, "--json"];
    let skip = [
        "--skip",
        "switch",
        "--skip",
        "prove",
        "--reason",
        "it points there",
    ];
    let output = dr(&sandbox, &[&resume[..], &skip].concat()).await;
    says(
        &output,
        10,
        &["nobody but you does this now: let `", "--unskip switch"],
    );
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed-with-exceptions", "{report}");
    assert_eq!(
        report["rta_seconds"],
        Value::Null,
        "nobody has seen that clients are led"
    );
    let listed = dr_json(&sandbox, &["evidence", "list", "--in", RECOVERY, "--json"]).await;
    let record = &listed["records"][0]["record"];
    assert_eq!(record["state"], "completed-with-exceptions", "{listed}");
    assert_eq!(
        record["body"]["statements"][0]["kind"], "clients-by-hand",
        "{listed}"
    );
    assert_eq!(epochs(&sandbox), ["00000001", "00000002"]);
    judged(&sandbox, RECOVERY, &load.stop().await.unwrap()).await;
    end(sandbox);
}

/// Its process is killed, and the key exchanged, before anything was done; the switch is left out by mistake, and done after all.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_is_seen_and_goes_on_with_the_key_put_right() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    // That clients are led elsewhere is waited for no longer than it takes to see it.
    let runbook = include_str!("../../../../runbooks/failover-region.yaml");
    let hasty = "uses: verify-traffic, with: { within: 1s } }";
    let hasty = runbook.replace("uses: verify-traffic }", hasty);
    assert_ne!(hasty, runbook);
    let directory = &sandbox.layout().directory;
    let file = directory.join("runbooks/failover-region.yaml");
    sandbox.launcher().write_file(&file, &hasty).unwrap();
    let home = sandbox.region(HOME).unwrap();
    home.lose(LostStore::Renamed).unwrap();
    let running = Running::start(&sandbox, &["failover", "--to", RECOVERY, "--yes"]);
    assert!(reaches(&sandbox, &running, 2).await);
    running.signal(Signal::KILL);
    running.end().await;
    assert!(!is_primary(&sandbox, RECOVERY).await);
    let id = executions(&sandbox).remove(0);

    // It is seen to be interrupted, by whoever looks and whoever follows, and there is nothing to pause.
    let follower = Running::start(&sandbox, &["execution", "show", &id, "--follow"]);
    let shown = dr(&sandbox, &["execution", "show", &id]).await;
    for said in [
        "was interrupted: its process has ended",
        "dr execution resume",
        "dr execution abort",
    ] {
        assert!(shown.stdout.contains(said), "{said:?}: {shown:?}");
    }
    let shown = dr_json(&sandbox, &["execution", "show", &id, "--json"]).await;
    assert_eq!(shown["interrupted"], true, "{shown}");
    let written = (entries(&sandbox), epochs(&sandbox));
    let words = ["nobody runs execution", "its process has ended", "hint:"];
    refused(&sandbox, &["execution", "pause", &id], 12, &words).await;

    // As a new move would be refused; nothing is written.
    let key = sandbox.layout().key_file();
    let right = std::fs::read_to_string(&key).unwrap();
    sandbox.launcher().write_file(&key, OTHER).unwrap();
    let resume = ["execution", "resume", &id, "--json"];
    let words = [
        "would be refused",
        "--clients-by-hand",
        "dr execution abort",
    ];
    refused(&sandbox, &resume, 65, &words).await;
    assert_eq!((entries(&sandbox), epochs(&sandbox)), written);
    assert!(!is_primary(&sandbox, RECOVERY).await);

    // Without the switch there is nothing to refuse; that nobody leads clients is found where it counts.
    let stuck_at = |output: &dr_sandbox::process::Output| -> Value {
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(report["state"], "stuck", "{report}");
        report["stuck"]["step"].clone()
    };
    let skip = ["--skip", "switch", "--reason", "the wrong one"];
    let output = dr(&sandbox, &[&resume[..], &skip].concat()).await;
    says(&output, 14, &["--unskip switch"]);
    assert_eq!(stuck_at(&output), "prove");
    assert!(is_primary(&sandbox, RECOVERY).await);

    // Done after all; what was promoted goes on, and is warned.
    let unskip = ["--unskip", "switch", "--reason", "not by hand"];
    let output = dr(&sandbox, &[&resume[..], &unskip].concat()).await;
    says(
        &output,
        14,
        &["warning: the switch of", "goes on all the same"],
    );
    assert_eq!(stuck_at(&output), "switch");
    sandbox.launcher().write_file(&key, &right).unwrap();
    let output = dr(&sandbox, &resume).await;
    says(&output, 0, &["switch done"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["state"], "completed", "{report}");
    says(
        &follower.end().await,
        0,
        &["interrupted: its process has ended", "switch done"],
    );
    moved_once(&sandbox).await;
    judged(&sandbox, RECOVERY, &load.stop().await.unwrap()).await;
    end(sandbox);
}
