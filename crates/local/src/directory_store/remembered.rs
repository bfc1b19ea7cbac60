//! The names in large directories, remembered while the directories are unchanged.
//!
//! To find the end of a chain takes a dozen listings, and to read and sort the names of a day of chunks takes a tenth of a
//! second: each listing did it anew, and a failover waited half a minute for them. All listings through one store share
//! what is remembered here, in bounded memory.
//!
//! Names are used again
//!
//! - while the directory's device, inode, modification and change time are as they were. Two changes within one tick of the
//!   file system's clock share a time, so that counts only if the directory had been left alone for longer than a tick
//!   when the reading began: a change that the reading missed then has another time;
//! - and, because somebody who adds four chunks a second would have every listing read everything, for a few times as long
//!   as the reading took, at most a second, whatever has changed: most of the time is then not spent on reading.
//!
//! A listing of a large directory may thus be late by a second, and by more on a file server whose clock is behind or whose
//! client keeps attributes although the directory is opened anew; such a client's own cache of names is as late. That is
//! acceptable because a listing is only a hint (R39): no decision rests on a name that it lacks. A small directory is read
//! each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dr_model::{Clock, SystemClock};
use rustix::fs::{Dir, Stat};
use rustix::io::Errno;

use super::names::Names;
use super::tree::Tree;

/// Directories with fewer names are read each time, which takes less than a millisecond.
const LARGE: usize = 512;

/// Memory for names: those of four days of chunks at four a second. A directory that takes more is read each time.
const LIMIT_BYTES: usize = 32 << 20;

/// For how many times as long as a reading took it is used whatever has changed.
const USE_PER_READING: u32 = 4;

/// For how long at most.
const LONGEST_USE: Duration = Duration::from_secs(1);

/// The longest tick of the clock that stamps files: the kernel's, at a hundred a second, twice over.
const TICK: Duration = Duration::from_millis(20);

/// The tick of a file system that keeps no fractions of a second: two seconds, as FAT does.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// The names in the large directories of a store that were listed last.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    clock: SystemClock,
    /// The one that was used last is at the end.
    readings: Mutex<Vec<Reading>>,
}

/// What was read of one directory.
#[derive(Clone, Debug)]
struct Reading {
    path: String,
    names: Arc<Names>,
    /// What the directory was like before; `None` if a change in the same tick would not show.
    stamp: Option<Stamp>,
    /// Until when, on the monotonic clock, it is used whatever has changed.
    used_until: Duration,
}

/// What tells that a directory has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: Duration,
    changed: Duration,
}

impl Remembered {
    /// Returns the names in a directory, given with its final `/`: none if there is no such directory.
    pub(super) fn names(&self, tree: &Tree, path: &str) -> Result<Arc<Names>, Errno> {
        let opened = match tree.open_directory(path) {
            // Nothing has been written there yet, or it has been removed meanwhile.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Arc::default()),
            opened => opened?,
        };
        let stamp = Stamp::of(&rustix::fs::fstat(&opened)?);
        let begun = self.clock.elapsed();
        if let Some(names) = self.recall(path, stamp, begun) {
            return Ok(names);
        }
        let is_settled = stamp.is_settled(self.since_1970());
        let names = Arc::new(Names::read(tree, path, &mut Dir::new(opened)?)?);
        if names.len() >= LARGE {
            let now = self.clock.elapsed();
            let longest = (now.saturating_sub(begun) * USE_PER_READING).min(LONGEST_USE);
            self.keep(Reading {
                path: path.to_owned(),
                names: Arc::clone(&names),
                stamp: is_settled.then_some(stamp),
                used_until: now + longest,
            });
        }
        Ok(names)
    }

    fn recall(&self, path: &str, stamp: Stamp, now: Duration) -> Option<Arc<Names>> {
        let mut readings = self.readings();
        let index = readings.iter().position(|reading| reading.path == path)?;
        let found = readings.remove(index);
        if found.stamp != Some(stamp) && found.used_until <= now {
            return None;
        }
        let names = Arc::clone(&found.names);
        readings.push(found);
        Some(names)
    }

    fn keep(&self, reading: Reading) {
        let mut readings = self.readings();
        readings.retain(|other| other.path != reading.path);
        readings.push(reading);
        let bytes = |reading: &Reading| reading.names.memory_bytes();
        let mut total: usize = readings.iter().map(bytes).sum();
        while total > LIMIT_BYTES {
            total -= bytes(&readings.remove(0));
        }
    }

    fn readings(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the wall-clock time as file systems stamp it.
    fn since_1970(&self) -> Duration {
        let now = self.clock.now();
        duration(now.as_second(), now.subsec_nanosecond())
    }
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: duration(stat.st_mtime, stat.st_mtime_nsec),
            changed: duration(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Tells whether a change from `now` on shows in the stamp.
    fn is_settled(&self, now: Duration) -> bool {
        let latest = self.modified.max(self.changed);
        let tick = if latest.subsec_nanos() == 0 {
            COARSE_TICK
        } else {
            TICK
        };
        latest + tick < now
    }
}

/// Returns a time since 1970; an earlier one counts as 1970.
fn duration(seconds: i64, nanoseconds: impl TryInto<u32>) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Duration::new(seconds, nanoseconds.try_into().unwrap_or(0))
}
