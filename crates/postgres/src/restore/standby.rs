//! Restoring what becomes a standby: for a failover without one, which promotes it, and for a server that follows the primary from then on.
//!
//! Nobody is asked where anything goes: it is where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_coordination::chain::{self, ChainId, Section, find_tail};
use dr_model::{ExecutionId, Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{LogFacts, LogStretch, OutsidePlaces, RestoreReport};
use dr_provider::error::chain as explain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::BackupReader;
use serde_json::json;

use super::choose::Chosen;
use super::damage::{Damaged, Unrestored};
use super::delta::{self, Mark};
use super::directory::Beside;
use super::end::{End, SEARCH_BYTES};
use super::replayed::Replay;
use super::settings::{Ending, Purpose};
use super::{
    Decided, OPERATION, Ways, choose, configuration, decided, directory, log, outside, room,
};
use crate::actions::Log;
use crate::archive::Held;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;

/// What is done about a place that replay would take from somebody, where all log is wanted.
const MOVE_IT_AWAY: &str = "where nobody needs what is there any more, move it and the data directory whose it is away; else rebuild it on a \
                            machine where nothing uses that place";

impl PostgresDriver {
    /// Restores recovery point `label` as a standby that replays `log` from the store of `region`: what a failover
    /// promotes when no standby is left. One that turns out damaged is passed over for the next older one that comes to the same end.
    ///
    /// Proves before it writes that the store holds all of `log` since the recovery point. Writes into a directory that holds anything
    /// only if `execution` began to write there when it was empty; `note`, a file of that name, stands there once it is whole, with the recovery
    /// point and the execution.
    pub(crate) async fn restore_standby(
        &self,
        region: &RegionName,
        log: Log,
        label: &str,
        directory: &Path,
        (note, execution): (&'static str, &ExecutionId),
    ) -> Result<RestoreReport> {
        if !self.host(region)?.is_local() {
            return Err(self.failed(
                OPERATION,
                format!("the host in {region} is not this machine"),
            ));
        }
        let store = self.store(region)?;
        let bases = self.bases(store, log.system_identifier).await?;
        let (mut damaged, mut unfit) = (Damaged::default(), Vec::new());
        let unusable = bases.unusable.iter();
        let mut unusable = unusable.filter(|(unusable, _)| unusable.as_str() == label);
        if let Some((label, error)) = unusable.next() {
            unfit.push(format!("{label}: {}", explain(error)));
        }
        for base in in_order(bases.usable, log.timeline, label) {
            let label = base.label.clone();
            let decided = match self.decide_standby(store, log, base).await {
                Ok(decided) => decided,
                Err(error) if error.is_permanent() => {
                    unfit.push(format!("{label}: {}", explain(&error)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let base = decided.base.clone();
            let passed_over = [damaged.said(), unfit.clone()].concat();
            let text =
                json!({ "label": label, "execution": execution, "passed_over": passed_over });
            let note = (execution.clone(), (note, text.to_string()));
            match self
                .write_standby((region, directory), log, decided, note)
                .await
            {
                Ok(mut report) => {
                    report.plan.passed_over = passed_over;
                    return Ok(report);
                }
                Err(Unrestored::Hindered(error)) => return Err(error),
                Err(Unrestored::Damaged { error, .. }) => {
                    self.note_damage((region, store), &mut damaged, &base, &error)
                        .await;
                }
            }
        }
        let reasons = [damaged.said(), unfit].concat();
        let why = match reasons.as_slice() {
            [] => format!(
                "{} holds no usable recovery point {label}",
                store.location()
            ),
            reasons => format!(
                "no recovery point in {} comes to the end of the log: {}",
                store.location(),
                reasons.join("; ")
            ),
        };
        Err(
            Error::new(ErrorKind::Corrupt, OPERATION, self.resource().to_string())
                .because(why)
                .with_hint(
                    "bring what is damaged back into the store, from a copy of it or from the store of another region, where it has the same \
                     name; resumed, the execution tries each again, and writes over what it has written itself",
                ),
        )
    }

    /// Proves that the store holds all of `log` since a recovery point, and decides how it is restored.
    async fn decide_standby(
        &self,
        store: &Arc<dyn ObjectStore>,
        log: Log,
        base: Base,
    ) -> Result<Decided> {
        if let Some(why) = &base.locked {
            return Err(self.failed(OPERATION, why.clone()));
        }
        let held = Held::read(store, log.system_identifier, base.log_start()).await?;
        let chosen = choose::prove(base, &held, log.timeline)
            .and_then(|(base, reach)| match &reach.hole {
                Some(hole) => Err(hole.to_string()),
                None => Ok(Chosen {
                    base,
                    reach,
                    passed_over: Vec::new(),
                }),
            })
            .map_err(|why| self.failed(OPERATION, why))?;
        let sealed = self.seal_of(store, log).await?;
        let end = End {
            ending: Ending::Standby { through: sealed },
            said: "by a promotion".to_owned(),
            needed: sealed.unwrap_or(chosen.reach.end),
            proven: true,
            notes: Vec::new(),
        };
        let decided = decided(chosen, end, held.history(log.timeline)?);
        self.prove_stretches(store, log.system_identifier, &decided.plan.log)
            .await?;
        Ok(decided)
    }

    /// Proves that all of some log is in a store and can be read.
    pub(crate) async fn prove_stretches(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        stretches: &[LogStretch],
    ) -> std::result::Result<(), chain::Error> {
        for LogStretch { timeline, from, to } in stretches {
            let section = Section::new(cluster, *timeline, *from, *to);
            chain::prove_readable(&**store, section, self.keys(), patience()).await?;
        }
        Ok(())
    }

    /// Writes a standby into a directory that is empty, or over what the same execution has begun there.
    async fn write_standby(
        &self,
        (region, directory): (&RegionName, &Path),
        log: Log,
        mut decided: Decided,
        note: (ExecutionId, (&'static str, String)),
    ) -> std::result::Result<RestoreReport, Unrestored> {
        let store = self.store(region)?;
        let is_own = Mark::is_of(&note.0, directory).map_err(directory::failed(directory))?;
        match is_own {
            true => delta::check(directory, log.system_identifier, false)?,
            false => directory::check(directory)?,
        }
        decided.plan.tablespaces = self.same_places(&decided.base, directory)?;
        let base = decided.base.clone();
        let opened = self.open_whole(store, &base).await;
        let reader = opened.map_err(|error| Unrestored::of(&base, error))?;
        self.check_places(&reader, directory, &decided.plan.tablespaces, is_own)
            .await
            .map_err(|error| Unrestored::of(&base, error))?;
        // An execution has nobody to ask, and the server reads all of it besides.
        self.check_followed(region, directory, &base, &decided.plan.log, u64::MAX)
            .await?;
        let purpose = Purpose::Failover(self.instance_options(region)?);
        let ways = Ways {
            delta: is_own,
            note: Some(note),
            ..Ways::default()
        };
        let written = self.write(region, directory, (decided, &reader), purpose, ways);
        let written = written.await;
        written.map_err(|error| Unrestored::of(&base, error))
    }

    /// Ends what was cut off when a directory was whole already; tells whether it is.
    pub(crate) fn is_whole(&self, directory: &Path) -> Result<bool> {
        if !directory.join(directory::CONTROL_FILE).exists() {
            return Ok(false);
        }
        Mark::remove(directory).map_err(directory::failed(directory))?;
        Ok(true)
    }

    /// Looks, on this machine, at the places that a failover would restore a recovery point to in `region`, and at the room there.
    pub(crate) async fn check_own_place(
        &self,
        region: &RegionName,
        base: &Base,
        reader: &BackupReader,
    ) -> Result<()> {
        if !self.host(region)?.is_local() {
            return Ok(());
        }
        let directory = &self.instance_options(region)?.data_directory;
        let tablespaces = self.same_places(base, directory)?;
        self.check_places(reader, directory, &tablespaces, false)
            .await?;
        let cluster = base.source.system_identifier;
        let held = Held::read(self.store(region)?, cluster, base.log_start()).await?;
        // That the log is not all there is for others to say.
        let newest = held.newest_timeline().unwrap_or(base.source.timeline);
        let Ok((base, reach)) = choose::prove(base.clone(), &held, newest) else {
            return Ok(());
        };
        let log = log::since(&base, reach.end, held.history(newest)?);
        self.check_followed(region, directory, &base, &log, SEARCH_BYTES)
            .await
    }

    /// Refuses to follow log that makes a tablespace where somebody else has one.
    async fn check_followed(
        &self,
        region: &RegionName,
        directory: &Path,
        base: &Base,
        log: &[LogStretch],
        most: u64,
    ) -> Result<()> {
        if !self.host(region)?.is_local() {
            return Ok(());
        }
        let replay = Replay {
            source: &base.source,
            log,
            ending: &Ending::Standby { through: None },
            most,
            hint: Some(MOVE_IT_AWAY),
        };
        self.check_tablespaces_of(region, Some(directory), replay)
            .await
    }

    /// Returns where the tablespaces of a recovery point were: a failover has nobody to ask, and they go there.
    fn same_places(&self, base: &Base, directory: &Path) -> Result<BTreeMap<u32, PathBuf>> {
        let places = OutsidePlaces {
            same_place: true,
            ..OutsidePlaces::default()
        };
        outside::places(&base.source, &places, Some(directory))
            .map_err(|(why, hint)| self.failed(OPERATION, why).with_hint(hint))
    }

    /// Chooses the newest recovery point in the store of `region` from which `log`, which goes on, can be followed without a
    /// hole; the error says why there is none.
    pub(crate) async fn point_to_follow_from(&self, region: &RegionName, log: Log) -> Result<Base> {
        let (_, chosen) = self.choose_to_follow(region, log, None).await?;
        Ok(chosen.base)
    }

    /// Looks whether recovery point `label` has room where it goes as [`restore_follower`](Self::restore_follower) restores it, beside what is
    /// there.
    pub(crate) async fn check_room_to_follow(
        &self,
        region: &RegionName,
        log: Log,
        label: &str,
        directory: &Path,
    ) -> Result<()> {
        let (store, chosen) = self.choose_to_follow(region, log, Some(label)).await?;
        let tablespaces = self.same_places(&chosen.base, directory)?;
        let reader = self.open_whole(&store, &chosen.base).await?;
        room::check(&reader, directory, &tablespaces, false).await
    }

    /// Restores recovery point `label` into `directory` as a standby that has `settings`: they say whom it follows and where
    /// the log before that is.
    pub(crate) async fn restore_follower(
        &self,
        region: &RegionName,
        log: Log,
        label: &str,
        directory: &Path,
        settings: String,
    ) -> Result<u64> {
        directory::check(directory)?;
        let (store, chosen) = self.choose_to_follow(region, log, Some(label)).await?;
        let tablespaces = self.same_places(&chosen.base, directory)?;
        let reader = self.open_whole(&store, &chosen.base).await?;
        self.check_places(&reader, directory, &tablespaces, false)
            .await?;
        let beside = Beside {
            signal: Ending::Standby { through: None }.signal(),
            settings,
            missing: configuration::missing(&reader).await?,
            tablespaces,
            progress: None,
            mark: Mark {
                cluster: log.system_identifier,
                execution: None,
            },
            delta: false,
            note: None,
        };
        let stats = directory::write(&reader, directory, beside).await?;
        Ok(stats.written_bytes)
    }

    async fn choose_to_follow(
        &self,
        region: &RegionName,
        log: Log,
        label: Option<&str>,
    ) -> Result<(Arc<dyn ObjectStore>, Chosen)> {
        let store = Arc::clone(self.store(region)?);
        let directory = &self.instance_options(region)?.data_directory;
        let mut bases = self.bases(&store, log.system_identifier).await?.usable;
        bases.retain(|base| label.is_none_or(|label| base.label.as_str() == label));
        // What the proofs speak against is taken only if nothing else will do, and what cannot be read here would be found out only once
        // the directory was given up for it.
        bases.sort_by_key(|base| !base.is_sound());
        let since = bases.iter().map(Base::log_start).min();
        let held = Held::read(&store, log.system_identifier, since.unwrap_or(Lsn::INVALID)).await?;
        let place = store.location();
        let mut reasons = Vec::new();
        for base in bases {
            let label = base.label.clone();
            if let Some(why) = &base.locked {
                reasons.push(format!("{label}: {why}"));
                continue;
            }
            match choose::prove(base, &held, log.timeline) {
                Ok((base, reach)) => match &reach.hole {
                    None => {
                        // Every older one meets what this one meets.
                        let replayed = log::since(&base, reach.end, held.history(log.timeline)?);
                        self.check_followed(region, directory, &base, &replayed, SEARCH_BYTES)
                            .await?;
                        let chosen = Chosen {
                            base,
                            reach,
                            passed_over: Vec::new(),
                        };
                        return Ok((store, chosen));
                    }
                    Some(hole) => reasons.push(format!("{label}: {hole}")),
                },
                Err(why) => reasons.push(format!("{label}: {why}")),
            }
        }
        let why = match reasons.as_slice() {
            [] => format!("{place} holds no recovery point of it"),
            [first, ..] => format!(
                "from no recovery point in {place} the log of timeline {} can be followed: {first}",
                log.timeline
            ),
        };
        Err(self.failed(OPERATION, why))
    }

    /// Returns where a chain was sealed, if it was.
    async fn seal_of(&self, store: &Arc<dyn ObjectStore>, log: Log) -> Result<Option<Lsn>> {
        let chain = ChainId::from(log);
        let tail = find_tail(&**store, &chain, patience());
        Ok(tail
            .await?
            .filter(|tail| tail.seal.is_some())
            .map(|tail| tail.end))
    }
}

/// Returns the log from a recovery point to the end of `log`, timeline by timeline; `None` if by its names some of it is missing, or the
/// recovery point is no part of its history.
pub(crate) fn stretches_to(
    held: &Held,
    base: &Base,
    log: &LogFacts,
) -> Result<Option<Vec<LogStretch>>> {
    let Ok((_, reach)) = choose::prove(base.clone(), held, log.timeline) else {
        return Ok(None);
    };
    if reach.hole.is_some() || reach.timeline != log.timeline || reach.end < log.end {
        return Ok(None);
    }
    let history = held.history(log.timeline)?;
    Ok(Some(log::since(base, log.end, history)))
}

/// Puts the recovery points on a timeline into the order in which they are tried: the one that was planned, those that are older, then those
/// that have been made since; and what the proofs speak against only after all others, because it may have been put right.
fn in_order(mut bases: Vec<Base>, timeline: TimelineId, planned: &str) -> Vec<Base> {
    bases.retain(|base| base.source.timeline == timeline || base.label.as_str() == planned);
    bases.sort_by_key(|base| {
        let is_newer = base.label.as_str() > planned;
        let is_planned = base.label.as_str() == planned;
        (!base.is_sound(), is_newer, !is_planned)
    });
    bases
}
