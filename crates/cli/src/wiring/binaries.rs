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

/// What is run of them: without any of these the directory is no installation of a server.
const PROGRAMS: [&str; 3] = ["pg_ctl", "pg_controldata", "postgres"];

/// Returns the directory with PostgreSQL's programs: as told, as in `PATH`, or the newest in the usual places.
///
/// Without any, the directory of the usual place is returned, and whoever needs a program says that
/// it is not there.
pub(super) fn binaries() -> PathBuf {
    if let Some(told) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return told.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find_map(|directory| installation(&directory));
    in_path
        .or_else(|| newest(&PLACES))
        .unwrap_or_else(|| PathBuf::from("/usr/lib/postgresql/bin"))
}

/// Returns where the installation is that a directory holds or leads to: there may be a link to some of its programs alone.
fn installation(directory: &Path) -> Option<PathBuf> {
    let linked = directory.join(PROGRAMS[0]).canonicalize().ok();
    let target = linked.and_then(|program| Some(program.parent()?.to_owned()));
    let mut places = [Some(directory.to_owned()), target].into_iter().flatten();
    places.find(|place| PROGRAMS.iter().all(|program| place.join(program).is_file()))
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
            if let Some(version) = version.filter(|_| installation(&directory).is_some()) {
                found.push((version, directory));
            }
        }
    }
    found.into_iter().max().map(|(_, directory)| directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_programs(directory: &Path) {
        for program in PROGRAMS {
            std::fs::write(directory.join(program), "").unwrap();
        }
    }

    #[test]
    fn a_link_to_one_program_leads_to_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        let (links, programs) = (root.path().join("links"), root.path().join("15/bin"));
        for directory in [&links, &programs] {
            std::fs::create_dir_all(directory).unwrap();
        }
        assert_eq!(installation(&programs), None);
        write_programs(&programs);
        std::os::unix::fs::symlink(programs.join("pg_ctl"), links.join("pg_ctl")).unwrap();
        let found = installation(&links).unwrap();
        assert_eq!(found, programs.canonicalize().unwrap());
        // A client alone is none.
        std::fs::remove_file(programs.join("pg_controldata")).unwrap();
        assert_eq!(installation(&links), None);
    }

    #[test]
    fn takes_the_newest_version() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16-beta"] {
            let directory = root.path().join(version).join("bin");
            std::fs::create_dir_all(&directory).unwrap();
            write_programs(&directory);
        }
        let parent = root.path().to_str().unwrap();
        assert_eq!(
            newest(&[(parent, "", "bin")]),
            Some(root.path().join("15/bin"))
        );
    }
}
