//! What the old primary committed that the present one does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dr_model::{Epoch, Lsn, RegionName, ResourceId, TimelineId};
use dr_pgwire::Connection;
use dr_provider::host::PathKind;
use dr_provider::{ErrorKind, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::beyond::{Beyond, Unread};
use super::keep::{NOTE, NOTE_BYTES, kept_prefix};
use super::remains::Remains;
use crate::actions::{Log, processes};
use crate::driver::PostgresDriver;
use crate::wal::Relation;

const OPERATION: &str = "measure the divergence of";

/// What an old primary has that the present history has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The timeline that it wrote.
    pub timeline: TimelineId,
    /// Where the present history left it.
    pub fork: Lsn,
    /// Where its log ends.
    pub end: Lsn,
    /// Transactions that committed behind the fork, the heartbeats of `dr` among them.
    pub commits: u64,
    /// When the first of them committed, by the old primary's clock.
    pub first: Option<Timestamp>,
    /// When the last of them committed.
    pub last: Option<Timestamp>,
    /// The tables that they changed, before the fork too, or dropped: `database: schema.table`.
    pub tables: Vec<String>,
    /// Files of tables that the present primary does not know, by their numbers: made or rewritten behind the fork.
    pub unnamed: Vec<String>,
    /// Whether not all of the log could be read that tells of them, so that there may be more than is said here.
    pub partly: bool,
    /// What may be missing, and why; notes of older versions of `dr` do not say.
    #[serde(default)]
    pub unread: Vec<Unread>,
}

impl Divergence {
    /// Tells whether every commit is counted, though the tables may not all be named.
    #[must_use]
    pub fn counts_all(&self) -> bool {
        let tables_only = |unread: &Unread| matches!(unread, Unread::Tables(_));
        !self.partly || (!self.unread.is_empty() && self.unread.iter().all(tables_only))
    }

    /// Says of a directory whose log is a part of the present history that it has nothing more.
    fn none(remains: &Remains) -> Self {
        Self {
            timeline: remains.control.timeline,
            fork: remains.end,
            end: remains.end,
            commits: 0,
            first: None,
            last: None,
            tables: Vec::new(),
            unnamed: Vec::new(),
            partly: false,
            unread: Vec::new(),
        }
    }
}

/// What stands in a directory that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version of this note.
    pub version: u32,
    /// The resource.
    pub resource: ResourceId,
    /// The region that it was a server of.
    pub region: RegionName,
    /// The newest epoch when it was kept.
    pub epoch: Epoch,
    /// When.
    pub kept_at: Timestamp,
    /// Where it is.
    pub directory: PathBuf,
    /// Starts it as a standby of nobody, which answers queries and takes no writes.
    pub start: Vec<String>,
    /// Where it listens then.
    pub port: u16,
    /// What it has that nobody else has; `None` if that could not be told when it was kept.
    pub divergence: Option<Divergence>,
}

/// What is known of an old primary's divergence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "found", content = "in")]
pub enum Found {
    /// Its data directory is where it was.
    Here(PathBuf, Option<Divergence>),
    /// It was kept elsewhere.
    Kept(Box<Kept>),
    /// It cannot be told what it has; why.
    Unclear(String),
}

impl Found {
    /// Tells whether there is something that only the old primary has; `None` if that is not known.
    #[must_use]
    pub fn is_diverged(&self) -> Option<bool> {
        let divergence = match self {
            Self::Unclear(_) => return None,
            Self::Here(_, divergence) => divergence.as_ref(),
            Self::Kept(kept) => kept.divergence.as_ref(),
        }?;
        match (divergence.commits, divergence.counts_all()) {
            (0, false) => None,
            (commits, _) => Some(commits > 0),
        }
    }
}

impl PostgresDriver {
    /// Finds out what the server of `region` committed that the present primary does not have: from its data directory, in
    /// which no server may run, or from the notes of directories that were kept. Newest first.
    ///
    /// A server that runs there may have committed anything, and may go on, unless it is a standby of the present history.
    pub async fn divergence(&self, region: &RegionName) -> Result<Vec<Found>> {
        let record = self.read_register(OPERATION).await?;
        let log = self.log_of(&record, OPERATION)?;
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let mut found = Vec::new();
        let mut kept = self.kept_directories(region).await?;
        kept.reverse();
        if record.primary == *region {
            // What runs there is the present primary.
        } else if host.kind(directory).await? != PathKind::Directory {
            if kept.is_empty() {
                let place = directory.display();
                found.push(Found::Unclear(format!("there is nothing in {place}")));
            }
        } else if !processes(&**host, directory).await?.is_empty() {
            found.extend(self.unclear(region, log).await.map(Found::Unclear));
        } else {
            let present = self.present_history(&record.primary, log).await?;
            let remains =
                Remains::read(&**host, &self.parts().binaries, directory, &present).await?;
            let measured = self.measured(&record.primary, &remains).await?;
            if measured.is_some() {
                found.push(Found::Here(directory.clone(), measured));
            }
        }
        for mut kept in kept {
            let unclear = match kept.divergence {
                None => self.measure_kept(&record.primary, log, &mut kept).await,
                Some(_) => None,
            };
            found.push(Found::Kept(Box::new(kept)));
            found.extend(unclear.map(Found::Unclear));
        }
        Ok(found)
    }

    /// Measures what a directory has that was kept before anybody could tell: what took its place had no history of its own yet. Says
    /// why it cannot be told, if so.
    async fn measure_kept(
        &self,
        primary: &RegionName,
        log: Log,
        kept: &mut Kept,
    ) -> Option<String> {
        let place = kept.directory.display().to_string();
        let measure = async {
            let host = self.host(&kept.region)?;
            let running = processes(&**host, &kept.directory).await?;
            if !running.is_empty() {
                let running = running.join(", ");
                let why = format!("a server runs there (processes {running})");
                return Err(self
                    .failed(OPERATION, why)
                    .with_hint("stop it, and it is measured"));
            }
            let present = self.present_history(primary, log).await?;
            let binaries = &self.parts().binaries;
            let remains = Remains::read(&**host, binaries, &kept.directory, &present).await?;
            let measured = self.measured(primary, &remains).await?;
            Ok(measured.unwrap_or_else(|| Divergence::none(&remains)))
        };
        match measure.await {
            Ok(divergence) => {
                kept.divergence = Some(divergence);
                None
            }
            Err(error) => {
                let hint = error.hint().unwrap_or("start it, and look into it");
                let why = dr_provider::error::chain(&error);
                Some(format!(
                    "what `{place}` has could not be measured: {why} ({hint})"
                ))
            }
        }
    }

    /// Says why it cannot be told what the server that runs in `region` has; `None` of a standby of the present history.
    async fn unclear(&self, region: &RegionName, log: Log) -> Option<String> {
        let position = async { self.connect(region).await?.position().await };
        let stop = "stop it, and it is measured";
        Some(match position.await {
            Ok(position) if position.system_identifier != log.system_identifier => {
                "another cluster runs in its place".to_owned()
            }
            Ok(position) if !position.in_recovery => format!(
                "its server RUNS AND ACCEPTS WRITES on timeline {}, beyond which nothing can be told: {stop}",
                position.timeline
            ),
            Ok(position) if position.timeline != log.timeline => format!(
                "its server runs as a standby on timeline {}, and the primary is on {}: {stop}",
                position.timeline, log.timeline
            ),
            Ok(_) => return None,
            Err(error) => format!(
                "its server runs, and may accept writes: {}; {stop}",
                dr_provider::error::chain(&error)
            ),
        })
    }

    /// Returns the notes of the directories that were kept of a region's server, oldest first.
    pub(super) async fn kept_directories(&self, region: &RegionName) -> Result<Vec<Kept>> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let parent = directory.parent().unwrap_or_else(|| Path::new("/"));
        let prefix = kept_prefix(directory);
        let mut kept = Vec::new();
        for name in host.list(parent).await? {
            if !name.to_string_lossy().starts_with(&prefix) {
                continue;
            }
            let note = match host
                .read(&parent.join(&name).join(NOTE), 0, NOTE_BYTES)
                .await
            {
                Ok(note) => note,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let note: Kept = serde_json::from_slice(&note).map_err(|error| {
                self.failed(OPERATION, format!("`{}`: {error}", name.display()))
            })?;
            if note.resource == *self.resource() && note.region == *region {
                kept.push(note);
            }
        }
        Ok(kept)
    }

    /// Says what a directory has beyond the present history, with the names that the primary knows; `None` if nothing.
    pub(super) async fn measured(
        &self,
        primary: &RegionName,
        remains: &Remains,
    ) -> Result<Option<Divergence>> {
        if !remains.is_ahead() {
            return Ok(None);
        }
        let Beyond {
            commits,
            first,
            last,
            relations,
            dropped,
            unread,
        } = &remains.beyond;
        let (tables, unnamed) = self.name_tables(primary, relations, dropped).await?;
        Ok(Some(Divergence {
            timeline: remains.control.timeline,
            fork: remains.parting.at.unwrap_or(remains.end),
            end: remains.end,
            commits: *commits,
            first: *first,
            last: *last,
            tables,
            unnamed,
            partly: !unread.is_empty(),
            unread: unread.clone(),
        }))
    }

    /// Names tables by the files that they are in, and those that cannot be named by their numbers. The present primary has the same
    /// catalogs up to the fork; a file that it does not know and that was dropped came and went behind it.
    async fn name_tables(
        &self,
        primary: &RegionName,
        relations: &BTreeSet<Relation>,
        dropped: &BTreeSet<Relation>,
    ) -> Result<(Vec<String>, Vec<String>)> {
        let (mut tables, mut unnamed) = (BTreeSet::new(), BTreeSet::new());
        let mut by_database: BTreeMap<u32, Vec<&Relation>> = BTreeMap::new();
        for relation in relations.union(dropped) {
            by_database
                .entry(relation.database)
                .or_default()
                .push(relation);
        }
        let mut instance = self.connect(primary).await?;
        for (database, relations) in by_database {
            let sql = format!("select datname from pg_database where oid = {database}");
            let name: Option<String> = match database {
                // What all databases share is seen from any of them.
                0 => Some(self.options().database.clone()),
                _ => {
                    let rows = instance.query(OPERATION, &sql).await?;
                    rows.iter().next().and_then(|row| row.get(0).ok())
                }
            };
            let named = match &name {
                Some(name) => self.names_in(primary, name, &relations).await,
                None => BTreeMap::new(),
            };
            for relation in relations {
                match (named.get(&relation.number), &name) {
                    (Some(Named::Table(table)), Some(name)) => {
                        tables.insert(format!("{name}: {table}"));
                    }
                    // What a transaction changes in the catalogs says nothing about the data of anybody, nor does an index.
                    (Some(Named::Other), _) => {}
                    _ if dropped.contains(relation) => {}
                    _ => {
                        unnamed.insert(format!("{database}/{}", relation.number));
                    }
                }
            }
        }
        Ok((tables.into_iter().collect(), unnamed.into_iter().collect()))
    }

    /// Returns what the files of one database are; those of one that may not be entered stay without a name.
    async fn names_in(
        &self,
        primary: &RegionName,
        database: &str,
        relations: &[&Relation],
    ) -> BTreeMap<u32, Named> {
        let values: Vec<String> = relations
            .iter()
            .map(|relation| format!("({}, {})", relation.tablespace, relation.number))
            .collect();
        // The rows of a long value are in a table beside its own.
        let sql = format!(
            "select f.number, n.nspname = 'pg_catalog' or c.relkind not in ('r', 't', 'm') as is_other, \
             quote_ident(n.nspname) || '.' || quote_ident(coalesce(o.relname, c.relname)) as name \
             from (values {}) f(tablespace, number) \
             join pg_class c on c.oid = pg_filenode_relation(f.tablespace::oid, f.number::oid) \
             left join pg_class o on o.reltoastrelid = c.oid \
             join pg_namespace n on n.oid = coalesce(o.relnamespace, c.relnamespace)",
            values.join(", ")
        );
        let look = async {
            let mut config = self.connection_config(primary)?;
            config.database = Some(database.to_owned());
            let failed = |error: dr_pgwire::Error| self.failed(OPERATION, error.to_string());
            let mut connection = Connection::connect(&config).await.map_err(failed)?;
            let rows = connection.query(&sql).await.map_err(failed)?;
            let read = |row: &dr_pgwire::Row| {
                let number: String = row.get(0)?;
                let named = match row.get(1)? {
                    true => Named::Other,
                    false => Named::Table(row.get(2)?),
                };
                Ok((number, named))
            };
            let named: std::result::Result<Vec<_>, dr_pgwire::Error> =
                rows.iter().map(read).collect();
            named.map_err(failed)
        };
        let named: Result<Vec<(String, Named)>> = look.await;
        let named = named.unwrap_or_else(|error| {
            tracing::warn!(database, "{}", dr_provider::error::chain(&error));
            Vec::new()
        });
        named
            .into_iter()
            .filter_map(|(number, named)| Some((number.parse().ok()?, named)))
            .collect()
    }
}

/// What a file is.
enum Named {
    /// Of PostgreSQL itself, or an index or a sequence, which goes with its table.
    Other,
    /// Of a table of this name.
    Table(String),
}
