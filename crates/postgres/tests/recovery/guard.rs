//! A guard starts no server of which the register says nothing, whatever its files look like.

use std::fs;
use std::time::Duration;

use dr_postgres::{GuardOptions, GuardRequest, Guarded};
use tokio::sync::{mpsc, watch};

use crate::site::{EAST, Setup, Site, WEST, region};

/// Lets a guard start the server in the west, with a watcher that ends at once.
async fn guard(site: &Site) -> Guarded {
    let request = GuardRequest {
        region: region(WEST),
        home: region(EAST),
        watcher: vec!["/bin/false".to_owned()],
    };
    let (said, _heard) = mpsc::channel(8);
    let (started, _running) = watch::channel(false);
    let (_stop, stopped) = watch::channel(false);
    let guarding = site.driver.guard(&request, said, started, stopped);
    guarding.await.unwrap()
}

/// The control file of a standby that was killed goes on saying that it is one. Without its signal it would start as a primary.
#[tokio::test]
async fn a_killed_standby_needs_its_signal_to_be_started_without_the_register() {
    let mut site = Site::start(1).await;
    site.restart_as_standby().await;
    site.primary.crash();
    let data = site.place("recovered");
    fs::rename(&site.primary.data, &data).unwrap();
    let guard_options = GuardOptions {
        lease: Duration::from_secs(3),
        arguments: Vec::new(),
    };
    site.set_up(Setup {
        guard: Some(guard_options),
        ..Setup::default()
    });
    let ended = guard(&site).await;
    assert!(matches!(ended, Guarded::Unwatched(_)), "{ended:?}");
    fs::remove_file(data.join("standby.signal")).unwrap();
    let ended = guard(&site).await;
    assert!(
        matches!(&ended, Guarded::Superseded(record) if record.primary == region(EAST)),
        "{ended:?}"
    );
}
