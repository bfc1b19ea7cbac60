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
    let west = region(WEST);
    let work = async {
        for _ in 0..rounds {
            site.commit(150).await;
            site.switch().await;
            site.push(EAST).await;
            site.push(WEST).await;
            let report = site.driver.compact(&west).await.unwrap();
            assert_eq!(report.missing, Vec::<String>::new());
        }
    };
    Box::pin(stream(site, Box::pin(work))).await;
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

/// Ships what `work` commits, as it is written: nothing else brings it into the store.
async fn stream(site: &Site, work: impl Future<Output = ()>) {
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (stop, stopped) = watch::channel(false);
    let west = region(WEST);
    let meanwhile = async {
        work.await;
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

/// The key has been lost since: what was written before there was one is found, in the very segment in which it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_before_the_first_key_needs_none() {
    let mut site = Site::start(1).await;
    site.commit(20).await;
    site.back_up().await;
    let copied = site.driver.copy(&region(EAST), &region(WEST), None).await;
    copied.unwrap();
    let number = std::cell::Cell::new(0);
    let plain = async {
        site.commit(20).await;
        let sql = "insert into ledger (filler) values ('x') returning pg_current_xact_id()::text";
        number.set(site.primary.sql(sql).await.parse().unwrap());
    };
    stream(&site, plain).await;
    let expected = Site::ledger(&site.primary).await;
    let behind = async {
        let sql = "select pg_create_restore_point('before the key')";
        site.primary.sql(sql).await;
        site.commit(1).await;
    };
    stream(&site, behind).await;
    site.encrypt('1');
    stream(&site, site.commit(20)).await;
    let counted = count(&site.place(WEST));
    assert!(counted.0 > 0 && counted.1 > 0, "{counted:?}");
    let newest = Site::ledger(&site.primary).await.last().unwrap().1;
    site.forget_key();

    let at = expected.last().unwrap().1;
    let targets = [
        RestoreTarget::Transaction(number.get()),
        RestoreTarget::Name("before the key".to_owned()),
        RestoreTarget::Time(at),
    ];
    for (target, name) in targets.into_iter().zip(["number", "name", "time"]) {
        let place = site.place(name);
        let request = RestoreRequest::new(region(WEST), target, place.clone());
        Restore::restore(&site.driver, &request).await.unwrap();
        let mut server = Server::start(&place, &["track_commit_timestamp=on"]).await;
        server.wait_until_promoted().await;
        assert_eq!(Site::ledger(&server).await, expected, "{name}");
        server.stop();
    }
    // What is not found before it says how far it goes without the key.
    for target in [
        RestoreTarget::Transaction(number.get() + 1_000),
        RestoreTarget::Name("never".to_owned()),
        RestoreTarget::Time(newest),
    ] {
        let request = RestoreRequest::new(region(WEST), target, site.place("none"));
        let error = Restore::restore(&site.driver, &request).await.unwrap_err();
        assert!(
            chain(&error).contains("is encrypted with key"),
            "{}",
            chain(&error)
        );
        let hint = error.hint().unwrap();
        assert!(hint.contains("without it, `--at 0/"), "{hint}");
        assert!(hint.contains("`encryption`"), "{hint}");
        let position = hint.split("`--at ").nth(1).unwrap();
        let position = position.split('`').next().unwrap().parse().unwrap();
        let request = RestoreRequest::new(
            region(WEST),
            RestoreTarget::Lsn(position),
            site.place("none"),
        );
        Restore::plan(&site.driver, &request).await.unwrap();
    }
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
