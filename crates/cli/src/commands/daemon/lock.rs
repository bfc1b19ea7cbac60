//! One daemon a region: an exclusive lock on a file that the kernel lets go of when its holder
//! dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use dr_model::RegionName;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// How long a holder may take to be gone. The kernel lets go of the lock of a process that was killed
/// once the last of its threads has ended, which may be after its number has gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(5);

/// The lock, held as long as this value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

/// Its name in the state directory.
const NAME: &str = "daemon.lock";

/// Returns the number of the daemon that was killed on this machine, or died, and that none came after. `None` also if that
/// cannot be told: the state directory is on another machine, or cannot be read.
pub(crate) fn died_here(directory: &Path) -> Option<u32> {
    let mut file = File::open(directory.join(NAME)).ok()?;
    flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
    // One that came to its end took its number away.
    let mut holder = String::new();
    file.read_to_string(&mut holder).ok()?;
    holder.trim().parse().ok()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If it stays, the daemon counts as one that died; nothing else rests on it.
        self.file.set_len(0).ok();
    }
}

impl Lock {
    /// Creates the state directory if need be and takes its lock, or says who holds it after `patience`.
    pub(crate) async fn take(
        directory: &Path,
        region: &RegionName,
        patience: Duration,
    ) -> Result<Self> {
        let path = directory.join(NAME);
        let failed = |error: &std::io::Error| {
            let what = format!("cannot use the state directory `{}`", directory.display());
            let key = format!("regions.{region}.daemon.state_directory");
            CommandError::new(Exit::Failed, what)
                .because(error)
                .hint(format!(
                    "whoever runs the daemon must be able to write it; it is `{key}`"
                ))
        };
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        // Not truncated: until the lock is ours, the file tells who holds it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let mut waited = Duration::ZERO;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if waited < patience => {
                    tokio::time::sleep(INTERVAL).await;
                    waited += INTERVAL;
                }
                Err(Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    // Without its number the holder is still there.
                    let read = file.read_to_string(&mut holder);
                    let process = match holder.trim() {
                        "" => "another process".to_owned(),
                        number => format!("process {number}"),
                    };
                    read.map_err(|error| failed(&error))?;
                    return Err(CommandError::new(
                        Exit::Busy,
                        format!("the daemon of `{region}` runs already: {process}"),
                    )
                    .hint("there is one daemon a region; stop that one first"));
                }
                Err(error) => return Err(failed(&error.into())),
            }
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| failed(&error))?;
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_is_told_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let region: RegionName = "us-east-1".parse().unwrap();
        let state = directory.path().join("state");
        let first = Lock::take(&state, &region, PATIENCE).await.unwrap();
        let error = Lock::take(&state, &region, PATIENCE).await.unwrap_err();
        assert_eq!(error.exit, Exit::Busy);
        assert!(
            error.message.contains(&std::process::id().to_string()),
            "{error:?}"
        );
        // Whoever comes while the first is about to go waits for that.
        let go = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(Lock::take(&state, &region, PATIENCE), go);
        drop(second.unwrap());
        Lock::take(&state, &region, PATIENCE).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_died_is_told_from_one_that_ended() {
        let directory = tempfile::tempdir().unwrap();
        let region: RegionName = "us-east-1".parse().unwrap();
        assert_eq!(died_here(directory.path()), None);
        let lock = Lock::take(directory.path(), &region, PATIENCE).await;
        assert_eq!(died_here(directory.path()), None, "it runs");
        drop(lock.unwrap());
        assert_eq!(died_here(directory.path()), None, "it has ended");
        // The kernel lets go of the lock, and nobody takes the number away.
        std::fs::write(directory.path().join(NAME), "4711\n").unwrap();
        assert_eq!(died_here(directory.path()), Some(4711));
    }
}
