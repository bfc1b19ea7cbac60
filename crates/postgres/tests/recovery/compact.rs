//! Compaction beside a receiver, judged by the ledger.

use std::fs;
use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::{Section, Span, pieces};
use dr_model::{Lsn, TimelineId};
use dr_provider::ErrorKind;
use dr_provider::driver::{
    Backup as _, CompactReport, Frontier, LogStream as _, Restore, RestoreRequest, RestoreTarget,
};
use dr_provider::error::chain;
use tokio::sync::watch;

use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

const TIMELINE: TimelineId = TimelineId(1);

async fn spans(site: &Site) -> Vec<Span> {
    let cluster = site.primary.system_identifier().await;
    let store = site.store(WEST);
    let whole = Section::whole(cluster, TIMELINE);
    pieces(&*store, whole, Patience::default()).await.unwrap()
}

/// Streams and archives into the west at once, compacts all the while, and returns when all is there.
async fn ship_and_compact(site: &Site) -> CompactReport {
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (_keep, stop) = watch::channel(false);
    let west = region(WEST);
    let shipping = site.driver.ship(&west, sender, stop);
    let meanwhile = async {
        let mut done = CompactReport::default();
        for _ in 0..8 {
            site.commit(150).await;
            site.switch().await;
            site.push(EAST).await;
            site.push(WEST).await;
            let report = site.driver.compact(&west).await.unwrap();
            assert_eq!(report.missing, Vec::<String>::new());
            done.pieces += report.pieces;
        }
        let end = site.primary.lsn().await;
        let there = frontier.wait_for(|frontier| frontier.durable >= end);
        tokio::time::timeout(PATIENCE, there)
            .await
            .unwrap()
            .unwrap();
        done
    };
    tokio::select! {
        ended = shipping => panic!("{ended:?}"),
        done = meanwhile => done,
    }
}

/// Removes the chunks before the last piece, as compaction does once they are old.
fn remove_chunks(site: &Site, before: Lsn) -> usize {
    let mut removed = 0;
    let mut directories = vec![site.place(WEST)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_str().unwrap().contains("/part/")
                && Lsn::from_key(&name).is_some_and(|start| start < before)
            {
                fs::remove_file(path).unwrap();
                removed += 1;
            }
        }
    }
    removed
}

async fn restore(site: &Site, name: &str) -> Result<Server, dr_provider::Error> {
    let request = RestoreRequest::new(region(WEST), RestoreTarget::Latest, site.place(name));
    Restore::restore(&site.driver, &request).await?;
    let server = Server::start(&site.place(name), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    Ok(server)
}

#[tokio::test]
async fn what_is_merged_under_a_receiver_restores_to_the_ledger_and_a_lost_piece_is_named() {
    let site = Site::start(1).await;
    site.commit(50).await;
    let point = site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    let done = ship_and_compact(&site).await;
    let merged = spans(&site).await;
    assert!(done.pieces >= 8, "{merged:?}");
    let last = *merged.last().unwrap();
    assert!(remove_chunks(&site, last.from) > 0);

    let expected = Site::ledger(&site.primary).await;
    let mut server = restore(&site, "recovered").await.unwrap();
    assert_eq!(Site::ledger(&server).await, expected);
    server.stop();

    // A piece that is lost is named by the next run, recorded, and refused by a restore before it writes.
    let needed = |span: &&Span| point.stop < span.from && **span != last;
    let lost = *merged.iter().find(needed).unwrap();
    let cluster = site.primary.system_identifier().await;
    let key = lost.key(cluster, TIMELINE);
    let body = site.store(WEST).get(&key).await.unwrap();
    fs::remove_file(site.place(WEST).join(key.as_str())).unwrap();
    let west = region(WEST);
    let report = site.driver.compact(&west).await.unwrap();
    let [missing] = report.missing.as_slice() else {
        panic!("{report:?}")
    };
    let hole = format!("from {} to {}", lost.from, lost.to);
    assert!(missing.contains(&hole), "{missing}");
    let error = restore(&site, "refused").await.err().unwrap();
    assert!(chain(&error).contains(&hole), "{}", chain(&error));
    assert!(!site.place("refused").exists());
    let since = |since| site.driver.lost_since(&west, since);
    assert_eq!(since(point.start).await.unwrap().len(), 1);
    // A recovery point behind it does not need what is lost.
    assert_eq!(since(lost.to).await.unwrap(), Vec::<String>::new());

    // One that is damaged is named when it is read.
    let mut damaged = body.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let path = site.place(WEST).join(key.as_str());
    fs::write(&path, damaged).unwrap();
    let size = dr_model::SegmentSize::try_from(1 << 20).unwrap();
    let name = size.file_name(TIMELINE, lost.from);
    let destination = site.place("fetched");
    let fetched = site.driver.fetch_wal(&west, &name, &destination, None);
    let error = tokio::time::timeout(Duration::from_secs(30), fetched)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(chain(&error).contains(key.as_str()), "{}", chain(&error));

    // A restore that does not read it would come to it in the replay; one that is asked to writes nothing.
    let mut request = RestoreRequest::new(west.clone(), RestoreTarget::Latest, site.place("read"));
    let plan = Restore::plan(&site.driver, &request).await.unwrap();
    assert!(!plan.log_verified);
    request.verify_log = true;
    for error in [
        Restore::plan(&site.driver, &request).await.unwrap_err(),
        Restore::restore(&site.driver, &request).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(chain(&error).contains(key.as_str()), "{}", chain(&error));
    }
    assert!(!site.place("read").exists());
    // What takes long comes after what refuses at once.
    fs::create_dir(site.place("read")).unwrap();
    fs::write(site.place("read").join("mine"), "").unwrap();
    let error = Restore::plan(&site.driver, &request).await.unwrap_err();
    assert!(chain(&error).contains("is not empty"), "{}", chain(&error));
    fs::remove_dir_all(site.place("read")).unwrap();

    // What arrives after all counts.
    fs::write(&path, &body).unwrap();
    assert!(
        Restore::plan(&site.driver, &request)
            .await
            .unwrap()
            .log_verified
    );
    let report = site.driver.compact(&west).await.unwrap();
    assert_eq!(report.missing, Vec::<String>::new());
    assert_eq!(since(point.start).await.unwrap(), Vec::<String>::new());

    // What is lost before the newest recovery point is recorded, and lets no run fail for as long as the log is kept.
    fs::remove_file(&path).unwrap();
    assert_eq!(site.driver.compact(&west).await.unwrap().missing.len(), 1);
    let second = site.back_up().await;
    assert!(second.start > lost.to);
    let copied = site.driver.copy(&region(EAST), &west, None).await;
    copied.unwrap();
    let report = site.driver.compact(&west).await.unwrap();
    assert_eq!(report.missing, Vec::<String>::new());
    assert_eq!(since(point.start).await.unwrap().len(), 1);
}
