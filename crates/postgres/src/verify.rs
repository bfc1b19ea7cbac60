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
use dr_provider::driver::{Proofs, Verify, VerifyHow, VerifyMeans, VerifyRecord, VerifyRequest};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::{Label, Sample};
use jiff::{SignedDuration, Timestamp};

use crate::backup::Base;
use crate::driver::PostgresDriver;

pub(crate) use findings::{failed, failures};

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
        let bases = self.bases(store, cluster).await?;
        let wanted = request.recovery_point.as_deref();
        let is_wanted = |label: &Label| wanted.is_none_or(|wanted| label.as_str() == wanted);
        if let Some((label, error)) = bases
            .unusable
            .into_iter()
            .find(|(label, _)| wanted.is_some() && is_wanted(label))
        {
            // Without a manifest that can be read nothing is known to be compared with.
            let what = format!("recovery point {label}");
            return Err(Error::new(error.kind(), OPERATION, what).because(error));
        }
        let Some(base) = bases.usable.iter().find(|base| is_wanted(&base.label)) else {
            let why = match wanted {
                Some(label) => format!("{} holds no recovery point {label}", store.location()),
                None => format!("{} holds no recovery point", store.location()),
            };
            return Err(
                Error::new(ErrorKind::NotFound, OPERATION, self.resource().to_string())
                    .because(why),
            );
        };
        self.look_at(store, cluster, base, request).await
    }

    async fn verify_due(&self, region: &dr_model::RegionName) -> Result<Vec<VerifyRecord>> {
        let store = self.store(region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let marks = record::marks(store, cluster).await?;
        let since = self.read_since();
        let mut records = Vec::new();
        for base in self.bases(store, cluster).await?.usable {
            let known = marks.get(base.label.as_str());
            let last = known.and_then(|known| known.last(VerifyMeans::Hash));
            let lately = last.is_some_and(|mark| mark.passed && mark.at >= since);
            // A pack that it refers to may have been found damaged by a look at another.
            if lately && base.failure.is_none() {
                continue;
            }
            let request = VerifyRequest {
                region: region.clone(),
                recovery_point: Some(base.label.to_string()),
                how: VerifyHow::Hash { again: false },
            };
            match self.look_at(store, cluster, &base, &request).await {
                Ok(record) => records.push(record),
                // Deleted meanwhile, as retention does.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    async fn proofs(&self, store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, Proofs>> {
        let clusters = match self.known_cluster().await {
            Some(cluster) => vec![cluster],
            None => self.clusters_in(store).await?,
        };
        let mut all = BTreeMap::new();
        for cluster in clusters {
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

    async fn look_at(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
        base: &Base,
        request: &VerifyRequest,
    ) -> Result<VerifyRecord> {
        let look = Look {
            store,
            cluster,
            base,
            began_at: self.clock().now(),
            begun: self.clock().elapsed(),
        };
        let (means, seen) = match &request.how {
            VerifyHow::Hash { again } => (VerifyMeans::Hash, self.hash(&look, *again, None).await),
            VerifyHow::Sample { share } => {
                let sample = Sample {
                    share: *share,
                    seed: look.began_at.as_microsecond().unsigned_abs(),
                };
                (
                    VerifyMeans::Sample,
                    self.hash(&look, true, Some(sample)).await,
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

    /// Reads packs back: all that were not read lately, or a sample of all.
    async fn hash(&self, look: &Look<'_>, again: bool, sample: Option<Sample>) -> Result<Seen> {
        let repository = self.repository(look.store, look.cluster)?;
        let reader = repository.open(&look.base.label).await?;
        let known = if again {
            BTreeSet::new()
        } else {
            findings::known(look.store, look.cluster, self.read_since()).await?
        };
        let options = dr_repository::VerifyOptions { known, sample };
        let stats = match reader.verify(&options).await {
            Err(dr_repository::Error::DamagedPacks { packs, first }) => {
                let damaged = runs::of(packs.iter().map(|(label, number)| (label, *number)));
                let error = dr_repository::Error::DamagedPacks { packs, first };
                return Ok(Seen {
                    failure: Some(chain(&Error::from(error))),
                    damaged,
                    ..Seen::default()
                });
            }
            stats => stats?,
        };
        let chosen = options.choose(reader.packs());
        let packs = reader.packs().iter().zip(chosen);
        let read = packs.filter(|(_, chosen)| *chosen);
        let read = runs::of(read.map(|(pack, _)| (&pack.label, pack.number)));
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
