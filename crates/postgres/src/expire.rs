//! Giving up recovery points, and the log that none of those that are left needs (R35, R36).
//!
//! What is deleted, and in which order, is the repository's business; here it is decided what expires. Whatever cannot be
//! judged stops the deleting: a manifest that cannot be read, a recovery point from the future, a register that names no
//! cluster. Never given up are the newest recovery point, the newest that was proven, the newest without damage, and those
//! that somebody holds.

mod judge;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use dr_model::SystemIdentifier;
use dr_provider::driver::{
    Expire, ExpireRequest, ExpiryPlan, ExpiryReport, HoldNote, Judged, Swept,
};
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use dr_repository::{Hold, Label, PruneFacts, PruneOptions, PrunePlan, Repository};

use crate::backup::{Base, Bases};
use crate::driver::PostgresDriver;

use judge::{Reaches, judge};
use log::LogPlan;

const OPERATION: &str = "expire the recovery points of";

/// What was decided.
struct Decided {
    repository: Repository,
    prune: PrunePlan,
    log: Vec<LogPlan>,
    plan: ExpiryPlan,
}

#[async_trait]
impl Expire for PostgresDriver {
    async fn plan_expiry(&self, request: &ExpireRequest) -> Result<ExpiryPlan> {
        Ok(self.decide_expiry(request).await?.plan)
    }

    async fn expire(&self, request: &ExpireRequest) -> Result<ExpiryReport> {
        let decided = self.decide_expiry(request).await?;
        let store = self.store(&request.region)?;
        let now = self.clock().now();
        let pruned = decided.repository.prune(&decided.prune, now).await?;
        let mut report = ExpiryReport {
            plan: decided.plan,
            deleted_objects: pruned.deleted_objects,
            ..ExpiryReport::default()
        };
        // Last, so that whatever was interrupted before left a recovery point with its log (R36).
        for log in &decided.log {
            let expired = self.expire_log(store, &request.region, log).await?;
            report.deleted_pieces += expired.removed;
            report.denied |= expired.denied;
        }
        Ok(report)
    }

    async fn hold(
        &self,
        store: &Arc<dyn ObjectStore>,
        recovery_point: &str,
        note: &HoldNote,
    ) -> Result<()> {
        let (repository, label) = self.named(store, recovery_point, "hold").await?;
        let hold = Hold {
            by: note.by.clone(),
            reason: note.reason.clone(),
            since: note.since,
        };
        repository.hold(&label, &hold).await.map_err(Into::into)
    }

    async fn release(&self, store: &Arc<dyn ObjectStore>, recovery_point: &str) -> Result<()> {
        let (repository, label) = self.named(store, recovery_point, "release").await?;
        if !repository.holds().await?.contains_key(&label) {
            let why = format!("nobody holds it in {}", store.location());
            return Err(Error::new(ErrorKind::NotFound, "release", recovery_point).because(why));
        }
        repository.release(&label).await.map_err(Into::into)
    }

    async fn holds(&self, store: &Arc<dyn ObjectStore>) -> Result<BTreeMap<String, HoldNote>> {
        let clusters = match self.known_cluster().await {
            Some(cluster) => vec![cluster],
            None => self.clusters_in(store).await?,
        };
        let mut all = BTreeMap::new();
        for cluster in clusters {
            let holds = self.repository(store, cluster)?.holds().await?;
            let note = |hold: Hold| HoldNote {
                by: hold.by,
                reason: hold.reason,
                since: hold.since,
            };
            all.extend(
                holds
                    .into_iter()
                    .map(|(label, hold)| (label.to_string(), note(hold))),
            );
        }
        Ok(all)
    }
}

impl PostgresDriver {
    async fn named(
        &self,
        store: &Arc<dyn ObjectStore>,
        recovery_point: &str,
        operation: &str,
    ) -> Result<(Repository, Label)> {
        let label = recovery_point.parse::<Label>().map_err(|error| {
            Error::new(ErrorKind::Invalid, operation, recovery_point).because(error)
        })?;
        let cluster = self.cluster_in(store, operation).await?;
        Ok((self.repository(store, cluster)?, label))
    }

    async fn decide_expiry(&self, request: &ExpireRequest) -> Result<Decided> {
        let store = self.store(&request.region)?;
        let cluster = self.cluster_in(store, OPERATION).await?;
        let repository = self.repository(store, cluster)?;
        let explicit = explicit(&request.labels)?;
        // The facts come first: a recovery point that is new since then is in none of what follows.
        let facts = repository.prune_facts().await?;
        let bases = self.bases(store, cluster).await?;
        let held = repository.holds().await?;
        let now = self.clock().now();
        // Only a time for which log is kept asks how far it goes.
        let reaches = match request.retention.log_since(now) {
            Some(_) => self.reaches_of(store, cluster, &bases.usable).await?,
            None => Reaches::new(),
        };
        let facts_of = (&bases, &reaches);
        let judged = judge(facts_of, &held, &request.retention, &explicit, now);
        let mut plan = ExpiryPlan {
            blocked: judged.blocked,
            kept: judged.kept,
            ..ExpiryPlan::default()
        };
        let there = |label: &&Label| {
            let usable = bases.usable.iter().map(|base| &base.label);
            usable
                .chain(bases.unusable.iter().map(|(label, _)| label))
                .any(|known| known == *label)
        };
        if let Some(missing) = explicit.iter().find(|label| !there(label)) {
            let why = format!("{} holds no recovery point {missing}", store.location());
            return Err(
                Error::new(ErrorKind::NotFound, OPERATION, missing.to_string()).because(why),
            );
        }
        let expired: Vec<Label> = if plan.blocked.is_empty() {
            judged.expired.into_iter().collect()
        } else {
            // What a person names is given up all the same, or what is damaged would stop everything for ever.
            explicit.iter().cloned().collect()
        };
        let mut prune = PrunePlan::new(&facts, &expired, PruneOptions::default(), now);
        if !plan.blocked.is_empty() {
            prune.mark.retain(|label| explicit.contains(label));
            prune.sweep.retain(|sweep| {
                bases
                    .unusable
                    .iter()
                    .any(|(label, _)| *label == sweep.label)
            });
        }
        plan.given_up = prune.mark.iter().map(ToString::to_string).collect();
        plan.taken_back = prune.unmark.iter().map(ToString::to_string).collect();
        plan.waiting = prune
            .kept
            .iter()
            .map(|(label, why)| Judged {
                label: label.to_string(),
                why: vec![why.to_string()],
            })
            .collect();
        plan.swept = prune
            .sweep
            .iter()
            .map(|sweep| Swept {
                label: sweep.label.to_string(),
                objects: sweep.objects.len() as u64,
                shared_packs: sweep.kept_packs as u64,
            })
            .collect();
        let log = if plan.blocked.is_empty() {
            let since = request.retention.log_since(now);
            let standing = self
                .standing(cluster, &repository, &bases, &facts, &prune)
                .await?;
            self.plan_log(store, cluster, &standing, since, &mut plan)
                .await?
        } else {
            Vec::new()
        };
        Ok(Decided {
            repository,
            prune,
            log,
            plan,
        })
    }

    /// Returns the recovery points whose log stays: all that have a manifest once this plan is carried out. One that was
    /// given up may be taken back.
    async fn standing(
        &self,
        cluster: SystemIdentifier,
        repository: &Repository,
        bases: &Bases,
        facts: &PruneFacts,
        prune: &PrunePlan,
    ) -> Result<Vec<log::Standing>> {
        let swept: BTreeSet<&Label> = prune.sweep.iter().map(|sweep| &sweep.label).collect();
        let read = facts.leased(self.clock().now());
        let mut standing = Vec::new();
        for base in &bases.usable {
            let known = bases.proofs.get(base.label.as_str());
            standing.push(log::Standing {
                base: base.clone(),
                listed: !prune.mark.contains(&base.label),
                sound: known.is_none_or(|known| !known.failed()),
                read: read.contains(&base.label),
            });
        }
        for label in facts.marked() {
            if swept.contains(label) {
                continue;
            }
            let reader = match repository.open(label).await {
                Ok(reader) => reader,
                Err(dr_repository::Error::Missing { .. }) => continue,
                // Nobody knows what log it needs, until it has gone.
                Err(
                    dr_repository::Error::Damaged { .. } | dr_repository::Error::Unsupported { .. },
                ) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            standing.push(log::Standing {
                base: Base::of(reader.header().clone(), cluster)?,
                listed: false,
                sound: true,
                read: read.contains(label),
            });
        }
        // Somebody is bringing a recovery point here, whose log nothing names yet.
        let arriving = read.iter().find(|label| {
            standing
                .iter()
                .all(|standing| standing.base.label != **label)
                && !swept.contains(label)
        });
        if arriving.is_some() {
            standing.clear();
        }
        Ok(standing)
    }
}

/// Reads the labels that were named.
fn explicit(labels: &[String]) -> Result<BTreeSet<Label>> {
    let parse = |label: &String| {
        label
            .parse::<Label>()
            .map_err(|error| Error::new(ErrorKind::Invalid, OPERATION, label).because(error))
    };
    labels.iter().map(parse).collect()
}
