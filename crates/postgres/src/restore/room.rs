//! Whether what is to be written has room where it goes, found out before anything is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dr_provider::Result;
use dr_repository::BackupReader;
use rustix::fs::statvfs;

use super::{OPERATION, blocking, check_room, directory};
use crate::backup::TABLESPACES;

/// A file system that is written to.
struct System {
    /// A place on it, to be named.
    at: PathBuf,
    free_bytes: u64,
    /// The directories of the tree that go there, the empty name for all others, and where they are.
    holds: Vec<(String, PathBuf)>,
}

/// Refuses a restore of which one of the file systems cannot take its part. With `delta` what is there already counts as room: it is
/// written over, or removed first.
pub(super) async fn check(
    reader: &BackupReader,
    directory: &Path,
    tablespaces: &BTreeMap<u32, PathBuf>,
    delta: bool,
) -> Result<()> {
    let mut places = vec![(String::new(), directory.to_owned())];
    let elsewhere = tablespaces.iter();
    places.extend(elsewhere.map(|(number, at)| (format!("{TABLESPACES}/{number}"), at.clone())));
    let names: Vec<String> = places[1..].iter().map(|(name, _)| name.clone()).collect();
    let failed = directory::failed(directory);
    let systems = blocking(move || systems(places)).await?.map_err(failed)?;
    // With holes, and as if all went to each: what passes is enough, and the list of files need not be read.
    let most = reader.header().stats.file_bytes;
    if systems.iter().all(|system| system.free_bytes >= most) {
        return Ok(());
    }
    let sizes = reader.bytes_below(&names).await?;
    for system in systems {
        let parts = system.holds.iter().filter_map(|(name, _)| sizes.get(name));
        let needed: u64 = parts.sum();
        let free = system.free_bytes;
        let there = match delta && free < needed {
            true => {
                let roots: Vec<PathBuf> = system.holds.into_iter().map(|(_, at)| at).collect();
                blocking(move || roots.iter().map(|at| taken(at)).sum::<io::Result<u64>>())
                    .await?
                    .map_err(failed)?
            }
            false => 0,
        };
        check_room(OPERATION, &system.at, free.saturating_add(there), needed)?;
    }
    Ok(())
}

/// Returns the bytes that are free on the file system of a place that exists.
pub(crate) fn free_bytes(place: &Path) -> io::Result<u64> {
    let room = statvfs(place)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

fn systems(places: Vec<(String, PathBuf)>) -> io::Result<Vec<System>> {
    let mut systems: BTreeMap<u64, System> = BTreeMap::new();
    for (name, at) in places {
        // What is missing will be made on the file system of what is around it.
        let there = at.ancestors().find(|place| place.exists());
        let there = there.unwrap_or(Path::new("/"));
        let device = fs::metadata(there)?.dev();
        if let Some(system) = systems.get_mut(&device) {
            system.holds.push((name, at));
            continue;
        }
        let system = System {
            free_bytes: free_bytes(there)?,
            at: at.clone(),
            holds: vec![(name, at)],
        };
        systems.insert(device, system);
    }
    Ok(systems.into_values().collect())
}

/// Returns the bytes that the files below a directory take and that would be free without them.
fn taken(directory: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            bytes += taken(&entry.path())?;
        } else if metadata.is_file() && metadata.nlink() == 1 {
            // `st_blocks` counts in 512 bytes, whatever the file system.
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_counts_once_and_what_has_another_name_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(taken(&place.join("none")).unwrap(), 0);
        fs::create_dir(place.join("base")).unwrap();
        fs::write(place.join("base/1"), vec![1; 64 << 10]).unwrap();
        let once = taken(place).unwrap();
        assert!(once >= 64 << 10, "{once}");
        fs::hard_link(place.join("base/1"), place.join("2")).unwrap();
        assert_eq!(taken(place).unwrap(), 0);
    }

    #[test]
    fn places_of_one_file_system_share_its_room() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| (name.to_owned(), directory.path().join(name).join("deep"));
        let systems = systems(vec![place("a"), place("b")]).unwrap();
        assert_eq!(systems.len(), 1);
        assert_eq!(systems[0].holds.len(), 2);
        assert!(systems[0].free_bytes > 0);
    }
}
