//! Segments fetched ahead of being asked for (R26, R31).
//!
//! A recovering server asks for one segment after the other, each time with a process of its own. Whoever fetches one therefore
//! fetches the next few as well, at once, and puts them into a directory of this machine, outside of any data directory. Nothing
//! rests on what is there: a file counts if its hash is right and says that it is this segment of this cluster, and one that
//! does not is fetched from the store. What is not among the next few is removed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use dr_model::{SegmentSize, SystemIdentifier};

/// How many segments are fetched ahead.
pub(super) const AHEAD: u64 = 4;

const HASH_BYTES: usize = 32;

/// The directory of one recovering server.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    cluster: SystemIdentifier,
}

impl Spool {
    pub(super) fn new(directory: &Path, cluster: SystemIdentifier) -> Self {
        Self {
            directory: directory.to_owned(),
            cluster,
        }
    }

    /// Takes a segment out, if it is there and whole.
    pub(super) fn take(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.directory.join(name);
        let mut bytes = fs::read(&path).ok()?;
        // Used or damaged: of no more use either way.
        fs::remove_file(&path).ok();
        let length = bytes.len().checked_sub(HASH_BYTES)?;
        let hash = self.hash(name, &bytes[..length]);
        if bytes[length..] != *hash.as_bytes() {
            tracing::warn!(name, "a segment that was fetched ahead is damaged");
            return None;
        }
        bytes.truncate(length);
        Some(bytes)
    }

    /// Puts a segment in. What does not work is left out: it is fetched again when it is asked for.
    pub(super) fn put(&self, name: &str, segment: &[u8]) {
        if let Err(error) = self.try_put(name, segment) {
            tracing::debug!(name, %error, "not kept");
        }
    }

    /// Tells whether so many segments of the usual size can be put in.
    pub(super) fn can_keep(&self, segments: usize) -> bool {
        let probe = format!("probe.{}", std::process::id());
        let kept = self
            .try_put(&probe, b"")
            .and_then(|()| self.look_for_room(segments as u64));
        fs::remove_file(self.directory.join(&probe)).ok();
        if let Err(error) = &kept {
            tracing::debug!(directory = %self.directory.display(), %error, "nothing is fetched ahead");
        }
        kept.is_ok()
    }

    fn look_for_room(&self, segments: u64) -> std::io::Result<()> {
        let disk = rustix::fs::statvfs(&self.directory)?;
        let file = SegmentSize::DEFAULT.bytes() + HASH_BYTES as u64;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < segments.saturating_mul(file) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn try_put(&self, name: &str, segment: &[u8]) -> std::io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let temporary = self
            .directory
            .join(format!("{name}.{}", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(segment)?;
                file.write_all(self.hash(name, segment).as_bytes())
            })
            .and_then(|()| fs::rename(&temporary, self.directory.join(name)));
        if written.is_err() {
            fs::remove_file(&temporary).ok();
        }
        written
    }

    /// Tells whether a file of that name is there, whatever is in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// Removes everything but the segments of these names.
    pub(super) fn keep_only(&self, names: &[String]) {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !names.iter().any(|kept| name == kept.as_str()) {
                // Another process may be writing it, and then fails to.
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    fn hash(&self, name: &str, segment: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {name}\n", self.cluster).as_bytes());
        hasher.update(segment);
        hasher.finalize()
    }
}

/// Returns the names of the segments of the usual size that follow the one of this name.
pub(super) fn following(name: &str) -> Vec<String> {
    let size = SegmentSize::DEFAULT;
    let Some((timeline, start)) = size.parse_file_name(name) else {
        return Vec::new();
    };
    let at = |count| size.file_name(timeline, start.advance(count * size.bytes()));
    (1..=AHEAD).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: SystemIdentifier = SystemIdentifier(7);
    const NAME: &str = "0000000100000000000000FE";

    #[test]
    fn what_was_put_in_is_taken_out_once() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&directory.path().join("a/b"), CLUSTER);
        assert_eq!(spool.take(NAME), None);
        spool.put(NAME, b"segment");
        assert_eq!(spool.take(NAME).unwrap(), b"segment");
        assert_eq!(spool.take(NAME), None);
    }

    #[test]
    fn what_is_damaged_or_of_another_cluster_or_name_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path(), CLUSTER);
        let path = directory.path().join(NAME);
        for at in 0..39 {
            spool.put(NAME, b"segment");
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(spool.take(NAME), None, "{at}");
            assert!(!path.exists());
        }
        fs::write(&path, b"short").unwrap();
        assert_eq!(spool.take(NAME), None);
        spool.put(NAME, b"segment");
        let other = Spool::new(directory.path(), SystemIdentifier(8));
        assert_eq!(other.take(NAME), None);
        spool.put(NAME, b"segment");
        let renamed = following(NAME).remove(0);
        fs::rename(&path, directory.path().join(&renamed)).unwrap();
        assert_eq!(spool.take(&renamed), None);
    }

    #[test]
    fn a_place_that_is_no_directory_keeps_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let spool = Spool::new(&path, CLUSTER);
        assert!(spool.can_keep(1));
        // More than any disk has: all of it would be fetched, and nothing kept.
        assert!(!spool.can_keep(1 << 30));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, b"a file").unwrap();
        assert!(!spool.can_keep(1));
        spool.put(NAME, b"segment");
        assert_eq!(spool.take(NAME), None);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }

    #[test]
    fn what_an_older_restore_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path(), CLUSTER);
        let next = following(NAME);
        assert_eq!(next[0], "0000000100000000000000FF");
        assert_eq!(next[1], "000000010000000100000000");
        for name in [NAME, &next[0], &next[3], "0000000100000000000000FE.123"] {
            spool.put(name, b"segment");
        }
        spool.keep_only(&next);
        let there = |name: &str| spool.has(name);
        assert!(there(&next[0]) && there(&next[3]));
        assert!(!there(NAME) && !there("0000000100000000000000FE.123"));
    }
}
