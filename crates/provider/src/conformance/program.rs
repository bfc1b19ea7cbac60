//! Finding the servers that tests start.

use std::path::PathBuf;

/// Returns the program that `variable` names in the environment, else `name` in `PATH` or where servers are that only root starts:
/// by its whole path, which some insist on being called by.
#[must_use]
pub fn find_program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut all = directories.map(|directory| directory.join(name));
    all.find(|program| program.is_file())
}
