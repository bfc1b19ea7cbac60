//! The directory restored into.
//!
//! Nothing can be started from it before all of it is there and durable: the control file gets its name after the files,
//! the settings and the signal file (R5, R32).

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::sync::Arc;

use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupReader, RestoreOptions, RestoreStats};

use super::OPERATION;
use super::settings::Recovery;

const CONTROL_FILE: &str = "global/pg_control";
const UNFINISHED_CONTROL_FILE: &str = "global/pg_control.dr-unfinished";

/// Files of the server that was backed up which say something about it and not about its data.
const LEFT_OUT: [&str; 5] = [
    "standby.signal",
    "recovery.signal",
    "dr-restored.json",
    "dr-start.log",
    "postmaster.pid",
];

/// Refuses a directory that holds anything: a restore never overwrites.
pub(super) fn check(directory: &Path) -> Result<()> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(
            Error::new(ErrorKind::Invalid, "restore into", subject(directory))
                .because("the directory is not empty")
                .with_hint("restore into a directory that does not exist yet"),
        ),
        Err(error) => Err(failed(directory)(error)),
    }
}

/// Writes everything.
pub(super) async fn write(
    reader: &BackupReader,
    directory: &Path,
    recovery: &Recovery,
    settings: String,
) -> Result<RestoreStats> {
    let owner = owner(directory).map_err(failed(directory))?;
    let options = RestoreOptions {
        place: Some(Arc::new(place)),
        owner,
        ..RestoreOptions::default()
    };
    let stats = reader.restore_into(directory, options).await?;
    let (owned, signal) = (directory.to_owned(), recovery.ending.signal());
    let finish = move || finish(&owned, signal, &settings, owner).map_err(failed(&owned));
    tokio::task::spawn_blocking(finish)
        .await
        .map_err(|error| {
            Error::new(ErrorKind::Failed, OPERATION, "a directory").because(error)
        })??;
    Ok(stats)
}

fn place(path: &str) -> Option<String> {
    match path {
        CONTROL_FILE => Some(UNFINISHED_CONTROL_FILE.to_owned()),
        path if LEFT_OUT.contains(&path) => None,
        path => Some(path.to_owned()),
    }
}

/// Returns to whom the files must be given: a server refuses to run as root, and files of anybody but itself.
fn owner(directory: &Path) -> std::io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    for place in directory.ancestors() {
        let place = if place.as_os_str().is_empty() {
            Path::new(".")
        } else {
            place
        };
        match fs::metadata(place) {
            Ok(metadata) => return Ok(Some((metadata.uid(), metadata.gid()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Adds the settings, then the signal, and then gives the control file its name.
fn finish(
    directory: &Path,
    signal: &str,
    settings: &str,
    owner: Option<(u32, u32)>,
) -> std::io::Result<()> {
    append(&directory.join("postgresql.auto.conf"), settings, owner)?;
    append(&directory.join(signal), "", owner)?;
    File::open(directory)?.sync_all()?;
    fs::rename(
        directory.join(UNFINISHED_CONTROL_FILE),
        directory.join(CONTROL_FILE),
    )?;
    File::open(directory.join("global"))?.sync_all()
}

fn append(path: &Path, text: &str, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.sync_all()
}

fn subject(directory: &Path) -> String {
    directory.display().to_string()
}

fn failed(directory: &Path) -> impl Fn(std::io::Error) -> Error {
    let subject = subject(directory);
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Failed,
        };
        Error::new(kind, "restore into", &subject).because(error)
    }
}
