//! Whether the places of tablespaces are somebody else's: a copy of a data directory has the links of the one that it was copied
//! from, and what is restored over the copy must not be written through them into the files of a server that runs.

use std::fs;
use std::path::{Path, PathBuf};

use dr_model::RegionName;
use dr_provider::{Error, ErrorKind, Result};

use crate::backup::TABLESPACES;
use crate::driver::PostgresDriver;
use crate::standby::kept_prefix;

/// A data directory, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) directory: PathBuf,
    pub(super) who: String,
}

impl PostgresDriver {
    /// Returns the data directories on this machine that the configuration names.
    pub(super) fn configured_owners(&self) -> Vec<Owner> {
        let is_here = |region: &RegionName| self.host(region).is_ok_and(|host| host.is_local());
        let instances = self.options().instances.iter();
        let configured = instances.filter(|(region, _)| is_here(region));
        let configured = configured.map(|(region, instance)| Owner {
            directory: instance.data_directory.clone(),
            who: format!("the instance in {region}"),
        });
        configured.collect()
    }
}

/// Adds to those that the configuration names the data directories that servers work in. Waits for file systems.
pub(super) fn owners(mut configured: Vec<Owner>) -> Vec<Owner> {
    configured.extend(running());
    configured
}

/// Returns the data directories that servers work in, as far as they can be seen. Nobody else's directory is looked into: it may be on a
/// file system that hangs.
fn running() -> impl Iterator<Item = Owner> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| {
        let number: u32 = process.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        if !["postgres", "postmaster"].contains(&name.trim()) {
            return None;
        }
        let directory = fs::read_link(process.path().join("cwd")).ok()?;
        // The first process of a server says so there; its children work in the same place.
        let pid = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
        let is_first = pid.lines().next()?.trim() == number.to_string();
        is_first.then(|| Owner {
            directory,
            who: format!("the server that runs as process {number}"),
        })
    })
}

/// Returns what is kept beside the data directories that the configuration names: it has the tablespaces that those had.
pub(super) fn kept(configured: &[Owner]) -> Vec<Owner> {
    let beside = |owner: &Owner| {
        let prefix = kept_prefix(&owner.directory);
        let around = owner.directory.parent().unwrap_or(Path::new("/"));
        let entries = fs::read_dir(around).into_iter().flatten().flatten();
        let is_kept = move |entry: &fs::DirEntry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(&prefix))
        };
        let who = format!("what is kept of {}", owner.who);
        entries.filter(is_kept).map(move |entry| Owner {
            directory: entry.path(),
            who: who.clone(),
        })
    };
    configured.iter().flat_map(beside).collect()
}

/// A place that somebody has: a data directory, or where one has a tablespace.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// All links followed.
    pub(super) place: PathBuf,
    /// The number of the tablespace; `None` of the data directory itself.
    pub(super) tablespace: Option<u32>,
    pub(super) owner: Owner,
}

impl Taken {
    /// Tells whether a place, all links followed, is this one, in it or around it.
    pub(super) fn meets(&self, place: &Path) -> bool {
        place.starts_with(&self.place) || self.place.starts_with(place)
    }
}

/// Returns the places of all but `directory`. One that cannot be looked into is passed over: whose files this user cannot read, he cannot
/// write into either. Waits for file systems.
pub(super) fn taken(directory: Option<&Path>, owners: &[Owner]) -> Vec<Taken> {
    let own = directory.map(real);
    let mut taken = Vec::new();
    for owner in owners {
        let theirs = real(&owner.directory);
        if own.as_ref() == Some(&theirs) {
            continue;
        }
        let links = fs::read_dir(theirs.join(TABLESPACES));
        for link in links.into_iter().flatten().flatten() {
            // One in place is in the data directory.
            if link.file_type().is_ok_and(|kind| kind.is_symlink()) {
                taken.push(Taken {
                    place: real(&link.path()),
                    tablespace: link.file_name().to_str().and_then(|name| name.parse().ok()),
                    owner: owner.clone(),
                });
            }
        }
        taken.push(Taken {
            place: theirs,
            tablespace: None,
            owner: owner.clone(),
        });
    }
    taken
}

/// Refuses places that the tablespaces of another data directory than `directory` have, all links followed.
pub(super) fn check<'a>(
    directory: &Path,
    places: impl IntoIterator<Item = (&'a u32, &'a PathBuf)>,
    owners: &[Owner],
) -> Result<()> {
    let taken = taken(Some(directory), owners);
    for (number, place) in places {
        let at = real(place);
        if let Some(Taken { owner, .. }) = taken.iter().find(|taken| taken.meets(&at)) {
            let why = format!(
                "tablespace {number} goes there, and it is that of {} (`{}`)",
                owner.who,
                owner.directory.display()
            );
            let subject = place.display().to_string();
            let error = Error::new(ErrorKind::Conflict, "restore into", subject).because(why);
            return Err(error.with_hint(format!(
                "name a directory of its own for it: `--tablespace {number}=DIR`"
            )));
        }
    }
    Ok(())
}

/// Follows all links of a path, as far as it exists.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut there = path;
    loop {
        if let Ok(found) = fs::canonicalize(there) {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            return match rest.as_os_str().is_empty() {
                true => found,
                false => found.join(rest),
            };
        }
        match there.parent() {
            Some(parent) => there = parent,
            None => return path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_tablespace_of_another_data_directory_is_refused() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        for name in ["east/pg_tblspc", "copy/pg_tblspc", "space", "other"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("space"), at("by-another-name")).unwrap();
        for name in ["east", "copy"] {
            symlink(at("space"), at(name).join("pg_tblspc/16404")).unwrap();
        }
        let owners = [Owner {
            directory: at("east"),
            who: "the instance in us-east-1".to_owned(),
        }];
        let check = |directory: &str, place: &str| {
            let places = [(16404, at(place))];
            let places = places.iter().map(|(number, place)| (number, place));
            check(&at(directory), places, &owners)
        };
        for place in ["space", "by-another-name", "space/deeper", "east/inside"] {
            let error = check("copy", place).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let said = dr_provider::error::chain(&error);
            assert!(said.contains("the instance in us-east-1"), "{said}");
        }
        check("copy", "other").unwrap();
        check("copy", "not/there/yet").unwrap();
        // Its own.
        check("east", "space").unwrap();
    }

    #[test]
    fn what_is_kept_has_the_tablespaces_that_it_had() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        for name in [
            "east",
            "east.kept-1/pg_tblspc/16405",
            "eastern.kept-1",
            "space",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        symlink(at("space"), at("east.kept-1/pg_tblspc/16404")).unwrap();
        let configured = [Owner {
            directory: at("east"),
            who: "the instance in us-east-1".to_owned(),
        }];
        let kept = kept(&configured);
        let [one] = kept.as_slice() else {
            panic!("{kept:?}")
        };
        assert_eq!(one.directory, at("east.kept-1"));
        assert_eq!(one.who, "what is kept of the instance in us-east-1");
        let taken = taken(Some(&at("east")), &kept);
        let numbers: Vec<_> = taken.iter().map(|taken| taken.tablespace).collect();
        assert_eq!(
            numbers,
            [Some(16404), None],
            "one in place is no place of its own"
        );
        assert!(taken[0].meets(&real(&at("space/deeper"))));
    }
}
