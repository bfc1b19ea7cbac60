//! Listing: order, prefixes, pages.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Subject, bytes, key, keys};

async fn fill(subject: &Subject, keys: &[&str]) {
    for text in keys {
        subject.store.create(&key(text), bytes("x")).await.unwrap();
    }
}

/// Keys come in the order of their bytes, also where `-`, `.` and digits stand beside `/`.
pub async fn a_listing_is_in_byte_order(subject: Subject) {
    let sorted = [
        "A", "a-b", "a-b-/c", "a.b", "a/b", "a/b-c", "a/c/d", "a0", "a_b", "b/a", "b/a0/c", "b/b",
        "ba",
    ];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(2, 9);
    fill(&subject, &shuffled).await;
    assert_eq!(keys(&*subject.store, "").await, sorted);
    let size = subject.store.list("b/a0", None, 1).await.unwrap()[0].size_bytes;
    assert_eq!(size, 1);
}

/// A prefix is plain text: it may stop inside a part, name a whole key, or match nothing.
pub async fn a_prefix_need_not_end_at_a_slash(subject: Subject) {
    fill(&subject, &["w/10/a", "w/1/a", "w/1/b", "w/2", "x"]).await;
    let store = &*subject.store;
    assert_eq!(keys(store, "w/1").await, ["w/1/a", "w/1/b", "w/10/a"]);
    assert_eq!(keys(store, "w/1/").await, ["w/1/a", "w/1/b"]);
    assert_eq!(keys(store, "w/2").await, ["w/2"]);
    assert_eq!(keys(store, "w").await.len(), 4);
    for nothing in ["w/2/", "w/3", "y", "w/1/a/", "/", "../", "w//", "w/1/../"] {
        assert_eq!(keys(store, nothing).await, [""; 0], "{nothing}");
    }
}

/// Pages follow one another without gap or repeat, whatever stands in `after`.
pub async fn a_listing_of_many_keys_pages(subject: Subject) {
    let store = &subject.store;
    let all: Vec<String> = (0..1500)
        .map(|number| format!("many/{}/{:05}", number / 300, number))
        .collect();
    for some in all.chunks(50) {
        let mut tasks = JoinSet::new();
        for text in some {
            let (store, key) = (Arc::clone(store), key(text));
            tasks.spawn(async move { store.create(&key, bytes("x")).await });
        }
        for created in tasks.join_all().await {
            created.unwrap();
        }
    }
    assert_eq!(keys(&**store, "many/").await, all);
    for size in [1, 7, 299, 300, 301] {
        let mut after = key("many/0/00290");
        let mut seen = Vec::new();
        while seen.len() < 620 {
            let page = store.list("many/", Some(&after), size).await.unwrap();
            assert_eq!(page.len(), size);
            after = page[size - 1].key.clone();
            seen.extend(page.into_iter().map(|info| info.key.to_string()));
        }
        assert_eq!(seen, all[291..291 + seen.len()]);
    }
    // What stands in `after` need not exist, nor match the prefix.
    for (after, first) in [
        ("a", Some("many/0/00000")),
        ("many/2", Some("many/2/00600")),
        ("many/2/00700-", Some("many/2/00701")),
        ("many/4/01499", None),
        ("z", None),
    ] {
        let page = store.list("many/", Some(&key(after)), 1).await.unwrap();
        let found = page.first().map(|info| info.key.as_str());
        assert_eq!(found, first, "after {after}");
    }
    let page = store
        .list("many/3/", Some(&key("many/2")), 1)
        .await
        .unwrap();
    assert_eq!(page[0].key.as_str(), "many/3/00900");
    assert!(store.list("many/", None, 0).await.unwrap().is_empty());
}
