//! The directory restored into.
//!
//! Nothing can be started from it before all of it is there and durable: the control file gets its name after the files,
//! the settings and the signal file (R5, R32).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_provider::driver::RestoreProgress;
use dr_provider::{Error, ErrorKind, Result};
use dr_repository::{BackupReader, Delta, Progress, RestoreOptions, RestoreStats};
use tokio::sync::watch;

use super::delta::{self, Mark};
use super::in_use::{self, Owner};
use super::{OPERATION, configuration, take_another};
use crate::actions::PREPARED_NOTE;
use crate::backup::TABLESPACES;
use crate::standby::KEPT_NOTE;

pub(crate) const CONTROL_FILE: &str = "global/pg_control";
const UNFINISHED_CONTROL_FILE: &str = "global/pg_control.dr-unfinished";

/// Files of the server that was backed up which say something about it and not about its data.
const LEFT_OUT: [&str; 7] = [
    "standby.signal",
    "recovery.signal",
    "dr-restored.json",
    PREPARED_NOTE,
    KEPT_NOTE,
    "dr-start.log",
    "postmaster.pid",
];

/// Refuses a directory that holds anything: a restore never overwrites. Nor does it write into another server's data directory, whose backups
/// would hold it from then on.
pub(super) fn check(directory: &Path) -> Result<()> {
    let own = fs::canonicalize(directory).ok();
    let cluster = around(directory).find(|known| is_data_directory(known));
    if let Some(cluster) = cluster.filter(|cluster| Some(cluster) != own.as_ref()) {
        let why = in_data_directory(&cluster);
        return Err(
            Error::new(ErrorKind::Conflict, "restore into", subject(directory))
                .because(why)
                .with_hint("restore into a directory beside it"),
        );
    }
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

/// Returns the directories that a place lies in, all links followed: first the place itself, or what of its path exists.
fn around(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let mut known = directory.ancestors();
    let place = known.find_map(|known| fs::canonicalize(known).ok());
    std::iter::successors(place, |place| place.parent().map(Path::to_owned))
}

/// Tells whether a directory is a server's, or will be one's when what was begun there is finished.
fn is_data_directory(directory: &Path) -> bool {
    let files = [CONTROL_FILE, Mark::FILE];
    files.iter().any(|file| directory.join(file).exists())
}

fn in_data_directory(cluster: &Path) -> String {
    format!("it would lie in the data directory `{}`", cluster.display())
}

/// Says that a place lies where a server has a tablespace: whosever that is, and whether or not that server runs.
fn in_tablespace(directory: &Path) -> Option<String> {
    // A server makes one directory for its version there, and nobody else gives one such a name (`TABLESPACE_VERSION_DIRECTORY`).
    let is_of_version = |name: &str| {
        let numbers = name
            .strip_prefix("PG_")
            .and_then(|rest| rest.split_once('_'));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        numbers.is_some_and(|(major, catalog)| is_number(major) && is_number(catalog))
    };
    let holds_one = |place: &PathBuf| {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_str().is_some_and(is_of_version))
    };
    let place = around(directory).find(holds_one)?;
    Some(format!(
        "it would lie in `{}`, where a server has a tablespace",
        place.display()
    ))
}

/// Says that a place is, or lies in, what belongs to a server.
fn in_a_servers(directory: &Path) -> Option<String> {
    let cluster = around(directory).find(|known| is_data_directory(known));
    let why = cluster.map(|cluster| in_data_directory(&cluster));
    why.or_else(|| in_tablespace(directory))
}

/// Refuses a place that a person names, and in which nothing was begun yet, in what belongs to a server: its data directory, or a
/// tablespace.
pub(super) fn check_place(directory: &Path) -> Result<()> {
    if is_data_directory(directory) {
        return Ok(());
    }
    match in_a_servers(directory) {
        None => Ok(()),
        Some(why) => Err(
            Error::new(ErrorKind::Conflict, "restore into", subject(directory))
                .because(why)
                .with_hint("restore into a directory beside it"),
        ),
    }
}

/// Refuses a scratch directory that is what belongs to a server, or lies in it: before it is made, because everything in it is removed.
pub(crate) fn check_scratch(directory: &Path) -> Result<()> {
    match in_a_servers(directory) {
        None => Ok(()),
        Some(why) => {
            let subject = subject(directory);
            let error = Error::new(ErrorKind::Conflict, "use scratch directory", subject);
            Err(error.because(why).with_hint(
                "name a directory of its own: `--scratch DIR`, or `verify: { scratch: DIR }` of the resource",
            ))
        }
    }
}

/// As [`check`], for a directory that a person names: says of a data directory whose it is, and whether a server runs there, and of one
/// that is not whole how to go on. Waits for file systems.
pub(super) fn check_named(directory: &Path, configured: &[Owner]) -> Result<()> {
    check_place(directory)?;
    let error = match check(directory) {
        Err(error) if error.kind() == ErrorKind::Invalid => error,
        other => return other,
    };
    if let Some(by) = Mark::set_by(directory).map_err(failed(directory))? {
        let (why, hint) = match by.as_str() {
            "" => (
                "the directory is not empty: it holds a part of what was restored there, which was not finished".to_owned(),
                "restore over it with `--delta`, or remove what is in it",
            ),
            execution => (
                format!("the directory is not empty: it holds a part of what execution {execution} restores there"),
                "`dr execution resume` finishes it; restore into another directory",
            ),
        };
        let error = Error::new(ErrorKind::Invalid, "restore into", subject(directory));
        return Err(error.because(why).with_hint(hint));
    }
    if !directory.join(CONTROL_FILE).exists() {
        return Err(error);
    }
    let place = in_use::real(directory);
    let owner = configured
        .iter()
        .find(|owner| in_use::real(&owner.directory) == place);
    let what = match owner {
        Some(owner) => format!("the data directory of {}", owner.who),
        None => "a data directory".to_owned(),
    };
    let runs = delta::running(directory).map_err(failed(directory))?;
    let runs = runs.unwrap_or_else(|| "no server runs there".to_owned());
    let why = format!("the directory is not empty: it is {what}, and {runs}");
    let error = Error::new(ErrorKind::Conflict, "restore into", subject(directory)).because(why);
    Err(error.with_hint(
        "restore into a directory that does not exist yet; over one whose server is stopped, `--delta` does",
    ))
}

/// What is written beside the files of a backup.
pub(super) struct Beside {
    /// The file whose presence starts recovery.
    pub(super) signal: &'static str,
    /// Added to `postgresql.auto.conf`.
    pub(super) settings: String,
    /// Configuration files that the backup lacks.
    pub(super) missing: Vec<&'static str>,
    /// Where tablespaces go.
    pub(super) tablespaces: BTreeMap<u32, PathBuf>,
    pub(super) progress: Option<watch::Sender<RestoreProgress>>,
    /// What stands in the directory until it is whole.
    pub(super) mark: Mark,
    /// Whether what is there is restored over.
    pub(super) delta: bool,
    /// What stands in the directory once it is whole, by its name: for whom it was restored.
    pub(super) note: Option<(&'static str, String)>,
}

/// Writes everything.
pub(super) async fn write(
    reader: &BackupReader,
    directory: &Path,
    beside: Beside,
) -> Result<RestoreStats> {
    let delta = beside.delta;
    let by_execution = beside.mark.execution.is_some();
    write_all(reader, directory, beside).await.map_err(|error| {
        let left = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        let is_begun = directory.join(Mark::FILE).exists();
        if !left || !is_begun {
            return take_another(error);
        }
        let subject = subject(directory);
        let hint = match error.kind() {
            ErrorKind::Full if by_execution => "make room, and the execution goes on over it",
            _ if by_execution => "the execution goes on over it",
            ErrorKind::Full => "make room, and restore over it with `--delta`",
            ErrorKind::Corrupt => {
                "remove what is in it, and restore another recovery point (`--recovery-point`), or from the store of \
                 another region (`--in`)"
            }
            _ if delta => "restore over it again: what is right already stays",
            _ => "restore over it with `--delta`, or remove what is in it and restore again",
        };
        let hint = format!(
            "`{subject}` holds a part of the files now, which no server starts from: {hint}"
        );
        // Not the directory, maybe, but an object of the store: what is below says which.
        Error::new(error.kind(), "finish the restore into", subject)
            .because(error)
            .with_hint(hint)
    })
}

async fn write_all(
    reader: &BackupReader,
    directory: &Path,
    beside: Beside,
) -> Result<RestoreStats> {
    let owner = owner(directory).map_err(failed(directory))?;
    let elsewhere = beside.tablespaces.iter();
    let elsewhere =
        elsewhere.map(|(number, place)| (format!("{TABLESPACES}/{number}"), place.clone()));
    let progress = beside.progress.clone();
    let options = RestoreOptions {
        place: Some(Arc::new(place)),
        elsewhere: elsewhere.collect(),
        owner,
        begin: Some({
            let (mark, directory) = (beside.mark.clone(), directory.to_owned());
            Arc::new(move || {
                // Whoever goes on after a kill gives everything to the directory's owner.
                if let Some((user, group)) = owner {
                    chown(&directory, Some(user), Some(group))?;
                }
                mark.set(&directory)
            })
        }),
        delta: beside.delta.then(|| Delta {
            left_alone: [Mark::FILE.to_owned()].into(),
        }),
        progress: progress.map(|sender| {
            Arc::new(move |progress: Progress| {
                sender.send_replace(RestoreProgress {
                    written_bytes: progress.written_bytes,
                    total_bytes: progress.total_bytes,
                });
            }) as Arc<dyn Fn(Progress) + Send + Sync>
        }),
        ..RestoreOptions::default()
    };
    let stats = reader.restore_into(directory, options).await?;
    let owned = directory.to_owned();
    let finish = move || finish(&owned, &beside, owner).map_err(failed(&owned));
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
fn finish(directory: &Path, beside: &Beside, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    for name in &beside.missing {
        let text = configuration::substitute(name, &directory.join(UNFINISHED_CONTROL_FILE))?;
        append(&directory.join(name), &text, owner)?;
    }
    append(
        &directory.join("postgresql.auto.conf"),
        &beside.settings,
        owner,
    )?;
    append(&directory.join(beside.signal), "", owner)?;
    if let Some((name, text)) = &beside.note {
        append(&directory.join(name), text, owner)?;
    }
    File::open(directory)?.sync_all()?;
    fs::rename(
        directory.join(UNFINISHED_CONTROL_FILE),
        directory.join(CONTROL_FILE),
    )?;
    Mark::remove(directory)?;
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

pub(super) fn failed(directory: &Path) -> impl Fn(std::io::Error) -> Error + Copy + '_ {
    move |error| {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Failed,
        };
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "run `dr` as a user who may write there, or name another directory with `--into`"
            }
            std::io::ErrorKind::NotADirectory => {
                "a part of the path is a file: name another directory with `--into`"
            }
            _ => "",
        };
        let error = Error::new(kind, "restore into", subject(directory)).because(error);
        match hint {
            "" => error,
            hint => error.with_hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use dr_model::{ExecutionId, SystemIdentifier};
    use rstest::rstest;

    use super::*;

    #[test]
    fn what_belongs_to_a_server_is_no_place_for_a_copy() {
        let all = tempfile::tempdir().unwrap();
        let at = |name: &str| all.path().join(name);
        for name in [
            "east/global",
            "begun/global",
            "fast/PG_15_202209061/5",
            "free/PG_15",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("east").join(CONTROL_FILE), "").unwrap();
        fs::write(at("begun").join(Mark::FILE), "").unwrap();
        std::os::unix::fs::symlink(at("fast"), at("link")).unwrap();
        for (place, why) in [
            ("east/new", "in the data directory"),
            ("begun/new", "in the data directory"),
            ("fast", "has a tablespace"),
            ("fast/new/deeper", "has a tablespace"),
            ("fast/PG_15_202209061/new", "has a tablespace"),
            ("link/PG_15_202209061/5", "has a tablespace"),
        ] {
            for error in [
                check_named(&at(place), &[]).unwrap_err(),
                check_place(&at(place)).unwrap_err(),
                check_scratch(&at(place)).unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{place}");
                let said = dr_provider::error::chain(&error);
                assert!(said.contains(why), "{said}");
            }
            assert!(!at("east/new").exists());
        }
        for place in ["beside", "free", "free/new"] {
            check_place(&at(place)).unwrap();
            check_scratch(&at(place)).unwrap();
        }
        // Over what is there it is looked at as what it is.
        check_place(&at("east")).unwrap();
        assert!(check_scratch(&at("east")).is_err());
    }

    #[test]
    fn what_was_not_finished_says_how_it_goes_on() {
        let hint = |execution: Option<&str>| {
            let place = tempfile::tempdir().unwrap();
            let mark = Mark {
                cluster: SystemIdentifier(7),
                execution: execution.map(|name| name.parse::<ExecutionId>().unwrap()),
            };
            mark.set(place.path()).unwrap();
            let error = check_named(place.path(), &[]).unwrap_err();
            error.hint().unwrap().to_owned()
        };
        assert!(hint(None).contains("`--delta`"));
        assert!(hint(Some("one")).contains("`dr execution resume`"));
    }

    #[rstest]
    #[case("base/5/16384", Some("base/5/16384"))]
    #[case(CONTROL_FILE, Some(UNFINISHED_CONTROL_FILE))]
    #[case("standby.signal", None)]
    #[case("dr-prepared.json", None)]
    #[case("dr-kept.json", None)]
    #[case("base/dr-kept.json", Some("base/dr-kept.json"))]
    fn what_is_said_of_the_old_server_is_not_said_of_the_new(
        #[case] path: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(place(path).as_deref(), expected);
    }
}
