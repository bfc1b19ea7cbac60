//! The register moves away from the primary once another region can take it, and not before.

use dr_model::{Epoch, RegionName};
use dr_provider::driver::Instance;
use dr_provider::store::list_all;

use super::crash::die;
use super::world::{Everything, east, shipped, west};
use crate::move_register::{Placed, move_register};
use crate::request::Request;
use crate::site::Site;
use crate::{World, observe, plan};

/// A workload without resources, whose register came to stand with its primary in the west.
async fn moved_west() -> (Everything, Site) {
    let world = Everything::new().await;
    let site = Site {
        resources: [].into(),
        ..world.site("a")
    };
    let head = site.register.read().await.unwrap().unwrap();
    let second = dr_coordination::register::EpochRecord {
        epoch: Epoch(2),
        primary: west(),
        clusters: [].into(),
        ..head
    };
    site.register.create(&second).await.unwrap();
    (world, site)
}

fn stays(placed: &Placed, expected: &str) {
    match placed {
        Placed::Stays(why) => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn it_moves_to_a_region_that_has_the_records_and_stays_there() {
    let (_world, site) = moved_west().await;
    stays(
        &move_register(&site, &west()).await.unwrap(),
        "has no copy of epoch 2",
    );
    site.register.copy_to(&east()).await.unwrap();
    // The daemon of the other region has no say in it.
    assert_eq!(move_register(&site, &east()).await.unwrap(), Placed::Well);
    let Placed::Moved(record) = move_register(&site, &west()).await.unwrap() else {
        panic!("it does not move")
    };
    assert_eq!((record.epoch, &record.primary), (Epoch(3), &west()));
    assert_eq!(record.register, east());
    assert_eq!(move_register(&site, &west()).await.unwrap(), Placed::Well);
    assert_eq!(site.register.read().await.unwrap(), Some(*record));
}

#[tokio::test(start_paused = true)]
async fn it_stays_while_the_primary_is_not_seen() {
    let (world, _) = moved_west().await;
    let site = world.site("a");
    site.register.copy_to(&east()).await.unwrap();
    stays(
        &move_register(&site, &west()).await.unwrap(),
        "is not seen to be a running primary",
    );
}

#[tokio::test(start_paused = true)]
async fn it_stays_while_an_execution_could_go_on() {
    let world = Everything::new().await;
    assert!(die(&world, &Request::new(west()), 5, true).await);
    let site = Site {
        resources: [].into(),
        ..world.site("a")
    };
    let head = site.register.read().await.unwrap().unwrap();
    assert_eq!((head.epoch, &head.register), (Epoch(2), &west()));
    site.register.copy_to(&east()).await.unwrap();
    stays(
        &move_register(&site, &west()).await.unwrap(),
        "has not ended",
    );
}

/// Nobody can tell what an execution did whose journal is damaged; what it may still do nobody takes once its epoch is over.
#[tokio::test(start_paused = true)]
async fn a_damaged_journal_holds_it_until_its_epoch_is_over() {
    let world = Everything::new().await;
    assert!(die(&world, &Request::new(west()), 5, true).await);
    let store = &world.stores[&west()];
    let entries = list_all(store.as_ref(), "execution/").await.unwrap();
    let damaged = &entries[2].key;
    store.delete(damaged).await.unwrap();
    store.create(damaged, "{}".into()).await.unwrap();
    let site = Site {
        resources: [].into(),
        ..world.site("a")
    };
    site.register.copy_to(&east()).await.unwrap();
    let placed = move_register(&site, &west()).await.unwrap();
    stays(&placed, "is damaged");

    let head = site.register.read().await.unwrap().unwrap();
    let third = dr_coordination::register::EpochRecord {
        epoch: Epoch(3),
        execution: None,
        ..head
    };
    site.register.create(&third).await.unwrap();
    site.register.copy_to(&east()).await.unwrap();
    let placed = move_register(&site, &west()).await.unwrap();
    assert!(matches!(placed, Placed::Moved(_)), "{placed:?}");
}

/// In a store that is silent nobody could read the next record: who is primary would not be known.
#[tokio::test(start_paused = true)]
async fn a_move_leaves_it_to_no_third_region_that_is_silent() {
    let world = Everything::new().await;
    let mut seen = observe(&world.site("a"), &west()).await;
    let central: RegionName = "eu-central-1".parse().unwrap();
    seen.recovery.push(central.clone());
    let next = |seen: &World| {
        let plan = plan(&shipped(), seen, &Request::new(west())).unwrap();
        plan.register.next
    };
    // Nobody has looked there.
    assert_ne!(next(&seen), central);
    for (log, is_taken) in [(Err("no answer".to_owned()), false), (Ok(None), true)] {
        for resource in seen.resources.values_mut() {
            let mut there = resource.facts.regions[&west()].clone();
            (there.instance, there.log) = (Instance::Absent, log.clone());
            resource.facts.regions.insert(central.clone(), there);
        }
        assert_eq!(next(&seen) == central, is_taken);
    }
}
