//! Finding PostgreSQL's programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The variable that names the directory of PostgreSQL's programs.
const VARIABLE: &str = "DR_POSTGRES_BIN";
const DEBIAN: &str = "/usr/lib/postgresql";
const NEEDED: [&str; 5] = [
    "postgres",
    "initdb",
    "pg_ctl",
    "pg_basebackup",
    "pg_controldata",
];

/// Finds the directory of PostgreSQL's programs: the one that `DR_POSTGRES_BIN` names, else the newest version that
/// Debian's packages installed, else the first on `PATH`.
pub fn find_programs() -> Result<PathBuf> {
    find(
        std::env::var_os(VARIABLE),
        Path::new(DEBIAN),
        std::env::var_os("PATH"),
    )
}

fn find(named: Option<OsString>, packages: &Path, path: Option<OsString>) -> Result<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        let place = format!("in `{}`, which {VARIABLE} names", named.display());
        return complete(&named)
            .then_some(named)
            .ok_or(Error::NoPostgres { place });
    }
    let versions = std::fs::read_dir(packages).into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            complete(&programs).then_some((version, programs))
        })
        .max();
    let path = path.unwrap_or_default();
    newest
        .map(|(_, programs)| programs)
        .or_else(|| std::env::split_paths(&path).find(|directory| complete(directory)))
        .ok_or_else(|| Error::NoPostgres {
            place: format!("in {}/*/bin or on PATH", packages.display()),
        })
}

fn complete(directory: &Path) -> bool {
    NEEDED
        .iter()
        .all(|program| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        for program in NEEDED {
            std::fs::write(directory.join(program), "").unwrap();
        }
    }

    #[test]
    fn the_named_directory_wins_then_the_newest_package_then_the_path() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for version in ["packages/9/bin", "packages/15/bin", "path", "named"] {
            install(&at(version));
        }
        std::fs::create_dir_all(at("packages/17/bin")).unwrap();
        let path = || Some(at("path").into_os_string());
        let named = Some(at("named").into_os_string());
        assert_eq!(find(named, &at("packages"), path()).unwrap(), at("named"));
        assert_eq!(
            find(None, &at("packages"), path()).unwrap(),
            at("packages/15/bin")
        );
        assert_eq!(
            find(Some("".into()), &at("none"), path()).unwrap(),
            at("path")
        );
    }

    #[test]
    fn a_named_directory_without_programs_is_not_passed_over() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("15/bin"));
        let error = find(Some("/nowhere".into()), root.path(), None).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
        assert!(error.hint().is_some());
    }
}
