//! Log that is encrypted: what can be read from the store, and with which keys.

use std::path::Path;

use dr_model::{SegmentSize, TimelineId};
use dr_provider::ErrorKind;
use dr_provider::driver::{
    Backup as _, Frontier, LogStream as _, Restore, RestoreRequest, RestoreTarget,
};
use dr_provider::error::chain;
use tokio::sync::watch;

use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

/// Ships what is committed while it runs, and merges it; returns when all of it is there.
async fn ship(site: &Site, rounds: u32) {
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (stop, stopped) = watch::channel(false);
    let west = region(WEST);
    let meanwhile = async {
        for _ in 0..rounds {
            site.commit(150).await;
            site.switch().await;
            site.push(EAST).await;
            site.push(WEST).await;
            let report = site.driver.compact(&west).await.unwrap();
            assert_eq!(report.missing, Vec::<String>::new());
        }
        let end = site.primary.lsn().await;
        let there = frontier.wait_for(|frontier| frontier.durable >= end);
        tokio::time::timeout(PATIENCE, there)
            .await
            .unwrap()
            .unwrap();
        stop.send_replace(true);
    };
    let (ended, ()) = tokio::join!(site.driver.ship(&west, sender, stopped), meanwhile);
    ended.unwrap();
}

/// Counts the chunks and pieces under a directory: plain ones, and encrypted ones.
fn count(directory: &Path) -> (usize, usize) {
    let (mut plain, mut encrypted) = (0, 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            if !bytes.starts_with(b"DRCHUNK") && !bytes.starts_with(b"DRPIECE") {
                continue;
            }
            let says = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            if says(b"\"encryption\"") {
                encrypted += 1;
            } else {
                plain += 1;
            }
        }
    }
    (plain, encrypted)
}

/// Encryption is turned on in the middle of a chain, and its key changed: everything is read back, with the keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_and_with_two_keys_restores_to_the_ledger() {
    let mut site = Site::start(1).await;
    site.commit(20).await;
    site.back_up().await;
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();
    ship(&site, 2).await;
    for digit in ['1', '2'] {
        site.encrypt(digit);
        ship(&site, 3).await;
    }
    let counted = count(&site.place(WEST));
    assert!(counted.0 > 0 && counted.1 > 6, "{counted:?}");

    let request = RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place("copy"));
    Restore::restore(&site.driver, &request).await.unwrap();
    let mut server = Server::start(&site.place("copy"), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server.stop();

    // Without keys it is an error that names the one that is missing, not the end of the log.
    let end = site.stored_end(WEST).await;
    site.forget_keys();
    let size = SegmentSize::try_from(1 << 20).unwrap();
    let before = dr_model::Lsn(size.start_of(end).0 - size.bytes());
    let name = size.file_name(TimelineId(1), before);
    let place = site.place("fetched");
    let error = site
        .driver
        .fetch_wal(&region(WEST), &name, &place, None)
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        chain(&error).contains("encrypted with key"),
        "{}",
        chain(&error)
    );
    assert!(!place.exists());
}

/// What another key opens, or none, is referred to by nothing: after a change of keys everything is read once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_after_a_change_of_keys_is_a_full_one() {
    let mut site = Site::start(1).await;
    site.commit(20).await;
    let mut newest = site.back_up().await;
    for digit in ['1', '2'] {
        let next = site.back_up().await;
        assert_eq!(next.taken.parent.as_ref(), Some(&newest.label));
        site.encrypt(digit);
        newest = site.back_up().await;
        assert_eq!(newest.taken.parent, None);
    }
    let next = site.back_up().await;
    assert_eq!(next.taken.parent.as_ref(), Some(&newest.label));
}
