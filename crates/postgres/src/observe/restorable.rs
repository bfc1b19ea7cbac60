//! Whether what a store holds can be brought back, where that is what a failover would do.
//!
//! Everybody who observes gets what names tell. Whoever plans, or is about to stop a primary for it, looks as a restore does before it
//! writes: that costs a read for each segment of log. A store that is slow or silent speaks against nothing: the restore looks again
//! before it writes anything.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{self, Section, prove_by_names, prove_readable};
use dr_model::{Clock, Lsn, RegionName};
use dr_provider::driver::{Facts, Instance, LogFacts};
use dr_provider::error::chain as explain;
use dr_provider::{Error, ObjectStore, Result};
use dr_repository::{BackupReader, KeyId};
use serde_json::Value;
use tokio::time::timeout;

use super::{Detail, Held, candidates};
use crate::archive;
use crate::backup::Base;
use crate::driver::PostgresDriver;
use crate::register::patience;
use crate::restore::stretches_to;

/// How long going by names may take: hundreds of thousands of chunks that nobody has merged take longer. Many who observe wait for no
/// more than a few seconds.
const NAMES_LIMIT: Duration = Duration::from_secs(2);

/// How long a close look may take, all in all: whoever assesses failovers gives ten seconds to everything.
const CLOSE_LIMIT: Duration = Duration::from_secs(6);

impl PostgresDriver {
    /// Proves by names that the log is all there from what would be restored on.
    pub(super) async fn prove_by_names(&self, region: &RegionName, held: Held) -> Result<LogFacts> {
        let Held {
            mut facts,
            first,
            key,
        } = held;
        if let Some(key) = key.filter(|key| self.keys().get(&KeyId::named(key)).is_none()) {
            let why = format!("the log is encrypted with key {key}, which is not at hand");
            cannot_be_followed(&mut facts, &why);
            return Ok(facts);
        }
        if let Some(base) = first {
            let section = section(&facts, &base);
            let proof = prove_by_names(&**self.store(region)?, section, patience());
            let limit = Limit::new(region, self.clock(), NAMES_LIMIT);
            limit.prove(&mut facts, section, proof).await?;
        }
        Ok(facts)
    }

    /// Corrects what was observed of a region in which a restore is what it takes: leaves out what cannot be restored, naming it, proves
    /// by headers that the log is all there from what would be restored on, and says what is wrong with the place for it.
    pub(crate) async fn look_at_restorable(&self, region: &RegionName, facts: &mut Facts) {
        let Some(seen) = facts.regions.get_mut(region) else {
            return;
        };
        let (Instance::Absent, Ok(Some(log))) = (&seen.instance, &mut seen.log) else {
            return;
        };
        match self.correct(region, log).await {
            Ok(None) => {}
            Ok(Some(why)) => {
                if let Ok(Some(mut detail)) =
                    serde_json::from_value::<Option<Detail>>(seen.detail.take())
                {
                    detail.no_place = Some(why);
                    seen.detail = serde_json::to_value(detail).unwrap_or(Value::Null);
                }
            }
            Err(error) => seen.log = Err(explain(&error)),
        }
    }

    /// Corrects what was observed of the log. Returns what is wrong with the place of the instance.
    async fn correct(&self, region: &RegionName, log: &mut LogFacts) -> Result<Option<String>> {
        let limit = Limit::new(region, self.clock(), CLOSE_LIMIT);
        let store = self.store(region)?;
        let Some(cluster) = log
            .recovery_points
            .first()
            .map(|point| point.system_identifier)
        else {
            return Ok(None);
        };
        let listed = limit.of_look(
            "which recovery points there are",
            self.bases(store, cluster),
        );
        let Some(bases) = listed.await? else {
            return Ok(None);
        };
        for base in candidates(&bases.usable, log.timeline, log.end) {
            let label = base.label.as_str();
            if log.recovery_points.iter().all(|point| point.label != label) {
                continue;
            }
            let what = format!("recovery point {label} is whole");
            let opened = limit.of_look(&what, self.open_whole(store, base)).await;
            let reader = match opened {
                Ok(reader) => reader,
                Err(error) => {
                    log.unusable.push(format!("{label}: {}", explain(&error)));
                    log.recovery_points.retain(|point| point.label != label);
                    continue;
                }
            };
            let section = section(log, base);
            let proof = prove_readable(&**store, section, self.keys(), patience());
            limit.prove(log, section, proof).await?;
            let Some(reader) = reader else {
                return Ok(None);
            };
            return self.no_place(region, base, &reader, &limit).await;
        }
        let what = "there is a recovery point of an older timeline";
        let earlier = limit.of_look(what, self.earlier(store, &bases.usable, log));
        let Some(Some((base, reader))) = earlier.await? else {
            return Ok(None);
        };
        log.earlier = Some(base.label.to_string());
        self.no_place(region, base, &reader, &limit).await
    }

    /// Says what is wrong with the place of the instance.
    ///
    /// Of the place and not of the recovery point: another has no more room. One from before a tablespace has none there, and
    /// replay makes it in the same place, removing what is there.
    async fn no_place(
        &self,
        region: &RegionName,
        base: &Base,
        reader: &BackupReader,
        limit: &Limit<'_>,
    ) -> Result<Option<String>> {
        let place = self.check_own_place(region, base, reader);
        let looked = limit.of_look("there is a place for it", place).await;
        Ok(looked.err().map(|error| explain(&error)))
    }

    /// Returns the newest whole recovery point of an older timeline from which all log to the end of the newest one is there and can be read.
    async fn earlier<'a>(
        &self,
        store: &Arc<dyn ObjectStore>,
        bases: &'a [Base],
        log: &LogFacts,
    ) -> Result<Option<(&'a Base, BackupReader)>> {
        let older = bases.iter().filter(|base| {
            let of_another = base.source.timeline != log.timeline;
            of_another && base.is_sound() && base.source.stop <= log.end
        });
        let older: Vec<&Base> = older.collect();
        let Some(cluster) = older.first().map(|base| base.source.system_identifier) else {
            return Ok(None);
        };
        let since = older.iter().map(|base| base.log_start()).min();
        let held = archive::Held::read(store, cluster, since.unwrap_or(Lsn::INVALID)).await?;
        for base in older {
            let Some(stretches) = stretches_to(&held, base, log)? else {
                continue;
            };
            match self.prove_stretches(store, cluster, &stretches).await {
                Ok(()) => {}
                Err(error @ (chain::Error::Store { .. } | chain::Error::Away { .. })) => {
                    return Err(error.into());
                }
                Err(_) => continue,
            }
            match self.open_whole(store, base).await {
                Ok(reader) => return Ok(Some((base, reader))),
                Err(error) if error.is_permanent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Returns the log that a recovery point needs to come to the end of what there is.
fn section(log: &LogFacts, base: &Base) -> Section {
    let (cluster, from) = (base.source.system_identifier, base.log_start());
    Section::new(cluster, log.timeline, from, log.end)
}

/// Leaves out all recovery points, because the log that they need cannot be read here.
fn cannot_be_followed(log: &mut LogFacts, why: &str) {
    for point in log.recovery_points.drain(..) {
        log.unusable.push(format!("{}: {why}", point.label));
    }
}

/// How long several looks may take together.
struct Limit<'a> {
    region: &'a RegionName,
    clock: &'a dyn Clock,
    deadline: Duration,
}

impl<'a> Limit<'a> {
    fn new(region: &'a RegionName, clock: &'a dyn Clock, limit: Duration) -> Self {
        Self {
            region,
            clock,
            deadline: clock.elapsed() + limit,
        }
    }

    /// Returns what a look found; `None` if it found nothing out, because it took too long or did not get an answer.
    async fn of_look<T>(
        &self,
        what: &str,
        look: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let left = self.deadline.saturating_sub(self.clock.elapsed());
        let why = match timeout(left, look).await {
            Ok(Ok(found)) => return Ok(Some(found)),
            Ok(Err(error)) if error.is_permanent() => return Err(error),
            Ok(Err(error)) => explain(&error),
            Err(_) => "it takes too long to look".to_owned(),
        };
        tracing::warn!(region = %self.region, "not proven that {what}: {why}");
        Ok(None)
    }

    /// Takes from a proof where the log begins of which everything is there.
    async fn prove(
        &self,
        log: &mut LogFacts,
        section: Section,
        proof: impl Future<Output = std::result::Result<(), chain::Error>>,
    ) -> Result<()> {
        if section.from >= section.to {
            return Ok(());
        }
        let proof = async {
            match proof.await {
                Err(error @ (chain::Error::Store { .. } | chain::Error::Away { .. })) => {
                    Err(Error::from(error))
                }
                proven => Ok(proven),
            }
        };
        let what = format!("the log is whole from {} to {}", section.from, section.to);
        match self.of_look(&what, proof).await? {
            // An older one than was looked at before is not spoken against; what is known to be missing stays missing.
            None if log.missing.is_empty() => log.start = log.start.min(section.from),
            None => {}
            Some(Ok(())) => log.start = section.from,
            Some(Err(hole @ chain::Error::Hole { to, .. })) => {
                log.start = to;
                let hole = hole.to_string();
                if !log.missing.contains(&hole) {
                    log.missing.push(hole);
                }
            }
            // Every recovery point that is older needs it, too.
            Some(Err(
                damage @ (chain::Error::Corrupt { .. } | chain::Error::CorruptPiece { .. }),
            )) => {
                log.start = section.to;
                log.missing.push(damage.to_string());
            }
            // So does every recovery point that is older, and a newer one was passed over.
            Some(Err(locked @ chain::Error::Locked { .. })) => {
                cannot_be_followed(log, &locked.to_string());
            }
            Some(Err(error)) => return Err(error.into()),
        }
        Ok(())
    }
}
