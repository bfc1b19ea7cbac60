//! Finding PostgreSQL's own programs on this machine.

use std::path::{Path, PathBuf};

/// The variable that says where they are.
pub(super) const VARIABLE: &str = "DR_POSTGRES_BIN";

/// Directories that hold one directory a major version, with what stands before and after its
/// number.
const PLACES: [(&str, &str, &str); 3] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
];

/// Returns the directory with `pg_ctl`: as told, as in `PATH`, or the newest in the usual places.
///
/// Without any, the directory of the usual place is returned, and whoever needs a program says that
/// it is not there.
pub(super) fn binaries() -> PathBuf {
    if let Some(told) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return told.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|directory| holds_pg_ctl(directory));
    in_path
        .or_else(|| newest(&PLACES))
        .unwrap_or_else(|| PathBuf::from("/usr/lib/postgresql/bin"))
}

fn holds_pg_ctl(directory: &Path) -> bool {
    directory.join("pg_ctl").is_file()
}

fn newest(places: &[(&str, &str, &str)]) -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, before, below) in places {
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let version = name
                .to_str()
                .and_then(|name| name.strip_prefix(before)?.parse().ok());
            let directory = entry.path().join(below);
            if let Some(version) = version.filter(|_| holds_pg_ctl(&directory)) {
                found.push((version, directory));
            }
        }
    }
    found.into_iter().max().map(|(_, directory)| directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_newest_version() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16-beta"] {
            let directory = root.path().join(version).join("bin");
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("pg_ctl"), "").unwrap();
        }
        let parent = root.path().to_str().unwrap();
        assert_eq!(
            newest(&[(parent, "", "bin")]),
            Some(root.path().join("15/bin"))
        );
    }
}
