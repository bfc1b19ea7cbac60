//! A name server that takes no update from us: whoever leads the clients by hand is not kept from recovering the workload.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::Value;

use crate::executions::{epochs, executions};
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
