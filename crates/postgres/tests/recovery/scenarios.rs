//! What PostgreSQL's own recovery tests look at, with `dr` as archiver, as restorer and as base backup.
//!
//! Each names the test of `src/test/recovery/t` whose subject it shares; the steps are ours.

use std::fs;

use dr_provider::driver::RestoreTarget;

use crate::restore::{recover, restore};
use crate::server::{Server, Version, give_to_postgres};
use crate::site::{EAST, Site};

/// Puts everything written so far into the store of the east.
async fn ship(site: &Site) {
    site.switch().await;
    site.push(EAST).await;
}

/// 014: what is not logged comes back empty, and usable.
#[tokio::test]
async fn unlogged_relations_come_back_empty() {
    let site = Site::start(1).await;
    let make = "create unlogged table scratch (id bigserial primary key, filler text)";
    site.primary.sql(make).await;
    let fill = "insert into scratch (filler) select repeat('x', 200) from generate_series(1, 2000)";
    site.primary.sql(fill).await;
    site.primary.sql("checkpoint").await;
    let path = site
        .primary
        .sql("select pg_relation_filepath('scratch')")
        .await;
    let point = site.back_up().await;
    // Its first fork only says how to make it empty.
    let forks = [path.clone(), format!("{path}_init")];
    let forks = forks.each_ref().map(String::as_str);
    assert_eq!(site.holds(&point.label, &forks).await, [false, true]);
    ship(&site).await;

    let server = recover(&site, EAST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(server.sql("select count(*)::text from scratch").await, "0");
    server.sql(fill).await;
    let found = "select count(*)::text from scratch where id between 1 and 2000";
    assert_eq!(server.sql(found).await, "2000");
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}

/// 018: relations that are made, emptied and filled within one transaction, of which the log may say less.
#[tokio::test]
async fn what_is_made_and_filled_in_one_transaction_is_whole() {
    let site = Site::start(1).await;
    site.primary
        .sql("create table emptied (id int, filler text)")
        .await;
    site.primary
        .sql("insert into emptied select g, 'old' from generate_series(1, 3000) g")
        .await;
    site.back_up().await;
    let rows = "select g, repeat('n', g % 90) from generate_series(1, 3000) g";
    let transactions = [
        vec![
            "create table made (id int primary key, filler text)".to_owned(),
            format!("insert into made {rows}"),
            "create index on made (filler)".to_owned(),
        ],
        vec![
            "truncate emptied".to_owned(),
            format!("insert into emptied {rows}"),
            "savepoint here".to_owned(),
            "truncate emptied".to_owned(),
            "insert into emptied values (0, 'undone')".to_owned(),
            "rollback to here".to_owned(),
            "delete from emptied where id % 3 = 0".to_owned(),
        ],
        vec![
            "alter table made alter column id type bigint".to_owned(),
            "cluster made using made_pkey".to_owned(),
        ],
    ];
    for statements in transactions {
        let mut connection = site.primary.connect().await;
        connection.query("begin").await.unwrap();
        for statement in statements {
            connection.query(&statement).await.unwrap();
        }
        connection.query("commit").await.unwrap();
    }
    let mut undone = site.primary.connect().await;
    for statement in ["begin", "create table gone as select 1", "rollback"] {
        undone.query(statement).await.unwrap();
    }
    site.primary.sql("vacuum full emptied").await;
    ship(&site).await;

    let server = recover(&site, EAST, RestoreTarget::Latest, "recovered").await;
    for table in ["made", "emptied"] {
        let content = format!("select md5(string_agg(t::text, ',' order by id)) from {table} t");
        let expected = site.primary.sql(&content).await;
        assert_eq!(server.sql(&content).await, expected, "{table}");
    }
    assert_eq!(server.sql("select to_regclass('gone')::text").await, "");
    let indexed = "set enable_seqscan = off; select count(*)::text from made where id = 1500";
    assert_eq!(server.sql(indexed).await, "1");
}

/// 023: a transaction that was prepared before the target and decided after it is still there to be decided.
#[tokio::test]
async fn a_prepared_transaction_waits_for_its_decision() {
    const ROOM: &str = "max_prepared_transactions=4";
    let site = Site::start_as(Version::System, 1, &[ROOM]).await;
    site.back_up().await;
    let mut connection = site.primary.connect().await;
    for statement in [
        "begin",
        "insert into ledger (filler) values ('prepared')",
        "prepare transaction 'undecided'",
        "select pg_create_restore_point('between')",
        "commit prepared 'undecided'",
    ] {
        connection.query(statement).await.unwrap();
    }
    site.commit(10).await;
    ship(&site).await;

    let place = site.place("recovered");
    let between = RestoreTarget::Name("between".to_owned());
    restore(&site, EAST, between, &place).await.unwrap();
    let server = Server::start(&place, &["track_commit_timestamp=on", ROOM]).await;
    server.wait_until_promoted().await;
    let found = "select count(*)::text from ledger where filler = 'prepared'";
    assert_eq!(server.sql(found).await, "0");
    assert_eq!(
        server.sql("select gid from pg_prepared_xacts").await,
        "undecided"
    );
    server.sql("commit prepared 'undecided'").await;
    assert_eq!(server.sql(found).await, "1");
}

/// 026: a record that a crash cut off at the end of a segment is written over in the next.
#[tokio::test]
async fn a_record_that_a_crash_cut_off_is_passed_over() {
    let mut site = Site::start(1).await;
    site.back_up().await;
    site.commit(20).await;
    site.switch().await;
    let segment = async || {
        site.primary
            .sql("select pg_walfile_name(pg_current_wal_insert_lsn())")
            .await
    };
    let first = segment().await;
    // More than what is left of the segment, less than two.
    site.primary
        .sql("select pg_logical_emit_message(true, 'test', repeat('x', 1100000))")
        .await;
    let last = segment().await;
    assert_ne!(first, last);
    let archive = site.archive();
    site.crash(|data| {
        // What reached the disk, and the archive, ends with the segment in which the record begins.
        for directory in [
            data.join("pg_wal"),
            data.join("pg_wal/archive_status"),
            archive,
        ] {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if name.get(..24).is_some_and(|segment| *segment > *first) {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
    })
    .await;
    site.commit(20).await;
    ship(&site).await;
    let server = recover(&site, EAST, RestoreTarget::Latest, "recovered").await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
    assert!(
        server
            .log()
            .contains("successfully skipped missing contrecord"),
        "{}",
        server.log()
    );
}

/// 033: tablespaces and databases in them that the log makes, moves and drops.
#[tokio::test]
async fn dropped_tablespaces_do_not_stop_a_replay() {
    const IN_PLACE: &str = "allow_in_place_tablespaces=on";
    let site = Site::start_as(Version::System, 1, &[IN_PLACE]).await;
    for statement in [
        "create tablespace one location ''",
        "create tablespace two location ''",
        "create database kept tablespace one",
        "create database dropped tablespace one",
    ] {
        site.primary.sql(statement).await;
    }
    site.back_up().await;
    for statement in [
        "create tablespace three location ''",
        "create database brief tablespace three",
        "alter database kept set tablespace two",
        "drop database brief",
        "drop database dropped",
        "drop tablespace three",
        "drop tablespace one",
    ] {
        site.primary.sql(statement).await;
    }
    site.commit(10).await;
    ship(&site).await;

    let place = site.place("recovered");
    restore(&site, EAST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    let server = Server::start(&place, &["track_commit_timestamp=on", IN_PLACE]).await;
    server.wait_until_promoted().await;
    for question in [
        "select string_agg(spcname, ' ' order by spcname) from pg_tablespace",
        "select string_agg(datname, ' ' order by datname) from pg_database",
    ] {
        let expected = site.primary.sql(question).await;
        assert_eq!(server.sql(question).await, expected);
    }
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}

/// 042: a backup that several checkpoints passed over is replayed from its own beginning, not from the newest of them.
#[tokio::test]
async fn replay_begins_where_the_backup_does() {
    let site = Site::start(1).await;
    let checkpoints = async {
        loop {
            site.primary.sql("checkpoint").await;
        }
    };
    let point = tokio::select! {
        point = site.back_up() => point,
        () = checkpoints => unreachable!(),
    };
    site.primary.sql("checkpoint").await;
    ship(&site).await;
    let server = recover(&site, EAST, RestoreTarget::Latest, "recovered").await;
    let log = server.log();
    let starts = format!("redo starts at {}", point.start);
    assert!(log.contains(&starts), "{starts}: {log}");
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}

/// 045: a replay that is killed after a restartpoint goes on from there, and asks again for what it has had.
#[tokio::test]
async fn a_replay_that_is_killed_goes_on() {
    const SETTING: &str = "track_commit_timestamp=on";
    let site = Site::start(1).await;
    site.back_up().await;
    for _ in 0..5 {
        site.commit(100).await;
        site.primary.sql("checkpoint").await;
    }
    ship(&site).await;
    let place = site.place("recovered");
    restore(&site, EAST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    // As a standby it does not end by itself, and stands before the first commit for as long as the test wants.
    fs::rename(place.join("recovery.signal"), place.join("standby.signal")).unwrap();
    give_to_postgres(&place.join("standby.signal"));
    let mut server = Server::start(&place, &[SETTING, "recovery_min_apply_delay=1h"]).await;
    server.sql("checkpoint").await;
    assert!(Site::ledger(&server).await.len() < Site::ledger(&site.primary).await.len());
    server.crash();
    // Wherever this one has come to.
    server = Server::start(&place, &[SETTING]).await;
    server.sql("checkpoint").await;
    server.crash();
    server = Server::start(&place, &[SETTING]).await;
    server.sql("select pg_promote()").await;
    server.wait_until_promoted().await;
    assert_eq!(
        Site::ledger(&server).await,
        Site::ledger(&site.primary).await
    );
}
