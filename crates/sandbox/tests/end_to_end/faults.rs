//! The store of the recovery region is taken away, emptied or closed while everything runs, and comes back.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dr_sandbox::{HOME, RECOVERY, Sandbox};

use crate::executions::{epochs, executions};
use crate::support::{acknowledge, ask, backup, dr, dr_json, end, judged, start, until};

/// A way in which a store fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Gone,
    Empty,
    Closed,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_is_not_an_empty_one() {
    let sandbox = start(Sandbox::builder().sync(true)).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    backup(&sandbox, RECOVERY).await;
    let store = sandbox.region(RECOVERY).unwrap().place().store();
    let before = epochs(&sandbox);

    for fault in [Fault::Gone, Fault::Empty, Fault::Closed] {
        inflict(&sandbox, &store, fault);
        until(&format!("a commit that waits, {fault:?}"), async || {
            let query =
                "select nullif(count(*), 0) from pg_stat_activity where wait_event = 'SyncRep'";
            ask(&sandbox, HOME, query).await
        })
        .await;
        until(&format!("a daemon that says so, {fault:?}"), async || {
            let status = dr_json(&sandbox, &["status", "--json"]).await;
            let daemons = status["daemons"].as_array().unwrap();
            let said = daemons
                .iter()
                .find(|daemon| daemon["region"] == RECOVERY)
                .unwrap();
            if said["status"] == "healthy" {
                Err(said.to_string())
            } else {
                Ok(())
            }
        })
        .await;
        let status = dr(&sandbox, &["status"]).await;
        assert!(
            matches!(status.status.code(), Some(10 | 11)),
            "{fault:?}: {status:?}"
        );
        assert!(status.stdout.contains("unknown"), "{fault:?}: {status:?}");
        let words = ["failover", "--to", RECOVERY, "--yes"];
        let refused = dr(&sandbox, &words).await;
        assert!(
            matches!(refused.status.code(), Some(12 | 20)),
            "{fault:?}: {refused:?}"
        );
        assert!(refused.stderr.contains("hint:"), "{fault:?}: {refused:?}");

        heal(&store, fault);
        assert_eq!(epochs(&sandbox), before);
        assert_eq!(executions(&sandbox), Vec::<String>::new());
        acknowledge(&load, 100).await;
    }
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, HOME, &record).await;
    assert_eq!(verdict.lost, vec![]);
    end(sandbox);
}

fn inflict(sandbox: &Sandbox, store: &Path, fault: Fault) {
    match fault {
        Fault::Gone => std::fs::rename(store, aside(store)).unwrap(),
        Fault::Empty => {
            std::fs::rename(store, aside(store)).unwrap();
            sandbox.launcher().make_directory(store).unwrap();
        }
        Fault::Closed => set_mode(store, 0o000),
    }
}

fn heal(store: &Path, fault: Fault) {
    match fault {
        Fault::Gone => std::fs::rename(aside(store), store).unwrap(),
        Fault::Empty => {
            // Fails if anything was written into what is not the store.
            std::fs::remove_dir(store).unwrap();
            std::fs::rename(aside(store), store).unwrap();
        }
        Fault::Closed => set_mode(store, 0o755),
    }
}

fn aside(store: &Path) -> std::path::PathBuf {
    store.with_extension("aside")
}

fn set_mode(store: &Path, mode: u32) {
    std::fs::set_permissions(store, std::fs::Permissions::from_mode(mode)).unwrap();
}
