//! Ending every process of a server: those whose working directory is its data directory.
//!
//! Nothing but `/proc` is asked. Where the directory really is was found out before the server was started: later it may hang, and it may
//! be renamed or removed while the processes go on in it. What its name is now, the postmaster's working directory says. What cannot be
//! seen is never taken for an end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// What `/proc` puts behind the name of a directory that is gone.
const GONE: &str = " (deleted)";

/// A server's data directory, by the names that it has had since it was started.
#[derive(Clone, Debug)]
pub(super) struct Place {
    names: Vec<PathBuf>,
    /// Whether the postmaster was seen in it: until then it is where it was started from.
    entered: bool,
}

impl Place {
    /// Follows all links of `directory`, once and for all.
    pub(super) fn find(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            names: vec![directory.canonicalize()?],
            entered: false,
        })
    }

    /// Takes note of the name that it has by now, which is where the server's first process works.
    pub(super) fn follow(&mut self, postmaster: Pid) {
        let Some(now) = works_in(&Path::new("/proc").join(postmaster.to_string())) else {
            return;
        };
        if self.names.contains(&now) {
            self.entered = true;
        } else if self.entered {
            self.names.push(now);
        }
    }

    /// Returns the processes that work in it. Zombies do not.
    pub(super) fn processes(&self) -> io::Result<Vec<Pid>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(process) = id.and_then(Pid::from_raw) else {
                continue;
            };
            if works_in(&entry.path()).is_some_and(|at| self.names.contains(&at)) {
                found.push(process);
            }
        }
        match found.is_empty() && !Path::new("/proc/self/cwd").is_symlink() {
            true => Err(io::Error::other("`/proc` shows no processes")),
            false => Ok(found),
        }
    }
}

/// Returns the working directory of a process; `None` for one that has ended, and for one of somebody else's.
fn works_in(process: &Path) -> Option<PathBuf> {
    let at = std::fs::read_link(process.join("cwd")).ok()?;
    let name = at.to_str().and_then(|name| name.strip_suffix(GONE));
    Some(name.map_or(at.clone(), PathBuf::from))
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

    /// Does the next part, to be called again until it says that nobody is left. `postmaster` is the server's first process as long
    /// as it is known to be there: it is ended even if the others cannot be seen.
    pub(super) fn go_on(&mut self, place: &Place, postmaster: Option<Pid>, now: Duration) -> bool {
        let seen = place.processes();
        let is_known = seen.is_ok();
        let mut left = seen.unwrap_or_default();
        left.extend(postmaster.filter(|process| !left.contains(process)));
        if left.is_empty() {
            return is_known;
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process that works in a directory until it is killed.
    struct Working(Child);

    impl Working {
        fn in_directory(directory: &Path) -> Self {
            let mut command = Command::new("sleep");
            Self(command.arg("600").current_dir(directory).spawn().unwrap())
        }

        fn id(&self) -> Pid {
            Pid::from_child(&self.0)
        }
    }

    impl Drop for Working {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    #[test]
    fn a_directory_that_is_renamed_or_removed_is_followed() {
        let all = tempfile::tempdir().unwrap();
        let data = all.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut place = Place::find(&data).unwrap();
        let postmaster = Working::in_directory(&data);
        place.follow(postmaster.id());
        let backend = Working::in_directory(&data);
        let both = [postmaster.id(), backend.id()];
        let seen = |place: &Place| {
            let found = place.processes().unwrap();
            both.iter().all(|id| found.contains(id))
        };
        assert!(seen(&place));
        let moved = all.path().join("moved");
        std::fs::rename(&data, &moved).unwrap();
        assert!(!seen(&place));
        place.follow(postmaster.id());
        assert!(seen(&place));
        std::fs::remove_dir(&moved).unwrap();
        assert!(seen(&place));
        drop((postmaster, backend));
        assert_eq!(place.processes().unwrap(), vec![]);
    }

    /// Before it has gone there, a server works where its guard was started from, and so do others.
    #[test]
    fn where_a_server_comes_from_is_not_its_place() {
        let all = tempfile::tempdir().unwrap();
        let data = all.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut place = Place::find(&data).unwrap();
        let postmaster = Working::in_directory(all.path());
        place.follow(postmaster.id());
        assert_eq!(place.processes().unwrap(), vec![]);
        // It is ended all the same.
        let mut stopping = Stopping::begin(Duration::ZERO);
        let id = postmaster.id();
        assert!(!stopping.go_on(&place, Some(id), Duration::ZERO));
        assert!(!stopping.go_on(&place, Some(id), Stopping::PATIENCE));
        let mut postmaster = postmaster;
        assert!(!postmaster.0.wait().unwrap().success());
        assert!(stopping.go_on(&place, None, Stopping::PATIENCE));
    }
}
