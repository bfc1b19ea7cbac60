//! Choosing where a sandbox lives, and which programs it runs.
//!
//! The directory must be reachable for the account that the servers run under. `target/demo` beside the programs is the
//! first choice, because `cargo clean` takes it away; where that account cannot go (a checkout under `/root`) it is the
//! directory of temporary files. Programs that it cannot reach are copied into the sandbox.

use std::path::{Path, PathBuf};

use dr_model::{Clock, SystemClock};

use crate::process::{Launcher, Table, members};
use crate::user::User;
use crate::{Error, Result};

/// How many directories of earlier runs are kept for looking at.
const KEPT_RUNS: usize = 3;

/// The longest path of a socket: `sun_path` without the byte that ends it (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// The directories in which the product's programs may be: that of the running program, and the one above, since tests
/// run in `target/debug/deps`.
fn program_directories() -> Vec<PathBuf> {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .skip(1)
        .take(2)
        .map(Path::to_owned)
        .collect()
}

/// Finds one of the product's programs beside the running one.
pub(crate) fn program(name: &'static str) -> Result<PathBuf> {
    let directories = program_directories();
    let found = directories
        .iter()
        .map(|directory| directory.join(name))
        .find(|p| p.is_file());
    found.ok_or_else(|| Error::NoBinary {
        program: name,
        places: directories
            .iter()
            .map(|d| d.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// Makes a program reachable for the sandbox's user, by a copy if need be.
pub(crate) fn reachable(
    program: PathBuf,
    directory: &Path,
    launcher: &Launcher,
) -> Result<PathBuf> {
    if launcher.user().is_none_or(|user| user.can_reach(&program)) {
        return Ok(program);
    }
    let programs = directory.join("bin");
    launcher.make_directory(&programs)?;
    let copy = programs.join(program.file_name().unwrap_or_default());
    std::fs::copy(&program, &copy).map_err(Error::file("copy", &program))?;
    Ok(copy)
}

/// Chooses a directory for a run where none was named, and removes those of old runs that nothing uses any more.
pub(crate) fn default_directory(user: Option<&User>) -> PathBuf {
    let beside = program_directories()
        .pop()
        .map(|target| target.join("demo"));
    let reachable = |path: &PathBuf| user.is_none_or(|user| user.can_reach(path));
    let root = beside
        .filter(|path| path.parent().is_some_and(|p| p.ends_with("target")) && reachable(path))
        .unwrap_or_else(|| {
            std::env::temp_dir().join(format!("dr-demo-{}", rustix::process::geteuid().as_raw()))
        });
    let mut earlier: Vec<PathBuf> = std::fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("sandbox.json").exists())
        .collect();
    // The names begin with the time.
    earlier.sort();
    earlier.truncate(earlier.len().saturating_sub(KEPT_RUNS - 1));
    let table = Table::read();
    for old in earlier.iter().filter(|old| members(&table, old).is_empty()) {
        // What cannot be removed stays; it is in nobody's way.
        let _kept = std::fs::remove_dir_all(old);
    }
    let now = SystemClock::new()
        .now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    root.join(format!("{now}-{}", std::process::id()))
}

/// Makes the directory, which must not be in use, and gives it to the sandbox's user.
pub(crate) fn claim(directory: &Path, user: Option<&User>) -> Result<PathBuf> {
    let unusable = |reason: &str| Error::Directory {
        directory: directory.to_owned(),
        reason: reason.to_owned(),
    };
    std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let directory = directory
        .canonicalize()
        .map_err(Error::file("find", directory))?;
    let longest = directory.join("us-east-1/daemon/control.sock");
    if longest.as_os_str().len() > SOCKET_PATH_BYTES {
        return Err(unusable(
            "its path is too long for the sockets in it: choose a shorter one",
        ));
    }
    let empty = std::fs::read_dir(&directory)
        .map_err(Error::file("read", &directory))?
        .next()
        .is_none();
    if !empty && !directory.join("sandbox.json").exists() {
        return Err(unusable("it holds something that is not a sandbox's"));
    }
    if !members(&Table::read(), &directory).is_empty() {
        return Err(unusable("a sandbox runs in it; `dr-demo stop` ends it"));
    }
    for entry in std::fs::read_dir(&directory)
        .map_err(Error::file("read", &directory))?
        .flatten()
    {
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(Error::file("remove", path))?;
    }
    if let Some(user) = user {
        user.own(&directory)?;
        if !user.can_reach(&directory.join("inside")) {
            return Err(unusable(&format!(
                "the user `{}` cannot reach it",
                user.name
            )));
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_or_an_old_sandbox_is_claimed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a");
        claim(&directory, None).unwrap();
        std::fs::write(directory.join("thesis.tex"), "years of work").unwrap();
        let error = claim(&directory, None).unwrap_err();
        assert!(error.to_string().contains("not a sandbox's"), "{error}");
        std::fs::write(directory.join("sandbox.json"), "{}").unwrap();
        claim(&directory, None).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_begun() {
        let root = tempfile::tempdir().unwrap();
        let long = root.path().join("a".repeat(SOCKET_PATH_BYTES));
        let error = claim(&long, None).unwrap_err();
        assert!(
            error.to_string().contains("choose a shorter one"),
            "{error}"
        );
    }
}
