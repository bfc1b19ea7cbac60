//! Looking at the cluster in its regions: instances through SQL, or through their host when no server answers, and the
//! log through the stores. What cannot be seen is a fact of its own.

mod deadline;
mod restorable;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{bounds, newest_chain, summarise};
use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_provider::driver::{ClaimFacts, Facts, Instance, LogFacts, PromiseFacts, RegionFacts, Role};
use dr_provider::error::chain as explain;
use dr_provider::host::PathKind;
use dr_provider::store::IDENTITY_KEY;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use futures::future::{Either, join_all, select};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::actions::processes;
use crate::backup::{Base, Bases};
use crate::data_directory::{Claimed, DataDirectory};
use crate::driver::PostgresDriver;
use crate::register::patience;

use deadline::Deadline;

/// What a receiver calls itself in the chunks that it writes, before the name of its region.
pub(crate) const RECEIVER: &str = "receiver ";

/// Chunk headers looked at for the rate of commits: at most a minute of them at full speed.
const HEADERS: usize = 64;

/// How long a store may take to show that it is there at all. A dead region's store is asked nothing more than that: a
/// failover looks at both regions and waits for neither.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How long a server may take to answer before its host is asked too.
const HEAD_START: Duration = Duration::from_millis(300);

/// How long a store that is there may take to say what it holds.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// What a store holds.
struct Held {
    facts: LogFacts,
    /// The recovery point that would be restored.
    first: Option<Base>,
    /// The name of the key that the newest log is encrypted with.
    key: Option<String>,
}

/// What stands in [`RegionFacts::detail`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// The host of the instance.
    pub(crate) host: String,
    /// Its data directory as configured.
    data_directory: PathBuf,
    /// What the directory says about itself, or why that cannot be told.
    pub(crate) directory: std::result::Result<DataDirectory, String>,
    /// Whether that cannot be told because its host does not answer.
    #[serde(default)]
    pub(crate) is_host_away: bool,
    /// What the primary of the newest epoch writes; `None` if no record of an epoch could be read.
    pub(crate) claimed: Option<Claimed>,
    /// When the newest commit was made that a standby has replayed, by the clock of its primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replayed_at: Option<Timestamp>,
    /// Whether a standby streams from its primary now.
    #[serde(default)]
    pub(crate) receives: bool,
    /// How long a standby keeps behind its primary, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<String>,
    /// The regions whose receiver or standby streams from a primary now.
    #[serde(default)]
    pub(crate) streams_to: BTreeSet<RegionName>,
    /// Why nothing can be restored to where the instance belongs, as far as that was looked at: there is no room, or a tablespace is
    /// somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_place: Option<String>,
    /// How much more the region's store takes, where its standby has log that has to go there and the store tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store_free_bytes: Option<u64>,
}

/// What a server says of itself beside its role and where it is.
#[derive(Debug, Default)]
struct Said {
    replayed_at: Option<Timestamp>,
    receives: bool,
    delay: Option<String>,
    streams_to: BTreeSet<RegionName>,
}

impl Detail {
    /// Reads it; `None` if nothing, or nothing that this version knows, was seen.
    pub(crate) fn of(seen: &RegionFacts) -> Option<Self> {
        serde_json::from_value(seen.detail.clone()).ok().flatten()
    }
}

impl PostgresDriver {
    /// Looks at the given regions, all at once, and at each part of each for no longer than `limit` in all.
    pub(crate) async fn observe_regions(&self, regions: &[RegionName], limit: Duration) -> Facts {
        let observed_at = self.clock().now();
        let claimed = OnceCell::new();
        let seen = join_all(
            regions
                .iter()
                .map(|region| self.observe_region(region, &claimed, limit)),
        )
        .await;
        let mut facts = Facts {
            observed_at,
            system_identifier: None,
            claim: None,
            regions: BTreeMap::new(),
        };
        if let Some(Some((claimed, claim))) = claimed.into_inner() {
            facts.system_identifier = Some(claimed.system_identifier);
            facts.claim = Some(claim);
        }
        for (region, (identifier, region_facts)) in regions.iter().zip(seen) {
            facts.system_identifier = facts.system_identifier.or(identifier);
            facts.regions.insert(region.clone(), region_facts);
        }
        facts
    }

    /// Returns the cluster that the workload's epochs are about, and what the newest says of it; copies of its records
    /// will do where the register does not answer, because a cluster's identity never changes, and a copy that is behind
    /// names a timeline on which nobody will be found. What copies cannot prove is marked.
    ///
    /// Copies are waited for as long as `limit` says, after the register.
    async fn newest_claim(&self, limit: Duration) -> Option<(Claimed, ClaimFacts)> {
        let of = |record: EpochRecord, proven| {
            let resource = &self.resource().resource;
            let chain = record.chain(resource)?;
            let lost = record.sync_lost.get(resource);
            let claimed = Claimed {
                system_identifier: chain.system_identifier,
                timeline: chain.timeline,
            };
            let claim = ClaimFacts {
                epoch: record.epoch,
                proven,
                log_epoch: chain.epoch,
                timeline: chain.timeline,
                sync: record.synchronous(resource).to_vec(),
                sync_lost: lost.map(|lost| (lost.since, lost.regions.clone())),
            };
            Some((claimed, claim))
        };
        // Whether it is whole is for whoever decides something by it.
        let newest = self.parts().register.glance();
        if let Ok(Ok(Some(record))) = timeout(SIGN_OF_LIFE, newest).await {
            return of(record, true);
        }
        let views = self.parts().register.read_copies_within(limit).await;
        let newest = views
            .into_iter()
            .filter_map(|view| view.newest.ok().flatten());
        of(newest.max_by_key(|record| record.epoch)?, false)
    }

    async fn observe_region(
        &self,
        region: &RegionName,
        claimed: &OnceCell<Option<(Claimed, ClaimFacts)>>,
        limit: Duration,
    ) -> (Option<SystemIdentifier>, RegionFacts) {
        let deadline = Deadline::new(self.clock(), limit);
        let store = format!("the store of {region}");
        let claimed_log = async {
            // The register comes before its copies, and both before the log: none of them may take all that there is.
            let copies = LOOK_LIMIT.min(limit / 3);
            let claim = async { Ok(claimed.get_or_init(|| self.newest_claim(copies)).await) };
            let claim = deadline.of_proof("the register", claim).await.ok()?;
            let claimed = claim.as_ref()?.0;
            let log = self.observe_log(region, claimed.system_identifier);
            Some((claimed, deadline.of(&store, log).await))
        };
        let (seen, directory, log) = tokio::join!(
            self.observe_instance(region, &deadline),
            self.observe_directory(region, &deadline),
            claimed_log
        );
        let is_host_away = directory.as_ref().is_err_and(|error| !error.is_permanent());
        let directory = directory.map_err(|error| explain(&error));
        let (identifier, instance, said) = seen;
        let (claimed, log) = log.unzip();
        let log = match (log, identifier) {
            (Some(log), _) => log,
            (None, Some(cluster)) => deadline.of(&store, self.observe_log(region, cluster)).await,
            (None, None) => {
                Err(self.failed("observe", "the cluster's system identifier is not known"))
            }
        };
        let (identifier, instance) = match claimed {
            Some(claimed) => own(claimed, identifier, instance, directory.as_ref()),
            None => (identifier, instance),
        };
        let log = match log {
            // Only a restore needs more than the tail, and a failover that promotes does not wait for more.
            Ok(Some(held)) if instance == Instance::Absent => {
                let proof = Box::pin(self.prove_by_names(region, held));
                deadline.of(&store, proof).await.map(Some)
            }
            log => log.map(|held| held.map(|held| held.facts)),
        };
        let store_free_bytes = match (&instance, &log) {
            (
                Instance::Running {
                    role: Role::Standby,
                    position,
                    ..
                },
                Ok(Some(held)),
            ) if *position > held.end => {
                let free = async { Ok(self.free_in_store(region).await) };
                deadline.of(&store, free).await.ok().flatten()
            }
            _ => None,
        };
        let detail = self.instance_options(region).ok().map(|options| Detail {
            host: options.host.clone(),
            data_directory: options.data_directory.clone(),
            directory,
            is_host_away,
            claimed,
            replayed_at: said.replayed_at,
            receives: said.receives,
            delay: said.delay,
            streams_to: said.streams_to,
            no_place: None,
            store_free_bytes,
        });
        (
            identifier,
            RegionFacts {
                instance,
                log: log.map_err(|error| explain(&error)),
                detail: serde_json::to_value(detail)
                    .expect("names, paths and numbers always have a JSON form"),
                late: deadline.late(),
            },
        )
    }

    async fn free_in_store(&self, region: &RegionName) -> Option<u64> {
        let store = self.store(region).ok()?;
        timeout(SIGN_OF_LIFE, store.free_bytes()).await.ok()?
    }

    async fn observe_directory(
        &self,
        region: &RegionName,
        deadline: &Deadline<'_>,
    ) -> Result<DataDirectory> {
        let look = async {
            let directory = &self.instance_options(region)?.data_directory;
            let host = self.host(region)?;
            DataDirectory::look(&**host, &self.parts().binaries, directory).await
        };
        let part = format!("its data directory in {region}");
        deadline.of_proof(&part, look).await
    }

    /// Reads what the region's store holds of the newest epoch's log, within bounds.
    async fn observe_log(
        &self,
        region: &RegionName,
        cluster: SystemIdentifier,
    ) -> Result<Option<Held>> {
        let store = self.store(region)?;
        let silent = |limit: Duration| {
            Error::new(ErrorKind::Unavailable, "read store", store.location())
                .because(format!("no answer within {} s", limit.as_secs()))
        };
        timeout(SIGN_OF_LIFE, store.head(&identity_key()))
            .await
            .map_err(|_| silent(SIGN_OF_LIFE))??;
        timeout(LOOK_LIMIT, self.read_log(region, store, cluster))
            .await
            .map_err(|_| silent(LOOK_LIMIT))?
    }

    /// Looks at the instance in a region alone: a store, a register or a host that does not answer hides no server that does.
    ///
    /// Takes no longer than twice [`SIGN_OF_LIFE`] for the register and its copies.
    pub(crate) async fn look_at_instance(&self, region: &RegionName) -> Instance {
        let claim = self.newest_claim(SIGN_OF_LIFE);
        let deadline = Deadline::new(self.clock(), Duration::MAX);
        let looked = self.observe_instance(region, &deadline);
        let (claim, (identifier, instance, _)) = tokio::join!(claim, looked);
        let Some((claimed, _)) = claim else {
            return of_nobody_knows_whom(instance);
        };
        let directory = match &instance {
            Instance::Stopped => {
                let seen = self.observe_directory(region, &deadline).await;
                seen.map_err(|error| explain(&error))
            }
            _ => Err("it was not looked at".to_owned()),
        };
        own(claimed, identifier, instance, directory.as_ref()).1
    }

    async fn observe_instance(
        &self,
        region: &RegionName,
        deadline: &Deadline<'_>,
    ) -> (Option<SystemIdentifier>, Instance, Said) {
        if self.instance_options(region).is_err() {
            return (None, Instance::NotConfigured, Said::default());
        }
        let looked = async {
            let mut connection = self.connect(region).await?;
            connection.position().await
        };
        let part = format!("its server in {region}");
        let mut looked = pin!(deadline.of(&part, looked));
        let part = format!("the processes of its server in {region}");
        let by_host = deadline.of_proof(&part, self.state_by_host(region));
        // A server that hangs takes all the time that there is, and its host knows better. One that answers needs no host, and a look at that
        // which is called off costs the connection that was kept to it.
        let (looked, by_host) = match timeout(HEAD_START, &mut looked).await {
            Ok(Ok(position)) => (Ok(position), Ok(ByHost::Runs)),
            Ok(Err(error)) => (Err(error), by_host.await),
            Err(_) => match select(looked, pin!(by_host)).await {
                Either::Left((Ok(position), _)) => (Ok(position), Ok(ByHost::Runs)),
                Either::Left((looked, by_host)) => (looked, by_host.await),
                Either::Right((by_host, looked)) => (looked.await, by_host),
            },
        };
        match looked {
            Ok(position) => {
                let instance = Instance::Running {
                    role: if position.in_recovery {
                        Role::Standby
                    } else {
                        Role::Primary
                    },
                    timeline: position.timeline,
                    position: position.position,
                    replayed: position.replayed,
                };
                let slots = position.streams.iter();
                let said = Said {
                    replayed_at: position.replayed_at,
                    receives: position.receiving,
                    delay: position.delay,
                    streams_to: slots.filter_map(|slot| self.region_of_slot(slot)).collect(),
                };
                (Some(position.system_identifier), instance, said)
            }
            Err(error) => {
                let turned_away = error.kind() == ErrorKind::Denied || error.is_answer();
                let hint = error.hint().map(str::to_owned);
                let instance = match by_host {
                    Ok(ByHost::Ended(instance)) => instance,
                    Ok(ByHost::Runs) => Instance::Unreachable {
                        why: format!("{}; its processes run on its host", explain(&error)),
                        runs: true,
                        // One that turns us away serves others: nobody ends it unasked.
                        on_host: !turned_away,
                        hint,
                    },
                    Ok(ByHost::Unclear) => Instance::Unreachable {
                        why: explain(&error),
                        runs: turned_away,
                        on_host: false,
                        hint,
                    },
                    Err(other) => Instance::Unreachable {
                        why: format!("{}; {}", explain(&error), explain(&other)),
                        runs: turned_away,
                        on_host: false,
                        hint,
                    },
                };
                (None, instance, Said::default())
            }
        }
    }

    /// Asks the host what the server does, whether or not that answers.
    async fn state_by_host(&self, region: &RegionName) -> Result<ByHost> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        match host.kind(directory).await? {
            PathKind::Missing | PathKind::EmptyDirectory => Ok(ByHost::Ended(Instance::Absent)),
            PathKind::Directory => {
                let left = processes(&**host, directory).await?;
                Ok(match left.is_empty() {
                    true => ByHost::Ended(Instance::Stopped),
                    false => ByHost::Runs,
                })
            }
            PathKind::File | PathKind::Other => Ok(ByHost::Unclear),
        }
    }

    async fn read_log(
        &self,
        region: &RegionName,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
    ) -> Result<Option<Held>> {
        let Some(newest) = newest_chain(&**store, cluster).await? else {
            return Ok(None);
        };
        let Some(summary) = summarise(&**store, &newest, HEADERS, patience()).await? else {
            return Ok(None);
        };
        // Earlier epochs of the same timeline continue it backwards.
        let outer = bounds(&**store, cluster, newest.timeline, patience()).await?;
        // A damaged manifest must not hide the good ones when they are needed most; `dr recovery-point list` names it.
        let bases = self.bases(store, cluster).await?;
        for (label, error) in &bases.unusable {
            tracing::warn!(%label, "recovery point passed over: {}", explain(error));
        }
        let first = candidates(&bases.usable, newest.timeline, summary.end).next();
        let first = first.cloned();
        let since = first.as_ref().map_or(Lsn::INVALID, Base::log_start);
        let facts = LogFacts {
            epoch: newest.epoch,
            timeline: newest.timeline,
            start: outer.map_or(summary.origin, |outer| outer.from),
            end: summary.end,
            sealed: summary.seal.is_some(),
            primary_end: summary.primary_end.unwrap_or(summary.end),
            received_at: summary.received_at,
            shipped_at: summary
                .written_at
                .iter()
                .filter(|(writer, _)| writer.starts_with(RECEIVER))
                .map(|(_, at)| *at)
                .max(),
            last_commit_at: summary.last_commit_at,
            commits_per_second: summary.commits_per_second,
            covered_at: summary.covered_at,
            promise: summary.promise.map(|promise| PromiseFacts {
                held: promise.held,
                checked_at: promise.checked_at,
                reasons: promise.reasons,
                epoch: promise.epoch.unwrap_or(newest.epoch),
                from: promise.from,
            }),
            // What is older than the newest usable recovery point is not needed to get to the present.
            missing: self.describe_lost(region, cluster, since).await?,
            recovery_points: bases
                .usable
                .iter()
                .filter(|base| base.locked.is_none())
                .map(Base::recovery_point)
                .collect(),
            unusable: unusable(&bases),
            earlier: None,
        };
        Ok(Some(Held {
            facts,
            first,
            key: summary.key,
        }))
    }
}

/// Says of each recovery point that cannot be read here why, newest first: because of damage, or because its key is not at hand.
fn unusable(bases: &Bases) -> Vec<String> {
    let damaged = bases.unusable.iter();
    let damaged = damaged.map(|(label, error)| (label, explain(error)));
    let locked = bases.usable.iter();
    let locked = locked.filter_map(|base| Some((&base.label, base.locked.clone()?)));
    let mut all: Vec<_> = damaged.chain(locked).collect();
    all.sort_by(|(a, _), (b, _)| b.cmp(a));
    let said = all
        .into_iter()
        .map(|(label, why)| format!("{label}: {why}"));
    said.collect()
}

/// Returns the recovery points from which the end of a timeline's log can be reached, in the order in which they are to be taken.
fn candidates(bases: &[Base], timeline: TimelineId, end: Lsn) -> impl Iterator<Item = &Base> {
    let is_candidate =
        move |base: &&Base| base.source.timeline == timeline && base.source.stop <= end;
    // What anything speaks against is taken only if nothing else will do.
    let (sound, other): (Vec<&Base>, Vec<&Base>) = bases
        .iter()
        .filter(is_candidate)
        .partition(|base| base.is_sound());
    sound.into_iter().chain(other)
}

/// Returns the timeline that a stopped server's data directory is on, if the server would accept writes once somebody starts it: it has no
/// `standby.signal`, as an old primary has that nobody has fenced. `None` also if that could not be seen.
#[must_use]
pub fn would_accept_writes(seen: &RegionFacts) -> Option<TimelineId> {
    let directory = Detail::of(seen)?.directory.ok()?;
    let writable = seen.instance == Instance::Stopped && directory.signal == Some(false);
    writable.then_some(directory.timeline)
}

/// Tells whether what stands in a region is an old primary that was fenced: whatever starts it, it answers nobody. `false` also if that could
/// not be seen.
#[must_use]
pub fn is_quarantined(seen: &RegionFacts) -> bool {
    let directory = Detail::of(seen).and_then(|detail| detail.directory.ok());
    let answers = matches!(seen.instance, Instance::Running { .. });
    !answers && directory.is_some_and(|found| found.fenced.is_some() && found.signal == Some(true))
}

/// What a host says of a server.
enum ByHost {
    /// There is none.
    Ended(Instance),
    /// Processes of it are there.
    Runs,
    /// That cannot be told.
    Unclear,
}

/// Takes what stands in the place of the resource's instance and is not of its cluster for what it is: a stranger, which
/// says nothing of the instance, least of all that it has stopped.
fn own(
    claimed: Claimed,
    identifier: Option<SystemIdentifier>,
    instance: Instance,
    directory: std::result::Result<&DataDirectory, &String>,
) -> (Option<SystemIdentifier>, Instance) {
    let expected = claimed.system_identifier;
    let stranger = |why: String| {
        (
            None,
            Instance::Unreachable {
                why,
                runs: false,
                on_host: false,
                hint: None,
            },
        )
    };
    match (&instance, identifier, directory) {
        (Instance::Running { .. }, Some(found), _) if found != expected => stranger(format!(
            "another cluster answers there: its system identifier is {found}, not {expected}"
        )),
        (Instance::Stopped, _, Ok(found)) if found.system_identifier != expected => {
            stranger(format!(
                "its data directory is of another cluster: its system identifier is {}, not {expected}",
                found.system_identifier
            ))
        }
        (Instance::Stopped, _, Err(why)) => stranger(why.clone()),
        _ => (identifier, instance),
    }
}

/// Takes what stands in the place of the resource's instance for what it is while nobody knows of which cluster that should be: what answers
/// counts, and that something has stopped says nothing of the instance.
fn of_nobody_knows_whom(instance: Instance) -> Instance {
    match instance {
        Instance::Stopped => Instance::Unreachable {
            why: "nothing runs there, and neither the register nor a copy of it says whose data directory that should be"
                .to_owned(),
            runs: false,
            on_host: false,
            hint: None,
        },
        instance => instance,
    }
}

fn identity_key() -> Key {
    Key::new(IDENTITY_KEY).expect("the constant is a valid key")
}
