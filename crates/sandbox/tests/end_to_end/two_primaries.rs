//! An old primary that runs again and accepts writes: everybody who is asked says so, first of all, and nobody calls it measured.

use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::Value;

use crate::executions::executions;
use crate::support::{
    acknowledge, acknowledge_after, ask, backup, cluster, dr, end, fail_over, metrics, says, start,
    task, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_accepts_writes_is_an_alarm() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    fail_over(&sandbox, &[]).await;
    acknowledge_after(&load, lost_at).await;
    let line = "writers of ledger";
    until("one writer", async || {
        let seen = task(&sandbox, RECOVERY, line).await?;
        let well = seen["status"] == "healthy";
        if well { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    let execution = executions(&sandbox).remove(0);
    let divergence = ["execution", "divergence", &execution];

    // Somebody takes the fence away and starts it.
    std::fs::rename(home.place().lost_store(), home.place().store()).unwrap();
    let signal = home.place().data_directory().join("standby.signal");
    let fence = std::fs::read(&signal).unwrap();
    std::fs::remove_file(&signal).unwrap();
    // Before anybody starts it, it is named as what it would be.
    let unfenced = dr(&sandbox, &["status"]).await;
    assert_eq!(unfenced.status.code(), Some(10), "{unfenced:?}");
    let named = "database in us-east-1 is stopped and not fenced, an old primary on timeline 1: do not start it";
    assert!(unfenced.stdout.contains(named), "{}", unfenced.stdout);
    std::fs::write(&signal, &fence).unwrap();
    let fenced = dr(&sandbox, &["status"]).await;
    assert!(!fenced.stdout.contains("not fenced"), "{}", fenced.stdout);
    std::fs::remove_file(&signal).unwrap();
    cluster(&sandbox, HOME).start().unwrap();
    cluster(&sandbox, HOME).wait_ready().await.unwrap();
    assert_eq!(
        ask(&sandbox, HOME, "select pg_is_in_recovery()")
            .await
            .unwrap(),
        "false"
    );

    let seen = until("an alarm", async || {
        let seen = task(&sandbox, RECOVERY, line).await?;
        let bad = seen["status"] == "unhealthy";
        if bad { Ok(seen) } else { Err(seen.to_string()) }
    })
    .await;
    let detail = seen["detail"].as_str().unwrap();
    let said = "TWO PRIMARIES: database in us-east-1 accepts writes although us-west-2 is primary";
    assert!(detail.starts_with(said), "{detail}");
    let counted = format!("dr_primaries{{resource=\"ledger/database\",region=\"{RECOVERY}\"}} 2\n");
    let found = metrics(&sandbox, RECOVERY).await;
    assert!(found.contains(&counted), "{found}");
    let status = dr(&sandbox, &["status"]).await;
    assert_eq!(status.status.code(), Some(10), "{status:?}");
    assert!(
        status.stdout.starts_with("ledger: TWO PRIMARIES\n"),
        "{}",
        status.stdout
    );
    let unclear = dr(&sandbox, &divergence).await;
    says(&unclear, 11, &["it cannot be told", "hint:"]);
    assert!(
        unclear.stdout.contains("RUNS AND ACCEPTS WRITES"),
        "{}",
        unclear.stdout
    );

    // Once it is stopped it is measured, and the code says what was found.
    let client = cluster(&sandbox, HOME).connect("ledger").await.unwrap();
    let create = "create table only_here as select 1 as one";
    client.batch_execute(create).await.unwrap();
    drop(client);
    cluster(&sandbox, HOME).stop().await.unwrap();
    let measured = dr(&sandbox, &[&divergence[..], &["--json"]].concat()).await;
    assert_eq!(measured.status.code(), Some(10), "{measured:?}");
    let measured: Value = serde_json::from_str(&measured.stdout).unwrap();
    let commits = &measured["resources"][0]["found"][0]["in"][1]["commits"];
    assert!(commits.as_u64().unwrap() >= 1, "{measured}");
    until("the end of the alarm", async || {
        let seen = task(&sandbox, RECOVERY, line).await?;
        let well = seen["status"] == "healthy";
        if well { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    load.stop().await.unwrap();
    end(sandbox);
}
