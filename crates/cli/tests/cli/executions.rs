//! Executions whose journals are not what they should be.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_coordination::register::Register;
use dr_local::DirectoryStore;
use dr_model::{Epoch, TimelineId};
use dr_provider::ObjectStore;

use crate::support::{Place, REGIONS};

const ID: &str = "20261121T093005Z-us-west-2-0001";

/// A journal that nobody can believe is named by its entry, refused with its own exit code, and hides nothing else.
#[tokio::test]
async fn a_journal_that_was_tampered_with_is_refused() {
    let place = Place::new();
    place.initialise_stores().await;
    let journal = place.store("us-west-2").join("execution").join(ID);
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join("000001"), "{}").unwrap();
    for command in [
        &["execution", "show", ID][..],
        &["execution", "resume", ID],
        &["execution", "abort", ID],
        &["execution", "pause", ID],
    ] {
        let ran = place.run(command);
        assert_eq!(ran.code, 12, "{command:?}: {ran:?}");
        assert!(ran.stderr.contains("entry 1 of execution"), "{ran:?}");
        assert!(ran.stderr.contains("do not go on with it"), "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 1);
    let listed = place.run(&["execution", "list"]);
    assert_eq!(listed.code, 11, "{listed:?}");
    assert!(listed.stderr.contains(ID), "{listed:?}");
}

/// Which workload a damaged journal is about says its register, whatever is wrong with those of others.
#[tokio::test]
async fn the_register_of_another_workload_does_not_keep_a_move_from_being_taken_back() {
    const BILLING: &str = "workloads:
  billing:
    objectives: { rpo: 15m, rto: 4h }
    home: us-east-1
    recovery: [us-west-2]
    resources:
      database:
        kind: postgres
        regions:
          us-east-1: { host: local, address: 127.0.0.1, port: 19, data_directory: data/billing-1 }
          us-west-2: { host: local, address: 127.0.0.1, port: 20, data_directory: data/billing-2 }
";
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    let root = place.root().replacen("workloads:\n", BILLING, 1);
    place.write("dr.yaml", &root);
    place.write("stores/us-west-2/register/billing/00000001", "{}");
    let journal = format!("stores/us-west-2/execution/{ID}/000001");
    place.write(&journal, "{}");
    let of_another = ["execution", "abort", ID, "--override", "it is damaged"];
    let ran = place.run(&of_another);
    assert!(ran.stderr.contains("of `billing`"), "nobody's: {ran:?}");

    // Now it has moved `orders`.
    let open = |region: &str| -> Arc<dyn ObjectStore> {
        Arc::new(DirectoryStore::open(place.store(region)).unwrap())
    };
    let stores: BTreeMap<_, _> = REGIONS
        .iter()
        .map(|region| (region.parse().unwrap(), open(region)))
        .collect();
    let home = "us-west-2".parse().unwrap();
    let register = Register::new("orders".parse().unwrap(), stores, home);
    let mut record = register.read().await.unwrap().unwrap();
    record.epoch = Epoch(2);
    record.primary = "us-west-2".parse().unwrap();
    record.execution = Some(ID.parse().unwrap());
    for claim in record.clusters.values_mut() {
        claim.timeline = TimelineId(2);
    }
    register.create(&record).await.unwrap();
    let ran = place.run(&of_another);
    assert!(!ran.stderr.contains("billing"), "{ran:?}");
    assert!(ran.stderr.contains(ID), "{ran:?}");
}
