//! Paths as they are written.

use std::path::{Component, Path, PathBuf};

/// Returns the path without `.`, and without `..` where that can be told from the text: two that differ then may still be the
/// same place, by a link.
#[must_use]
pub fn cleaned(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                cleaned.pop();
            }
            other => cleaned.push(other),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_text_tells_is_left_out() {
        for (written, expected) in [
            ("/data/west/../east", "/data/east"),
            ("/data/./east/", "/data/east"),
            ("/data//east", "/data/east"),
            ("/../data", "/data"),
        ] {
            assert_eq!(
                cleaned(Path::new(written)),
                Path::new(expected),
                "{written}"
            );
        }
    }
}
