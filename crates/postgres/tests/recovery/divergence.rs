//! What an old primary committed that the present one does not have, where transactions reach from one side of the fork to the other.

use std::fs;
use std::process::Command;

use dr_postgres::{Divergence, Found, Unread};

use crate::server::{Server, give_to_postgres, run};
use crate::site::{EAST, Site, WEST, region};

const TABLES: [&str; 6] = [
    "whole",
    "nested",
    "undone",
    "prepared",
    "open_only",
    "dropped",
];

async fn divergence(site: &Site) -> Divergence {
    let found = site.driver.divergence(&region(EAST)).await.unwrap();
    match &found[..] {
        [Found::Here(_, Some(divergence))] => divergence.clone(),
        other => panic!("{other:?}"),
    }
}

/// The transaction that a restore goes back because of has always changed everything before the fork and committed behind it.
#[tokio::test]
async fn what_was_changed_before_the_fork_and_committed_behind_it_is_named() {
    let mut site = Site::start(1).await;
    for table in TABLES {
        let create = format!("create table {table} (i int); insert into {table} values (1)");
        site.primary.sql(&create).await;
    }
    site.primary.stop();
    let copy = site.place("recovered");
    run(Command::new("cp")
        .arg("-a")
        .arg(&site.primary.data)
        .arg(&copy));
    site.restart_with(&["max_prepared_transactions=2", "wal_keep_size=1GB"])
        .await;

    let mut reaching = site.primary.connect().await;
    let begin = "begin; delete from whole; \
                 savepoint a; delete from nested; release a; \
                 savepoint b; delete from undone; rollback to b";
    reaching.query(begin).await.unwrap();
    let mut undone = site.primary.connect().await;
    undone.query("begin; delete from undone").await.unwrap();
    let prepare = "begin; delete from prepared; prepare transaction 'reaching'";
    site.primary.sql(prepare).await;
    // Ended before the fork, with subtransactions of its own.
    let before = "begin; savepoint a; insert into open_only values (2); commit";
    site.primary.sql(before).await;
    for _ in 0..4 {
        site.commit(200).await;
        site.primary.sql("checkpoint").await;
        site.switch().await;
    }
    let fork = site
        .primary
        .sql("select pg_create_restore_point('fork')")
        .await;
    reaching.query("commit").await.unwrap();
    undone.query("rollback").await.unwrap();
    site.primary.sql("commit prepared 'reaching'").await;
    site.primary.sql("drop table dropped").await;
    site.switch().await;
    site.open_epoch_in(WEST, 2, 2).await;
    site.primary.stop();

    fs::write(copy.join("recovery.signal"), "").unwrap();
    give_to_postgres(&copy.join("recovery.signal"));
    let fetch = format!("restore_command=cp {}/%f %p", site.archive().display());
    let settings = [
        fetch.as_str(),
        "recovery_target_name=fork",
        "recovery_target_action=promote",
        "max_prepared_transactions=2",
        "track_commit_timestamp=on",
    ];
    let present = Server::start(&copy, &settings).await;
    present.wait_until_promoted().await;

    let found = divergence(&site).await;
    assert_eq!(found.fork.to_string(), fork);
    assert_eq!(found.commits, 3, "{found:?}");
    let named: Vec<&str> = found
        .tables
        .iter()
        .map(|table| table.strip_prefix("postgres: public.").unwrap())
        .collect();
    assert_eq!(named, ["dropped", "nested", "prepared", "whole"]);
    assert_eq!((found.partly, &found.unread[..]), (false, &[][..]));
    assert_eq!(found.unnamed, Vec::<String>::new());

    // The log of their beginnings has gone: the commits are counted, and it is said that tables may be missing.
    let log = site.primary.data.join("pg_wal");
    let fork_segment = segment_of(&fork);
    let mut removed = 0;
    for entry in fs::read_dir(&log).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.len() == 24 && name < fork_segment {
            fs::remove_file(log.join(&name)).unwrap();
            removed += 1;
        }
    }
    assert!(removed >= 4);
    let found = divergence(&site).await;
    assert_eq!((found.commits, found.partly), (3, true), "{found:?}");
    assert!(found.counts_all());
    assert_eq!(found.tables, ["postgres: public.dropped"]);
    let [Unread::Tables(why)] = &found.unread[..] else {
        panic!("{found:?}");
    };
    assert!(why.contains("no longer in its `pg_wal`"), "{why}");
}

/// The name of the segment of 1 MiB that holds a position of timeline 1.
fn segment_of(position: &str) -> String {
    let (high, low) = position.split_once('/').unwrap();
    let low = u32::from_str_radix(low, 16).unwrap() >> 20;
    let high = u32::from_str_radix(high, 16).unwrap();
    format!("00000001{high:08X}{low:08X}")
}
