//! Creating: once, whole, for one winner.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Subject, assert_kind, bytes, key, keys};
use crate::{ErrorKind, Result};

/// A second create fails and leaves the first object, whether the bytes are the same or not.
pub async fn an_existing_object_is_never_changed(subject: Subject) {
    let store = &subject.store;
    let key = key("register/orders/00000001");
    store.create(&key, bytes("first")).await.unwrap();
    for again in ["first", "second", ""] {
        let again = store.create(&key, bytes(again)).await;
        assert_kind(again, ErrorKind::AlreadyExists);
    }
    assert_eq!(store.get(&key).await.unwrap(), "first");
}

/// A new object is there for every kind of read.
pub async fn an_object_is_readable_at_once(subject: Subject) {
    let store = &subject.store;
    for number in 0..20 {
        let key = key(&format!("a/{number}/b"));
        store.create(&key, bytes("content")).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), "content");
        assert_eq!(store.head(&key).await.unwrap().size_bytes, 7);
        assert_eq!(keys(&**store, key.as_str()).await, [key.as_str()]);
    }
}

/// Nothing and 9 MiB come back as they were.
pub async fn big_and_empty_objects_keep(subject: Subject) {
    let store = &subject.store;
    let big: Bytes = (0..9_u32 << 20).map(|at| (at % 251) as u8).collect();
    for (key, content) in [(key("empty"), Bytes::new()), (key("big"), big)] {
        store.create(&key, content.clone()).await.unwrap();
        // Not `assert_eq`, which would print it.
        assert!(store.get(&key).await.unwrap() == content, "{key}");
        let size = store.head(&key).await.unwrap().size_bytes;
        assert_eq!(size, content.len() as u64);
    }
}

/// Of sixteen concurrent creates one succeeds, fifteen are told so, and the winner's bytes stand.
pub async fn one_of_sixteen_creates_wins(subject: Subject) {
    for round in 0..8 {
        let key = key(&format!("race/{round}/object"));
        let mut tasks = JoinSet::new();
        for number in 0..16 {
            let (store, key) = (Arc::clone(&subject.store), key.clone());
            tasks.spawn(async move {
                let content = bytes(&format!("from {number}"));
                (content.clone(), store.create(&key, content).await)
            });
        }
        let outcomes: Vec<(Bytes, Result<()>)> = tasks.join_all().await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, r)| r.is_ok());
        assert_eq!(won.len(), 1, "{lost:?}");
        for (_, result) in lost {
            assert_kind(result, ErrorKind::AlreadyExists);
        }
        assert_eq!(subject.store.get(&key).await.unwrap(), won[0].0);
    }
}

/// Whoever reads while an object is being created sees nothing of it or all of it, and never loses
/// it again.
pub async fn no_reader_sees_part_of_an_object(subject: Subject) {
    let content = Bytes::from(vec![7; 1 << 20]);
    for round in 0..8 {
        let key = key(&format!("whole/{round}"));
        let (store, written, body) = (Arc::clone(&subject.store), key.clone(), content.clone());
        let writer = tokio::spawn(async move { store.create(&written, body).await });
        let mut seen = false;
        while !seen {
            match subject.store.get(&key).await {
                Ok(read) => {
                    assert!(read == content, "{} bytes", read.len());
                    seen = true;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
        }
        writer.await.unwrap().unwrap();
        assert!(subject.store.get(&key).await.unwrap() == content);
    }
}
