//! Restoring over a data directory that is there.

use std::fs;
use std::path::Path;

use dr_provider::driver::{
    Backup as _, Existing, OutsidePlaces, Restore, RestoreReport, RestoreRequest, RestoreTarget,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};

use super::{protected, recover, walk};
use crate::server::{Server, give_to_postgres};
use crate::site::{EAST, Site, WEST, region};

pub(super) async fn restore(
    site: &Site,
    into: &Path,
    existing: Existing,
) -> Result<RestoreReport, Error> {
    let request = RestoreRequest {
        existing,
        ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, into.to_owned())
    };
    Restore::restore(&site.driver, &request).await
}

/// What is restored comes up with all that the primary has, and nothing says that it is unfinished.
pub(super) async fn assert_recovers(site: &Site, data: &Path) -> Server {
    assert!(
        !walk(data).iter().any(|path| path.contains(".dr-")),
        "something is left"
    );
    let server = Server::start(data, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    server
}

/// What is there forbids it.
fn refused(result: Result<RestoreReport, Error>, why: &str) {
    refused_as(ErrorKind::Conflict, result, why);
}

fn refused_as(kind: ErrorKind, result: Result<RestoreReport, Error>, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind);
    assert!(chain(&error).contains(why), "{}", chain(&error));
}

#[tokio::test]
async fn a_copy_that_went_its_own_way_is_brought_back_by_writing_what_differs() {
    let (site, point) = protected(1).await;
    let mut server = recover(&site, WEST, RestoreTarget::Latest, "recovered").await;
    let data = server.data.clone();
    // It goes on as a database of its own, and something breaks.
    for sql in [
        "insert into ledger (filler) select repeat('y', 300) from generate_series(1, 500)",
        "create table more as select generate_series(1, 1000) as n",
    ] {
        server.sql(sql).await;
    }
    let path = server.sql("select pg_relation_filepath('pg_class')").await;
    refused(
        restore(&site, &data, Existing::SameCluster).await,
        "a server runs there",
    );
    refused_as(
        ErrorKind::Conflict,
        restore(&site, &data, Existing::Nothing).await,
        "not empty: it is the data directory of the instance in us-west-2, and a server runs there, process",
    );
    server.stop();
    fs::write(data.join(&path), vec![7; 8192]).unwrap();
    refused_as(
        ErrorKind::Conflict,
        restore(&site, &data, Existing::Nothing).await,
        "not empty: it is the data directory of the instance in us-west-2, and no server runs there",
    );

    let report = restore(&site, &data, Existing::SameCluster).await.unwrap();
    assert!(report.removed > 0, "{report:?}");
    assert!(
        report.written_bytes < point.database_bytes / 2,
        "{report:?}"
    );
    let server = assert_recovers(&site, &data).await;
    let gone = server.sql("select to_regclass('more') is null").await;
    assert_eq!(gone, "t");
}

/// A directory of the same cluster that was left behind, with things in it that somebody put there.
#[tokio::test]
async fn an_older_directory_is_brought_up_and_what_does_not_belong_there_goes() {
    let (site, _) = protected(1).await;
    let data = site.place("recovered");
    restore(&site, &data, Existing::Nothing).await.unwrap();
    fs::create_dir_all(data.join("base/notes/deep")).unwrap();
    fs::write(data.join("base/notes/deep/letter"), "dear").unwrap();
    fs::write(data.join("postgresql.conf.old"), "port = 1").unwrap();
    let outside = site.place("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("segment"), "mine").unwrap();
    fs::remove_dir_all(data.join("pg_wal")).unwrap();
    std::os::unix::fs::symlink(&outside, data.join("pg_wal")).unwrap();

    site.primary
        .sql("create table later as select generate_series(1, 5000) as n")
        .await;
    site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    site.commit(10).await;
    site.switch().await;
    site.push(WEST).await;
    let report = restore(&site, &data, Existing::SameCluster).await.unwrap();
    assert!(report.removed >= 3, "{report:?}");
    assert!(report.written_bytes < report.total_bytes / 2, "{report:?}");
    assert!(!data.join("base/notes").exists());
    assert!(!data.join("postgresql.conf.old").exists());
    // A link is replaced, and what it led to is nobody's to touch.
    assert!(fs::symlink_metadata(data.join("pg_wal")).unwrap().is_dir());
    assert_eq!(fs::read(outside.join("segment")).unwrap(), b"mine");
    let server = assert_recovers(&site, &data).await;
    assert_eq!(server.sql("select count(*)::text from later").await, "5000");
}

/// Two tablespaces never share a place (R11).
#[tokio::test]
async fn a_tablespace_is_restored_over_where_it_is_and_nowhere_else() {
    let site = Site::start(1).await;
    let place = site.place("fast");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    for sql in [
        format!("create tablespace fast location '{}'", place.display()).as_str(),
        "create table there tablespace fast as select generate_series(1, 5000) as n",
    ] {
        site.primary.sql(sql).await;
    }
    site.commit(10).await;
    site.back_up().await;
    site.driver
        .copy(&region(EAST), &region(WEST), None)
        .await
        .unwrap();
    site.commit(10).await;
    site.switch().await;
    site.push(WEST).await;
    let data = site.place("recovered");
    let into = async |root: &str, existing| {
        let request = RestoreRequest {
            existing,
            outside: OutsidePlaces {
                root: Some(site.place(root)),
                ..OutsidePlaces::default()
            },
            ..RestoreRequest::new(region(WEST), RestoreTarget::Latest, data.clone())
        };
        Restore::restore(&site.driver, &request).await
    };
    into("spaces", Existing::SameCluster).await.unwrap();
    let own = fs::read_dir(site.place("spaces")).unwrap().next().unwrap();
    let own = own.unwrap().path();
    let mut server = assert_recovers(&site, &data).await;
    server
        .sql("create table more tablespace fast as select 1 as n")
        .await;
    let more = server.sql("select pg_relation_filepath('more')").await;
    let there = server.sql("select pg_relation_filepath('there')").await;
    server.sql("checkpoint").await;
    server.stop();
    assert!(data.join(&more).exists());
    let mut content = fs::read(data.join(&there)).unwrap();
    content[9000] ^= 1;
    fs::write(data.join(&there), content).unwrap();

    // Something else beside the tablespace's own directory: nothing is touched, neither there nor here.
    fs::write(own.join("letter"), "dear").unwrap();
    let control = fs::read(data.join("global/pg_control")).unwrap();
    refused_as(
        ErrorKind::Invalid,
        into("spaces", Existing::SameCluster).await,
        "does not belong",
    );
    assert!(data.join(&more).exists());
    assert_eq!(fs::read(data.join("global/pg_control")).unwrap(), control);
    fs::remove_file(own.join("letter")).unwrap();
    // Nor is a place taken that somebody else uses.
    let foreign = site.place("foreign").join(own.file_name().unwrap());
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("letter"), "dear").unwrap();
    refused_as(
        ErrorKind::Invalid,
        into("foreign", Existing::SameCluster).await,
        "not empty",
    );
    assert!(data.join(&more).exists());

    let report = into("spaces", Existing::SameCluster).await.unwrap();
    assert!(report.removed > 0, "{report:?}");
    assert!(!data.join(&more).exists());
    let mut server = assert_recovers(&site, &data).await;
    let sum = "select sum(n)::text from there";
    assert_eq!(server.sql(sum).await, "12502500");
    server.stop();
    // To another place: the one that it was in is left behind.
    into("others", Existing::SameCluster).await.unwrap();
    let server = assert_recovers(&site, &data).await;
    assert_eq!(server.sql(sum).await, "12502500");
    assert!(own.exists());
}

#[tokio::test]
async fn another_cluster_is_replaced_only_by_force() {
    let (site, _) = protected(1).await;
    let other = site.place("other");
    Server::initialise(&other, 1);
    let before = walk(&other);
    refused(
        restore(&site, &other, Existing::SameCluster).await,
        "it is of cluster",
    );
    assert_eq!(walk(&other), before);
    restore(&site, &other, Existing::AnyCluster).await.unwrap();
    assert_recovers(&site, &other).await;
    // What is no data directory is nobody's to replace.
    let store = site.place(EAST);
    refused(
        restore(&site, &store, Existing::AnyCluster).await,
        "no data directory",
    );
}
