//! Reading the data directory: what ends a backup, what is reported, and whose directory it is.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dr_postgres::{BackupOptions, BackupSource};
use dr_provider::ErrorKind;
use dr_provider::driver::{Backup as _, BackupReport, Restore as _, RestoreRequest, RestoreTarget};
use dr_provider::error::chain;
use dr_provider::store::list_all;
use rstest::rstest;

use crate::apart::{is_apart, mount_disk};
use crate::server::{PATIENCE, Server, Version, give_to_postgres, run};
use crate::site::{EAST, Site, WEST, region};

fn by(source: BackupSource) -> BackupOptions {
    BackupOptions {
        source,
        ..BackupOptions::default()
    }
}

/// A file that takes long to read and nothing to keep: a backup is under way for as long as it is being read.
struct Long(std::path::PathBuf);

impl Long {
    fn make(site: &Site) -> Self {
        let place = site.primary.data.join("long");
        let file = fs::File::create(&place).unwrap();
        file.set_len(200 << 30).unwrap();
        file.write_all_at(b"end", (200 << 30) - 3).unwrap();
        Self(place)
    }
}

impl Long {
    /// Lets the reading of it end.
    fn cut(&self) {
        let file = fs::OpenOptions::new().write(true).open(&self.0);
        file.unwrap().set_len(0).unwrap();
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.0);
    }
}

/// Waits until a backup is reading.
async fn under_way(site: &Site) {
    let sql = "select count(*) from pg_stat_activity where application_name = 'dr backup' and query = 'select 1'";
    let reading = async {
        while site.primary.sql(sql).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
}

/// Waits until no backup has a session any more.
async fn session_ended(site: &Site) {
    let sql = "select count(*) from pg_stat_activity where application_name = 'dr backup'";
    let ended = async {
        while site.primary.sql(sql).await != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

/// Begins a backup beside the test.
fn take(site: &Site) -> tokio::task::JoinHandle<dr_provider::Result<BackupReport>> {
    let (directory, east) = (site.directory.path().to_owned(), region(EAST));
    let driver = site.same_driver(&directory);
    tokio::spawn(async move { driver.take(&east).await })
}

/// Counts the objects of backups in the store, whole or not.
async fn parts_of_backups(site: &Site) -> usize {
    let all = list_all(&*site.store(EAST), "postgres/").await.unwrap();
    let parts = all
        .iter()
        .filter(|object| object.key.as_str().contains("/backup/"));
    parts.count()
}

async fn listed(site: &Site) -> usize {
    site.driver
        .list(&site.store(EAST))
        .await
        .unwrap()
        .complete
        .len()
}

/// A backup is one session, and nothing without it (R1).
#[tokio::test]
async fn a_session_that_is_ended_ends_the_backup() {
    let site = Site::start(1).await;
    let long = Long::make(&site);
    let east = region(EAST);
    let kill = async {
        under_way(&site).await;
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'dr backup'";
        assert_eq!(site.primary.sql(sql).await, "t");
    };
    let (taken, ()) = tokio::join!(site.driver.take(&east), kill);
    let error = taken.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(
        chain(&error).contains("session that held the backup open was lost"),
        "{}",
        chain(&error)
    );
    assert_eq!(listed(&site).await, 0);
    drop(long);
    site.back_up().await;
    assert_eq!(listed(&site).await, 1);
}

/// A server that changes its timeline under a backup has to be started anew for it, and that ends the session: the primary of a
/// backup is promoted by nobody, for a standby is not backed up (R9).
#[tokio::test]
async fn a_primary_that_comes_back_promoted_ends_the_backup() {
    let mut site = Site::start(1).await;
    let long = Long::make(&site);
    let taking = take(&site);
    under_way(&site).await;
    site.restart_promoted().await;
    let error = taking.await.unwrap().unwrap_err();
    assert!(
        chain(&error).contains("session that held the backup open was lost"),
        "{}",
        chain(&error)
    );
    assert_eq!(listed(&site).await, 0);
    drop(long);
}

#[rstest]
#[case::agent(BackupSource::Local)]
#[case::server(BackupSource::Remote)]
#[tokio::test]
async fn a_standby_is_not_backed_up(#[case] source: BackupSource) {
    let mut site = Site::start(1).await;
    site.back_up_by(by(source));
    site.restart_as_standby().await;
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = chain(&error);
    assert!(
        said.contains("it is a standby, epoch 1 names it as primary"),
        "{said}"
    );
    assert_eq!(listed(&site).await, 0);
}

/// Where a backup is when its epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It reads files.
    Reading,
    /// It has read everything, and waits for the log.
    Waiting,
}

/// A failover elsewhere leaves the session as it is, and the files can be read to their end: only the register says that nobody
/// goes on with them.
#[rstest]
#[case::elsewhere_while_it_reads(WEST, When::Reading)]
#[case::elsewhere_while_it_waits(WEST, When::Waiting)]
#[case::in_place_while_it_waits(EAST, When::Waiting)]
#[tokio::test]
async fn a_failover_ends_the_backup(#[case] to: &str, #[case] when: When) {
    let site = Site::start(1).await;
    site.commit(20).await;
    let long = Long::make(&site);
    let taking = take(&site);
    under_way(&site).await;
    if when == When::Reading {
        site.open_epoch_in(to, 2, 2).await;
        long.cut();
    } else {
        long.cut();
        session_ended(&site).await;
        site.open_epoch_in(to, 2, 2).await;
    }
    let taken = tokio::time::timeout(PATIENCE, taking).await.unwrap();
    let error = taken.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Superseded, "{}", chain(&error));
    let why = format!(
        "epoch 2 began meanwhile, with its primary in {to} on timeline 2; what was read is timeline 1 in {EAST}"
    );
    assert!(chain(&error).contains(&why), "{}", chain(&error));
    assert_eq!(listed(&site).await, 0);
    assert_eq!(parts_of_backups(&site).await, 0);
}

/// Another epoch of the same primary on the same timeline, as one that changes who waits for whom, is none of its business.
#[tokio::test]
async fn an_epoch_that_moves_nothing_lets_the_backup_be() {
    let site = Site::start(1).await;
    let long = Long::make(&site);
    let taking = take(&site);
    under_way(&site).await;
    site.open_epoch(2, 1).await;
    long.cut();
    site.commit(1).await;
    site.switch().await;
    let pushing = async {
        loop {
            site.push(EAST).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let point = tokio::select! {
        report = taking => report.unwrap().unwrap().recovery_point,
        () = pushing => unreachable!(),
    };
    assert_eq!(point.taken.remarks, Vec::<String>::new());
    assert_eq!(listed(&site).await, 1);
}

/// Not a test: a process that backs up, for [`a_killed_backup_leaves_nothing`].
#[tokio::test]
async fn back_up_and_be_killed() {
    if let Some(site) = std::env::var_os("DR_TEST_BACK_UP") {
        let driver = Site::driver_of(Path::new(&site));
        let _never = driver.take(&region(EAST)).await;
    }
}

#[tokio::test]
async fn a_killed_backup_leaves_nothing() {
    let site = Site::start(1).await;
    let long = Long::make(&site);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "local::back_up_and_be_killed",
            "--test-threads",
            "1",
        ])
        .env("DR_TEST_BACK_UP", site.directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    under_way(&site).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(listed(&site).await, 0);
    assert!(!site.primary.data.join("backup_label").exists());
    drop(long);
    let point = site.back_up().await;
    assert_eq!((listed(&site).await, point.taken.parent), (1, None));
}

/// Not a test: a process that backs up and says how that ends, for [`a_list_of_files_without_room_ends_the_backup`].
#[tokio::test]
async fn back_up_and_say_how_it_ends() {
    if let Some(site) = std::env::var_os("DR_TEST_SAY_HOW") {
        let driver = Site::driver_of(Path::new(&site));
        let error = driver.take(&region(EAST)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{}", chain(&error));
        println!("said: {}; hint: {}", chain(&error), error.hint().unwrap());
    }
}

/// The list of the files of a backup is on disk where it is too long for memory. A disk without room for it ends the backup: it says which,
/// and nothing of it stays, there or in the store.
#[tokio::test]
async fn a_list_of_files_without_room_ends_the_backup() {
    if !is_apart("local::a_list_of_files_without_room_ends_the_backup") {
        return;
    }
    const FILES: u32 = 45_000;
    let site = Site::start(1).await;
    let many = site.primary.data.join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..FILES {
        fs::write(many.join(format!("{number:0>200}")), "").unwrap();
    }
    let lists = site.place("lists");
    mount_disk(&lists, 2);
    let mut again = Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", "local::back_up_and_say_how_it_ends"])
        .args(["--test-threads", "1", "--nocapture"])
        .env("DR_TEST_SAY_HOW", site.directory.path())
        .env("TMPDIR", &lists);
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let place = format!("cannot keep the list of files in `{}`", lists.display());
    for word in [&place, "no space left", "hint: make room there", "TMPDIR"] {
        assert!(
            said.to_lowercase().contains(&word.to_lowercase()),
            "{word}: {said}"
        );
    }
    assert_eq!(listed(&site).await, 0);
    assert_eq!(parts_of_backups(&site).await, 0);
    assert_eq!(fs::read_dir(&lists).unwrap().count(), 0);
    assert!(!site.primary.data.join("backup_label").exists());
    run(Command::new("umount").arg("--lazy").arg(&lists));
    site.back_up().await;
}

/// Damage is kept, named and told (R7).
#[rstest]
#[case::agent(BackupSource::Local)]
#[case::server(BackupSource::Remote)]
#[tokio::test]
async fn damaged_pages_mark_the_backup_and_do_not_fail_it(#[case] source: BackupSource) {
    let mut site = Site::start(1).await;
    site.back_up_by(by(source));
    site.commit(200).await;
    site.primary.sql("checkpoint").await;
    let file = site
        .primary
        .sql("select pg_relation_filepath('ledger')")
        .await;
    let path = site.primary.data.join(&file);
    let mut content = fs::read(&path).unwrap();
    content[8192 + 4000] ^= 0xFF;
    fs::write(&path, content).unwrap();

    let point = site.back_up().await;
    assert_eq!(point.taken.damaged_pages, 1);
    let [damaged] = point.taken.damaged.as_slice() else {
        panic!("{:?}", point.taken)
    };
    assert!(
        damaged.starts_with(&format!("block 1 in {file}")),
        "{damaged}"
    );
    // What is damaged is no parent.
    let next = site.back_up().await;
    assert_eq!((next.taken.parent, next.taken.damaged_pages), (None, 1));
}

#[tokio::test]
async fn a_page_that_is_damaged_while_the_backup_runs_is_reported() {
    let site = Site::start(1).await;
    site.commit(200).await;
    // The long file stands in the data directory itself and is read before what is in its directories.
    let place = site.place("elsewhere");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    site.primary
        .sql(&format!(
            "create tablespace elsewhere location '{}'",
            place.display()
        ))
        .await;
    site.primary
        .sql("create table other tablespace elsewhere as select * from ledger")
        .await;
    site.primary.sql("checkpoint").await;
    let other = site
        .primary
        .sql("select pg_relation_filepath('other')")
        .await;
    let other_path = site.primary.data.join(&other);
    let long = Long::make(&site);
    let taking = take(&site);
    under_way(&site).await;
    let mut damaged = fs::read(&other_path).unwrap();
    damaged[5000] ^= 1;
    fs::write(&other_path, damaged).unwrap();
    long.cut();
    site.commit(1).await;
    site.switch().await;
    let pushing = async {
        loop {
            site.push(EAST).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let point = tokio::select! {
        report = taking => report.unwrap().unwrap().recovery_point,
        () = pushing => unreachable!(),
    };
    assert_eq!(point.taken.damaged_pages, 1, "{:?}", point.taken);
    assert!(point.taken.damaged[0].starts_with(&format!("block 0 in {other}")));
}

#[tokio::test]
async fn another_directory_is_never_taken_for_the_servers() {
    let mut site = Site::start(1).await;
    let data = site.primary.data.clone();
    let other = site.place("other");
    Server::initialise_as(Version::System, &other, 1);
    let copy = site.place("copy");
    site.primary.sql("checkpoint").await;
    run(Command::new("cp").arg("-a").arg(&data).arg(&copy));

    site.back_up_of(&other, by(BackupSource::Local));
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert!(
        chain(&error).contains("cannot be read here") && error.hint().is_some(),
        "{}",
        chain(&error)
    );
    site.back_up_of(&other, by(BackupSource::Auto));
    let point = site.back_up().await;
    assert_eq!(point.taken.read_by, "server");
    assert!(
        point.taken.remarks[0].contains("the server sent its files"),
        "{:?}",
        point.taken
    );

    // A copy has the server's identity; only the checkpoint tells.
    site.back_up_of(&copy, by(BackupSource::Auto));
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        chain(&error).contains("is not the directory that it writes"),
        "{}",
        chain(&error)
    );
}

#[rstest]
#[case::system(Version::System)]
#[case::postgresql_16(Version::Brought(16))]
#[case::postgresql_18(Version::Brought(18))]
#[tokio::test]
async fn a_log_that_says_too_little_is_refused(#[case] version: Version) {
    let further = ["wal_level=minimal", "max_wal_senders=0", "archive_mode=off"];
    let site = Site::start_as(version, 1, &further).await;
    let error = site.driver.take(&region(EAST)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        chain(&error).contains("`wal_level` is `minimal`"),
        "{}",
        chain(&error)
    );
    assert!(error.hint().unwrap().contains("wal_level = replica"));
}

#[rstest]
#[case::agent_of_the_system(Version::System, BackupSource::Local)]
#[case::server_of_the_system(Version::System, BackupSource::Remote)]
#[case::server_of_16(Version::Brought(16), BackupSource::Remote)]
#[case::server_of_18(Version::Brought(18), BackupSource::Remote)]
#[tokio::test]
async fn tablespaces_are_kept_with_their_places(
    #[case] version: Version,
    #[case] source: BackupSource,
) {
    let mut site = Site::start_as(version, 1, &[]).await;
    site.back_up_by(by(source));
    let place = site.place("fast");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    site.primary
        .sql(&format!(
            "create tablespace fast location '{}'",
            place.display()
        ))
        .await;
    site.primary
        .sql("create table there tablespace fast as select n from generate_series(1, 9) n")
        .await;
    let oid = site
        .primary
        .sql("select oid from pg_tablespace where spcname = 'fast'")
        .await;
    let point = site.back_up().await;
    let source = site.source_of(&point.label).await;
    assert_eq!(source["tablespaces"][&oid], place.to_str().unwrap());
    let file = site
        .primary
        .sql("select pg_relation_filepath('there')")
        .await;
    let held = site
        .holds(&point.label, &[&file, "backup_label", "tablespace_map"])
        .await;
    assert_eq!(held, [true, true, false], "{file}");
}

#[rstest]
#[case::agent(BackupSource::Local)]
#[case::server(BackupSource::Remote)]
#[tokio::test]
async fn configuration_files_elsewhere_come_back_in_the_directory(#[case] source: BackupSource) {
    let mut site = Site::start(1).await;
    let place = site.place("etc");
    fs::create_dir(&place).unwrap();
    give_to_postgres(&place);
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        run(Command::new("mv")
            .arg(site.primary.data.join(name))
            .arg(&place));
    }
    let configuration = place.join("postgresql.conf");
    let mut text = fs::read_to_string(&configuration).unwrap();
    let (data, place) = (site.primary.data.display().to_string(), place.display());
    text.push_str(&format!(
        "data_directory = '{data}'\nhba_file = '{place}/pg_hba.conf'\nident_file = '{place}/pg_ident.conf'\n\
         work_mem = '7MB'\n"
    ));
    fs::write(&configuration, text).unwrap();
    let file = format!("config_file={}", configuration.display());
    site.restart_with(&[&file]).await;
    site.back_up_by(by(source));
    let point = site.back_up().await;
    assert_eq!(point.taken.remarks, Vec::<String>::new());
    site.switch().await;
    site.push(EAST).await;
    let restored = site.place("restored");
    let request = RestoreRequest::new(region(EAST), RestoreTarget::Latest, restored.clone());
    site.driver.restore(&request).await.unwrap();
    let server = Server::start(&restored, &["track_commit_timestamp=on"]).await;
    server.wait_until_promoted().await;
    assert_eq!(server.sql("show work_mem").await, "7MB");
    assert_eq!(
        server.sql("show data_directory").await,
        restored.to_str().unwrap()
    );
}
