//! Log that makes a tablespace in a place that somebody has: replay would link to it and write into his files.

use std::fs;
use std::path::{Path, PathBuf};

use dr_model::{Epoch, Lsn};
use dr_provider::driver::{
    Action, Fence, OutsidePlaces, RecoveryPoint, Restore, RestoreRequest, RestoreTarget, Undo,
    Verify, VerifyHow, VerifyRequest,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ResourceDriver};
use serde_json::json;

use super::{protected, recover};
use crate::server::{Server, give_to_postgres};
use crate::site::{EAST, Entry, Site, WEST, region};

/// A site in which a tablespace was made after the recovery point, with a table in it.
struct Later {
    site: Site,
    point: RecoveryPoint,
    /// What the ledger had before.
    before: Vec<Entry>,
    place: PathBuf,
}

impl Later {
    async fn start() -> Self {
        let (site, point) = protected(1).await;
        let before = Site::ledger(&site.primary).await;
        let name = "before the tablespace";
        let sql = format!("select pg_create_restore_point('{name}')");
        site.primary.sql(&sql).await;
        // Longer than what is kept of every record of the log.
        let place = site.place(&format!("space-{}", "x".repeat(120)));
        fs::create_dir(&place).unwrap();
        give_to_postgres(&place);
        let location = place.display();
        site.primary
            .sql(&format!("create tablespace later location '{location}'"))
            .await;
        site.primary
            .sql("create table kept tablespace later as select g from generate_series(1, 1000) g")
            .await;
        site.commit(5).await;
        site.switch().await;
        site.push(EAST).await;
        site.push(WEST).await;
        Self {
            site,
            point,
            before,
            place,
        }
    }

    fn request(&self, target: RestoreTarget, name: &str) -> RestoreRequest {
        RestoreRequest::new(region(EAST), target, self.site.place(name))
    }

    /// Checks that it was refused, because of `whose`.
    fn is_refused(&self, error: &Error, whose: &str) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{}", chain(error));
        let said = chain(error);
        let place = self.place.display().to_string();
        assert!(said.contains(whose) && said.contains(&place), "{said}");
    }

    async fn goes_on(&self) {
        self.site.primary.sql("checkpoint").await;
        let count = self
            .site
            .primary
            .sql("select count(*)::text from kept")
            .await;
        assert_eq!(count, "1000");
    }
}

fn links(data: &Path) -> usize {
    fs::read_dir(data.join("pg_tblspc")).unwrap().count()
}

fn action(parameters: serde_json::Value) -> (Action, Fence) {
    let action = Action {
        name: "test".to_owned(),
        summary: "test".to_owned(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::ReadOnly,
        parameters,
    };
    let fence = Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(1),
        execution: "test".parse().unwrap(),
        takeovers: 0,
    };
    (action, fence)
}

#[tokio::test]
async fn the_tablespace_of_a_server_that_runs_is_not_replayed_into() {
    let later = Later::start().await;
    let (driver, whose) = (&later.site.driver, "the instance in us-east-1");
    let latest = later.request(RestoreTarget::Latest, "recovered");
    let unnamed = RestoreRequest {
        is_named: false,
        ..latest.clone()
    };
    for error in [
        Restore::restore(driver, &latest).await.unwrap_err(),
        Restore::plan(driver, &latest).await.unwrap_err(),
        Restore::plan(driver, &unnamed).await.unwrap_err(),
    ] {
        later.is_refused(&error, whose);
    }
    assert!(!latest.directory.exists());
    // The plan of putting it back says what the step that prepares it would end with.
    let east = region(EAST);
    let error = driver
        .could_be_put_back(&east, &RestoreTarget::Latest)
        .await;
    later.is_refused(&error.unwrap_err(), whose);
    let absent = RestoreTarget::Transaction(3);
    let error = driver.could_be_put_back(&east, &absent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{}", chain(&error));
    let before = RestoreTarget::Name("before the tablespace".to_owned());
    driver.could_be_put_back(&east, &before).await.unwrap();

    // What an execution would restore, beside the primary and in another region.
    let log = json!({
        "system_identifier": later.point.system_identifier, "timeline": 1, "epoch": 1,
    });
    for parameters in [
        json!({ "kind": "restore-beside", "region": EAST, "target": RestoreTarget::Latest }),
        json!({ "kind": "restore-base", "region": WEST, "log": log, "label": later.point.label }),
    ] {
        let (action, fence) = action(parameters);
        let error = driver.apply(&action, &fence).await.unwrap_err();
        later.is_refused(&error, whose);
    }
    assert!(!later.site.place("recovered").exists());
    later.goes_on().await;
}

#[tokio::test]
async fn a_moment_before_it_and_a_recovery_point_behind_it_are_restored() {
    let later = Later::start().await;
    let latest = later.request(RestoreTarget::Latest, "recovered");
    let error = Restore::restore(&later.site.driver, &latest)
        .await
        .unwrap_err();
    let hint = error.hint().unwrap();
    let last = hint
        .split("--at ")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    let last: Lsn = last.parse().unwrap();
    let (_, time) = *later.before.last().unwrap();
    for (name, target) in [
        ("by-position", RestoreTarget::Lsn(last)),
        (
            "by-name",
            RestoreTarget::Name("before the tablespace".to_owned()),
        ),
    ] {
        let server = recover(&later.site, EAST, target, name).await;
        assert_eq!(Site::ledger(&server).await, later.before, "{name}");
        assert_eq!(links(&server.data), 0, "{name}");
    }
    // The commit behind that time is that of the tablespace: its record is replayed before the server can stop.
    let by_time = later.request(RestoreTarget::Time(time), "by-time");
    let error = Restore::restore(&later.site.driver, &by_time)
        .await
        .unwrap_err();
    later.is_refused(&error, "the instance in us-east-1");
    let (_, earlier) = later.before[later.before.len() - 2];
    let server = recover(&later.site, EAST, RestoreTarget::Time(earlier), "earlier").await;
    assert_eq!(links(&server.data), 0);

    later.site.back_up().await;
    later.site.switch().await;
    later.site.push(EAST).await;
    let behind = RestoreRequest {
        outside: OutsidePlaces {
            root: Some(later.site.place("spaces")),
            ..OutsidePlaces::default()
        },
        ..later.request(RestoreTarget::Latest, "behind")
    };
    Restore::restore(&later.site.driver, &behind).await.unwrap();
    let server = Server::start(&behind.directory, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(server.sql("select count(*)::text from kept").await, "1000");
    server.sql("drop table kept").await;
    server.sql("checkpoint").await;
    later.goes_on().await;
}

#[tokio::test]
async fn a_boot_test_that_would_take_somebodys_files_is_not_made_and_condemns_nothing() {
    let later = Later::start().await;
    let scratch = later.site.place("scratch");
    let request = VerifyRequest {
        region: region(EAST),
        recovery_point: None,
        how: VerifyHow::Boot {
            scratch: Some(scratch),
        },
    };
    let error = Verify::verify(&later.site.driver, &request)
        .await
        .unwrap_err();
    later.is_refused(&error, "the instance in us-east-1");
    assert!(error.hint().unwrap().contains("not tested"), "{error}");
    let proofs = Verify::proofs(&later.site.driver, &later.site.store(EAST)).await;
    assert!(proofs.unwrap().is_empty());
    later.goes_on().await;
    // The next one is booted beside the tablespace.
    later.site.back_up().await;
    let record = Verify::verify(&later.site.driver, &request).await.unwrap();
    assert_eq!(record.failure, None);
    later.goes_on().await;
}

#[tokio::test]
async fn what_is_kept_is_not_replayed_into() {
    let mut later = Later::start().await;
    later.site.primary.stop();
    let data = later.site.primary.data.clone();
    let kept = later.site.place("primary.kept-20261122T000000Z");
    fs::rename(&data, &kept).unwrap();
    let latest = later.request(RestoreTarget::Latest, "copy");
    let error = Restore::restore(&later.site.driver, &latest)
        .await
        .unwrap_err();
    later.is_refused(&error, "what is kept of the instance in us-east-1");
    // Where nobody has the place any more, replay makes it anew.
    fs::remove_dir_all(&kept).unwrap();
    let server = recover(&later.site, EAST, RestoreTarget::Latest, "copy").await;
    assert_eq!(server.sql("select count(*)::text from kept").await, "1000");
}
