//! Finding: ranges, deletion, and what may be called missing.

use super::{Subject, assert_kind, bytes, key};
use crate::ErrorKind;

/// A range is cut at the object's end and empty past it.
pub async fn a_range_ends_with_the_object(subject: Subject) {
    let store = &subject.store;
    let key = key("ranges");
    store.create(&key, bytes("0123456789")).await.unwrap();
    for (offset, length, expected) in [
        (0, 4, "0123"),
        (4, 3, "456"),
        (8, 2, "89"),
        (8, 100, "89"),
        (0, u64::MAX, "0123456789"),
        (3, 0, ""),
        (10, 1, ""),
        (11, 5, ""),
        (u64::MAX, u64::MAX, ""),
    ] {
        let range = store.get_range(&key, offset, length).await.unwrap();
        assert_eq!(range, expected, "{length} bytes from {offset}");
    }
}

/// Deleting succeeds whether or not there is an object; then there is none, and its key can be used
/// again.
pub async fn a_deleted_object_is_gone(subject: Subject) {
    let store = &subject.store;
    let (one, other) = (key("a/one"), key("a/other"));
    store.create(&one, bytes("1")).await.unwrap();
    store.create(&other, bytes("2")).await.unwrap();
    for _ in 0..2 {
        store.delete(&one).await.unwrap();
        assert_kind(store.get(&one).await, ErrorKind::NotFound);
        assert_kind(store.get_range(&one, 0, 1).await, ErrorKind::NotFound);
        assert_kind(store.head(&one).await, ErrorKind::NotFound);
        assert_eq!(super::keys(&**store, "a/").await, ["a/other"]);
    }
    store.delete(&key("never/there")).await.unwrap();
    store.create(&one, bytes("3")).await.unwrap();
    assert_eq!(store.get(&one).await.unwrap(), "3");
}

/// Once the identity object cannot be read no call succeeds, and none calls anything missing
/// (PROTOCOL 4).
pub async fn without_identity_nothing_is_not_found(subject: Subject) {
    let Subject {
        store,
        lose_identity,
        kept: _kept,
    } = subject;
    let (there, missing) = (key("there"), key("missing"));
    store.create(&there, bytes("1")).await.unwrap();
    assert_kind(store.get(&missing).await, ErrorKind::NotFound);
    lose_identity();
    for key in [&there, &missing] {
        assert_kind(store.get(key).await, ErrorKind::Unavailable);
        assert_kind(store.get_range(key, 0, 1).await, ErrorKind::Unavailable);
        assert_kind(store.head(key).await, ErrorKind::Unavailable);
        assert_kind(store.delete(key).await, ErrorKind::Unavailable);
        assert_kind(store.create(key, bytes("2")).await, ErrorKind::Unavailable);
        let listed = store.list(key.as_str(), None, 1).await;
        assert_kind(listed, ErrorKind::Unavailable);
    }
}
