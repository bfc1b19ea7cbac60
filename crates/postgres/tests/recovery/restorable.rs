//! What a failover would restore is looked at as a restore looks at it, before anything is done for it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use dr_model::Epoch;
use dr_postgres::{Method, PostgresDriver, StandbyRequest};
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{
    Backup as _, Fence, Goal, LogFacts, LogStream as _, RecoveryPoint, Verify,
};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore, ResourceDriver as _, Result};

use crate::restore::has_everything;
use crate::server::give_to_postgres;
use crate::site::{EAST, Setup, Site, WEST, region};

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

/// Returns what is seen, closely, of the region that has no server, and how a restore there would begin.
async fn planned(driver: &PostgresDriver) -> (LogFacts, Result<String>) {
    let west = region(WEST);
    let mut facts = driver.observe(std::slice::from_ref(&west)).await;
    driver.look_closely(&west, &mut facts).await;
    let held = facts.regions[&west].log.clone().unwrap().unwrap();
    let goal = Goal::Restore {
        region: west,
        ended: Epoch(1),
    };
    let planned = driver.plan(&goal, &facts);
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
    let (held, plan) = planned(&site.driver).await;
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
    let (held, plan) = planned(&site.driver).await;
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
    let (held, plan) = planned(&site.driver).await;
    // Nothing is wrong with the recovery point, and with an older one replay would remove what is there.
    assert_eq!(held.unusable, Vec::<String>::new());
    assert_eq!(held.recovery_points[0].label, third.label);
    let refused = chain(&plan.unwrap_err());
    assert!(refused.contains("tablespace"), "{refused}");

    // Without the key there is nothing at all, and each says so.
    site.forget_key();
    let (held, plan) = planned(&site.driver).await;
    assert!(held.recovery_points.is_empty());
    let refused = chain(&plan.unwrap_err());
    assert!(refused.contains("is encrypted with key"), "{refused}");
    let listed = site.driver.list(&site.store(WEST)).await.unwrap();
    assert!(!listed.complete.is_empty());
    for point in listed.complete {
        // Nobody has looked at it, so nothing is known to be wrong with it.
        assert_eq!(point.failure, None);
        let why = &listed.no_key[&point.label];
        assert!(why.contains("is encrypted with key"), "{why}");
    }
}

/// A primary that was promoted a moment ago has taken no backup yet, and may be lost all the same.
#[tokio::test]
async fn soon_after_a_promotion_what_the_timeline_before_has_will_do() {
    let mut site = Site::start(1).await;
    site.commit(20).await;
    let point = protect(&site).await;
    site.go_on_promoted(WEST).await;
    let west = region(WEST);
    let look = async || {
        let mut facts = site.driver.observe(std::slice::from_ref(&west)).await;
        site.driver.look_closely(&west, &mut facts).await;
        let held = facts.regions[&west].log.clone().unwrap().unwrap();
        let goal = Goal::Restore {
            region: west.clone(),
            ended: Epoch(2),
        };
        (held, site.driver.plan(&goal, &facts))
    };
    let (held, planned) = look().await;
    assert_eq!(held.earlier.as_ref(), Some(&point.label));
    let rebuild = planned.unwrap().swap_remove(0);
    assert!(rebuild.summary.contains(&point.label), "{rebuild:?}");

    // Without some of the log in between nothing will do.
    let cluster = site.primary.system_identifier().await;
    let before = site
        .place(WEST)
        .join(format!("postgres/{cluster}/wal/00000001"));
    let aside = site.place("aside");
    fs::rename(&before, &aside).unwrap();
    let (held, planned) = look().await;
    assert_eq!(held.earlier, None);
    planned.unwrap_err();
    fs::rename(&aside, &before).unwrap();

    let fence = Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(3),
        execution: "restore".parse().unwrap(),
        takeovers: 0,
    };
    site.driver.apply(&rebuild, &fence).await.unwrap();
    has_everything(&site).await;
}

/// What a region is observed for, every few seconds, rests on nothing that a store can be slow with; and a store that does not answer a
/// closer look has no less for it.
#[tokio::test]
async fn a_store_that_does_not_answer_speaks_against_nothing() {
    let site = Site::start(1).await;
    site.commit(20).await;
    let point = protect(&site).await;
    let merged = site.driver.compact(&region(WEST)).await.unwrap();
    assert!(merged.pieces > 0, "{merged:?}");
    let faulty = Arc::new(Faulty::scripted(site.store(WEST), Vec::new()));
    let stores: BTreeMap<_, Arc<dyn ObjectStore>> = BTreeMap::from([
        (region(EAST), site.store(EAST)),
        (region(WEST), Arc::clone(&faulty) as Arc<dyn ObjectStore>),
    ]);
    let data = Some(site.primary.data.clone());
    let setup = Setup {
        data,
        ..Setup::default()
    };
    let driver = setup.driver(site.directory.path(), stores);
    let (whole, _) = planned(&driver).await;
    let cluster = site.primary.system_identifier().await;
    let silent = Fault::Before(ErrorKind::Unavailable);
    let manifests = format!("postgres/{cluster}/backup/*");
    let log = format!("postgres/{cluster}/*/log/*");
    for rules in [
        vec![Rule::on(Operation::Get, &manifests, silent)],
        vec![Rule::on(Operation::GetRange, &log, silent)],
    ] {
        faulty.set_rules(rules);
        let (held, plan) = planned(&driver).await;
        assert_eq!(held.recovery_points, whole.recovery_points);
        assert_eq!((held.start, held.end), (whole.start, whole.end));
        assert!(plan.unwrap().contains(&point.label));
    }
}

/// The newest one is not taken where it cannot be read: not for a standby, whose old directory would be given up for it.
#[tokio::test]
async fn what_cannot_be_read_here_is_passed_over() {
    let mut site = Site::start(1).await;
    site.encrypt('1');
    site.commit(20).await;
    let first = protect(&site).await;
    site.encrypt('2');
    site.commit(20).await;
    let second = protect(&site).await;
    // A backup has one key, packs that it refers to included.
    assert_eq!(second.taken.parent, None);
    let remarks = second.taken.remarks.join("; ");
    assert!(remarks.contains("the key has been changed"), "{remarks}");
    site.forget_key();
    let request = StandbyRequest {
        region: region(WEST),
        reseed: false,
        method: Some(Method::RecoveryPoint),
        discard: false,
    };
    let plan = site.driver.plan_standby(&request).await.unwrap();
    assert_eq!(plan.recovery_point, Some(first.label.clone()));
    // What can be read is verified, and what cannot is said.
    let due = Verify::verify_due(&site.driver, &region(WEST)).await;
    let due = due.unwrap();
    let read: Vec<&String> = due.records.iter().map(|record| &record.label).collect();
    assert_eq!(read, [&first.label]);
    assert_eq!(due.unread.len(), 1, "{:?}", due.unread);
    assert!(due.unread[0].starts_with(&second.label), "{:?}", due.unread);
}
