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
