//! Every kind of target, on every version, of backups taken in both ways, with pgbench's balances as the judge beside the ledger.

use std::process::{Command, Stdio};

use dr_postgres::{BackupOptions, BackupSource};
use dr_provider::driver::RestoreTarget;
use rstest::rstest;

use super::recover;
use crate::server::{Server, Version, as_postgres, run};
use crate::site::{EAST, Entry, Site};

/// What the four tables of pgbench have in common after whole transactions.
const BALANCES: &str = "select (select sum(abalance) from pgbench_accounts) || ' ' || (select sum(bbalance) from pgbench_branches) \
                        || ' ' || (select sum(tbalance) from pgbench_tellers) || ' ' || (select sum(delta) from pgbench_history)";

/// Prepares pgbench on a server: the system's program is a client of every version.
fn pgbench(server: &Server, words: &[&str]) -> Command {
    let mut command = as_postgres(&Version::System.binaries(), "pgbench");
    command.arg("--host").arg(&server.socket);
    command.args(["--username=postgres", "--no-vacuum"]);
    command.args(words).arg("postgres");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs some of its transactions, each of a few clients, and enters one more line into the ledger.
async fn go_on(site: &Site) -> u64 {
    run(&mut pgbench(
        &site.primary,
        &["--client=3", "--transactions=40"],
    ));
    let sql = "insert into ledger (filler) values ('x') returning pg_current_xact_id()::text";
    site.primary.sql(sql).await.parse().unwrap()
}

/// What a server had at one moment.
#[derive(Debug, PartialEq)]
struct Seen {
    ledger: Vec<Entry>,
    transfers: String,
}

async fn seen(server: &Server) -> Seen {
    let balances = server.sql(BALANCES).await;
    let sums: Vec<&str> = balances.split(' ').collect();
    assert!(
        sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]),
        "{balances}"
    );
    Seen {
        ledger: Site::ledger(server).await,
        transfers: server
            .sql("select count(*)::text from pgbench_history")
            .await,
    }
}

#[rstest]
#[tokio::test]
async fn a_target_is_reached_with_all_balances(
    #[values(Version::System, Version::Brought(16), Version::Brought(18))] version: Version,
    #[values(BackupSource::Local, BackupSource::Remote)] source: BackupSource,
) {
    let mut site = Site::start_as(version, 1, &[]).await;
    site.back_up_by(BackupOptions {
        source,
        ..BackupOptions::default()
    });
    run(&mut pgbench(&site.primary, &["--initialize"]));
    go_on(&site).await;
    // The backup is taken while transfers go on.
    let mut load = pgbench(&site.primary, &["--client=2", "--transactions=2000"]);
    let mut load = load.spawn().unwrap();
    site.back_up().await;
    assert!(load.wait().unwrap().success());

    let number = go_on(&site).await;
    let by_number = seen(&site.primary).await;
    go_on(&site).await;
    let by_name = seen(&site.primary).await;
    let point = "select pg_create_restore_point('a moment')";
    site.primary.sql(point).await;
    go_on(&site).await;
    let by_time = seen(&site.primary).await;
    let (_, time) = *by_time.ledger.last().unwrap();
    go_on(&site).await;
    let latest = seen(&site.primary).await;
    site.switch().await;
    site.push(EAST).await;

    for (name, target, expected) in [
        ("xid", RestoreTarget::Transaction(number), by_number),
        ("name", RestoreTarget::Name("a moment".to_owned()), by_name),
        ("time", RestoreTarget::Time(time), by_time),
        ("latest", RestoreTarget::Latest, latest),
    ] {
        let server = recover(&site, EAST, target, name).await;
        assert_eq!(seen(&server).await, expected, "{name}");
    }
}
