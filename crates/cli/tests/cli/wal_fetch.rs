//! `dr wal fetch`: 1 for what is proven not to exist, 255 for everything else, because PostgreSQL
//! would take any code up to 125 for the end of the log (PROTOCOL 6, R12, R26).

use dr_provider::store::IDENTITY_KEY;

use crate::support::{Place, run};

const SEGMENT: &str = "000000010000000000000003";

fn fetch(place: &Place, more: &[&str]) -> i32 {
    let destination = place.path().join("RECOVERYXLOG");
    let destination = destination.to_str().unwrap();
    let ran = place.run(
        &[
            &[
                "wal",
                "fetch",
                "orders/database",
                SEGMENT,
                destination,
                "--in",
                "us-west-2",
            ],
            more,
        ]
        .concat(),
    );
    assert!(!std::path::Path::new(destination).exists());
    ran.code
}

#[test]
fn usage_configuration_and_stores_are_255() {
    assert_eq!(run(["wal", "fetch"]).code, 255);
    assert_eq!(
        run([
            "--config", "/nowhere", "wal", "fetch", "a/b", SEGMENT, "x", "--in", "r"
        ])
        .code,
        255
    );
    let place = Place::new();
    assert_eq!(fetch(&place, &["--frobnicate"]), 255);
    assert_eq!(fetch(&place, &["--through", "here"]), 255);
    // The store is not there.
    assert_eq!(fetch(&place, &[]), 255);
    place.write("dr.yaml", "version: 2\n");
    assert_eq!(fetch(&place, &[]), 255);
}

#[tokio::test]
async fn a_workload_without_an_epoch_is_255() {
    let place = Place::new();
    place.initialise_stores().await;
    assert_eq!(fetch(&place, &[]), 255);
}

#[tokio::test]
async fn a_file_that_is_proven_missing_is_1_although_no_secret_can_be_read() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    assert_eq!(fetch(&place, &[]), 1);
    // An empty directory in the place of the store proves nothing.
    let store = place.store("us-west-2");
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::create_dir(&store).unwrap();
    assert_eq!(fetch(&place, &[]), 255);
}

#[tokio::test]
async fn what_another_store_does_not_have_proves_nothing() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    assert_eq!(fetch(&place, &[]), 1);
    let identity = place.store("us-west-2").join(IDENTITY_KEY);
    let own = std::fs::read(&identity).unwrap();
    let another = std::fs::read(place.store("us-east-1").join(IDENTITY_KEY)).unwrap();
    for wrong in [another.as_slice(), b"{"] {
        std::fs::remove_file(&identity).unwrap();
        std::fs::write(&identity, wrong).unwrap();
        assert_eq!(fetch(&place, &[]), 255);
        let restored = place.path().join("restored");
        let restored = restored.to_str().unwrap();
        let restore = [
            "restore",
            "orders/database",
            "--in",
            "us-west-2",
            "--into",
            restored,
        ];
        let ran = place.run(&restore);
        assert!(ran.stderr.starts_with("error: cannot use store"), "{ran:?}");
        let segment = place.path().join(SEGMENT);
        let segment = segment.to_str().unwrap();
        let ran = place.run(&[
            "wal",
            "push",
            "orders/database",
            segment,
            "--in",
            "us-west-2",
        ]);
        assert!(ran.stderr.starts_with("error: cannot use store"), "{ran:?}");
    }
    std::fs::remove_file(&identity).unwrap();
    std::fs::write(&identity, own).unwrap();
    assert_eq!(fetch(&place, &[]), 1);
}
