//! What a failover would restore is looked at as a restore looks at it, before anything is done for it.

use std::fs;

use dr_model::Epoch;
use dr_provider::driver::{Backup as _, Goal, LogFacts, RecoveryPoint};
use dr_provider::error::chain;
use dr_provider::{ResourceDriver as _, Result};

use crate::server::give_to_postgres;
use crate::site::{EAST, Site, WEST, region};

/// Backs up, and brings everything into the store of the region that has no server.
async fn protect(site: &Site) -> RecoveryPoint {
    let point = site.back_up().await;
    site.switch().await;
    site.push(EAST).await;
    site.push(WEST).await;
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    assert!(copied.unwrap().unusable.is_empty());
    point
}

/// Returns what is seen of the region that has no server, and how a restore there would begin.
async fn planned(site: &Site) -> (LogFacts, Result<String>) {
    let west = region(WEST);
    let facts = site.driver.observe(std::slice::from_ref(&west)).await;
    let held = facts.regions[&west].log.clone().unwrap().unwrap();
    let goal = Goal::Restore {
        region: west,
        ended: Epoch(1),
    };
    let planned = site.driver.plan(&goal, &facts);
    (held, planned.map(|actions| actions[0].summary.clone()))
}

#[tokio::test]
async fn what_cannot_be_restored_is_found_before_a_failover() {
    let mut site = Site::start(1).await;
    site.encrypt('1');
    site.commit(20).await;
    let first = protect(&site).await;
    site.commit(20).await;
    let second = protect(&site).await;
    let (held, plan) = planned(&site).await;
    assert_eq!(held.unusable, Vec::<String>::new());
    assert!(plan.unwrap().contains(&second.label));

    // A byte of the part of the manifest that no listing reads.
    let cluster = site.primary.system_identifier().await;
    let manifest = format!("postgres/{cluster}/backup/{}/manifest", second.label);
    let manifest = site.place(WEST).join(manifest);
    let whole = fs::read(&manifest).unwrap();
    let mut flipped = whole.clone();
    let at = flipped.len() - 40;
    flipped[at] ^= 4;
    fs::write(&manifest, flipped).unwrap();
    let (held, plan) = planned(&site).await;
    assert!(held.unusable[0].starts_with(&second.label), "{held:?}");
    let plan = plan.unwrap();
    let good = format!("recovery point {}", first.label);
    assert!(
        plan.contains(&good) && plan.contains("passing over"),
        "{plan}"
    );
    fs::write(&manifest, whole).unwrap();

    // A tablespace that goes where the primary has it, since both are on this machine.
    let place = site.place("fast");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    let create = format!("create tablespace fast location '{}'", place.display());
    site.primary.sql(&create).await;
    let third = protect(&site).await;
    let (held, plan) = planned(&site).await;
    let why = held.unusable.join("; ");
    assert!(
        why.contains(&third.label) && why.contains("tablespace"),
        "{why}"
    );
    assert!(plan.unwrap().contains(&second.label));

    // Without the key there is nothing at all, and each says so.
    site.forget_key();
    let (held, plan) = planned(&site).await;
    assert!(held.recovery_points.is_empty());
    let refused = chain(&plan.unwrap_err());
    assert!(refused.contains("is encrypted with key"), "{refused}");
    let listed = site.driver.list(&site.store(WEST)).await.unwrap();
    for point in listed.complete {
        let failure = point.failure.unwrap();
        assert!(failure.contains("is encrypted with key"), "{failure}");
    }
}
