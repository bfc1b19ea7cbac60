//! A restore writes no database into a store: what is in there belongs to `dr`, is copied and removed by its rules, and a
//! server that writes there changes what must never change.

use std::path::{Path, PathBuf};

use dr_config::{Config, StoreLocation};

use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// Refuses a place in a store, or around one.
pub(super) fn outside_of_stores(config: &Config, place: &Path) -> Result<()> {
    let found = real(place);
    for (region, settings) in &config.regions {
        let StoreLocation::Directory(store) = &settings.store else {
            continue;
        };
        let store = real(store);
        if found.starts_with(&store) || store.starts_with(&found) {
            let what = format!(
                "`{}` and the store of `{region}` at `{}` lie in each other",
                place.display(),
                store.display()
            );
            return Err(
                CommandError::new(Exit::Refused, what).hint("restore into a directory of its own")
            );
        }
    }
    Ok(())
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
