//! Pushing and fetching.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dr_model::{Lsn, SegmentSize};
use dr_provider::ErrorKind;
use dr_provider::error::chain;
use dr_provider::store::list_all;

use crate::apart::{is_apart, mount_disk, resize_disk};
use crate::server::{Server, run};
use crate::site::{EAST, Site, WEST, region};

/// A site with at least four archived segments, none pushed.
async fn archived() -> (Site, Vec<String>) {
    let site = Site::start(1).await;
    while site.segments().len() < 4 {
        site.commit(30).await;
        site.switch().await;
    }
    let segments = site.segments();
    (site, segments)
}

async fn push(site: &Site, name: &str) -> Result<String, dr_provider::Error> {
    site.driver
        .push_wal(&region(WEST), &site.archive().join(name))
        .await
}

async fn fetch(
    site: &Site,
    name: &str,
    through: Option<Lsn>,
) -> Result<Option<Vec<u8>>, dr_provider::Error> {
    let destination = site.place("fetched");
    let found = site
        .driver
        .fetch_wal(&region(WEST), name, &destination, through)
        .await?;
    let content = found.then(|| fs::read(&destination).unwrap());
    fs::remove_file(&destination).ok();
    Ok(content)
}

fn start_of(name: &str) -> Lsn {
    SegmentSize::try_from(1 << 20)
        .unwrap()
        .parse_file_name(name)
        .unwrap()
        .1
}

#[tokio::test]
async fn what_is_pushed_can_be_fetched_and_pushed_again() {
    let (site, segments) = archived().await;
    for name in &segments {
        push(&site, name).await.unwrap();
    }
    for name in &segments {
        let said = push(&site, name).await.unwrap();
        assert!(said.contains("already"), "{said}");
        let content = fs::read(site.archive().join(name)).unwrap();
        assert_eq!(fetch(&site, name, None).await.unwrap(), Some(content));
    }
}

/// Not there is said only where it is proven (R26).
#[tokio::test]
async fn absence_is_proven_or_an_error() {
    let (site, segments) = archived().await;
    push(&site, &segments[1]).await.unwrap();
    push(&site, &segments[2]).await.unwrap();
    // Before the log, after it, of another timeline, a history and a backup that are not there.
    let other = segments[1].replacen("00000001", "00000002", 1);
    let backup = format!("{}.00000028.backup", segments[1]);
    for name in [
        &segments[0],
        &segments[3],
        &other,
        &backup,
        "00000002.history",
    ] {
        assert_eq!(fetch(&site, name, None).await.unwrap(), None, "{name}");
    }
    assert_eq!(
        fetch(&site, "nonsense", None).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );

    fs::rename(site.place(WEST), site.place("away")).unwrap();
    for name in [&segments[1], &segments[3], "00000002.history", &backup] {
        let error = fetch(&site, name, None).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Unavailable,
            "{name}: {}",
            chain(&error)
        );
    }
    // An empty directory in its place is not the store either.
    fs::create_dir(site.place(WEST)).unwrap();
    for name in [&segments[3], "00000002.history"] {
        assert!(fetch(&site, name, None).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_segment_is_cut_off_only_where_the_log_ends() {
    let (site, segments) = archived().await;
    push(&site, &segments[0]).await.unwrap();
    push(&site, &segments[1]).await.unwrap();
    let through = start_of(&segments[1]).advance(5000);
    let whole = fs::read(site.archive().join(&segments[1])).unwrap();
    let content = fetch(&site, &segments[1], Some(through))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(content.len(), whole.len());
    assert_eq!(content[..5000], whole[..5000]);
    assert!(content[5000..].iter().all(|byte| *byte == 0));
    // Before the cut whole, behind it nothing.
    let first = fs::read(site.archive().join(&segments[0])).unwrap();
    assert_eq!(
        fetch(&site, &segments[0], Some(through)).await.unwrap(),
        Some(first)
    );
    let cut = Some(start_of(&segments[1]));
    assert_eq!(fetch(&site, &segments[1], cut).await.unwrap(), None);
    // A log that does not reach the cut is not the log that was promised.
    let beyond = Some(start_of(&segments[2]).advance(1));
    let error = fetch(&site, &segments[2], beyond).await.unwrap_err();
    assert!(
        chain(&error).contains("the log ends at"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_tail_never_replaces_more_than_it_has() {
    let (site, segments) = archived().await;
    push(&site, &segments[0]).await.unwrap();
    push(&site, &segments[1]).await.unwrap();
    // The server's own segment stands beside where it wants the store's.
    let directory = site.place("pg_wal");
    fs::create_dir(&directory).unwrap();
    fs::copy(
        site.archive().join(&segments[1]),
        directory.join(&segments[1]),
    )
    .unwrap();
    let destination = directory.join("RECOVERYXLOG");
    let through = Some(start_of(&segments[1]).advance(8192));
    let west = region(WEST);
    let fetched = site
        .driver
        .fetch_wal(&west, &segments[1], &destination, through)
        .await;
    assert_eq!(fetched.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(!destination.exists());
    // Nor does anything replace a longer file.
    fs::write(&destination, vec![1; (1 << 20) + 1]).unwrap();
    assert!(
        site.driver
            .fetch_wal(&west, &segments[1], &destination, None)
            .await
            .is_err()
    );
    assert_eq!(fs::metadata(&destination).unwrap().len(), (1 << 20) + 1);
    // Nor what is no file: a link is not followed, and not replaced.
    fs::remove_file(&destination).unwrap();
    std::os::unix::fs::symlink("/dev/full", &destination).unwrap();
    let fetched = site
        .driver
        .fetch_wal(&west, &segments[1], &destination, None)
        .await;
    assert!(fetched.is_err());
    assert!(
        fs::symlink_metadata(&destination)
            .unwrap()
            .file_type()
            .is_symlink()
    );
}

/// The same bytes again are a success, others are an alarm (R13).
#[tokio::test]
async fn other_bytes_in_a_place_are_an_alarm() {
    let (site, segments) = archived().await;
    push(&site, &segments[0]).await.unwrap();
    let path = site.archive().join(&segments[0]);
    let mut content = fs::read(&path).unwrap();
    // In the rest of the segment after the switch, where no record is.
    let last = content.len() - 1;
    content[last] ^= 1;
    fs::write(&path, content).unwrap();
    let error = push(&site, &segments[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let at = start_of(&segments[0]).advance(last as u64);
    assert!(chain(&error).contains(&at.to_string()), "{}", chain(&error));
}

#[tokio::test]
async fn a_gap_is_refused_and_what_comes_before_the_log_is_kept() {
    let (site, segments) = archived().await;
    push(&site, &segments[1]).await.unwrap();
    let error = push(&site, &segments[3]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let end = start_of(&segments[2]);
    assert!(
        chain(&error).contains(&format!("ends at {end}")),
        "{}",
        chain(&error)
    );
    let said = push(&site, &segments[0]).await.unwrap();
    assert!(said.contains("kept beside the log"), "{said}");
    push(&site, &segments[0]).await.unwrap();
    let content = fs::read(site.archive().join(&segments[0])).unwrap();
    assert_eq!(
        fetch(&site, &segments[0], None).await.unwrap(),
        Some(content)
    );
}

/// Nothing foreign gets into the log (R10, R15).
#[tokio::test]
async fn what_is_not_this_clusters_log_is_refused() {
    let (site, segments) = archived().await;
    let foreign = site.place("foreign");
    Server::initialise(&foreign, 1);
    let name = fs::read_dir(foreign.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.len() == 24)
        .unwrap();
    let west = region(WEST);
    let error = site
        .driver
        .push_wal(&west, &foreign.join("pg_wal").join(&name))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(chain(&error).contains("is of cluster"), "{}", chain(&error));

    // Under another name, cut off, of a timeline that nobody claimed.
    let renamed = site.archive().join(&segments[3]);
    let content = fs::read(site.archive().join(&segments[0])).unwrap();
    fs::write(&renamed, &content).unwrap();
    assert_eq!(
        push(&site, &segments[3]).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    fs::write(&renamed, &content[..9000]).unwrap();
    assert_eq!(
        push(&site, &segments[3]).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let future = segments[0].replacen("00000001", "00000002", 1);
    fs::write(site.archive().join(&future), &content).unwrap();
    let error = push(&site, &future).await.unwrap_err();
    assert!(
        chain(&error).contains("claimed by no epoch"),
        "{}",
        chain(&error)
    );
    assert_eq!(list_all(&*site.store(WEST), "postgres/").await.unwrap(), []);
}

/// Whatever a server archives is taken, or its disk would fill up (R14, R17).
#[tokio::test]
async fn a_superseded_primary_goes_on_archiving_into_quarantine() {
    let (site, segments) = archived().await;
    push(&site, &segments[0]).await.unwrap();
    push(&site, &segments[1]).await.unwrap();
    let fork = start_of(&segments[1]).advance(4096);
    site.open_epoch(2, 2).await;
    // As long as nobody knows where timeline 1 was left, the server has to keep what it has.
    let error = push(&site, &segments[2]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    let history = site.archive().join("00000002.history");
    fs::write(&history, format!("1\t{fork}\ttest\n")).unwrap();
    push(&site, "00000002.history").await.unwrap();
    push(&site, "00000002.history").await.unwrap();

    let said = push(&site, &segments[0]).await.unwrap();
    assert!(said.contains("already"), "{said}");
    for name in &segments[1..3] {
        let said = push(&site, name).await.unwrap();
        assert!(said.contains("quarantine"), "{said}");
        push(&site, name).await.unwrap();
    }
    let cluster = site.primary.system_identifier().await;
    let prefix = format!("postgres/{cluster}/quarantine/00000001/");
    let kept = list_all(&*site.store(WEST), &prefix).await.unwrap();
    let names: Vec<&str> = kept.iter().map(|object| object.key.file_name()).collect();
    assert_eq!(names, segments[1..3]);
    // Another history of the same timeline means that two promotions used it.
    fs::write(&history, "1\t0/100\ttest\n").unwrap();
    assert_eq!(
        push(&site, "00000002.history").await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(list_all(&*site.store(EAST), "postgres/").await.unwrap(), []);
}

/// A server that recovers, and asks for one segment after the other.
struct Recovering<'a> {
    site: &'a Site,
    destination: PathBuf,
    spool: PathBuf,
}

impl<'a> Recovering<'a> {
    /// Makes its directory, whose control file says which cluster it is.
    fn of(site: &'a Site) -> Self {
        let server = site.place("server");
        fs::create_dir_all(server.join("pg_wal")).unwrap();
        fs::create_dir_all(server.join("global")).unwrap();
        let control = Path::new("global/pg_control");
        fs::copy(site.primary.data.join(control), server.join(control)).unwrap();
        Self {
            site,
            destination: server.join("pg_wal/RECOVERYXLOG"),
            spool: site.place("spool"),
        }
    }

    async fn fetch(&self, name: &str) -> dr_provider::Result<Option<Vec<u8>>> {
        fs::remove_file(&self.destination).ok();
        let (driver, west) = (&self.site.driver, region(WEST));
        let fetched = driver.fetch_wal_ahead(&west, name, &self.destination, &self.spool);
        let there = fetched.await?;
        Ok(there.then(|| fs::read(&self.destination).unwrap()))
    }

    /// Returns the names of what was fetched ahead.
    fn spooled(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.spool).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// The disk on which segments are kept that were fetched ahead is full, or has not room for all of them: recovery goes on, one segment
/// at a time, and nothing half written stays there (R31).
#[tokio::test]
async fn without_room_nothing_is_fetched_ahead() {
    if !is_apart("archive::without_room_nothing_is_fetched_ahead") {
        return;
    }
    let site = Site::start(16).await;
    while site.segments().len() < 7 {
        site.commit(1).await;
        site.switch().await;
    }
    site.push(WEST).await;
    let segments = site.segments();
    let server = Recovering::of(&site);
    let archived = |name: &str| fs::read(site.archive().join(name)).unwrap();
    mount_disk(&server.spool, 100);
    assert_eq!(
        server.fetch(&segments[0]).await.unwrap(),
        Some(archived(&segments[0]))
    );
    assert_eq!(server.spooled(), segments[1..5]);
    for name in &segments[1..5] {
        assert_eq!(server.fetch(name).await.unwrap(), Some(archived(name)));
    }
    assert_eq!(server.spooled(), Vec::<String>::new());
    // Room for one segment, and for none.
    for mebibytes in [20, 1] {
        resize_disk(&server.spool, &format!("remount,size={mebibytes}m"));
        assert_eq!(
            server.fetch(&segments[0]).await.unwrap(),
            Some(archived(&segments[0]))
        );
        assert_eq!(server.spooled(), Vec::<String>::new(), "{mebibytes}");
    }
    run(Command::new("umount").arg("--lazy").arg(&server.spool));
}

/// Segments fetched ahead serve a server whose store has gone, and never what is damaged or was left by another restore (R31).
#[tokio::test]
async fn what_was_fetched_ahead_is_served_without_the_store() {
    let site = Site::start(16).await;
    while site.segments().len() < 7 {
        site.commit(1).await;
        site.switch().await;
    }
    site.push(WEST).await;
    let segments = site.segments();
    let server = Recovering::of(&site);
    let fetch = async |name: &str| server.fetch(name).await;
    let spooled = || server.spooled();
    let spool = &server.spool;
    let archived = |name: &str| fs::read(site.archive().join(name)).unwrap();

    assert_eq!(
        fetch(&segments[0]).await.unwrap(),
        Some(archived(&segments[0]))
    );
    assert_eq!(spooled(), segments[1..5]);
    // Damaged meanwhile: fetched from the store.
    let path = spool.join(&segments[1]);
    let mut damaged = fs::read(&path).unwrap();
    damaged[1 << 20] ^= 1;
    fs::write(&path, damaged).unwrap();
    assert_eq!(
        fetch(&segments[1]).await.unwrap(),
        Some(archived(&segments[1]))
    );
    assert_eq!(spooled(), segments[2..6]);

    let (store, away) = (site.place(WEST), site.place("away"));
    fs::rename(&store, &away).unwrap();
    for name in &segments[2..6] {
        assert_eq!(fetch(name).await.unwrap(), Some(archived(name)));
    }
    // Not there is not proven to be missing.
    fetch(&segments[6]).await.unwrap_err();
    fs::rename(&away, &store).unwrap();

    // Another restore begins earlier: what the one before left is not kept.
    fetch(&segments[3]).await.unwrap();
    assert_eq!(spooled(), segments[4..7]);
    fetch(&segments[0]).await.unwrap();
    assert_eq!(spooled(), segments[1..5]);
}
