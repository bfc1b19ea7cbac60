//! Paths inside a backup: relative, `/` between parts, no part that leads anywhere but down.

use crate::{Error, Result};

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
