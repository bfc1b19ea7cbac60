//! Tablespaces that replay makes where a server on this machine has its own.
//!
//! `CREATE TABLESPACE` stands in the log with the place that it had, and replay links to that place whatever is there and wherever
//! the restored tablespaces were told to go: the restored server then writes into the files of whoever uses it. Nobody can be told
//! another place, so what is replayed is searched for such records before anything is written. Only where somebody on this machine has
//! tablespaces: that is a look at a few links, and the search reads log.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use dr_model::{Lsn, RegionName};
use dr_provider::driver::LogStretch;
use dr_provider::{Error, ErrorKind, Result};

use super::end::SEARCH_BYTES;
use super::in_use::{self, Owner, Taken};
use super::log::{Log, part_to};
use super::settings::{Ending, Stop};
use super::{Decided, OPERATION, blocking, delta};
use crate::backup::Source;
use crate::driver::PostgresDriver;
use crate::wal::{CreatedTablespace, Record};

/// A tablespace that replay makes.
#[derive(Debug)]
struct Made {
    tablespace: CreatedTablespace,
    /// The record.
    at: Lsn,
    /// The record before it, the last that can be replayed without it.
    before: Option<Lsn>,
}

/// What is replayed.
pub(super) struct Replay<'a> {
    pub(super) source: &'a Source,
    pub(super) log: &'a [LogStretch],
    pub(super) ending: &'a Ending,
    /// Most bytes of log that are read for it.
    pub(super) most: u64,
    /// What can be done where it would meet somebody's tablespace, for whom no moment before it will do.
    pub(super) hint: Option<&'static str>,
}

impl PostgresDriver {
    /// Refuses to replay, into `directory` on this machine, what was decided for a person.
    pub(super) async fn check_replay(
        &self,
        region: &RegionName,
        directory: Option<&Path>,
        decided: &Decided,
    ) -> Result<()> {
        let replay = Replay {
            source: &decided.base.source,
            log: &decided.plan.log,
            ending: &decided.ending,
            most: SEARCH_BYTES,
            hint: None,
        };
        self.check_tablespaces_of(region, directory, replay).await
    }

    /// Refuses to replay log that makes a tablespace where another data directory than `directory` has one.
    pub(super) async fn check_tablespaces_of(
        &self,
        region: &RegionName,
        directory: Option<&Path>,
        replay: Replay<'_>,
    ) -> Result<()> {
        let source = replay.source;
        let (own, configured) = (directory.map(Path::to_owned), self.configured_owners());
        let (cluster, known) = (source.system_identifier, source.tablespaces.clone());
        let look = move || {
            let kept = in_use::kept(&configured);
            let mut owners = in_use::owners(configured);
            owners.extend(kept);
            let taken = in_use::taken(own.as_deref(), &owners);
            // Those that the recovery point has were made before it was complete.
            let is_known = |taken: &Taken| {
                taken
                    .tablespace
                    .is_some_and(|number| known.contains_key(&number))
                    && is_of(&taken.owner, cluster)
            };
            let mut tablespaces = taken.iter().filter(|taken| taken.tablespace.is_some());
            let later = tablespaces.clone().any(|taken| !is_known(taken));
            let any = tablespaces.next().is_some();
            (taken, any, later)
        };
        let (taken, any, later) = blocking(look).await?;
        if !any {
            return Ok(());
        }
        let part = match later {
            true => replay.log.to_vec(),
            false => part_to(replay.log, source.stop),
        };
        let bytes: u64 = part.iter().map(|one| one.to.bytes_since(one.from)).sum();
        if bytes > replay.most {
            return Err(self.too_much_to_search(bytes, &taken));
        }
        let log = Log {
            store: Arc::clone(self.store(region)?),
            keys: self.keys().clone(),
            cluster,
            size: source.segment_bytes,
        };
        let made = made(&log, &part, source.stop, replay.ending).await?;
        if made.is_empty() {
            return Ok(());
        }
        let met = blocking(move || meeting(made, &taken)).await?;
        match met {
            None => Ok(()),
            Some((made, taken)) => Err(self.would_meet(&made, &taken, replay.hint)),
        }
    }

    fn would_meet(&self, made: &Made, taken: &Taken, hint: Option<&'static str>) -> Error {
        let number = made.tablespace.number;
        let whose = match taken.tablespace {
            Some(_) => format!("where {} has a tablespace", taken.owner.who),
            None => format!("which is that of {}", taken.owner.who),
        };
        let why = format!(
            "the log makes tablespace {number} at {}, in `{}`, {whose} (`{}`): replay links to that place, and the restored server \
             would write into its files",
            made.at,
            made.tablespace.location.display(),
            taken.owner.directory.display()
        );
        let hint = hint.map_or_else(
            || {
                let before = made.before.map_or_else(String::new, |before| {
                    format!(", at the latest `--at {before}`")
                });
                format!(
                    "restore to a moment before it{before}; or take a recovery point now, and restore to a moment behind that; or \
                     restore on a machine where nothing uses that place"
                )
            },
            str::to_owned,
        );
        let resource = self.resource().to_string();
        let error = Error::new(ErrorKind::Conflict, OPERATION, resource);
        error.because(why).with_hint(hint)
    }

    /// Refuses where it stays unknown.
    fn too_much_to_search(&self, bytes: u64, taken: &[Taken]) -> Error {
        let mut owners: Vec<String> = taken
            .iter()
            .filter(|taken| taken.tablespace.is_some())
            .map(|taken| {
                format!(
                    "{} (`{}`)",
                    taken.owner.who,
                    taken.owner.directory.display()
                )
            })
            .collect();
        owners.dedup();
        let why = format!(
            "{} GiB of log are too much to search for tablespaces that it makes where {} has its own",
            bytes >> 30,
            owners.join(", ")
        );
        let resource = self.resource().to_string();
        Error::new(ErrorKind::Conflict, OPERATION, resource)
            .because(why)
            .with_hint("take a recovery point nearer to the moment, or restore on a machine where no server has tablespaces")
    }
}

/// Tells whether a data directory is of a cluster, whose numbers mean the same tablespaces.
fn is_of(owner: &Owner, cluster: dr_model::SystemIdentifier) -> bool {
    let found = delta::system_identifier(&owner.directory);
    found.is_ok_and(|found| found == Some(cluster))
}

/// Finds what a server that is consistent at `consistent` makes on the way to its end.
async fn made(
    log: &Log,
    part: &[LogStretch],
    consistent: Lsn,
    ending: &Ending,
) -> Result<Vec<Made>> {
    let (mut found, mut before) = (Vec::new(), None);
    log.read(part, |record| {
        if record.start >= consistent && is_behind(record, ending) {
            return ControlFlow::Break(());
        }
        if let Some(tablespace) = record.created_tablespace.as_deref()
            && !tablespace.location.as_os_str().is_empty()
        {
            found.push(Made {
                tablespace: tablespace.clone(),
                at: record.start,
                before,
            });
        }
        before = (record.start >= consistent).then_some(record.start);
        ControlFlow::Continue(())
    })
    .await?;
    Ok(found)
}

/// Tells whether a recovery ends before this record. Where it ends at what is found only by a search, the log that was decided on ends
/// with that.
fn is_behind(record: &Record, ending: &Ending) -> bool {
    let Ending::Target {
        stop, inclusive, ..
    } = ending
    else {
        return false;
    };
    match stop {
        Stop::Time(at) => record
            .committed_at
            .is_some_and(|commit| commit > *at || (!inclusive && commit == *at)),
        Stop::Position(at) => !inclusive && record.start >= *at,
        _ => false,
    }
}

/// Finds the first that is made where somebody has a place. Waits for file systems.
fn meeting(made: Vec<Made>, taken: &[Taken]) -> Option<(Made, Taken)> {
    made.into_iter().find_map(|made| {
        let place = in_use::real(&made.tablespace.location);
        let met = taken.iter().find(|taken| taken.meets(&place))?;
        Some((made, met.clone()))
    })
}
