//! Ending processes for certain, and what they leave behind.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::reap::reap_adopted;
use super::{Process, Table, members};
use crate::wait;

/// How long killed processes may take to disappear. One in an uninterruptible write takes as long as the disk does.
const LIMIT: Duration = Duration::from_secs(20);

/// How often in a row nothing must be found. For a moment while it becomes another program a process has no
/// environment, and is overlooked.
const LOOKS: u32 = 3;

/// Sends SIGKILL to every process that `which` selects until none is left; answers whether that was reached.
///
/// The selection is made anew each time, so that what a process forked before it died is found too.
pub fn end(mut which: impl FnMut(&Table) -> Vec<Process>) -> bool {
    let mut empty = 0;
    wait::until_blocking(LIMIT, || {
        let found = which(&Table::read());
        for process in &found {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // Gone in between is what is wanted.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        reap_adopted();
        empty = if found.is_empty() { empty + 1 } else { 0 };
        empty == LOOKS
    })
}

/// Ends every process of the sandbox in `directory` except `spared` and this one, and removes the shared memory that
/// killed servers left.
pub fn end_all(directory: &Path, spared: Option<i32>) -> bool {
    let ended = end(|table| {
        let found = members(table, directory).into_iter();
        found
            .filter(|process| Some(process.pid) != spared)
            .collect()
    });
    remove_shared_memory(directory);
    ended
}

/// Removes the System V segments that PostgreSQL servers under `directory` left when they were killed.
///
/// PostgreSQL keeps one of 56 bytes as a lock against a second server on the same files and notes it in line 7 of
/// `postmaster.pid`. A segment is removed only if it is the one noted (same key, same id) and no process is attached.
pub fn remove_shared_memory(directory: &Path) {
    let Ok(segments) = std::fs::read_to_string("/proc/sysvipc/shm") else {
        return;
    };
    for region in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(noted) = std::fs::read_to_string(region.path().join("pgdata/postmaster.pid")) else {
            continue;
        };
        if let Some(id) = abandoned(&noted, &segments) {
            // `ipcrm` is part of util-linux, which every Linux has; without it 56 bytes stay behind.
            let _removed = std::process::Command::new("ipcrm")
                .args(["-m", &id.to_string()])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

fn abandoned(postmaster_pid: &str, segments: &str) -> Option<u64> {
    let line = postmaster_pid.lines().nth(6)?;
    let mut numbers = line.split_ascii_whitespace();
    // The key is written unsigned there and signed in /proc.
    let key = numbers.next()?.parse::<u32>().ok()?.cast_signed();
    let id: u64 = numbers.next()?.parse().ok()?;
    segments.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let same = fields.first()?.parse::<i32>().ok()? == key
            && fields.get(1)?.parse::<u64>().ok()? == id
            && *fields.get(6)? == "0";
        same.then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: &str = "77\n/d\n1700000000\n5432\n\n127.0.0.1\n   1234567        42\nready\n";
    const HEADER: &str = "key shmid perms size cpid lpid nattch uid gid cuid cgid atime\n";

    #[test]
    fn only_the_noted_segment_without_users_is_abandoned() {
        let row = |key: &str, id: &str, attached: &str| {
            format!("{HEADER} {key} {id} 600 56 77 78 {attached} 101 104 101 104 0\n")
        };
        assert_eq!(abandoned(NOTED, &row("1234567", "42", "0")), Some(42));
        assert_eq!(abandoned(NOTED, &row("1234567", "42", "3")), None);
        assert_eq!(abandoned(NOTED, &row("1234568", "42", "0")), None);
        assert_eq!(abandoned(NOTED, &row("1234567", "43", "0")), None);
        assert_eq!(abandoned("77\n", &row("1234567", "42", "0")), None);
    }
}
