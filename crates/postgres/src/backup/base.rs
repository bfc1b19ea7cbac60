//! What is known of a base backup: the part of its manifest that only this driver understands.
//!
//! `docs/formats/base-backup.md` describes it for other readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::register::EpochRecord;
use dr_model::{Lsn, RegionName, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::driver::{Proofs, RecoveryPoint, Taken};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use dr_repository::{Header, Label, Repository, Stats};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::driver::PostgresDriver;
use crate::verify::{failures, marks};

/// The version of [`Source`] that this code writes.
pub(super) const VERSION: u32 = 2;

/// The first one. What came later has a meaning for it when it is absent.
const OLDEST_VERSION: u32 = 1;

/// How long ago a record may have been read to say which cluster a resource is: that never changes.
const LATELY: Duration = Duration::from_secs(60);

/// How long a store may take to say what it holds of the register: one that hangs keeps nobody from hearing what the others say.
const COPIES_LIMIT: Duration = Duration::from_secs(10);

/// Where the contents of tablespaces stand in a data directory, and in a backup.
pub(crate) const TABLESPACES: &str = "pg_tblspc";

/// What the manifest of a base backup says of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// [`VERSION`].
    pub(crate) version: u32,
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) timeline: TimelineId,
    /// Replay begins here.
    pub(crate) start: Lsn,
    /// The files are consistent once everything before this is replayed.
    pub(crate) stop: Lsn,
    /// By the server's clock, which is the one that commits are stamped with.
    pub(crate) started_at: Timestamp,
    pub(crate) stopped_at: Timestamp,
    /// As the server writes it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub(crate) server_version: String,
    pub(crate) segment_bytes: SegmentSize,
    /// Whether pages carry checksums; then all that were read were right but those in `damaged_pages`.
    pub(crate) data_checksums: bool,
    /// Where each tablespace was, by its object identifier.
    pub(crate) tablespaces: BTreeMap<u32, String>,
    /// Who read the files. Absent in version 1, which knew one way.
    #[serde(default)]
    pub(crate) read_by: ReadBy,
    /// What it shares its content with.
    #[serde(default)]
    pub(crate) incremental: Option<Incremental>,
    /// Bytes of the data directory that were read; zero where this is not known.
    #[serde(default)]
    pub(crate) read_bytes: u64,
    /// Bytes of files that are not referred to in an older backup; zero where this is not known.
    #[serde(default)]
    pub(crate) changed_bytes: u64,
    /// Pages that did not carry their checksum, and that nobody was writing (R7).
    #[serde(default)]
    pub(crate) damaged_pages: Vec<DamagedPage>,
    /// Damaged pages that are not listed.
    #[serde(default)]
    pub(crate) more_damaged_pages: u64,
    /// Configuration files that stood outside the data directory: their names in it, and where they were.
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    /// What an operator should know of how it was taken.
    #[serde(default)]
    pub(crate) remarks: Vec<String>,
    /// When the server was started, by its own clock: two backups with the same were taken of one run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_started_at: Option<Timestamp>,
}

/// Who read the files of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ReadBy {
    /// The server, for `BASE_BACKUP`.
    #[default]
    Server,
    /// This program, on the server's machine.
    Agent,
}

/// An older backup that holds what did not change since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Incremental {
    pub(crate) parent: Label,
    /// The newest backup among its ancestors that was read whole.
    pub(crate) full: Label,
    /// When that was begun.
    pub(crate) full_at: Timestamp,
    pub(crate) found_by: FoundBy,
}

/// How it was known which pages changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FoundBy {
    /// By the positions in their headers: every page was read.
    Pages,
    /// By the server's summaries of its log.
    Summaries,
}

/// A page that does not carry its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DamagedPage {
    /// Its file in the backup.
    pub(crate) file: String,
    /// Its number in the relation.
    pub(crate) block: u32,
    /// The position in its header, where that is known.
    #[serde(default)]
    pub(crate) lsn: Option<Lsn>,
}

impl fmt::Display for DamagedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} in {}", self.block, self.file)?;
        match self.lsn {
            Some(lsn) => write!(f, " (its header says {lsn})"),
            None => Ok(()),
        }
    }
}

/// A complete base backup in a store.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) label: Label,
    pub(crate) source: Source,
    /// The older ones in whose packs some of its content lies.
    pub(crate) references: Vec<Label>,
    /// What the proofs in its store say is wrong with it, or with a pack that it refers to.
    pub(crate) failure: Option<String>,
    /// Whether reading it back may clear that.
    pub(crate) failure_may_be_cleared: bool,
    /// Why it cannot be read here: its key is not at hand.
    pub(crate) locked: Option<String>,
    stats: Stats,
}

/// The base backups of a cluster in a store.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    /// Newest first.
    pub(crate) usable: Vec<Base>,
    /// Those whose manifest is damaged or of an unknown version.
    pub(crate) unusable: Vec<(Label, Error)>,
    /// What looks at recovery points came to, by label, those that are gone among them.
    pub(crate) proofs: BTreeMap<String, Proofs>,
    /// Those that are going to be deleted.
    pub(crate) given_up: Vec<Label>,
}

impl Base {
    /// Reads what the driver wrote into a manifest; the error says what is wrong.
    pub(crate) fn of(header: Header, cluster: SystemIdentifier) -> Result<Self> {
        let refuse = |kind, why: String| {
            Error::new(kind, "use recovery point", header.label.to_string()).because(why)
        };
        let version = header
            .source
            .get("version")
            .and_then(serde_json::Value::as_u64);
        let known = u64::from(OLDEST_VERSION)..=u64::from(VERSION);
        if !version.is_some_and(|version| known.contains(&version)) {
            let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(refuse(
                ErrorKind::Unsupported,
                format!(
                    "its description has version {version}, this `dr` knows {OLDEST_VERSION} to {VERSION}"
                ),
            ));
        }
        let source: Source = serde_json::from_value(header.source.clone())
            .map_err(|error| refuse(ErrorKind::Corrupt, error.to_string()))?;
        if source.system_identifier != cluster {
            let why = format!(
                "it is of cluster {}, not {cluster}",
                source.system_identifier
            );
            return Err(refuse(ErrorKind::Corrupt, why));
        }
        Ok(Self {
            label: header.label,
            source,
            references: header.references,
            failure: None,
            failure_may_be_cleared: false,
            locked: None,
            stats: header.stats,
        })
    }

    /// Returns what everybody may know of it.
    pub(crate) fn recovery_point(&self) -> RecoveryPoint {
        RecoveryPoint {
            label: self.label.to_string(),
            system_identifier: self.source.system_identifier,
            timeline: self.source.timeline,
            start: self.source.start,
            stop: self.source.stop,
            started_at: self.source.started_at,
            stopped_at: self.source.stopped_at,
            database_bytes: self.stats.file_bytes,
            stored_bytes: self.stats.stored_bytes,
            taken: self.source.taken(),
            failure: self.failure.clone(),
        }
    }

    /// Tells whether nothing speaks against it: neither do proofs, nor is its key missing.
    pub(crate) fn is_sound(&self) -> bool {
        self.failure.is_none() && self.locked.is_none()
    }

    /// Returns where the log that it needs begins: a server reads whole segments.
    pub(crate) fn log_start(&self) -> Lsn {
        self.source.segment_bytes.start_of(self.source.start)
    }
}

impl Source {
    /// Returns how it was taken, as everybody may know it.
    fn taken(&self) -> Taken {
        let incremental = self.incremental.as_ref();
        Taken {
            parent: incremental.map(|incremental| incremental.parent.to_string()),
            full: incremental.map(|incremental| incremental.full.to_string()),
            read_by: match self.read_by {
                ReadBy::Server => "server",
                ReadBy::Agent => "agent",
            }
            .to_owned(),
            found_by: incremental.map(|incremental| match incremental.found_by {
                FoundBy::Pages => "pages".to_owned(),
                FoundBy::Summaries => "summaries".to_owned(),
            }),
            read_bytes: self.read_bytes,
            changed_bytes: self.changed_bytes,
            damaged: self.damaged_pages.iter().map(ToString::to_string).collect(),
            damaged_pages: self.damaged_pages.len() as u64 + self.more_damaged_pages,
            remarks: self.remarks.clone(),
        }
    }
}

impl PostgresDriver {
    /// Returns the repository of a cluster's base backups in a store.
    pub(crate) fn repository(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
    ) -> Result<Repository> {
        let repository = Repository::new(Arc::clone(store), format!("postgres/{cluster}"))?;
        Ok(repository.with_keys(self.parts().keys.clone()))
    }

    /// Lists the base backups of a cluster in a store, with what its proofs say against them.
    pub(crate) async fn bases(
        &self,
        store: &Arc<dyn ObjectStore>,
        cluster: SystemIdentifier,
    ) -> Result<Bases> {
        let repository = self.repository(store, cluster)?;
        let listing = repository.list().await?;
        let mut bases = Bases {
            given_up: listing.given_up,
            ..Bases::default()
        };
        for (label, error) in listing.unusable {
            bases.unusable.push((label, error.into()));
        }
        for header in listing.backups {
            let label = header.label.clone();
            let locked = repository.missing_key(&header);
            match Base::of(header, cluster) {
                Ok(base) => bases.usable.push(Base { locked, ..base }),
                Err(error) => bases.unusable.push((label, error)),
            }
        }
        bases.proofs = marks(store, cluster).await?;
        let mut failures =
            failures(store, &repository, cluster, &bases.proofs, &bases.usable).await?;
        for base in &mut bases.usable {
            if let Some(failure) = failures.remove(&base.label) {
                base.failure = Some(failure.why);
                base.failure_may_be_cleared = failure.may_be_cleared;
            }
        }
        bases
            .usable
            .sort_by(|a, b| (b.source.stopped_at, &b.label).cmp(&(a.source.stopped_at, &a.label)));
        Ok(bases)
    }

    /// Makes the error about a recovery point that is named and not among those of `region`'s store.
    pub(crate) fn no_such_point(
        &self,
        operation: &str,
        (region, location): (&RegionName, &str),
        bases: &Bases,
        label: &str,
    ) -> Error {
        let resource = self.resource();
        if bases.given_up.iter().any(|one| one.as_str() == label) {
            let why = format!("{label} was given up in {location} and is going to be deleted");
            return self.failed(operation, why).with_hint(format!(
                "`dr recovery-point hold {resource} {label} --reason WHY` keeps it, and then `dr recovery-point expire {resource} --in {region}` \
                 takes it back, as the next run of `expire-recovery-points` does"
            ));
        }
        Error::new(ErrorKind::NotFound, operation, resource.to_string())
            .because(format!("{location} holds no recovery point {label}"))
            .with_hint(format!(
                "`dr recovery-point list {resource}` shows those that there are"
            ))
    }

    /// Returns the cluster that any readable record of the register is about: its identity never changes, so that a
    /// copy will do.
    pub(crate) async fn known_cluster(&self) -> Option<SystemIdentifier> {
        let register = &self.parts().register;
        let of = |record: EpochRecord| {
            let claim = record.clusters.get(&self.resource().resource)?;
            Some(claim.system_identifier)
        };
        // A daemon reads it every second, and asks for this every minute and in every region.
        if let Some(known) = register.read_lately(LATELY).and_then(of) {
            return Some(known);
        }
        let views = register.read_copies_within(COPIES_LIMIT).await;
        views
            .into_iter()
            .find_map(|view| of(view.newest.ok().flatten()?))
    }

    /// Returns the cluster that is restored from a store: the register's, or the only one that the store knows.
    pub(crate) async fn cluster_in(
        &self,
        store: &Arc<dyn ObjectStore>,
        operation: &str,
    ) -> Result<SystemIdentifier> {
        if let Some(cluster) = self.known_cluster().await {
            return Ok(cluster);
        }
        let found = self.clusters_in(store).await?;
        match found.as_slice() {
            [cluster] => Ok(*cluster),
            [] => Err(
                Error::new(ErrorKind::NotFound, operation, self.resource().to_string()).because(
                    format!(
                        "{} holds nothing of any PostgreSQL cluster",
                        store.location()
                    ),
                ),
            ),
            several => {
                let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(self.failed(
                    operation,
                    format!(
                        "the register cannot be read, and {} holds the clusters {}",
                        store.location(),
                        names.join(", ")
                    ),
                ))
            }
        }
    }

    /// As [`cluster_in`](Self::cluster_in), for who may have named a recovery point: where it is of a cluster that an earlier epoch
    /// was about, as it is after an upgrade into a new one, that is meant.
    pub(crate) async fn cluster_of_named(
        &self,
        store: &Arc<dyn ObjectStore>,
        label: Option<&str>,
        operation: &str,
    ) -> Result<SystemIdentifier> {
        let newest = self.cluster_in(store, operation).await?;
        let Some(label) = label else {
            return Ok(newest);
        };
        let holds = async |cluster: SystemIdentifier| {
            let manifest = format!("postgres/{cluster}/backup/{label}/manifest");
            let Ok(key) = Key::new(manifest) else {
                return Ok(false);
            };
            match store.head(&key).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        };
        if holds(newest).await? {
            return Ok(newest);
        }
        // Those of other workloads lie in the same store, and are none of this one's business.
        let records = self.parts().register.read_all().await.unwrap_or_default();
        let claims = records
            .iter()
            .filter_map(|record| record.clusters.get(&self.resource().resource));
        let earlier: BTreeSet<_> = claims.map(|claim| claim.system_identifier).collect();
        for cluster in earlier {
            if cluster != newest && holds(cluster).await? {
                return Ok(cluster);
            }
        }
        Ok(newest)
    }

    /// Returns the register's cluster, or those that the store knows while nobody can ask the register.
    pub(crate) async fn clusters_of(
        &self,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<Vec<SystemIdentifier>> {
        match self.known_cluster().await {
            Some(cluster) => Ok(vec![cluster]),
            None => self.clusters_in(store).await,
        }
    }

    /// Finds the clusters of which a store holds anything.
    pub(crate) async fn clusters_in(
        &self,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<Vec<SystemIdentifier>> {
        const PREFIX: &str = "postgres/";
        let mut found = Vec::new();
        let mut after: Option<Key> = None;
        while let Some(object) = store
            .list(PREFIX, after.as_ref(), 1)
            .await?
            .into_iter()
            .next()
        {
            let rest = object.key.as_str().strip_prefix(PREFIX).unwrap_or_default();
            let name = rest.split('/').next().unwrap_or_default();
            after = match name.parse::<SystemIdentifier>() {
                Ok(cluster) => {
                    found.push(cluster);
                    // Leaps over the rest of the cluster: its names sort before this one.
                    Key::new(format!("{PREFIX}{name}/zzzz")).ok()
                }
                Err(_) => Some(object.key),
            };
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
