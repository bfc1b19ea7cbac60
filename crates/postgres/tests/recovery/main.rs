//! Backups, restores and the archive against real servers, with a ledger of commits as the judge.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod apart;
mod archive;
mod backup;
mod clocks;
mod compact;
mod divergence;
mod encryption;
mod expire;
mod fence;
mod follow;
mod full_disk;
mod guard;
mod in_place;
mod incremental;
mod kill_points;
mod local;
mod long_segments;
mod lost_slot;
mod minimal;
mod promote;
mod promoted_unseen;
mod restorable;
mod restore;
mod scenarios;
mod server;
mod ship;
mod shipping;
mod site;
mod synchronous;
mod upgraded;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_local::DirectoryStore;
use dr_provider::ObjectStore;

use site::{EAST, WEST, driver, region};

/// What `restore_command` runs: not a test, but the command `wal fetch` with its exit codes (PROTOCOL 6).
#[tokio::test]
#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "the server decides by the exit code"
)]
async fn serve() {
    let Ok(arguments) = std::env::var("DR_TEST_FETCH") else {
        return;
    };
    let site = PathBuf::from(std::env::var_os("DR_TEST_SITE").unwrap());
    let words: Vec<&str> = arguments.split(' ').collect();
    let [
        "wal",
        "fetch",
        "orders/database",
        name,
        destination,
        "--in",
        place,
        rest @ ..,
    ] = words.as_slice()
    else {
        panic!("not the arguments of `wal fetch`: {arguments}");
    };
    let through = match rest {
        [] | ["--standby"] => None,
        ["--through", lsn] => Some(lsn.parse().unwrap()),
        _ => panic!("not the arguments of `wal fetch`: {arguments}"),
    };
    let stores = [EAST, WEST].map(|name| {
        let store: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::open(site.join(name)).unwrap());
        (region(name), store)
    });
    let driver = driver(&site, BTreeMap::from(stores));
    let fetched = driver
        .fetch_wal(&region(place), name, Path::new(destination), through)
        .await;
    eprintln!("{arguments}: {fetched:?}");
    std::process::exit(match fetched {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(_) => 255,
    });
}
