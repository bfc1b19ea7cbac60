//! An execution that finds a recovery point damaged while it restores goes on with an older one that comes to the same end.

use std::fs;
use std::path::Path;

use dr_model::Epoch;
use dr_provider::ResourceDriver;
use dr_provider::driver::{
    Action, Backup as _, Fence, RecoveryPoint, RestoreTarget, Undo, Verified,
};
use dr_provider::error::chain;
use serde_json::{Value, json};

use super::{has_everything, protected, walk};
use crate::site::{EAST, Site, WEST, region};

fn action(parameters: Value) -> Action {
    Action {
        name: parameters["kind"].as_str().unwrap().to_owned(),
        summary: "test".to_owned(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::ReadOnly,
        parameters,
    }
}

fn rebuild(point: &RecoveryPoint) -> Action {
    action(json!({
        "kind": "restore-base",
        "region": WEST,
        "log": { "system_identifier": point.system_identifier, "timeline": 1, "epoch": 1 },
        "label": point.label,
    }))
}

fn fence(execution: &str) -> Fence {
    Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(2),
        execution: execution.parse().unwrap(),
        takeovers: 0,
    }
}

/// Two recovery points in both stores, and all log; returns the older one and the newer one.
async fn twice_protected() -> (Site, RecoveryPoint, RecoveryPoint) {
    let (site, older) = protected(1).await;
    let newer = site.back_up().await;
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    assert!(copied.unwrap().unusable.is_empty());
    site.commit(30).await;
    site.switch().await;
    site.push(EAST).await;
    site.push(WEST).await;
    (site, older, newer)
}

/// Turns a bit of each pack of a recovery point in a store: none gets longer or shorter. Twice, and all is as it was.
fn flip(store: &Path, point: &RecoveryPoint) {
    let packs = format!("{}/packs/", point.label);
    let packs: Vec<String> = walk(store)
        .into_iter()
        .filter(|path| path.contains(&packs))
        .collect();
    assert!(!packs.is_empty());
    for path in packs {
        let mut content = fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(&path, content).unwrap();
    }
}

async fn failure(site: &Site, store: &str, point: &RecoveryPoint) -> Option<String> {
    let listed = site.driver.list(&site.store(store)).await.unwrap().complete;
    let mut listed = listed.into_iter();
    listed.find(|one| one.label == point.label).unwrap().failure
}

#[tokio::test]
async fn a_rebuild_goes_on_with_an_older_one_and_loses_nothing() {
    let (site, older, newer) = twice_protected().await;
    flip(&site.place(WEST), &newer);
    let action = rebuild(&newer);
    let applied = site.driver.apply(&action, &fence("one")).await.unwrap();
    let said = &applied.summary;
    assert!(said.contains(&format!("from {}", older.label)), "{said}");
    let passed = format!("passed over {}", newer.label);
    assert!(said.contains(&passed), "{said}");
    // Whoever resumes it hears the same, and nobody else's is taken for it.
    let verified = site.driver.verify(&action, &fence("one")).await.unwrap();
    let Verified::Done(found) = verified else {
        panic!("{verified:?}");
    };
    assert!(found.summary.contains(&passed), "{}", found.summary);
    let other = site.driver.verify(&action, &fence("two")).await.unwrap();
    assert!(matches!(other, Verified::NotDone { .. }), "{other:?}");
    // The next plan knows it.
    assert!(failure(&site, WEST, &newer).await.is_some());
    assert_eq!(failure(&site, WEST, &older).await, None);
    has_everything(&site).await;
}

#[tokio::test]
async fn what_was_begun_is_written_anew_by_the_same_execution_only() {
    let (site, older, newer) = twice_protected().await;
    let west = site.place(WEST);
    flip(&west, &newer);
    flip(&west, &older);
    let action = rebuild(&newer);
    let place = site.place("recovered");
    let error = site.driver.apply(&action, &fence("one")).await.unwrap_err();
    for point in [&older, &newer] {
        assert!(chain(&error).contains(&point.label), "{error}");
        assert!(failure(&site, WEST, point).await.is_some());
    }
    let hint = error.hint().unwrap();
    assert!(hint.contains("resumed") && !hint.contains("--"), "{hint}");
    assert!(fs::read_dir(&place).unwrap().next().is_some());
    assert!(!place.join("global/pg_control").exists());
    let seen = site.driver.verify(&action, &fence("one")).await.unwrap();
    assert!(matches!(seen, Verified::NotDone { .. }), "{seen:?}");
    // Another execution did not write what is there.
    let error = site.driver.apply(&action, &fence("two")).await.unwrap_err();
    assert!(chain(&error).contains("not empty"), "{error}");

    // Somebody brings one back: what the proofs say of it is older.
    flip(&west, &older);
    let applied = site.driver.apply(&action, &fence("one")).await.unwrap();
    let said = &applied.summary;
    assert!(said.contains(&format!("from {}", older.label)), "{said}");

    // Cut off right before the end, and right before it was said that it is the end.
    let (control, mark) = (
        place.join("global/pg_control"),
        place.join("global/pg_control.dr-before"),
    );
    let mut begun = newer.system_identifier.0.to_le_bytes().to_vec();
    begun.extend(b"restored by execution one");
    fs::write(&mark, &begun).unwrap();
    let seen = site.driver.verify(&action, &fence("one")).await.unwrap();
    assert!(matches!(seen, Verified::NotDone { .. }), "{seen:?}");
    site.driver.apply(&action, &fence("one")).await.unwrap();
    assert!(control.exists() && !mark.exists());
    fs::remove_file(&control).unwrap();
    fs::write(&mark, &begun).unwrap();
    site.driver.apply(&action, &fence("one")).await.unwrap();
    let seen = site.driver.verify(&action, &fence("one")).await.unwrap();
    assert!(matches!(seen, Verified::Done(_)), "{seen:?}");
    has_everything(&site).await;
}

#[tokio::test]
async fn what_is_prepared_beside_the_database_is_as_well() {
    let (site, older, newer) = twice_protected().await;
    flip(&site.place(EAST), &newer);
    let end = site.primary.sql("select pg_current_wal_lsn()").await;
    let action = action(json!({
        "kind": "restore-beside",
        "region": EAST,
        "target": RestoreTarget::Lsn(newer.stop),
    }));
    let applied = site.driver.apply(&action, &fence("one")).await.unwrap();
    let said = &applied.summary;
    assert!(
        said.contains(&format!("passed over {}", newer.label)),
        "{said}"
    );
    assert_eq!(applied.evidence["recovery_point"], json!(older.label));
    assert!(failure(&site, EAST, &newer).await.is_some());
    // The primary went on.
    assert!(site.primary.sql("select pg_current_wal_lsn()").await >= end);
}
