//! Chains of incremental backups of every version, judged by a ledger, by balances, and by the bytes of full backups.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dr_postgres::BackupOptions;
use dr_provider::driver::{RecoveryPoint, Restore as _, RestoreRequest, RestoreTarget};
use rstest::rstest;

use crate::restore::walk;
use crate::server::{Server, Version, as_postgres, run};
use crate::site::{EAST, Site, WEST, region};

/// How often a backup is disturbed at most: its log has to be pushed by the test as well.
const ROUNDS: i32 = 100;

/// Moves money between accounts, and makes, cuts off, and drops tables, until told to stop, or often enough. What is in all accounts
/// together never changes, and no table grows without end: how much changes must not depend on how slow the backup is.
async fn disturb(server: &Server, stop: &AtomicBool) {
    let mut connection = server.connect().await;
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) && round < ROUNDS {
        round += 1;
        let (from, to) = (round * 7919 % 20_000, round * 104_729 % 20_000);
        let sql = format!(
            "begin; update accounts set balance = balance - 5 where id = {from}; \
             update accounts set balance = balance + 5 where id = {to}; commit"
        );
        connection.query(&sql).await.unwrap();
        if round % 10 == 0 {
            let table = format!("passing_{}", round % 30);
            let sql = format!(
                "drop table if exists {table}; create table {table} as select n, repeat('x', 500) from \
                 generate_series(1, 2000) n"
            );
            connection.query(&sql).await.unwrap();
            connection
                .query("delete from growing where n > 3000")
                .await
                .unwrap();
            connection.query("vacuum (truncate) growing").await.unwrap();
            let grow =
                "insert into growing select n, repeat('y', 300) from generate_series(3001, 8000) n";
            connection.query(grow).await.unwrap();
        }
    }
}

/// Backs up while tables change.
async fn back_up_under_load(site: &Site) -> RecoveryPoint {
    let stop = AtomicBool::new(false);
    let (point, ()) = tokio::join!(
        async {
            let point = site.back_up().await;
            stop.store(true, Ordering::Relaxed);
            point
        },
        disturb(&site.primary, &stop)
    );
    point
}

async fn prepare(version: Version, further: &[&str]) -> Site {
    let site = Site::start_as(version, 1, further).await;
    let tables = [
        "create table accounts (id int primary key, balance int not null)",
        "insert into accounts select n, 100 from generate_series(0, 19999) n",
        "create table growing as select n, repeat('y', 300) as filler from generate_series(1, 3000) n",
        "create unlogged table forgotten as select n from generate_series(1, 5000) n",
    ];
    for sql in tables {
        site.primary.sql(sql).await;
    }
    site
}

async fn restore(site: &Site, into: &Path) {
    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, into.to_owned());
    site.driver.restore(&request).await.unwrap();
}

/// Restores and starts, and looks at everything that must hold.
async fn judge(site: &Site, name: &str) {
    let expected = Site::ledger(&site.primary).await;
    site.switch().await;
    site.push(EAST).await;
    restore(site, &site.place(name)).await;
    let server = Server::start(&site.place(name), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, expected);
    assert_eq!(
        server.sql("select sum(balance) from accounts").await,
        "2000000"
    );
    assert_eq!(server.sql("select count(*) from forgotten").await, "0");
    for table in ["accounts", "growing", "ledger"] {
        let sql = format!(
            "select count(*), md5(string_agg(t::text, '' order by t::text)) from {table} t"
        );
        assert_eq!(
            server.sql(&sql).await,
            site.primary.sql(&sql).await,
            "{table}"
        );
    }
}

/// Returns the content of the relations in a directory that was restored and not started.
fn relations(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.join("base"), directory.join("global")];
    while let Some(place) = pending.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if !path.ends_with("pg_control") {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[rstest]
#[case::system(Version::System, &[], "pages")]
#[case::postgresql_16(Version::Brought(16), &[], "pages")]
#[case::postgresql_17_by_pages(Version::Brought(17), &[], "pages")]
#[case::postgresql_17_by_summaries(Version::Brought(17), &["summarize_wal=on"], "summaries")]
#[case::postgresql_18_by_pages(Version::Brought(18), &[], "pages")]
#[case::postgresql_18_by_summaries(Version::Brought(18), &["summarize_wal=on"], "summaries")]
#[tokio::test]
async fn every_link_of_a_chain_restores_to_what_was_committed(
    #[case] version: Version,
    #[case] further: &[&str],
    #[case] found_by: &str,
) {
    if !version.is_there() {
        return;
    }
    let mut site = prepare(version, further).await;
    let full = back_up_under_load(&site).await;
    assert_eq!(
        (full.taken.parent.as_deref(), full.taken.read_by.as_str()),
        (None, "agent")
    );
    let mut parent = full.clone();
    for name in ["first", "second"] {
        let point = back_up_under_load(&site).await;
        let taken = &point.taken;
        assert_eq!(taken.remarks, Vec::<String>::new());
        assert_eq!(taken.parent.as_deref(), Some(parent.label.as_str()));
        assert_eq!(taken.full.as_deref(), Some(full.label.as_str()));
        assert_eq!(taken.found_by.as_deref(), Some(found_by));
        assert!(
            taken.changed_bytes < point.database_bytes * 3 / 4,
            "{taken:?}"
        );
        if found_by == "summaries" {
            assert!(taken.read_bytes < point.database_bytes * 3 / 4, "{taken:?}");
        }
        judge(&site, name).await;
        parent = point;
    }

    // With nothing changing, an incremental backup holds what a full one does, to the byte.
    site.primary.sql("checkpoint").await;
    let incremental = site.back_up_quietly().await;
    assert!(incremental.taken.parent.is_some());
    restore(&site, &site.place("incremental")).await;
    site.back_up_by(BackupOptions {
        full_every: Duration::ZERO,
        ..BackupOptions::default()
    });
    let full = site.back_up_quietly().await;
    assert_eq!(full.taken.parent, None);
    restore(&site, &site.place("full")).await;
    let (one, other) = (
        relations(&site.place("incremental")),
        relations(&site.place("full")),
    );
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, content) in one {
        assert!(content == other[&name], "{name}");
    }
}

#[tokio::test]
async fn what_forbids_an_incremental_backup_makes_it_a_full_one_and_is_said() {
    let mut site = prepare(Version::System, &[]).await;
    let full = site.back_up().await;
    assert_eq!(full.taken.parent, None);
    site.restart_promoted().await;
    site.primary.sql("checkpoint").await;
    site.open_epoch(2, 2).await;
    for name in [EAST, WEST] {
        site.push_history(name, 2).await;
    }
    let point = site.back_up().await;
    assert_eq!(point.taken.parent, None);
    let [remark] = point.taken.remarks.as_slice() else {
        panic!("{:?}", point.taken)
    };
    assert!(
        remark.contains("it is of timeline 1, the server on timeline 2"),
        "{remark}"
    );
}

/// Archives what the server wrote while it archived nothing.
async fn archive_by_hand(site: &Site) {
    // Files with later names are old ones that wait to be used again.
    let current = site
        .primary
        .sql("select pg_walfile_name(pg_current_wal_lsn())")
        .await;
    for entry in fs::read_dir(site.primary.data.join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let archived = site.archive().join(&name);
        let is_segment = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_segment && name < current && !archived.exists() {
            fs::copy(&path, &archived).unwrap();
        }
    }
}

/// A page that is not in the log is in no backup that is made of the log: `wal_level = minimal` between a backup and the next
/// makes that one full. A server that was started anew and kept its level does not.
#[rstest]
#[case::system(Version::System, &[], "pages")]
#[case::postgresql_18_by_summaries(Version::Brought(18), &["summarize_wal=on"], "summaries")]
#[tokio::test]
async fn a_time_of_minimal_log_makes_the_next_backup_full(
    #[case] version: Version,
    #[case] further: &[&str],
    #[case] found_by: &str,
) {
    const KEEP: &str = "wal_keep_size=64MB";
    let mut site = prepare(version, further).await;
    let kept: Vec<&str> = further.iter().copied().chain([KEEP]).collect();
    let full = site.back_up().await;
    assert_eq!(full.taken.parent, None);
    site.restart_with(&kept).await;
    let point = site.back_up().await;
    assert_eq!(point.taken.remarks, Vec::<String>::new());
    assert_eq!(point.taken.parent, Some(full.label));
    assert_eq!(point.taken.found_by.as_deref(), Some(found_by));

    site.switch().await;
    let minimal = ["wal_level=minimal", "max_wal_senders=0", "archive_mode=off"];
    let minimal: Vec<&str> = minimal.into_iter().chain([KEEP]).collect();
    site.restart_with(&minimal).await;
    let mut connection = site.primary.connect().await;
    // Of what is filled in the transaction that empties it, the log says nothing now.
    for sql in [
        "begin",
        "truncate growing",
        "insert into growing select n, repeat('z', 300) from generate_series(1, 5000) n",
        "commit",
    ] {
        connection.query(sql).await.unwrap();
    }
    drop(connection);
    site.commit(20).await;
    site.restart_with(&kept).await;
    site.commit(20).await;
    site.primary.sql("select pg_switch_wal()").await;
    archive_by_hand(&site).await;
    let next = site.back_up().await;
    assert_eq!(next.taken.parent, None);
    let [remark] = next.taken.remarks.as_slice() else {
        panic!("{:?}", next.taken)
    };
    assert!(
        remark.contains("has run with `wal_level = minimal` since"),
        "{remark}"
    );
    judge(&site, "judged").await;
    let last = site.back_up().await;
    assert_eq!(last.taken.parent, Some(next.label));
}

/// What cannot be seen is not taken for well: log that is neither with the server nor in the store.
#[tokio::test]
async fn a_level_that_cannot_be_seen_makes_the_next_backup_full() {
    const SIZE: u64 = 1 << 20;
    let mut site = prepare(Version::System, &[]).await;
    let full = site.back_up().await;
    for _ in 0..4 {
        site.commit(50).await;
        site.switch().await;
    }
    site.push(EAST).await;
    site.primary.sql("checkpoint").await;
    site.restart_with(&[]).await;
    for name in site.segments() {
        fs::remove_file(site.primary.data.join("pg_wal").join(&name)).ok();
    }
    let lost = full.stop.0.next_multiple_of(SIZE) + SIZE;
    let mut chunks = walk(&site.place(EAST));
    chunks.retain(|path| path.ends_with(&format!("/{lost:016X}")));
    fs::remove_file(&chunks[0]).unwrap();
    let point = site.back_up().await;
    assert_eq!(point.taken.parent, None);
    let [remark] = point.taken.remarks.as_slice() else {
        panic!("{:?}", point.taken)
    };
    assert!(remark.contains("cannot be seen"), "{remark}");
}

#[tokio::test]
async fn page_checksums_that_are_turned_off_or_on_make_the_next_backup_full() {
    let mut site = prepare(Version::System, &[]).await;
    let mut before = site.back_up().await;
    for turn in ["--disable", "--enable"] {
        site.primary.stop();
        let mut checksums = as_postgres(&Version::System.binaries(), "pg_checksums");
        run(checksums
            .args([turn, "--no-sync", "-D"])
            .arg(&site.primary.data));
        site.restart_with(&[]).await;
        let point = site.back_up().await;
        assert_eq!(point.taken.parent, None);
        let [remark] = point.taken.remarks.as_slice() else {
            panic!("{:?}", point.taken)
        };
        let said = format!(
            "{} is recent: page checksums have been turned on or off",
            before.label
        );
        assert!(remark.contains(&said), "{remark}");
        judge(&site, &turn[2..]).await;
        before = point;
    }
    assert!(site.back_up().await.taken.parent.is_some());
}

/// Without page checksums or `wal_log_hints`, `VACUUM` marks a page as all-visible and leaves its position as it was. Taken from the
/// parent, where it is not marked, it would stand beside a visibility map that says it is, and scans of an index alone would return rows
/// that are gone.
#[rstest]
#[case::nothing_says_what_changed(Version::System, &[], None)]
#[case::hints_are_logged(Version::System, &["wal_log_hints=on", "wal_keep_size=64MB"], Some("pages"))]
#[case::the_server_summarises(Version::Brought(18), &["summarize_wal=on"], Some("summaries"))]
#[tokio::test]
async fn pages_marked_all_visible_since_are_marked_in_what_is_restored(
    #[case] version: Version,
    #[case] further: &[&str],
    #[case] found_by: Option<&str>,
) {
    let mut site = prepare(version, further).await;
    site.primary.stop();
    let mut checksums = as_postgres(&version.binaries(), "pg_checksums");
    run(checksums
        .args(["--disable", "--no-sync", "-D"])
        .arg(&site.primary.data));
    site.restart_with(further).await;
    for sql in [
        "create table seen as select n, repeat('x', 100) as filler from generate_series(1, 20000) n",
        "create index on seen (n)",
        "checkpoint",
    ] {
        site.primary.sql(sql).await;
    }
    let full = site.back_up().await;
    for sql in ["vacuum seen", "checkpoint"] {
        site.primary.sql(sql).await;
    }
    let point = site.back_up().await;
    assert_eq!(point.taken.found_by.as_deref(), found_by);
    assert_eq!(
        point.taken.parent,
        found_by.is_some().then_some(full.label),
        "{:?}",
        point.taken.remarks
    );
    if found_by.is_none() {
        let [remark] = point.taken.remarks.as_slice() else {
            panic!("{:?}", point.taken)
        };
        assert!(
            remark.contains("neither page checksums nor `wal_log_hints` are on"),
            "{remark}"
        );
    }
    site.switch().await;
    site.push(EAST).await;
    restore(&site, &site.place("marked")).await;
    let server = Server::start(&site.place("marked"), &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    server
        .sql("update seen set n = n + 1000000 where n <= 1000")
        .await;
    let mut connection = server.connect().await;
    for sql in ["set enable_seqscan = off", "set enable_bitmapscan = off"] {
        connection.query(sql).await.unwrap();
    }
    let sql = "select count(*) from seen where n between 1 and 1000";
    let plan = connection.query(&format!("explain {sql}")).await.unwrap();
    assert!(format!("{plan:?}").contains("Index Only Scan"), "{plan:?}");
    let rows = connection.query(sql).await.unwrap();
    let found: i64 = rows.only().unwrap().get("count").unwrap();
    assert_eq!(found, 0);

    if found_by == Some("pages") {
        site.restart_with(further).await;
        let next = site.back_up().await;
        assert_eq!(next.taken.parent, None);
        assert!(
            next.taken.remarks[0].contains("nothing says whether `wal_log_hints` was on"),
            "{:?}",
            next.taken.remarks
        );
    }
}

#[tokio::test]
async fn summaries_that_do_not_reach_are_said_and_every_page_is_read() {
    let site = prepare(Version::Brought(18), &[]).await;
    let full = site.back_up().await;
    assert_eq!(full.taken.parent, None);
    site.commit(10).await;
    site.primary.sql("checkpoint").await;
    for sql in [
        "alter system set summarize_wal = on",
        "select pg_reload_conf()",
        "checkpoint",
    ] {
        site.primary.sql(sql).await;
    }
    // A server that begins to write summaries may begin before the parent, so that what it wrote is taken away.
    let summaries = site.primary.data.join("pg_wal/summaries");
    // One that is being written is renamed when it is whole, so that it may be gone before it is looked at.
    let whole = || {
        let all = fs::read_dir(&summaries).unwrap().flatten();
        all.filter(|entry| entry.file_name() != "temp.summary")
    };
    let begun = async {
        while whole().next().is_none() {
            site.commit(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, begun)
        .await
        .unwrap();
    for entry in whole() {
        fs::remove_file(entry.path()).unwrap();
    }
    site.commit(5).await;
    let later = async {
        while whole().next().is_none() {
            site.primary.sql("checkpoint").await;
            site.commit(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, later)
        .await
        .unwrap();
    let point = site.back_up().await;
    assert_eq!(
        point.taken.found_by.as_deref(),
        Some("pages"),
        "{:?}",
        point.taken
    );
    assert!(
        point
            .taken
            .remarks
            .iter()
            .any(|remark| remark.contains("summaries cannot be used"))
    );
    judge(&site, "judged").await;
}
