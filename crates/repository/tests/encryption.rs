//! Encrypted backups: read with the key, refused without, and nothing changed or moved goes unnoticed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use dr_provider::store::{MemoryStore, list_all};
use dr_provider::{ErrorKind, Key, ObjectStore};
use dr_repository::{
    BackupReader, CopyOptions, EncryptionKey, Error, Keys, Metadata, Repository, copy,
};
use support::{assert_usable, label, on, restore_options, write};

fn key(digit: char) -> EncryptionKey {
    EncryptionKey::parse(&format!("dr-key1 {}", digit.to_string().repeat(64))).unwrap()
}

fn keys(digits: &str) -> Keys {
    Keys::new(digits.chars().map(key).collect())
}

async fn written() -> (Arc<dyn ObjectStore>, Repository) {
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("a"));
    let repository = on(&store).with_keys(keys("1"));
    write(&repository, label(1)).await.unwrap();
    (store, repository)
}

async fn change(store: &Arc<dyn ObjectStore>, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.get(key).await.unwrap().to_vec();
    change(&mut bytes);
    store.delete(key).await.unwrap();
    store.create(key, Bytes::from(bytes)).await.unwrap();
}

fn object(rest: &str) -> Key {
    Key::new(format!("{}/backup/{}/{rest}", support::SOURCE, label(1))).unwrap()
}

/// Restoring fails and leaves nothing that could be used; returns what it says.
async fn refusal(backup: &BackupReader) -> String {
    let directory = tempfile::tempdir().unwrap();
    let restored = backup
        .restore_into(directory.path(), restore_options())
        .await;
    let verified = backup
        .verify(&dr_repository::VerifyOptions::default())
        .await
        .unwrap_err();
    let error = restored.unwrap_err();
    assert_eq!(error.kind(), verified.kind(), "{verified}");
    assert!(!directory.path().join(support::LAST).exists());
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_and_names_are_not_in_the_store() {
    let (store, repository) = written().await;
    assert_usable(&repository, &label(1)).await;
    let header = &repository.list().await.unwrap().backups[0];
    assert_eq!(
        header.encryption.as_ref().unwrap().key,
        key('1').id().as_str()
    );
    for object in list_all(&*store, "").await.unwrap() {
        let bytes = store.get(&object.key).await.unwrap();
        for secret in [
            b"PG_VERSION".as_slice(),
            b"compresses well",
            b"/srv/tablespace",
        ] {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{}", object.key);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_backups_of_the_same_share_nothing() {
    let (store, repository) = written().await;
    write(&repository, label(2)).await.unwrap();
    let other = Key::new(format!(
        "{}/backup/{}/packs/000000",
        support::SOURCE,
        label(2)
    ))
    .unwrap();
    let (a, b) = (
        store.get(&object("packs/000000")).await.unwrap(),
        store.get(&other).await.unwrap(),
    );
    assert_ne!(a[8..40], b[8..40]);
    let same = a[40..]
        .chunks(16)
        .zip(b[40..].chunks(16))
        .filter(|(a, b)| a == b);
    // Lengths in the index may agree by chance of alignment; content may not.
    assert!(same.count() < 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_key_a_backup_is_listed_copied_and_not_read() {
    let (store, _) = written().await;
    for (at_hand, says) in [("", "no key is configured"), ("2", "the keys at hand are")] {
        let repository = on(&store).with_keys(keys(at_hand));
        assert_eq!(repository.list().await.unwrap().backups.len(), 1);
        let backup = repository.open(&label(1)).await.unwrap();
        let text = refusal(&backup).await;
        assert!(
            text.contains(key('1').id().as_str()) && text.contains(says),
            "{text}"
        );
        let error = backup.file("PG_VERSION").await.unwrap_err();
        assert!(matches!(error, Error::Locked { .. }));
        let error = dr_provider::Error::from(error);
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.hint().unwrap().contains(key('1').id().as_str()));

        let there: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new("b"));
        let copied = on(&there).with_keys(keys(at_hand));
        copy(&repository, &copied, &label(1), CopyOptions::default())
            .await
            .unwrap();
        assert_usable(&on(&there).with_keys(keys("31")), &label(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_bit_of_a_manifest_and_a_tree_is_found() {
    let (store, repository) = written().await;
    for name in ["manifest", "tree/000000"] {
        let length = store.get(&object(name)).await.unwrap().len();
        for at in (0..length).step_by(7).chain([length - 1]) {
            change(&store, &object(name), |bytes| bytes[at] ^= 0x20).await;
            let read = async { repository.open(&label(1)).await?.file("x").await };
            let error = read.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{name} {at} {error}");
            change(&store, &object(name), |bytes| bytes[at] ^= 0x20).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_made_by_somebody_without_the_key_is_refused() {
    let (store, repository) = written().await;
    // All its plain hashes are right.
    change(&store, &object("manifest"), |bytes| {
        let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&bytes[12..12 + length]).unwrap();
        let forged = header.replace("0/2000138", "0/9000138");
        assert_ne!(forged, header);
        bytes.splice(12..12 + length, forged.bytes());
        let hash = blake3::hash(&bytes[..12 + length]);
        bytes[12 + length..12 + length + 32].copy_from_slice(hash.as_bytes());
    })
    .await;
    assert_eq!(repository.list().await.unwrap().backups.len(), 1);
    let error = repository.open(&label(1)).await.unwrap_err();
    assert!(error.to_string().contains("authentication code"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_swapped_and_truncated_frames_are_named() {
    let (store, repository) = written().await;
    let backup = repository.open(&label(1)).await.unwrap();
    let pack = object("packs/000001");
    let whole = store.get(&pack).await.unwrap();
    let count = whole.len() - 36;
    let frames = u32::from_le_bytes(whole[count..count + 4].try_into().unwrap()) as usize;
    let index = count - 40 * frames;
    let stored = u32::from_le_bytes(whole[index..index + 4].try_into().unwrap()) as usize;

    change(&store, &pack, |bytes| bytes[50] ^= 1).await;
    let text = refusal(&backup).await;
    assert!(
        text.contains("packs/000001") && text.contains("cannot be decrypted"),
        "{text}"
    );
    change(&store, &pack, |bytes| *bytes = whole.to_vec()).await;

    // Another attempt's salt: what is read was not sealed with it. The salt that counts is in the manifest.
    change(&store, &pack, |bytes| bytes[9] ^= 1).await;
    assert!(
        backup
            .verify(&dr_repository::VerifyOptions::default())
            .await
            .unwrap_err()
            .to_string()
            .contains("packs/000001")
    );
    change(&store, &pack, |bytes| *bytes = whole.to_vec()).await;

    // A frame of another pack in its place, of the same length.
    let other = store.get(&object("packs/000002")).await.unwrap();
    change(&store, &pack, |bytes| {
        bytes[40..40 + stored].copy_from_slice(&other[40..40 + stored]);
    })
    .await;
    let text = refusal(&backup).await;
    assert!(text.contains("cannot be decrypted"), "{text}");

    change(&store, &pack, |bytes| bytes.truncate(60)).await;
    let text = refusal(&backup).await;
    assert!(text.contains("packs/000001"), "{text}");
    change(&store, &pack, |bytes| *bytes = whole.to_vec()).await;
    assert_usable(&repository, &label(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_another_key_refers_to_nothing_older() {
    let (store, repository) = written().await;
    let first = repository.open(&label(1)).await.unwrap();
    let parent = first.file("base/1/frame").await.unwrap().unwrap();
    #[derive(Debug)]
    struct Nothing;
    impl dr_repository::FrameReader for Nothing {
        fn read(&self, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Ok(0)
        }
    }
    let metadata = Metadata { mode: 0, mtime: 0 };
    for (at_hand, fits) in [("1", true), ("12", true), ("21", false), ("", false)] {
        let repository = on(&store).with_keys(keys(at_hand));
        let mut writer = repository.begin(label(2), support::options());
        let result = writer
            .patch_file("x", metadata, 5, &parent, &[], Arc::new(Nothing))
            .await;
        assert_eq!(result.is_ok(), fits, "{result:?}");
    }
}
