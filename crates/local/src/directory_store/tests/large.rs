//! Directories whose names are remembered.

use std::time::Duration;

use bytes::Bytes;
use dr_provider::{Key, ObjectStore};

use super::{DirectoryStore, key, store};

/// Names beyond those that are read each time.
const MANY: usize = 2000;

async fn listed(store: &DirectoryStore, prefix: &str, after: Option<&Key>) -> Vec<String> {
    let found = store.list(prefix, after, usize::MAX).await.unwrap();
    found.iter().map(|info| info.key.to_string()).collect()
}

/// Lists until the answer is `expected`: a change in a large directory may show a second late.
async fn list_until(store: &DirectoryStore, prefix: &str, expected: &[String]) {
    let seen = async {
        while listed(store, prefix, None).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .expect("the change shows");
}

#[tokio::test]
async fn a_change_in_a_large_directory_shows_soon_whoever_made_it() {
    let (directory, store) = store().await;
    let path = directory.path().join("deep/store/many");
    std::fs::create_dir(&path).unwrap();
    let mut names: Vec<String> = (0..MANY).map(|n| format!("many/{n:016X}")).collect();
    for name in &names {
        let file = directory.path().join("deep/store").join(name);
        std::fs::write(file, "x").unwrap();
    }
    assert_eq!(listed(&store, "many/", None).await, names);

    let new = key("many/00000000000000A0-new");
    store.create(&new, Bytes::from("y")).await.unwrap();
    names.push(new.to_string());
    names.sort_unstable();
    list_until(&store, "many/", &names).await;

    std::fs::remove_file(path.join("0000000000000001")).unwrap();
    names.remove(1);
    list_until(&store, "many/", &names).await;

    // The directory is another one now, of the same name.
    std::fs::rename(&path, directory.path().join("deep/store/old")).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("only"), "z").unwrap();
    list_until(&store, "many/", &["many/only".to_owned()]).await;
}

#[tokio::test]
async fn a_large_directory_is_listed_from_anywhere_in_it() {
    let (directory, store) = store().await;
    let root = directory.path().join("deep/store");
    std::fs::create_dir_all(root.join("many/000F00")).unwrap();
    std::fs::write(root.join("many/000F00/inside"), "x").unwrap();
    for n in 0..MANY {
        std::fs::write(root.join(format!("many/{n:06X}-")), "x").unwrap();
    }
    let all = listed(&store, "", None).await;
    assert_eq!(all.len(), 1 + MANY + 1);
    assert!(all.is_sorted());
    for after in [
        "a",
        "many",
        "many/0",
        "many/000123-",
        "many/000123-0",
        "many/000F00",
        "many/000F00/inside",
        "many/000F00/z",
        "many/z",
        "z",
    ] {
        let expected: Vec<String> = all.iter().filter(|k| k.as_str() > after).cloned().collect();
        assert_eq!(
            listed(&store, "", Some(&key(after))).await,
            expected,
            "{after}"
        );
        let within: Vec<String> = expected
            .into_iter()
            .filter(|key| key.starts_with("many/000"))
            .collect();
        let found = listed(&store, "many/000", Some(&key(after))).await;
        assert_eq!(found, within, "{after}");
    }
}
