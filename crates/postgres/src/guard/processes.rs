//! Ending every process of a server: those whose working directory is its data directory.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Returns the processes whose working directory is `directory`, all links followed. Zombies have none.
pub(super) fn processes_in(directory: &Path) -> Vec<Pid> {
    let Ok(directory) = directory.canonicalize() else {
        return Vec::new();
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let at = std::fs::read_link(entry.path().join("cwd")).ok()?;
        (at == directory).then_some(Pid::from_raw(id)?)
    };
    entries.filter_map(inside).collect()
}

/// How far stopping at once has come.
#[derive(Debug)]
pub(super) struct Stopping {
    began: Duration,
    asked: bool,
}

impl Stopping {
    /// How long a server may take for an immediate shutdown before every process of it is killed.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Begins; nothing is done before [`Stopping::go_on`].
    pub(super) fn begin(now: Duration) -> Self {
        Self {
            began: now,
            asked: false,
        }
    }

    /// Does the next part, to be called again until it says that nobody is left.
    pub(super) fn go_on(
        &mut self,
        directory: &Path,
        postmaster: Option<Pid>,
        now: Duration,
    ) -> bool {
        let left = processes_in(directory);
        if left.is_empty() {
            return true;
        }
        let patient = now.saturating_sub(self.began) < Self::PATIENCE;
        let signal = match (postmaster, patient) {
            (Some(postmaster), true) => {
                if !std::mem::replace(&mut self.asked, true) {
                    // Gone in between is what is wanted.
                    let _gone = kill_process(postmaster, Signal::QUIT);
                }
                return false;
            }
            // Nobody is left to ask.
            (None, true) if !std::mem::replace(&mut self.asked, true) => Signal::QUIT,
            (None, true) => return false,
            (_, false) => Signal::KILL,
        };
        for process in left {
            let _gone = kill_process(process, signal);
        }
        false
    }
}
