//! The conformance suite, and what is particular to a directory.

use std::sync::Arc;

use bytes::Bytes;
use dr_provider::conformance::object_store::Subject;
use dr_provider::{Error, ErrorKind, Key, ObjectStore};
use tempfile::TempDir;

use super::DirectoryStore;

async fn store() -> (TempDir, DirectoryStore) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/store");
    DirectoryStore::initialise(&path, Bytes::from("{\"id\":1}"))
        .await
        .unwrap();
    (directory, DirectoryStore::open(path).unwrap())
}

async fn subject() -> Subject {
    let (directory, store) = store().await;
    let identity = directory.path().join("deep/store/identity.json");
    let lose = move || std::fs::remove_file(identity).unwrap();
    Subject::new(Arc::new(store), lose).keeping(directory)
}

mod faults;
mod large;
mod processes;

mod conformance {
    use super::subject;

    dr_provider::object_store_conformance!(subject);
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

async fn assert_away(store: &DirectoryStore, message: &str) {
    let error = store.create(&key("new"), Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = dr_provider::error::chain(&error);
    assert!(text.contains(message), "{text}");
    assert!(error.hint().is_some());
    assert_eq!(kind(store.get(&key("old")).await), ErrorKind::Unavailable);
    assert_eq!(kind(store.list("", None, 9).await), ErrorKind::Unavailable);
}

#[tokio::test]
async fn opening_creates_nothing_and_a_store_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = DirectoryStore::open(&path).unwrap();
    assert_away(&store, "not initialised, or not mounted").await;
    assert!(!path.exists());
    DirectoryStore::initialise(&path, Bytes::from("id"))
        .await
        .unwrap();
    store.create(&key("new"), Bytes::new()).await.unwrap();
    assert_eq!(store.get(&key("identity.json")).await.unwrap(), "id");
}

#[tokio::test]
async fn a_file_in_the_place_of_a_store_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(&path, "").unwrap();
    let store = DirectoryStore::open(&path).unwrap();
    assert_away(&store, "is a file, and has to be a directory").await;
}

#[tokio::test]
async fn a_store_is_initialised_once_and_only_in_a_directory_of_its_own() {
    let (directory, _store) = store().await;
    let again = DirectoryStore::initialise(directory.path().join("deep/store"), "x".into());
    assert_eq!(kind(again.await), ErrorKind::AlreadyExists);
    let above = DirectoryStore::initialise(directory.path().join("deep"), "x".into());
    assert_eq!(kind(above.await), ErrorKind::Invalid);
}

/// What is done once as root must not keep the daemon, which is somebody else, from its store.
#[tokio::test]
async fn what_root_creates_is_the_owners() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    // Nobody else can give anything away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (directory, _store) = store().await;
    let path = directory.path().join("deep/store");
    chown(&path, Some(4321), Some(8765)).unwrap();
    let store = DirectoryStore::open(&path).unwrap();
    store.create(&key("a/b/c"), Bytes::new()).await.unwrap();
    for name in ["a", "a/b", "a/b/c"] {
        let metadata = std::fs::metadata(path.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (4321, 8765), "{name}");
    }
}

/// As in a container, or on a file system of which the server takes root for anybody.
#[tokio::test]
async fn root_that_may_give_nothing_away_writes_all_the_same() {
    use std::os::unix::fs::{MetadataExt as _, chown};

    const STORE: &str = "DR_STORE_WITHOUT_CHOWN";
    const TEST: &str =
        "directory_store::tests::root_that_may_give_nothing_away_writes_all_the_same";
    if let Some(path) = std::env::var_os(STORE) {
        let store = DirectoryStore::open(path).unwrap();
        store.create(&key("a/b/c"), Bytes::new()).await.unwrap();
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (directory, _store) = store().await;
    let path = directory.path().join("deep/store");
    chown(&path, Some(4321), Some(8765)).unwrap();
    let inside = std::process::Command::new("setpriv")
        .args(["--bounding-set", "-chown"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST])
        .env(STORE, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success(), "{said}");
    assert_eq!(std::fs::metadata(path.join("a/b/c")).unwrap().uid(), 0);
}

#[tokio::test]
async fn a_renamed_store_is_away_until_it_is_back() {
    let (directory, store) = store().await;
    store.create(&key("old"), Bytes::new()).await.unwrap();
    let (path, aside) = (
        directory.path().join("deep/store"),
        directory.path().join("aside"),
    );
    std::fs::rename(&path, &aside).unwrap();
    assert_away(&store, "has no identity object").await;
    std::fs::create_dir(&path).unwrap();
    assert_away(&store, "has no identity object").await;
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(store.get(&key("old")).await.unwrap(), "");
    assert_eq!(kind(store.get(&key("new")).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn another_store_at_the_path_is_refused_and_a_copy_is_not() {
    let (directory, store) = store().await;
    store.create(&key("old"), Bytes::new()).await.unwrap();
    let path = directory.path().join("deep/store");
    std::fs::rename(&path, directory.path().join("aside")).unwrap();
    DirectoryStore::initialise(&path, Bytes::from("{\"id\":2}"))
        .await
        .unwrap();
    assert_away(&store, "another store stands at").await;
    std::fs::write(path.join("identity.json"), "{\"id\":1}").unwrap();
    // As if a volume had been restored: other inodes, same identity.
    assert_eq!(kind(store.get(&key("old")).await), ErrorKind::NotFound);
    store.create(&key("new"), Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn an_emptied_directory_takes_no_object() {
    let (directory, store) = store().await;
    let path = directory.path().join("deep/store");
    store.get(&key("identity.json")).await.unwrap();
    let identity = std::fs::read(path.join("identity.json")).unwrap();
    std::fs::remove_dir_all(path.join(".tmp")).unwrap();
    let error = store.create(&key("new"), Bytes::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    std::fs::remove_file(path.join("identity.json")).unwrap();
    assert_away(&store, "has no identity object").await;
    drop(identity);
}

#[tokio::test]
async fn keys_that_a_directory_cannot_hold_are_invalid() {
    let (_directory, store) = store().await;
    store.create(&key("a/b"), Bytes::new()).await.unwrap();
    for text in ["a", "a/b/c", ".tmp/x", ".tmp"] {
        let error = store.create(&key(text), Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}: {error}");
        assert_eq!(
            kind(store.get(&key(text)).await),
            ErrorKind::NotFound,
            "{text}"
        );
    }
    let long = "x".repeat(300);
    let created = store.create(&key(&long), Bytes::new()).await;
    assert_eq!(kind(created), ErrorKind::Invalid);
    store.delete(&key("a")).await.unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "");
}

#[tokio::test]
async fn abandoned_temporary_files_are_swept_out_and_young_ones_kept() {
    let (directory, store) = store().await;
    let temporary = directory.path().join("deep/store/.tmp");
    let (old, young) = (temporary.join("old"), temporary.join("young"));
    for (path, age_hours) in [(&old, 25_u64), (&young, 23)] {
        let file = std::fs::File::create(path).unwrap();
        let made = file.metadata().unwrap().modified().unwrap();
        let then = made - std::time::Duration::from_secs(age_hours * 3600);
        file.set_modified(then).unwrap();
    }
    let listed = store.list("", None, 9).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(old.exists(), "reading removes nothing");
    store.create(&key("a"), Bytes::new()).await.unwrap();
    assert!(!old.exists());
    assert!(young.exists());
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_not_an_object_is_not_listed() {
    let (directory, store) = store().await;
    let path = directory.path().join("deep/store");
    std::fs::create_dir(path.join("lost+found")).unwrap();
    std::fs::create_dir(path.join("empty")).unwrap();
    std::fs::write(path.join("with space"), "").unwrap();
    std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    std::os::unix::fs::symlink("nowhere", path.join("dangling")).unwrap();
    let listed = store.list("", None, 9).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(kind(store.get(&key("empty")).await), ErrorKind::NotFound);
    assert_eq!(kind(store.get(&key("dangling")).await), ErrorKind::NotFound);
}
