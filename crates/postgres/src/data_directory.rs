//! Which cluster a data directory is of: read out of it with `pg_controldata`, whether a server runs in it or not.
//!
//! A path proves nothing about what stands there. A volume that is not mounted, another cluster, a standby, or a copy
//! from before an earlier move would each be stopped in place of the old primary, which goes on accepting writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{SystemIdentifier, TimelineId};
use dr_provider::host::{Command, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};

use crate::manager::is_managed;

/// How long one command may take.
const LIMIT: Duration = Duration::from_millis(1500);

/// The first word of the `standby.signal` that a fence leaves: the directory was proven to be the old primary's before
/// it was written, and is known by it even after somebody has started it as a standby.
const MARK: &str = "fenced-by-dr";

/// Bytes of `standby.signal` and `postmaster.pid` that are read.
const SMALL: u64 = 4096;

/// What a data directory says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataDirectory {
    /// Where it really is, all links followed.
    pub(crate) path: PathBuf,
    /// The cluster.
    pub(crate) system_identifier: SystemIdentifier,
    /// The newest timeline that its server wrote or followed.
    pub(crate) timeline: TimelineId,
    /// The state of the control file, in the words of `pg_controldata`.
    pub(crate) state: String,
    /// The timeline on whose primary an earlier fence left its mark here.
    pub(crate) fenced: Option<TimelineId>,
    /// Whether there is a `standby.signal`, so that a server started here would be a standby. `None` if nobody looked.
    #[serde(default)]
    pub(crate) signal: Option<bool>,
    /// Whether Patroni has started its server.
    #[serde(default)]
    pub(crate) managed: bool,
}

/// The cluster and the timeline that the primary of an epoch writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claimed {
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) timeline: TimelineId,
}

impl DataDirectory {
    /// Looks at the directory; fails, with the reason, if it cannot be told what it is.
    pub(crate) async fn look(host: &dyn Host, binaries: &Path, directory: &Path) -> Result<Self> {
        let failed = |why: String| {
            let subject = format!("{} on {}", directory.display(), host.name());
            Error::new(ErrorKind::Failed, "identify the cluster in", subject).because(why)
        };
        match host.kind(directory).await? {
            PathKind::Directory => {}
            // An unmounted volume looks like this too, with the server still running on it.
            PathKind::Missing => return Err(failed("there is no such directory".to_owned())),
            PathKind::EmptyDirectory => return Err(failed("the directory is empty".to_owned())),
            PathKind::File | PathKind::Other => {
                return Err(failed("it is not a directory".to_owned()));
            }
        }
        let shown = directory.display().to_string();
        let link = run(host, &["readlink", "-f", "--", &shown]).await?;
        let text = control_data(host, binaries, directory)
            .await?
            .map_err(failed)?;
        let mut found = parse(&text)
            .ok_or_else(|| failed("pg_controldata says nothing of the cluster".to_owned()))?;
        found.path = PathBuf::from(link.map_err(failed)?);
        found.fenced = match host.read(&directory.join("standby.signal"), 0, SMALL).await {
            Ok(content) => {
                found.signal = Some(true);
                fenced(&String::from_utf8_lossy(&content), found.system_identifier)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                found.signal = Some(false);
                None
            }
            Err(error) => return Err(error),
        };
        found.managed = is_managed(host, directory).await?;
        Ok(found)
    }

    /// Says why this is not the directory of the primary that `claimed` is about; `None` if it is.
    pub(crate) fn is_not(&self, claimed: Claimed) -> Option<String> {
        let place = self.path.display();
        if self.system_identifier != claimed.system_identifier {
            return Some(format!(
                "`{place}` is of another cluster: its system identifier is {}, not {}",
                self.system_identifier, claimed.system_identifier
            ));
        }
        if self.fenced == Some(claimed.timeline) {
            return None;
        }
        if self.timeline != claimed.timeline {
            return Some(format!(
                "`{place}` is on timeline {}, the primary of this epoch writes timeline {}",
                self.timeline, claimed.timeline
            ));
        }
        let of_primary = [
            "in production",
            "shut down",
            "shutting down",
            "in crash recovery",
        ];
        (!of_primary.contains(&self.state.as_str())).then(|| {
            format!(
                "`{place}` is of a standby: its control file says `{}`",
                self.state
            )
        })
    }
}

/// What a running server has written into `postmaster.pid`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) directory: PathBuf,
    pub(crate) port: u16,
}

impl Postmaster {
    /// Reads the number of the server's first process; `None` if there is no such file, or no number in it.
    pub(crate) async fn number(host: &dyn Host, directory: &Path) -> Result<Option<String>> {
        let path = directory.join("postmaster.pid");
        let content = match host.read(&path, 0, SMALL).await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        let first = text.lines().next().unwrap_or_default().trim();
        let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
        Ok(is_number.then(|| first.to_owned()))
    }

    /// Reads it; `None` if there is no such file.
    pub(crate) async fn read(host: &dyn Host, directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("postmaster.pid");
        let content = match host.read(&path, 0, SMALL).await {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        let lines: Vec<&str> = text.lines().collect();
        let read = || {
            Some(Self {
                directory: PathBuf::from(*lines.get(1)?),
                port: lines.get(3)?.trim().parse().ok()?,
            })
        };
        read().map(Some).ok_or_else(|| {
            Error::new(ErrorKind::Failed, "read", path.display().to_string())
                .because("it names no data directory and port")
        })
    }
}

impl Claimed {
    /// Returns what a fence writes into `standby.signal`, of which PostgreSQL reads only that it is there.
    pub(crate) fn mark(self) -> String {
        format!("{MARK} {} {}\n", self.system_identifier, self.timeline)
    }
}

/// Reads the timeline out of a mark for this cluster.
fn fenced(text: &str, system_identifier: SystemIdentifier) -> Option<TimelineId> {
    let mut words = text.split_whitespace();
    let known = words.next() == Some(MARK) && words.next()?.parse() == Ok(system_identifier);
    let timeline = words.next()?.parse().ok()?;
    known.then_some(TimelineId(timeline))
}

/// Returns what `pg_controldata` prints of a directory, or why it does not.
pub(crate) async fn control_data(
    host: &dyn Host,
    binaries: &Path,
    directory: &Path,
) -> Result<std::result::Result<String, String>> {
    let shown = directory.display().to_string();
    let program = binaries.join("pg_controldata").display().to_string();
    let mut control = run(host, &[&program, &shown]).await.map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let hint =
            "put the directory with PostgreSQL's programs into PATH, or name it in DR_POSTGRES_BIN";
        error.with_hint(hint)
    })?;
    if control.as_ref().is_ok_and(|text| is_torn(text)) {
        // The server was just writing the file.
        control = run(host, &[&program, &shown]).await?;
    }
    Ok(control.and_then(|text| match is_torn(&text) {
        true => {
            Err("the control file is damaged, or of another version than pg_controldata".to_owned())
        }
        false => Ok(text),
    }))
}

/// Returns the value of a line that `pg_controldata` prints.
pub(crate) fn control_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find_map(|(name, value)| (name == key).then(|| value.trim()))
}

/// Follows all links of a path on the host.
pub(crate) async fn real_path(host: &dyn Host, path: &Path) -> Result<Option<PathBuf>> {
    let shown = path.display().to_string();
    let link = run(host, &["readlink", "-f", "--", &shown]).await?;
    Ok(link.ok().map(PathBuf::from))
}

/// Runs a command; returns its output, or what it complained of.
async fn run(host: &dyn Host, argv: &[&str]) -> Result<std::result::Result<String, String>> {
    let mut command = Command::new(argv.iter().copied());
    command.environment = vec![("LC_ALL".to_owned(), "C".to_owned())];
    let output = host.run(&command, LIMIT).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(match output.status {
        Some(0) => Ok(text(&output.stdout)),
        _ => Err(text(&output.stderr)),
    })
}

/// `pg_controldata` prints what it read all the same when the checksum is wrong.
fn is_torn(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("WARNING"))
}

fn parse(text: &str) -> Option<DataDirectory> {
    let value = |key: &str| control_value(text, key);
    let timeline = |key: &str| value(key)?.parse().ok().map(TimelineId);
    // After a promotion the first checkpoint is awaited in the second.
    let timeline = timeline("Latest checkpoint's TimeLineID")?
        .max(timeline("Min recovery ending loc's timeline")?);
    Some(DataDirectory {
        path: PathBuf::new(),
        system_identifier: value("Database system identifier")?.parse().ok()?,
        timeline,
        state: value("Database cluster state")?.to_owned(),
        fenced: None,
        signal: None,
        managed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
pg_control version number:            1300
Database system identifier:           7300000000000000001
Database cluster state:               in production
pg_control last modified:             Sat Nov 21 05:24:01 2026
Latest checkpoint's TimeLineID:       1
Latest checkpoint's PrevTimeLineID:   1
Min recovery ending loc's timeline:   2
";

    const CLAIMED: Claimed = Claimed {
        system_identifier: SystemIdentifier(7_300_000_000_000_000_001),
        timeline: TimelineId(2),
    };

    #[test]
    fn the_timeline_of_a_promotion_counts_before_its_first_checkpoint() {
        let found = parse(OUTPUT).unwrap();
        assert_eq!(found.timeline, TimelineId(2));
        assert_eq!(found.is_not(CLAIMED), None);
    }

    #[test]
    fn what_is_not_the_primary_of_the_epoch_is_told_apart() {
        let cases = [
            ("7300000000000000001", "12", "of another cluster"),
            ("timeline:   2", "timeline:   0", "is on timeline 1"),
            ("in production", "in archive recovery", "of a standby"),
        ];
        for (was, is, expected) in cases {
            let found = parse(&OUTPUT.replace(was, is)).unwrap();
            let why = found.is_not(CLAIMED).unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_directory_that_was_fenced_stays_known_when_it_was_started_as_a_standby() {
        let text = OUTPUT.replace("in production", "in archive recovery");
        let mut found = parse(&text).unwrap();
        found.fenced = fenced(&CLAIMED.mark(), CLAIMED.system_identifier);
        assert_eq!(found.is_not(CLAIMED), None);
        // By a fence of an earlier epoch it is not.
        found.fenced = Some(TimelineId(1));
        assert!(found.is_not(CLAIMED).is_some());
        assert_eq!(fenced(&CLAIMED.mark(), SystemIdentifier(12)), None);
        assert_eq!(fenced("", CLAIMED.system_identifier), None);
    }
}
