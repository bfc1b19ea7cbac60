//! Restoring over a data directory that is there.
//!
//! What is found there is replaced, so it is looked at first: it must be a data directory, of the cluster that is restored, and
//! no server may run in it. Every restore puts the control file aside before it changes
//! anything, or a mark in its place: what was begun and not finished starts no server, and is known by it when it is begun again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use dr_model::{ExecutionId, SystemIdentifier};
use dr_provider::{Error, ErrorKind, Result};

use super::directory::{self, CONTROL_FILE};

/// What says that a data directory is not whole, and whose it will be.
///
/// It stands where the control file of what was there is put, and begins as that does.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// Whose files the directory will hold.
    pub(super) cluster: SystemIdentifier,
    /// The execution that writes into it, where one does: what it has begun in a directory that was empty is its own to write anew.
    pub(super) execution: Option<ExecutionId>,
}

/// What stands before the execution in a mark, behind the cluster.
const BY_EXECUTION: &[u8] = b"restored by execution ";

impl Mark {
    /// Where it stands.
    pub(super) const FILE: &str = "global/pg_control.dr-before";

    /// Makes sure that no server starts from the directory until it is whole, nor runs there by now. Safe to repeat.
    pub(super) fn set(&self, directory: &Path) -> io::Result<()> {
        let global = directory.join("global");
        let (control, mark) = (directory.join(CONTROL_FILE), directory.join(Self::FILE));
        match fs::rename(&control, &mark) {
            Ok(()) => {
                if let Some(why) = running(directory)? {
                    // It was started just now, and goes on as if nothing had been.
                    fs::rename(&mark, &control)?;
                    return Err(io::Error::other(why));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700).create(&global)?;
                if !mark.exists() {
                    let mut text = self.cluster.0.to_le_bytes().to_vec();
                    if let Some(execution) = &self.execution {
                        text.extend(BY_EXECUTION);
                        text.extend(execution.as_str().as_bytes());
                    }
                    let mut file = File::create(&mark)?;
                    file.write_all(&text)?;
                    file.sync_all()?;
                }
            }
            Err(error) => return Err(error),
        }
        File::open(global)?.sync_all()
    }

    /// Tells whether a directory holds what an execution has begun to write into it when it was empty, and nothing else: no control file, and no
    /// mark of anybody else's.
    pub(super) fn is_of(execution: &ExecutionId, directory: &Path) -> io::Result<bool> {
        let by = Self::set_by(directory)?;
        Ok(by.is_some_and(|by| by == execution.as_str()))
    }

    /// Says who has begun to write into a directory that is not whole: an execution, by its name, or with an empty one a person. `None`
    /// if nobody has, or it is whole.
    pub(super) fn set_by(directory: &Path) -> io::Result<Option<String>> {
        if directory.join(CONTROL_FILE).exists() {
            return Ok(None);
        }
        let found = match fs::read(directory.join(Self::FILE)) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error),
        };
        let by = found
            .get(8..)
            .and_then(|rest| rest.strip_prefix(BY_EXECUTION));
        let by = by.map(|name| String::from_utf8_lossy(name).into_owned());
        Ok(Some(by.unwrap_or_default()))
    }

    /// Removes it.
    pub(super) fn remove(directory: &Path) -> io::Result<()> {
        match fs::remove_file(directory.join(Self::FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Looks at a directory that is to be restored over.
pub(super) fn check(directory: &Path, cluster: SystemIdentifier, any_cluster: bool) -> Result<()> {
    let subject = directory.display().to_string();
    let refuse =
        |why: String| Error::new(ErrorKind::Conflict, "restore over", &subject).because(why);
    let failed = directory::failed(directory);
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(false) => {}
        Err(error) => return Err(failed(error)),
    }
    let Some(found) = system_identifier(directory).map_err(failed)? else {
        return Err(
            refuse("it holds something, and is no data directory".to_owned())
                .with_hint("name the data directory itself, or an empty one"),
        );
    };
    if found != cluster && !any_cluster {
        return Err(refuse(format!(
            "it is of cluster {found}, and what is restored is of cluster {cluster}"
        ))
        .with_hint("`--force` replaces it all the same: nothing of it is left then"));
    }
    if let Some(why) = running(directory).map_err(failed)? {
        return Err(refuse(why).with_hint("stop it first"));
    }
    Ok(())
}

/// Reads whose data directory it is; `None` if it is none.
pub(super) fn system_identifier(directory: &Path) -> io::Result<Option<SystemIdentifier>> {
    for name in [CONTROL_FILE, Mark::FILE] {
        let mut head = [0; 8];
        match File::open(directory.join(name)).and_then(|mut file| file.read_exact(&mut head)) {
            Ok(()) => return Ok(Some(SystemIdentifier(u64::from_le_bytes(head)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Says which server runs in a directory, or what is left of one.
pub(super) fn running(directory: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(directory.join("postmaster.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let lines: Vec<&str> = text.lines().collect();
    // A standby that is told to be single-user writes its number negative (`miscinit.c`).
    let number = lines
        .first()
        .and_then(|line| line.trim().trim_start_matches('-').parse::<u32>().ok());
    let Some(number) = number else {
        return Ok(Some(
            "its `postmaster.pid` cannot be read: a server may run there".to_owned(),
        ));
    };
    let here = fs::canonicalize(directory)?;
    match fs::read_link(format!("/proc/{number}/cwd")) {
        Ok(place) if place == here => {
            return Ok(Some(format!("a server runs there, process {number}")));
        }
        // The number was given to another process since.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => {
            return Ok(Some(format!(
                "process {number} may be a server that runs there"
            )));
        }
    }
    // The processes of a server that was killed go on for a while; their shared memory tells (`PGSharedMemoryAttach`).
    let segment = lines.get(6).and_then(|line| line.split_whitespace().nth(1));
    let Some(segment) = segment else {
        return Ok(None);
    };
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let attached = table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace();
        let id = columns.nth(1);
        let attached = columns.nth(4);
        id == Some(segment) && attached.is_some_and(|count| count != "0")
    });
    Ok(attached.then(|| "processes of a server that was killed still run there".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_488_070_149_487_696);
    const MARK: Mark = Mark {
        cluster: CLUSTER,
        execution: None,
    };

    fn data_directory(cluster: SystemIdentifier) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("global")).unwrap();
        let mut control = cluster.0.to_le_bytes().to_vec();
        control.resize(8192, 0);
        fs::write(directory.path().join(CONTROL_FILE), control).unwrap();
        directory
    }

    fn refused(directory: &Path) -> String {
        let error = check(directory, CLUSTER, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        dr_provider::error::chain(&error)
    }

    #[test]
    fn what_is_not_the_cluster_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        check(directory.path(), CLUSTER, false).unwrap();
        check(&directory.path().join("none"), CLUSTER, false).unwrap();
        fs::write(directory.path().join("letters"), "dear").unwrap();
        assert!(refused(directory.path()).contains("no data directory"));
        // Not even by force.
        assert!(check(directory.path(), CLUSTER, true).is_err());
        let other = data_directory(SystemIdentifier(7));
        assert!(refused(other.path()).contains("cluster 7"));
        check(other.path(), CLUSTER, true).unwrap();
    }

    #[test]
    fn what_was_begun_is_known_again() {
        for directory in [data_directory(CLUSTER), tempfile::tempdir().unwrap()] {
            let directory = directory.path();
            for _ in 0..2 {
                check(directory, CLUSTER, false).unwrap();
                MARK.set(directory).unwrap();
                assert!(!directory.join(CONTROL_FILE).exists());
                let other = check(directory, SystemIdentifier(7), false);
                assert!(other.is_err(), "it is not what was begun");
            }
            Mark::remove(directory).unwrap();
            Mark::remove(directory).unwrap();
            assert!(!directory.join(Mark::FILE).exists());
        }
    }

    #[test]
    fn what_an_execution_has_begun_is_its_own_and_nobody_elses() {
        let [one, other] = ["one", "other"].map(|name| name.parse::<ExecutionId>().unwrap());
        let mark = Mark {
            cluster: CLUSTER,
            execution: Some(one.clone()),
        };
        let is_of = |execution, directory: &Path| Mark::is_of(execution, directory).unwrap();
        let empty = tempfile::tempdir().unwrap();
        let empty = empty.path();
        assert!(!is_of(&one, empty));
        assert!(!is_of(&one, &empty.join("none")));
        mark.set(empty).unwrap();
        assert!(is_of(&one, empty) && !is_of(&other, empty));
        check(empty, CLUSTER, false).unwrap();
        // Somebody has made a data directory of it.
        fs::write(empty.join(CONTROL_FILE), CLUSTER.0.to_le_bytes()).unwrap();
        assert!(!is_of(&one, empty));
        // What a person has begun, and what was a data directory before, are not.
        let by_hand = tempfile::tempdir().unwrap();
        MARK.set(by_hand.path()).unwrap();
        assert!(!is_of(&one, by_hand.path()));
        let before = data_directory(CLUSTER);
        mark.set(before.path()).unwrap();
        assert!(!is_of(&one, before.path()));
    }

    #[test]
    fn a_server_that_runs_there_is_seen_by_where_it_works() {
        let directory = data_directory(CLUSTER);
        let pid = directory.path().join("postmaster.pid");
        fs::write(&pid, "nonsense").unwrap();
        assert!(refused(directory.path()).contains("cannot be read"));
        let mut process = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(directory.path())
            .spawn()
            .unwrap();
        fs::write(&pid, format!("{}\n", process.id())).unwrap();
        assert!(refused(directory.path()).contains("a server runs there"));
        // Started between the look and the beginning: what it needs is put back.
        MARK.set(directory.path()).unwrap_err();
        assert!(directory.path().join(CONTROL_FILE).exists());
        process.kill().unwrap();
        process.wait().unwrap();
        check(directory.path(), CLUSTER, false).unwrap();
        // Its number was given to another process.
        fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        check(directory.path(), CLUSTER, false).unwrap();
    }
}
