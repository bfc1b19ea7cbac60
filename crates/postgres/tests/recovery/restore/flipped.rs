//! A flipped byte in every kind of object that a restore reads: whoever reads it says so, and says which.

use std::fs;
use std::path::{Path, PathBuf};

use dr_model::{Lsn, SegmentSize, TimelineId};
use dr_provider::driver::{LogStream as _, RestoreTarget, Verify, VerifyHow, VerifyRequest};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};

use super::{protected, restore, walk};
use crate::server::Server;
use crate::site::{Site, WEST, region};

const SEGMENT: u64 = 1 << 20;

/// A site whose log goes on in a second timeline; returns the last segment of the first that is whole.
async fn with_history() -> (Site, Lsn) {
    let (mut site, _) = protected(1).await;
    let last = Lsn(site.stored_end(WEST).await.0 - SEGMENT);
    site.go_on_promoted(WEST).await;
    (site, last)
}

fn objects(site: &Site, what: &str) -> Vec<PathBuf> {
    let found = walk(&site.place(WEST)).into_iter();
    let found: Vec<PathBuf> = found
        .filter(|path| path.contains(what))
        .map(PathBuf::from)
        .collect();
    assert!(!found.is_empty(), "the store has nothing like {what}");
    found
}

/// Returns the chunk of the first chain that begins at a position.
fn chunk_at(site: &Site, start: Lsn) -> PathBuf {
    let mut chunks = objects(site, &start.to_key());
    chunks.retain(|path| path.to_str().unwrap().contains("/part/"));
    chunks.remove(0)
}

fn middle(path: &Path) -> i64 {
    i64::try_from(fs::metadata(path).unwrap().len() / 2).unwrap()
}

/// Returns where the last digit before the line of the hash is.
fn digit(path: &Path) -> i64 {
    let text = fs::read(path).unwrap();
    let hashed = text
        .windows(7)
        .rposition(|part| part == b"blake3 ")
        .unwrap();
    let found = text[..hashed].iter().rposition(u8::is_ascii_digit);
    i64::try_from(found.unwrap()).unwrap()
}

/// Turns a bit of a file, and turns it back when it is done with.
struct Flipped {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Flipped {
    /// `at` counts from the end if it is negative.
    fn new(path: PathBuf, at: i64) -> Self {
        let whole = fs::read(&path).unwrap();
        let length = i64::try_from(whole.len()).unwrap();
        let mut content = whole.clone();
        content[usize::try_from(at.rem_euclid(length)).unwrap()] ^= 4;
        fs::write(&path, content).unwrap();
        Self { path, whole }
    }

    /// Returns its name below the store.
    fn name(&self, site: &Site) -> String {
        let name = self.path.strip_prefix(site.place(WEST)).unwrap();
        name.to_str().unwrap().to_owned()
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        fs::write(&self.path, &self.whole).unwrap();
    }
}

/// Reads the recovery point back; returns what is wrong with it.
async fn verified(site: &Site, label: &str) -> Option<String> {
    let request = VerifyRequest {
        region: region(WEST),
        recovery_point: Some(label.to_owned()),
        how: VerifyHow::Hash { again: true },
    };
    match Verify::verify(&site.driver, &request).await {
        Ok(record) => record.failure,
        Err(error) => Some(chain(&error)),
    }
}

fn corrupt(error: &Error, name: &str) {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", chain(error));
    assert!(chain(error).contains(name), "{name}: {}", chain(error));
}

#[tokio::test]
async fn in_a_recovery_point() {
    let (site, point) = protected(1).await;
    for kind in ["/manifest", "/tree/", "/packs/"] {
        for path in objects(&site, kind) {
            let at = middle(&path);
            let flipped = Flipped::new(path, at);
            let name = flipped.name(&site);
            let failure = verified(&site, &point.label).await.unwrap();
            assert!(failure.contains(&name), "{name}: {failure}");
            let place = site.place("recovered");
            let error = restore(&site, WEST, RestoreTarget::Latest, &place)
                .await
                .unwrap_err();
            assert!(chain(&error).contains(&name), "{name}: {}", chain(&error));
            assert!(!place.join("global/pg_control").exists());
            fs::remove_dir_all(&place).ok();
        }
    }
    assert_eq!(verified(&site, &point.label).await, None);
}

#[tokio::test]
async fn in_what_says_how_the_log_hangs_together() {
    let (site, last) = with_history().await;
    let place = site.place("recovered");
    let mut cases = Vec::new();
    for kind in ["/history", "/origin"] {
        for path in objects(&site, kind) {
            // Also where what is left is as good as before: in a digit.
            for at in [0, middle(&path), digit(&path)] {
                cases.push((path.clone(), at));
            }
        }
    }
    // A chunk's header, of which nobody reads more before something is written.
    cases.push((chunk_at(&site, last), 40));
    for (path, at) in cases {
        let flipped = Flipped::new(path, at);
        let error = restore(&site, WEST, RestoreTarget::Latest, &place)
            .await
            .unwrap_err();
        let named = match flipped.name(&site) {
            name if name.contains("/part/") && !name.ends_with("/origin") => last.to_string(),
            name if name.ends_with("/origin") => "timeline".to_owned(),
            name => name.rsplit_once('/').unwrap().1.to_owned(),
        };
        corrupt(&error, &named);
        assert!(!place.exists());
    }
    // An epoch's record decides who may write; nobody goes by one that cannot be read.
    let newest = objects(&site, "/register/").into_iter().max().unwrap();
    for at in [0, middle(&newest), digit(&newest)] {
        let record = Flipped::new(newest.clone(), at);
        let error: Error = site.register().read().await.unwrap_err().into();
        corrupt(&error, "the register of `orders` is damaged at epoch 2");
        drop(record);
    }
    restore(&site, WEST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
}

/// What stands in no chain: segments from before the log, what a backup left of itself, and what a superseded primary wrote.
#[tokio::test]
async fn in_a_file_that_is_kept_whole() {
    let site = Site::start(1).await;
    while site.segments().len() < 4 {
        site.commit(20).await;
        site.switch().await;
    }
    let (west, segments) = (region(WEST), site.segments());
    let archived = |name: &str| site.archive().join(name);
    let push = async |name: &str| site.driver.push_wal(&west, &archived(name)).await;
    push(&segments[1]).await.unwrap();
    push(&segments[2]).await.unwrap();
    let said = push(&segments[0]).await.unwrap();
    assert!(said.contains("kept beside the log"), "{said}");
    let backup = format!("{}.00000028.backup", segments[0]);
    fs::write(archived(&backup), "START WAL LOCATION: 0/1000028\n").unwrap();
    push(&backup).await.unwrap();

    let fetched = site.place("fetched");
    let fetch = async |name: &str| site.driver.fetch_wal(&west, name, &fetched, None).await;
    for name in [&segments[0], &backup] {
        let path = objects(&site, &format!("/file/{name}")).into_iter();
        let path = path.min_by_key(|path| path.as_os_str().len()).unwrap();
        // In the page header, among the records, behind the last one, in the hash.
        for at in [40, 20, middle(&path), -80, -10] {
            let flipped = Flipped::new(path.clone(), at);
            let key = flipped.name(&site);
            for error in [
                fetch(name).await.unwrap_err(),
                push(name).await.unwrap_err(),
            ] {
                corrupt(&error, &key);
            }
            assert!(!fetched.exists());
        }
        assert!(fetch(name).await.unwrap());
        assert_eq!(
            fs::read(&fetched).unwrap(),
            fs::read(archived(name)).unwrap()
        );
        fs::remove_file(&fetched).unwrap();
    }
    // As an earlier `dr` stored it, without a hash: a record that is damaged is where a server would stop.
    let path = objects(&site, &format!("/file/{}", segments[0])).into_iter();
    let path = path.min_by_key(|path| path.as_os_str().len()).unwrap();
    let whole = fs::read(archived(&segments[0])).unwrap();
    fs::write(&path, &whole).unwrap();
    // Between two records there are zeros, which nobody reads.
    let of_record = |from: usize| {
        let zeros = whole[from..].iter().position(|byte| *byte != 0);
        i64::try_from(from + zeros.unwrap()).unwrap()
    };
    for at in [of_record(1000), of_record(20_000)] {
        let flipped = Flipped::new(path.clone(), at);
        let key = flipped.name(&site);
        corrupt(&fetch(&segments[0]).await.unwrap_err(), &key);
        assert!(!fetched.exists());
    }
    assert!(fetch(&segments[0]).await.unwrap());

    site.open_epoch(2, 2).await;
    let history = archived("00000002.history");
    let fork = Lsn(SegmentSize::try_from(1 << 20)
        .unwrap()
        .parse_file_name(&segments[1])
        .unwrap()
        .1
        .0);
    fs::write(&history, format!("1\t{fork}\ttest\n")).unwrap();
    push("00000002.history").await.unwrap();
    let said = push(&segments[3]).await.unwrap();
    assert!(said.contains("quarantine"), "{said}");
    let path = objects(&site, "/quarantine/").remove(0);
    for at in [40, middle(&path), -80, -10] {
        let flipped = Flipped::new(path.clone(), at);
        corrupt(&push(&segments[3]).await.unwrap_err(), &flipped.name(&site));
    }
    push(&segments[3]).await.unwrap();
}

#[tokio::test]
async fn in_the_log_itself() {
    let (site, last) = with_history().await;
    let size = SegmentSize::try_from(1 << 20).unwrap();
    let fetched = site.place("fetched");
    let fetch = async |name: &str| {
        let west = region(WEST);
        site.driver.fetch_wal(&west, name, &fetched, None).await
    };
    let name = size.file_name(TimelineId(1), last);
    let flipped = Flipped::new(chunk_at(&site, last), -100);
    corrupt(&fetch(&name).await.unwrap_err(), &last.to_string());
    assert!(!fetched.exists());
    // What starts from it stops there, and takes it for no end.
    let place = site.place("recovered");
    restore(&site, WEST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    let log = Server::spawn(&place, &[""; 0]).ended().await;
    assert!(!log.contains("archive recovery complete"), "{log}");
    assert!(
        log.contains(&format!("wal fetch orders/database {name} ")),
        "{log}"
    );
    assert!(
        log.contains("the hash of its payload does not match"),
        "{log}"
    );
    drop(flipped);
    assert!(fetch(&name).await.unwrap());

    site.driver.compact(&region(WEST)).await.unwrap();
    for piece in objects(&site, "/log/") {
        let flipped = Flipped::new(piece, -100);
        let key = flipped.name(&site);
        let (from, _) = key.rsplit_once('/').unwrap().1.split_once('-').unwrap();
        let from = Lsn(u64::from_str_radix(from, 16).unwrap());
        let timeline = if from < last.advance(SEGMENT) { 1 } else { 2 };
        let name = size.file_name(TimelineId(timeline), size.start_of(from));
        // The chunks that it was made of are still beside it.
        assert!(fetch(&name).await.unwrap(), "{key}");
        fs::remove_file(&fetched).unwrap();
        let mut chunks = objects(&site, "/part/");
        chunks.retain(|chunk| !chunk.ends_with("origin"));
        let chunks = chunks.into_iter().map(|chunk| Flipped::new(chunk, -100));
        let chunks: Vec<Flipped> = chunks.collect();
        let error = fetch(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", chain(&error));
        assert!(!fetched.exists());
        drop((flipped, chunks));
    }
}
