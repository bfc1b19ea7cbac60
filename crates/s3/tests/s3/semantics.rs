//! What a store may conclude: when something is missing, what a list shows, and whether a condition holds.

use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::{IDENTITY_KEY, ObjectInfo};
use dr_provider::{ErrorKind, ObjectStore as _};
use dr_s3_testing::{Conditions, Fault, Operation as S3, Rule};
use rstest::rstest;

use crate::support::{body, filled, identity, key, kind};

/// Without its identity, or with another one, the store calls nothing missing.
#[tokio::test]
async fn missing_is_said_only_beside_the_identity() {
    let (server, store) = filled().await;
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::NotFound);
    assert_eq!(store.list("no", None, 5).await.unwrap(), []);
    let kept = server.object("store", &identity()).unwrap().body;
    for other in [None, Some(Bytes::from("another store's"))] {
        server.remove_object("store", &identity());
        if let Some(other) = other {
            let identity = key(IDENTITY_KEY);
            let there = store.create(&identity, other).await;
            there.unwrap();
        }
        assert_eq!(kind(store.get(&key("no")).await), ErrorKind::Unavailable);
        assert_eq!(kind(store.head(&key("no")).await), ErrorKind::Unavailable);
        let range = store.get_range(&key("no"), 0, 0).await;
        assert_eq!(kind(range), ErrorKind::Unavailable);
        let listed = store.list("no", None, 5).await;
        assert_eq!(kind(listed), ErrorKind::Unavailable);
        assert_eq!(store.get(&key("there")).await.unwrap(), body(1000));
    }
    server.remove_object("store", &identity());
    let identity = key(IDENTITY_KEY);
    store.create(&identity, kept).await.unwrap();
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::NotFound);
    // While the identity cannot be asked for, neither can anything be called missing.
    server.set_faults(vec![
        Rule::on(S3::GetObject, Fault::slow_down()).key("identity.json"),
    ]);
    assert_eq!(kind(store.get(&key("no")).await), ErrorKind::Unavailable);
}

/// Listings that lag behind hide what is new and are otherwise right.
#[tokio::test]
async fn a_stale_listing_hides_only_what_is_new() {
    let (server, store) = filled().await;
    server.set_stale("store", true);
    store.create(&key("their"), body(1)).await.unwrap();
    let names = |found: Vec<ObjectInfo>| {
        let names = found.into_iter().map(|info| info.key.to_string());
        names.collect::<Vec<_>>()
    };
    let listed = store.list("the", None, 9).await.unwrap();
    assert_eq!(names(listed), ["there"]);
    assert_eq!(store.get(&key("their")).await.unwrap(), body(1));
    server.set_stale("store", false);
    let listed = store.list("the", None, 9).await.unwrap();
    assert_eq!(names(listed), ["their", "there"]);
}

/// Servers that do not honour the condition are told apart by what they do, not by what they say.
#[rstest]
#[case(Conditions::Ignored, 16)]
#[case(Conditions::CheckedFirst, 2)]
#[tokio::test]
async fn a_server_without_conditions_lets_several_win(
    #[case] conditions: Conditions,
    #[case] least: usize,
) {
    let (server, store) = filled().await;
    server.set_conditions(conditions);
    let raced = key("raced");
    let creates = (0..16_u8).map(|racer| {
        let (store, key) = (Arc::clone(&store), raced.clone());
        async move { store.create(&key, Bytes::from(vec![racer])).await }
    });
    let won = futures::future::join_all(creates).await;
    assert!(won.iter().filter(|result| result.is_ok()).count() >= least);
}
