//! Restoring, judged by the ledger.

mod copies;
mod delta;
mod flipped;
mod killed;
mod passed_over;
mod refusals;
mod replayed;
mod targets;
mod versions;

use std::fs;
use std::path::Path;
use std::time::Duration;

use dr_provider::Error;
use dr_provider::driver::{
    Backup as _, Proof, RecoveryPoint, Restore, RestoreReport, RestoreRequest, RestoreTarget,
};

use crate::server::{PATIENCE, Server};
use crate::site::{EAST, Site, WEST, region};

pub(crate) async fn restore(
    site: &Site,
    from: &str,
    target: RestoreTarget,
    into: &Path,
) -> Result<RestoreReport, Error> {
    let request = RestoreRequest::new(region(from), target, into.to_owned());
    Restore::restore(&site.driver, &request).await
}

/// Restores, starts, and returns the server once it accepts writes.
pub(crate) async fn recover(site: &Site, from: &str, target: RestoreTarget, name: &str) -> Server {
    let place = site.place(name);
    let report = restore(site, from, target, &place).await.unwrap();
    assert_eq!(report.proof, Proof::Hashed);
    let server = Server::start(&place, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    server
}

/// A site with a recovery point and a ledger of which every entry is in both stores.
pub(crate) async fn protected(segment_mebibytes: u32) -> (Site, RecoveryPoint) {
    let site = Site::start(segment_mebibytes).await;
    site.commit(50).await;
    let point = site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    site.commit(300).await;
    site.switch().await;
    site.push(EAST).await;
    site.push(WEST).await;
    (site, point)
}

/// Starts what was rebuilt and waits until it has all that is in the store.
pub(crate) async fn has_everything(site: &Site) {
    let server = Server::start(&site.place("recovered"), &["track_commit_timestamp=on"]).await;
    let expected = Site::ledger(&site.primary).await;
    let replayed = async {
        while Site::ledger(&server).await != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, replayed).await.unwrap();
}

pub(crate) fn walk(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found
}
