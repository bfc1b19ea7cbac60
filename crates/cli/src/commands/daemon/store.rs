//! The daemon's own store: initialised once, recognised ever after, probed before anything relies
//! on it (PROTOCOL 4).
//!
//! A directory, or a prefix of a bucket, is made into a store only if this daemon has never had one.
//! Afterwards an empty one in its place is a disk that is not mounted, or another bucket, and is
//! refused: an unmounted directory is not an empty one.

use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use dr_config::StoreLocation;
use dr_coordination::identity::Identity;
use dr_coordination::probe::{newest_probe, probe_store, require_atomic_create};
use dr_model::RegionName;
use dr_provider::ErrorKind;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::Output;
use crate::wiring::Setup;

/// What the daemon remembers of its store, in its state directory.
const REMEMBERED: &str = "store.json";

/// Initialises the store if it is new, checks that it is the right one, and has it probed.
pub(super) async fn prepare(
    setup: &Setup,
    region: &RegionName,
    state: &Path,
    output: &Output,
) -> Result<()> {
    let store = setup.store(region)?;
    let memory = state.join(REMEMBERED);
    let remembered = remembered(&memory)?;
    let made = match remembered {
        Some(_) => None,
        None => initialise(setup, region).await?,
    };
    let is_directory = matches!(setup.region(region)?.store, StoreLocation::Directory(_));
    let identity = setup
        .identity(region)
        .await
        .map_err(|error| match error.exit {
            Exit::Unavailable if remembered.is_some() => CommandError {
                // A store that was there is not made anew, whatever is in its place.
                hints: vec![gone(is_directory, &memory)],
                ..error
            },
            _ => error,
        })?;
    match remembered {
        Some(remembered) if remembered.store != identity.store => {
            return Err(CommandError::new(
                Exit::Refused,
                format!(
                    "another store is in the place of that of `{region}`: {}",
                    store.location()
                ),
            )
            .because(format!(
                "this daemon worked with store {}, and this is {}",
                remembered.store, identity.store
            ))
            .hint(format!(
                "put the right one back, or remove `{}` if the change was intended",
                memory.display()
            )));
        }
        Some(_) => {}
        None => remember(&memory, &identity)?,
    }
    let report = match newest_probe(&*store).await? {
        Some(report) => report,
        None => probe_store(&store, setup.clock.now(), rand::random()).await?,
    };
    require_atomic_create(&*store, &report)?;
    // Only now is it known to be of any use.
    if let Some(made) = made {
        output.say(&made);
    }
    Ok(())
}

/// Says what to do about a store that this daemon has worked with and that is not there.
fn gone(is_directory: bool, memory: &Path) -> String {
    let first = match is_directory {
        true => "is its disk mounted?",
        false => "see whether the bucket is there, and whether its keys may read it.",
    };
    format!(
        "{first} This daemon has worked with the store, and makes no new one in its place. If it is gone for good, remove `{}` and start the daemon \
         again: it begins an empty store, into which recovery points and log are taken anew. Then restart the other daemons, which have seen the old one",
        memory.display()
    )
}

/// Makes a store of it, if it is none; returns what to say of that.
async fn initialise(setup: &Setup, region: &RegionName) -> Result<Option<String>> {
    let identity = Identity::new(region.clone(), rand::random(), setup.clock.now());
    let made = setup.initialise_store(region, identity.to_bytes()).await?;
    match made {
        Ok(()) => Ok(Some(format!(
            "Initialised the store of {region} in {}.",
            match &setup.region(region)?.store {
                StoreLocation::Directory(path) => path.display().to_string(),
                StoreLocation::Other { .. } => setup.store(region)?.location().to_owned(),
            }
        ))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remembered(path: &Path) -> Result<Option<Identity>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot read `{}`", path.display())).because(why)
}

fn remember(path: &Path, identity: &Identity) -> Result<()> {
    // A whole file or none: a torn one would keep the daemon from starting.
    let temporary = path.with_extension("new");
    let written = std::fs::write(&temporary, identity.to_bytes())
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        CommandError::new(Exit::Failed, format!("cannot write `{}`", path.display())).because(error)
    })
}
