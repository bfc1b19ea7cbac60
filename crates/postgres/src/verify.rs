//! Proving recovery points (PROTOCOL 10): hashed, when every byte was read back; booted, when a server came up from it and
//! replayed all the log there is.
//!
//! Reading back is incremental: packs that an earlier look read within [`crate::VerifyOptions::again`] are not read again, so that
//! an incremental recovery point costs what it added. What came of each look is written down in the store, create-only:
//! `docs/formats/base-backup.md`.

mod boot;
mod checks;
mod findings;
mod prepare;
mod record;
mod runs;
mod scratch;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_model::SystemIdentifier;
use dr_provider::driver::{
    Proofs, RehearsedCheck, VerifiedDue, Verify, VerifyHow, VerifyMeans, VerifyRecord,
    VerifyRequest,
};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::{Label, Sample};
use jiff::{SignedDuration, Timestamp};

use crate::backup::Base;
use crate::driver::PostgresDriver;

pub(crate) use findings::failures;
pub(crate) use record::marks;

use findings::Pack;

const OPERATION: &str = "verify";

/// A recovery point that is being looked at.
struct Look<'a> {
    store: &'a Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    base: &'a Base,
    began_at: Timestamp,
    begun: Duration,
}

/// What was found.
#[derive(Debug, Default)]
struct Seen {
    /// What is wrong with it.
    failure: Option<String>,
    read_bytes: u64,
    read: BTreeMap<String, Vec<(u32, u32)>>,
    damaged: BTreeMap<String, Vec<(u32, u32)>>,
    timeline: Option<dr_model::TimelineId>,
    reached: Option<dr_model::Lsn>,
    heartbeat_at: Option<Timestamp>,
    checks: Vec<String>,
}

#[async_trait]
impl Verify for PostgresDriver {
    async fn verify(&self, request: &VerifyRequest) -> Result<VerifyRecord> {
        let store = self.store(&request.region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let mut bases = self.bases(store, cluster).await?;
        let wanted = request.recovery_point.as_deref();
        let is_wanted = |label: &Label| wanted.is_none_or(|wanted| label.as_str() == wanted);
        // Whoever asks for the newest is not told that an older one is whole. Labels of one second are in no order.
        let newest = bases.usable.first().map(|base| base.label.second());
        let is_unusable = |label: &Label| match wanted {
            Some(_) => is_wanted(label),
            None => newest.is_none_or(|newest| label.second() >= newest),
        };
        let unusable = bases.unusable.iter();
        let unusable = unusable.map(|(label, _)| label).position(is_unusable);
        if let Some(at) = unusable {
            let (label, error) = bases.unusable.swap_remove(at);
            // Without a manifest that can be read nothing is known to be compared with.
            let what = format!("recovery point {label}");
            return Err(Error::new(error.kind(), OPERATION, what)
                .because(error)
                .with_hint("take a new one; an older one can be verified by its name"));
        }
        let Some(base) = bases.usable.iter().find(|base| is_wanted(&base.label)) else {
            return Err(match wanted {
                Some(label) => {
                    let place = (&request.region, store.location());
                    self.no_such_point(OPERATION, place, &bases, label)
                }
                None => Error::new(ErrorKind::NotFound, OPERATION, self.resource().to_string())
                    .because(format!("{} holds no recovery point", store.location())),
            });
        };
        let known = match request.how {
            VerifyHow::Hash { again: false } => {
                findings::known(store, cluster, &bases.proofs, self.read_since()).await?
            }
            _ => BTreeSet::new(),
        };
        self.look_at(store, cluster, base, request, known).await
    }

    async fn verify_due(&self, region: &dr_model::RegionName) -> Result<VerifiedDue> {
        let store = self.store(region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let since = self.read_since();
        let bases = self.bases(store, cluster).await?;
        let mut known = None;
        let mut due = VerifiedDue::default();
        for base in bases.usable {
            let read = bases.proofs.get(base.label.as_str());
            let read = read.and_then(Proofs::read_at);
            // A pack that it refers to may have been found damaged by a look at another. That a server did not come up from it while its
            // bytes are what they were is not found by reading them again.
            if read.is_some_and(|read| read >= since) && !base.failure_may_be_cleared {
                continue;
            }
            if let Some(why) = &base.locked {
                due.unread.push(format!("{}: {why}", base.label));
                continue;
            }
            let request = VerifyRequest {
                region: region.clone(),
                recovery_point: Some(base.label.to_string()),
                how: VerifyHow::Hash { again: false },
            };
            let mut packs = match known.take() {
                Some(packs) => packs,
                None => findings::known(store, cluster, &bases.proofs, since).await?,
            };
            let look = self.look_at(store, cluster, &base, &request, packs.clone());
            match look.await {
                Ok(record) => {
                    findings::learn(&mut packs, &record);
                    due.records.push(record);
                }
                // Deleted meanwhile, as retention does.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            known = Some(packs);
        }
        Ok(due)
    }

    async fn proofs(&self, store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, Proofs>> {
        let mut all = BTreeMap::new();
        for cluster in self.clusters_of(store).await? {
            all.extend(record::marks(store, cluster).await?);
        }
        Ok(all)
    }

    async fn proof_records(
        &self,
        store: &Arc<dyn ObjectStore>,
        recovery_point: &str,
    ) -> Result<Vec<VerifyRecord>> {
        let cluster = self.cluster_in(store, "read what was proven of").await?;
        record::read(store, cluster, recovery_point).await
    }

    async fn rehearse_checks(&self, region: &dr_model::RegionName) -> Vec<RehearsedCheck> {
        let mut all = Vec::new();
        for query in &self.options().verify.checks {
            all.push(RehearsedCheck {
                query: query.clone(),
                database: self.options().database.clone(),
                answer: self.rehearse_check(region, query).await,
            });
        }
        all
    }
}

impl PostgresDriver {
    /// Returns the moment from which on what was read back need not be read again.
    fn read_since(&self) -> Timestamp {
        let again = SignedDuration::try_from(self.options().verify.again);
        let since = self
            .clock()
            .now()
            .checked_sub(again.unwrap_or(SignedDuration::MAX));
        since.unwrap_or(Timestamp::MIN)
    }

    /// Writes down that a restore found a recovery point damaged, as a look at its bytes would have.
    pub(crate) async fn record_damage(
        &self,
        region: &dr_model::RegionName,
        store: &Arc<dyn ObjectStore>,
        base: &Base,
        why: &str,
    ) -> Result<()> {
        let record = VerifyRecord {
            version: record::VERSION,
            label: base.label.to_string(),
            means: VerifyMeans::Hash,
            failure: Some(why.to_owned()),
            region: region.clone(),
            began_at: self.clock().now(),
            took_seconds: 0.0,
            read_bytes: 0,
            read: BTreeMap::new(),
            damaged: BTreeMap::new(),
            timeline: base.source.timeline,
            reached: None,
            heartbeat_at: None,
            checks: vec!["it was being restored".to_owned()],
            by: self.parts().actor.to_string(),
        };
        record::write(store, base.source.system_identifier, &record).await
    }

    async fn look_at(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        base: &Base,
        request: &VerifyRequest,
        known: BTreeSet<Pack>,
    ) -> Result<VerifyRecord> {
        let look = Look {
            store,
            cluster,
            base,
            began_at: self.clock().now(),
            begun: self.clock().elapsed(),
        };
        let (means, seen) = match &request.how {
            VerifyHow::Hash { .. } => (VerifyMeans::Hash, self.hash(&look, known, None).await),
            VerifyHow::Sample { share } => {
                let sample = Sample {
                    share: *share,
                    seed: look.began_at.as_microsecond().unsigned_abs(),
                };
                (
                    VerifyMeans::Sample,
                    self.hash(&look, known, Some(sample)).await,
                )
            }
            VerifyHow::Boot { scratch } => {
                let scratch = scratch.as_ref().or(self.options().verify.scratch.as_ref());
                let Some(scratch) = scratch else {
                    return Err(self
                        .invalid(OPERATION, "no scratch directory is known to boot it in")
                        .with_hint(
                            "set `verify: { scratch: /a/directory }` for the resource, or give one",
                        ));
                };
                let label = base.label.as_str();
                let seen = self.boot(&request.region, label, scratch).await?;
                (VerifyMeans::Boot, seen)
            }
        };
        let seen = match seen {
            Ok(seen) => seen,
            // Only what is wrong with the recovery point itself: that a store does not answer says nothing about it.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Failed) => Seen {
                failure: Some(chain(&error)),
                ..Seen::default()
            },
            Err(error) => return Err(error),
        };
        let took = self.clock().elapsed().saturating_sub(look.begun);
        let record = VerifyRecord {
            version: record::VERSION,
            label: base.label.to_string(),
            means,
            failure: seen.failure,
            region: request.region.clone(),
            began_at: look.began_at,
            took_seconds: took.as_secs_f64(),
            read_bytes: seen.read_bytes,
            read: seen.read,
            damaged: seen.damaged,
            timeline: seen.timeline.unwrap_or(base.source.timeline),
            reached: seen.reached,
            heartbeat_at: seen.heartbeat_at,
            checks: seen.checks,
            by: self.parts().actor.to_string(),
        };
        record::write(store, cluster, &record).await?;
        Ok(record)
    }

    /// Reads packs back: all that are not known to be good, or a sample of them.
    async fn hash(
        &self,
        look: &Look<'_>,
        known: BTreeSet<Pack>,
        sample: Option<Sample>,
    ) -> Result<Seen> {
        let repository = self.repository(look.store, look.cluster)?;
        let reader = repository.open(&look.base.label).await?;
        let options = dr_repository::VerifyOptions { known, sample };
        let chosen = options.choose(reader.packs());
        let chosen = reader.packs().iter().zip(chosen);
        let chosen = chosen.filter_map(|(pack, is_chosen)| is_chosen.then_some(pack));
        let stats = match reader.verify(&options).await {
            Err(dr_repository::Error::DamagedPacks { packs, first }) => {
                let damaged = runs::of(packs.iter().map(|(label, number)| (label, *number)));
                // The others were read and are good, and need not be read by the next look.
                let bad: BTreeSet<(&Label, u32)> = packs
                    .iter()
                    .map(|(label, number)| (label, *number))
                    .collect();
                let good: Vec<_> = chosen
                    .filter(|pack| !bad.contains(&(&pack.label, pack.number)))
                    .collect();
                let read_bytes = good.iter().map(|pack| pack.info.bytes).sum();
                let read = runs::of(good.iter().map(|pack| (&pack.label, pack.number)));
                let error = dr_repository::Error::DamagedPacks { packs, first };
                return Ok(Seen {
                    failure: Some(chain(&Error::from(error))),
                    read_bytes,
                    read,
                    damaged,
                    ..Seen::default()
                });
            }
            stats => stats?,
        };
        let read = runs::of(chosen.map(|pack| (&pack.label, pack.number)));
        let mut checks = vec![format!(
            "{} packs and {} frames carry their hashes",
            stats.packs, stats.frames
        )];
        if stats.passed_over > 0 {
            let why = if sample.is_some() {
                "are not in the sample"
            } else {
                "were read back not long ago"
            };
            checks.push(format!("{} packs {why}", stats.passed_over));
        }
        Ok(Seen {
            read_bytes: stats.read_bytes,
            read,
            checks,
            ..Seen::default()
        })
    }
}
