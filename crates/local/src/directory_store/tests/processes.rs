//! Several processes on one directory, and one that is killed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use dr_provider::ObjectStore;

use super::{DirectoryStore, key, store};

/// Names the store's directory to a test that runs again as one of several processes.
const STORE: &str = "DR_TEST_STORE";

/// Starts a test of this file again in a process of its own, which waits for its input to end.
fn start(test: &str, path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg(format!("directory_store::tests::processes::{test}"))
        .env(STORE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns the store in a process that was started, having waited until all were.
fn shared() -> Option<DirectoryStore> {
    let path = std::env::var_os(STORE)?;
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    Some(DirectoryStore::open(path).unwrap())
}

#[tokio::test]
async fn of_several_processes_one_wins_each_key() {
    const KEYS: usize = 60;
    if let Some(store) = shared() {
        let own = Bytes::from(std::process::id().to_string());
        for number in 0..KEYS {
            let name = format!("race/{number}");
            if store.create(&key(&name), own.clone()).await.is_ok() {
                println!("won {name} {}", std::process::id());
            }
        }
        return;
    }
    let (directory, store) = store().await;
    let path = directory.path().join("deep/store");
    let mut processes: Vec<Child> = (0..4)
        .map(|_| start("of_several_processes_one_wins_each_key", &path))
        .collect();
    for process in &mut processes {
        drop(process.stdin.take());
    }
    let mut won = 0;
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            // The first line of a test's output begins with what the test runner printed.
            if let [.., "won", name, winner] = &*words {
                assert_eq!(store.get(&key(name)).await.unwrap(), winner.as_bytes());
                won += 1;
            }
        }
    }
    assert_eq!(won, KEYS);
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_there() {
    const LENGTH: usize = 300_000;
    if let Some(store) = shared() {
        for number in 0_u64.. {
            let name = format!("kept/{number:05}");
            store
                .create(&key(&name), vec![7; LENGTH].into())
                .await
                .unwrap();
            println!("kept {name} ");
        }
    }
    let (directory, store) = store().await;
    let path = directory.path().join("deep/store");
    for _ in 0..3 {
        let mut process = start("what_a_killed_process_was_told_is_there", &path);
        drop(process.stdin.take());
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut told = Vec::new();
        for line in output.lines().map_while(Result::ok) {
            if let Some((_, name)) = line.trim_end().split_once("kept ") {
                told.push(key(name));
            }
            if told.len() == 20 {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();
        let listed = dr_provider::store::list_all(&store, "kept/").await.unwrap();
        assert!(listed.len() >= told.len());
        for name in &told {
            assert!(listed.iter().any(|info| info.key == *name), "{name}");
        }
        for info in &listed {
            assert_eq!(info.size_bytes, LENGTH as u64, "{}", info.key);
            store.delete(&info.key).await.unwrap();
        }
    }
}
