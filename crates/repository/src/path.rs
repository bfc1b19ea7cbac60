//! Paths inside a backup: relative, `/` between parts, no part that leads anywhere but down.

use std::collections::HashSet;

use crate::{Entry, Error, Result};

/// Longest path accepted, in bytes (`PATH_MAX` on Linux).
const LONGEST_BYTES: usize = 4096;

/// Checks that a path stays below the directory it is joined to.
pub(crate) fn check(path: &str) -> Result<()> {
    let error = |why| Error::Path {
        path: path.to_owned(),
        why,
    };
    if path.len() > LONGEST_BYTES {
        return Err(error("it is too long"));
    }
    if path.contains('\0') {
        return Err(error("it contains a zero byte"));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(error("it does not lead down from the directory"));
    }
    Ok(())
}

/// Checks that no two entries share a path and that none lies below a file or a symbolic link: what is restored can then
/// only end up inside the directory.
pub(crate) fn check_tree<'a>(
    entries: impl Iterator<Item = (&'a str, &'a Entry)> + Clone,
) -> Result<()> {
    let mut leaves = HashSet::new();
    let mut seen = HashSet::new();
    for (path, entry) in entries.clone() {
        check(path)?;
        let error = |why| Error::Path {
            path: path.to_owned(),
            why,
        };
        if !seen.insert(path) {
            return Err(error("it occurs twice"));
        }
        if !matches!(entry, Entry::Directory { .. }) {
            leaves.insert(path);
        }
    }
    for (path, _) in entries {
        let below_leaf = path
            .match_indices('/')
            .any(|(at, _)| leaves.contains(&path[..at]));
        if below_leaf {
            return Err(Error::Path {
                path: path.to_owned(),
                why: "it lies below something that is not a directory",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("base/1/1259", true)]
    #[case("a", true)]
    #[case("a b/ü", true)]
    #[case("", false)]
    #[case("/etc/passwd", false)]
    #[case("../a", false)]
    #[case("a/../b", false)]
    #[case("a/./b", false)]
    #[case("a//b", false)]
    #[case("a/", false)]
    #[case("a\0b", false)]
    fn paths(#[case] path: &str, #[case] usable: bool) {
        assert_eq!(check(path).is_ok(), usable);
    }
}
