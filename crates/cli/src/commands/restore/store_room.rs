//! A restore writes no database into a store: what is in there belongs to `dr`, is copied and removed by its rules, and a
//! server that writes there changes what must never change.

use std::path::{Path, PathBuf};

use dr_config::{Config, StoreLocation};

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// Refuses a place in a store, or around one, with what to do instead.
pub(crate) fn outside_of_stores(config: &Config, place: &Path, instead: &str) -> Result<()> {
    match in_store(config, place) {
        Some(what) => Err(CommandError::new(Exit::Refused, what).hint(instead)),
        None => Ok(()),
    }
}

/// Says that a place and a store lie in each other, if one does.
pub(crate) fn in_store(config: &Config, place: &Path) -> Option<String> {
    let found = real(place);
    for (region, settings) in &config.regions {
        let StoreLocation::Directory(store) = &settings.store else {
            continue;
        };
        let store = real(store);
        if found.starts_with(&store) || store.starts_with(&found) {
            return Some(format!(
                "`{}` and the store of `{region}` at `{}` lie in each other",
                place.display(),
                store.display()
            ));
        }
    }
    None
}

/// Returns the path with its links followed, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut known = path;
    loop {
        if let Ok(found) = known.canonicalize() {
            return missing
                .iter()
                .rev()
                .fold(found, |path, part| path.join(part));
        }
        let (Some(parent), Some(name)) = (known.parent(), known.file_name()) else {
            return path.to_owned();
        };
        missing.push(name);
        known = parent;
    }
}
