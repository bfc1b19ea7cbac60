//! The table of processes, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::MARK;

/// One process as it was when the table was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its name, cut to 15 bytes by the kernel.
    pub name: String,
    /// Its state, such as `R`, `S`, `T` (stopped) or `Z` (ended, not yet reaped).
    pub state: char,
    /// Its working directory, if that can be read.
    pub directory: Option<PathBuf>,
}

impl Process {
    /// Tells whether it has ended and only waits for its parent to notice.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    fn read(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may itself hold parentheses and blanks.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
        Some(Self {
            pid,
            parent,
            name,
            state,
            directory,
        })
    }
}

/// Tells whether a process runs: a zombie does not.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    Process::read(pid).is_some_and(|process| !process.is_zombie())
}

/// All processes of the machine that can be seen.
#[derive(Clone, Debug, Default)]
pub struct Table {
    processes: BTreeMap<i32, Process>,
}

impl Table {
    /// Reads the table. Processes that come or go meanwhile may be missing.
    #[must_use]
    pub fn read() -> Self {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, Process::read(pid)?)))
            .collect();
        Self { processes }
    }

    /// Returns all processes.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// Returns the ids of the process's descendants, without itself.
    #[must_use]
    pub fn descendants(&self, ancestors: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for process in self.processes.values() {
            children
                .entry(process.parent)
                .or_default()
                .push(process.pid);
        }
        let mut found = BTreeSet::new();
        let mut open: Vec<i32> = ancestors.into_iter().collect();
        while let Some(pid) = open.pop() {
            for child in children.get(&pid).into_iter().flatten() {
                if found.insert(*child) {
                    open.push(*child);
                }
            }
        }
        found
    }
}

/// Returns the living processes of the sandbox in `directory`, except this one.
///
/// They are those that carry the mark and what descends from them. `dr` clears the environment of what it runs, and
/// PostgreSQL overwrites its own with its title, so two kinds of process that work inside the directory belong too:
/// servers called `postgres`, and what descends from this program. A shell or an editor that a person opened there is
/// not among them.
#[must_use]
pub fn members(table: &Table, directory: &Path) -> Vec<Process> {
    let mark = [MARK.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let marked = |process: &Process| {
        std::fs::read(format!("/proc/{}/environ", process.pid))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|v| v == mark))
    };
    let own = std::process::id().cast_signed();
    let ours = table.descendants([own]);
    let works_inside = |process: &Process| {
        (process.name == "postgres" || ours.contains(&process.pid))
            && process
                .directory
                .as_ref()
                .is_some_and(|at| at.starts_with(directory))
    };
    let roots: BTreeSet<i32> = table
        .iter()
        .filter(|process| process.pid != own && (works_inside(process) || marked(process)))
        .map(|process| process.pid)
        .collect();
    let below = table.descendants(roots.iter().copied());
    table
        .iter()
        .filter(|process| roots.contains(&process.pid) || below.contains(&process.pid))
        .filter(|process| process.pid != own && !process.is_zombie())
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> (i32, Process) {
        let process = Process {
            pid,
            parent,
            name: "x".into(),
            state: 'S',
            directory: None,
        };
        (pid, process)
    }

    #[test]
    fn descendants_are_of_every_generation() {
        let table = Table {
            processes: [
                process(1, 0),
                process(2, 1),
                process(3, 2),
                process(4, 1),
                process(5, 0),
            ]
            .into_iter()
            .collect(),
        };
        assert_eq!(table.descendants([2]), [3].into());
        assert_eq!(table.descendants([1]), [2, 3, 4].into());
    }

    #[test]
    fn what_this_program_started_inside_is_a_member_without_a_mark() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().canonicalize().unwrap();
        let start = |at: &Path| {
            std::process::Command::new("sleep")
                .arg("60")
                .current_dir(at)
                .spawn()
                .unwrap()
        };
        let (mut ours, mut other) = (start(&inside), start(Path::new("/")));
        let pid = ours.id().cast_signed();
        let found = || {
            let found = members(&Table::read(), &inside);
            found.into_iter().map(|p| p.pid).collect::<Vec<_>>()
        };
        // For a moment while it becomes `sleep` nothing can be read of it.
        let limit = std::time::Duration::from_secs(5);
        assert!(
            crate::wait::until_blocking(limit, || found() == [pid]),
            "{:?}",
            found()
        );
        for child in [&mut ours, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn only_the_marked_process_is_a_member() {
        let directory = tempfile::tempdir().unwrap();
        let start = |mark: &Path| {
            std::process::Command::new("sleep")
                .arg("60")
                .env(MARK, mark)
                .current_dir("/")
                .spawn()
                .unwrap()
        };
        let (mut ours, mut other) = (start(directory.path()), start(Path::new("/elsewhere")));
        let of_ours = || {
            let found = members(&Table::read(), directory.path());
            found.into_iter().map(|p| p.pid).collect::<Vec<_>>()
        };
        // Between fork and exec the child still has the test's own environment.
        let limit = std::time::Duration::from_secs(5);
        let pid = ours.id().cast_signed();
        assert!(
            crate::wait::until_blocking(limit, || of_ours() == [pid]),
            "{:?}",
            of_ours()
        );
        for child in [&mut ours, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(of_ours(), Vec::<i32>::new());
    }
}
