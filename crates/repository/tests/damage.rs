//! Every kind of damage to every kind of object is found and named; nothing damaged is restored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, Key, ObjectStore};
use dr_repository::{CopyOptions, Error, PruneOptions, PrunePlan, Repository, copy};
use rstest::rstest;
use support::{label, on, restore_options, write};

async fn written() -> (Arc<dyn ObjectStore>, Repository) {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("a"));
    let repository = on(&store);
    write(&repository, label(1)).await.unwrap();
    (store, repository)
}

async fn change(store: &Arc<dyn ObjectStore>, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.get(key).await.unwrap().to_vec();
    change(&mut bytes);
    store.delete(key).await.unwrap();
    store.create(key, Bytes::from(bytes)).await.unwrap();
}

fn key(rest: &str) -> Key {
    Key::new(format!("{}/backup/{}/{rest}", support::SOURCE, label(1))).unwrap()
}

/// The error names the object; returns what else it says.
fn damage(error: Error, object: &str) -> String {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let text = error.to_string();
    assert!(text.contains(object), "{text}");
    text
}

#[tokio::test]
async fn every_byte_of_a_manifest_counts() {
    let (store, repository) = written().await;
    let manifest = key("manifest");
    let length = store.get(&manifest).await.unwrap().len();
    for at in 0..length {
        change(&store, &manifest, |bytes| bytes[at] ^= 0x20).await;
        let error = repository.open(&label(1)).await.unwrap_err();
        damage(error, "manifest");
        change(&store, &manifest, |bytes| bytes[at] ^= 0x20).await;
    }
    for at in [0, 5, 11, 12, 100, length - 1] {
        let whole = store.get(&manifest).await.unwrap();
        change(&store, &manifest, |bytes| bytes.truncate(at)).await;
        damage(repository.open(&label(1)).await.unwrap_err(), "manifest");
        change(&store, &manifest, |bytes| *bytes = whole.to_vec()).await;
    }
    repository.open(&label(1)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_manifest_does_not_hide_the_others() {
    let (store, repository) = written().await;
    write(&repository, label(2)).await.unwrap();
    change(&store, &key("manifest"), |bytes| bytes[40] ^= 1).await;
    let listing = repository.list().await.unwrap();
    assert_eq!(listing.backups.len(), 1);
    assert_eq!(listing.backups[0].label, label(2));
    let (unusable, error) = &listing.unusable[0];
    assert_eq!((unusable, error.kind()), (&label(1), ErrorKind::Corrupt));
}

#[tokio::test]
async fn a_manifest_under_another_label_is_damage() {
    let (store, repository) = written().await;
    let bytes = store.get(&key("manifest")).await.unwrap();
    let other = format!("{}/backup/{}/manifest", support::SOURCE, label(7));
    store
        .create(&Key::new(other).unwrap(), bytes)
        .await
        .unwrap();
    damage(repository.open(&label(7)).await.unwrap_err(), "manifest");
    assert_eq!(repository.list().await.unwrap().unusable.len(), 1);
}

/// Where in a pack: in its magic, in a frame, in its index, in its last byte.
#[rstest]
#[case::magic(0, None)]
#[case::frame(5_000, Some("`base/1/frame"))]
#[case::index(-100, None)]
#[case::hash(-1, None)]
#[tokio::test]
async fn a_flipped_bit_in_a_pack_is_named(#[case] at: i64, #[case] file: Option<&str>) {
    let (store, repository) = written().await;
    change(&store, &key("packs/000001"), |bytes| {
        let length = i64::try_from(bytes.len()).unwrap();
        bytes[usize::try_from(at.rem_euclid(length)).unwrap()] ^= 4;
    })
    .await;
    let backup = repository.open(&label(1)).await.unwrap();
    let text = damage(
        backup
            .verify(&dr_repository::VerifyOptions::default())
            .await
            .unwrap_err(),
        "packs/000001",
    );
    assert!(file.is_none_or(|file| text.contains(file)), "{text}");
    let there: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("b"));
    let copied = copy(&repository, &on(&there), &label(1), CopyOptions::default()).await;
    damage(copied.unwrap_err(), "packs/000001");
    assert!(on(&there).list().await.unwrap().backups.is_empty());
    let directory = tempfile::tempdir().unwrap();
    let restored = backup
        .restore_into(directory.path(), restore_options())
        .await;
    if file.is_some() {
        damage(restored.unwrap_err(), "packs/000001");
        assert!(!directory.path().join(support::LAST).exists());
    } else {
        // No file's content is touched.
        restored.unwrap();
        support::assert_restored(directory.path());
    }
}

/// A digit of a time, which is a time as well: what decides over deletions is refused, not believed.
#[tokio::test]
async fn a_flipped_digit_in_a_tombstone_or_a_lease_is_named() {
    let (store, repository) = written().await;
    write(&repository, label(2)).await.unwrap();
    let now = "2026-11-23T09:30:05Z".parse().unwrap();
    let facts = repository.prune_facts().await.unwrap();
    let plan = PrunePlan::new(&facts, &[label(1)], PruneOptions::default(), now);
    repository.prune(&plan, now).await.unwrap();
    repository.lease(&label(2), "reader", now).await.unwrap();
    for (kind, name) in [
        ("tomb", label(1).to_string()),
        ("lease", format!("{}/reader", label(2))),
    ] {
        let key = Key::new(format!("{}/{kind}/{name}", support::SOURCE)).unwrap();
        let whole = store.get(&key).await.unwrap();
        change(&store, &key, |bytes| {
            let year = bytes.windows(4).position(|part| part == b"2026");
            bytes[year.unwrap() + 3] ^= 1;
        })
        .await;
        damage(repository.prune_facts().await.unwrap_err(), key.as_str());
        change(&store, &key, |bytes| *bytes = whole.to_vec()).await;
    }
    repository.prune_facts().await.unwrap();
}

#[tokio::test]
async fn a_pack_that_is_gone_or_short_is_named() {
    let (store, repository) = written().await;
    let objects = list_all(&*store, support::SOURCE).await.unwrap();
    let packs = objects
        .iter()
        .filter(|object| object.key.as_str().contains("/packs/"));
    let count = packs.count();
    for number in 0..count {
        for length in [None, Some(0), Some(9), Some(40_000)] {
            let (store, repository) = written().await;
            let name = format!("packs/{number:06}");
            match length {
                None => store.delete(&key(&name)).await.unwrap(),
                Some(length) => change(&store, &key(&name), |bytes| bytes.truncate(length)).await,
            }
            let backup = repository.open(&label(1)).await.unwrap();
            let text = damage(
                backup
                    .verify(&dr_repository::VerifyOptions::default())
                    .await
                    .unwrap_err(),
                &name,
            );
            assert!(
                text.contains("`base/") || text.contains("`PG_VERSION`") || number + 1 == count,
                "{text}"
            );
            let directory = tempfile::tempdir().unwrap();
            let restored = backup
                .restore_into(directory.path(), restore_options())
                .await;
            damage(restored.unwrap_err(), &name);
            assert!(!directory.path().join(support::LAST).exists());
        }
    }
    repository
        .open(&label(1))
        .await
        .unwrap()
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_copy_that_went_bad_is_not_completed() {
    let (_, from) = written().await;
    let there: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("b"));
    let to = on(&there);
    copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap();
    there.delete(&key("manifest")).await.unwrap();
    change(&there, &key("packs/000002"), |bytes| bytes[9] ^= 1).await;
    let error = copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap_err();
    damage(error, "memory://b/");
    assert!(to.list().await.unwrap().backups.is_empty());
}

#[tokio::test]
async fn what_this_version_does_not_know_is_refused() {
    let (store, repository) = written().await;
    for (from, to) in [
        ("\"format\":2", "\"format\":3"),
        ("features\":[]", "features\":[\"x\"]"),
    ] {
        let whole = store.get(&key("manifest")).await.unwrap();
        change(&store, &key("manifest"), |bytes| {
            *bytes = with_header(bytes, from, to)
        })
        .await;
        for error in [
            repository.open(&label(1)).await.unwrap_err(),
            repository.list().await.unwrap().unusable.remove(0).1,
        ] {
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        change(&store, &key("manifest"), |bytes| *bytes = whole.to_vec()).await;
    }
}

/// Rewrites a manifest's header, with the right length and hash.
fn with_header(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[12..12 + length]).unwrap();
    let changed = header.replace(from, to);
    assert_ne!(header, changed);
    let mut out = bytes[..8].to_vec();
    out.extend(u32::try_from(changed.len()).unwrap().to_le_bytes());
    out.extend(changed.as_bytes());
    out.extend(blake3::hash(&out).as_bytes());
    out.extend(&bytes[12 + length + 32..]);
    out
}
