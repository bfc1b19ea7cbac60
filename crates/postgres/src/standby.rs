//! Making the server of a region a standby of the present primary (PROTOCOL 7): after a failover the old primary's, or one
//! that is missing or has fallen behind for good.
//!
//! Four ways, cheapest first: what did not diverge only has to follow; what did is rewound (`pg_rewind`); else it is rebuilt
//! from the newest recovery point in the region's own store, or copied from the primary. Whatever the old directory has that
//! the present history has not is kept beside it first. Nothing is touched where a server runs.
//!
//! Killed anywhere, the same again goes on: a file beside the directory says that its content is unfinished and ours.

mod beyond;
mod boot;
mod divergence;
mod keep;
mod lineage;
mod log_files;
mod make;
mod progress;
mod remains;
mod served;
mod settings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{Epoch, RegionName, ResourceId, TimelineId};
use dr_pgwire::{Connection, quote_literal};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};

pub use beyond::Unread;
pub use divergence::{Divergence, Found, Kept};
pub(crate) use keep::{NOTE as KEPT_NOTE, kept_prefix};
pub use make::StandbyReport;
pub(crate) use remains::{Control, Remains, drained};
pub(crate) use settings::{end_quarantine, quarantine};

use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::options::Options;
use crate::orphans::Running;
use crate::wal::TimelineHistory;
use progress::Unfinished;
use served::LogEnd;

const OPERATION: &str = "make a standby of";

/// How long the processes of a server may go on whose first process was killed.
const ORPHANS_LIMIT: Duration = Duration::from_secs(10);

/// What `pg_rewind` asks of the primary's role beside reading its files.
const REWIND_GRANTS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// How a standby is made, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The directory is part of the present history: it only has to follow.
    Follow,
    /// What diverged is taken back by `pg_rewind`, in place.
    Rewind,
    /// It is rebuilt from a recovery point in the region's store.
    RecoveryPoint,
    /// It is copied from the primary by `pg_basebackup`.
    BaseBackup,
}

impl Method {
    /// Returns the word, as in `--from recovery-point`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Rewind => "rewind",
            Self::RecoveryPoint => "recovery-point",
            Self::BaseBackup => "base-backup",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct StandbyRequest {
    /// The region whose server is to be a standby.
    pub region: RegionName,
    /// Rebuilds it whatever is there.
    pub reseed: bool,
    /// The only way that may be taken.
    pub method: Option<Method>,
    /// Does not keep what the directory has.
    pub discard: bool,
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandbyPlan {
    /// The resource.
    pub resource: ResourceId,
    /// The region whose server becomes a standby.
    pub region: RegionName,
    /// The region of the primary.
    pub primary: RegionName,
    /// The newest epoch, which this belongs to.
    pub epoch: Epoch,
    /// The timeline that is followed.
    pub timeline: TimelineId,
    /// The data directory.
    pub directory: PathBuf,
    /// What is there now.
    pub found: String,
    /// How it is made a standby; `None` if it is one.
    pub method: Option<Method>,
    /// Whether an interrupted command has left all files already, so that they only have to be put in place and started.
    pub whole: bool,
    /// The recovery point that it is rebuilt from.
    pub recovery_point: Option<String>,
    /// The cheaper ways that cannot be taken, each with the reason.
    pub passed_over: Vec<String>,
    /// What the directory has that the present history has not; `None` if nothing, or if that cannot be told.
    pub divergence: Option<Divergence>,
    /// Where the directory is kept; `None` if it is not.
    pub kept: Option<PathBuf>,
    /// The slot on the primary.
    pub slot: String,
}

/// What stands in the data directory.
enum There {
    Nothing,
    /// Left by a command of this kind that did not come to its end.
    Unfinished(Unfinished),
    /// A server's files, and what they have beyond the present history, if that can be told.
    Files(Box<std::result::Result<Remains, String>>),
    /// A standby of the present primary, which streams.
    Standby,
}

impl PostgresDriver {
    /// Decides how the server of a region becomes a standby; changes nothing.
    ///
    /// # Errors
    ///
    /// `Conflict` if a rule forbids it: the region has the primary, a server runs there, or the files are another cluster's.
    pub async fn plan_standby(&self, request: &StandbyRequest) -> Result<StandbyPlan> {
        let region = &request.region;
        let record = self.read_register(OPERATION).await?;
        let primary = record.primary.clone();
        if primary == *region {
            return Err(self
                .conflict(format!(
                    "{region} has the primary itself; the newest epoch is {}",
                    record.epoch
                ))
                .with_hint("name the other region with `--in`"));
        }
        let directory = self.instance_options(region)?.data_directory.clone();
        if !self.host(region)?.is_local() {
            return Err(self.conflict(format!("the host in {region} is not this machine")));
        }
        let log = self.log_of(&record, OPERATION)?;
        self.check_primary(&primary, log).await?;
        let present = self.present_history(&primary, log).await?;
        let there = self.look_there(request, log, &present).await?;
        let mut plan = StandbyPlan {
            resource: self.resource().clone(),
            region: region.clone(),
            primary,
            epoch: record.epoch,
            timeline: log.timeline,
            directory,
            found: there.describe(),
            method: None,
            whole: false,
            recovery_point: None,
            passed_over: Vec::new(),
            divergence: None,
            kept: None,
            slot: Options::standby_name(region),
        };
        if matches!(there, There::Standby) {
            return Ok(plan);
        }
        if let There::Files(remains) = &there
            && let Ok(remains) = remains.as_ref()
        {
            plan.divergence = self.measured(&plan.primary, remains).await?;
        }
        self.choose_method(request, &there, (log, &present), &mut plan)
            .await?;
        let changes = match plan.method {
            None | Some(Method::Follow) => false,
            Some(Method::Rewind) => plan.divergence.is_some(),
            Some(Method::RecoveryPoint | Method::BaseBackup) => matches!(there, There::Files(_)),
        };
        if changes {
            self.refuse_tablespaces(region, request.discard).await?;
        }
        if changes && !request.discard {
            plan.kept = Some(self.place_to_keep(&plan.directory));
        }
        Ok(plan)
    }

    async fn choose_method(
        &self,
        request: &StandbyRequest,
        there: &There,
        (log, present): (Log, &TimelineHistory),
        plan: &mut StandbyPlan,
    ) -> Result<()> {
        if let There::Unfinished(unfinished) = there
            && unfinished.is_whole(plan.epoch)
            && !request.reseed
            && request.method.is_none_or(|only| only == unfinished.method)
        {
            plan.method = Some(unfinished.method);
            plan.whole = true;
            return Ok(());
        }
        for method in [
            Method::Follow,
            Method::Rewind,
            Method::RecoveryPoint,
            Method::BaseBackup,
        ] {
            let in_place = matches!(method, Method::Follow | Method::Rewind);
            if request.method.is_some_and(|only| only != method) || (in_place && request.reseed) {
                continue;
            }
            let unfit = match method {
                Method::Follow => match (there.cannot_follow(), there.remains()) {
                    (None, Some(remains)) => {
                        let from = LogEnd {
                            system_identifier: log.system_identifier,
                            size: remains.control.segment_size,
                            timeline: remains.parting.timeline,
                            end: remains.end,
                        };
                        self.is_not_served(&plan.region, &plan.primary, from, present)
                            .await?
                    }
                    (unfit, _) => unfit,
                },
                Method::Rewind => self.cannot_rewind(there, &plan.primary).await?,
                Method::RecoveryPoint => match self.point_to_follow_from(&plan.region, log).await {
                    Ok(point) => {
                        let from = LogEnd {
                            system_identifier: log.system_identifier,
                            size: point.source.segment_bytes,
                            timeline: point.source.timeline,
                            end: point.source.start,
                        };
                        let unfit = self.is_not_served(&plan.region, &plan.primary, from, present);
                        let unfit = unfit.await?;
                        if unfit.is_none() {
                            plan.recovery_point = Some(point.label.to_string());
                        }
                        unfit
                    }
                    Err(error) => Some(dr_provider::error::chain(&error)),
                },
                Method::BaseBackup => None,
            };
            match unfit {
                None => {
                    plan.method = Some(method);
                    return Ok(());
                }
                Some(why) => plan.passed_over.push(format!("{}: {why}", method.as_str())),
            }
        }
        Err(self.failed(OPERATION, plan.passed_over.join("; ")))
    }

    /// Looks at the data directory; refuses where anything would be taken from somebody.
    async fn look_there(
        &self,
        request: &StandbyRequest,
        log: Log,
        present: &TimelineHistory,
    ) -> Result<There> {
        let region = &request.region;
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let place = directory.display();
        match host.kind(directory).await? {
            PathKind::Missing | PathKind::EmptyDirectory => return Ok(There::Nothing),
            PathKind::Directory => {}
            PathKind::File | PathKind::Other => {
                return Err(self.conflict(format!("`{place}` is not a directory")));
            }
        }
        let running = self.running(&**host, directory).await?;
        if !running.is_empty() {
            let streams = self.streams(region, log).await;
            if !request.reseed && streams {
                return Ok(There::Standby);
            }
            let stop = self.pg_ctl(directory, &["stop", "--mode=fast"]);
            let stop = stop.argv.join(" ");
            let (what, hint) = match streams {
                true => (
                    "is a standby that streams from the primary: it need not be made anew",
                    format!("to make it anew all the same, stop it first: `{stop}`"),
                ),
                false => (
                    "is not a standby that streams from the primary",
                    format!("stop it: `{stop}`; nothing of it is lost"),
                ),
            };
            let running = running.join(", ");
            return Err(self
                .conflict(format!(
                    "a server runs in `{place}` (processes {running}), and {what}"
                ))
                .with_hint(hint));
        }
        if let Some(unfinished) = Unfinished::read(&**host, directory).await? {
            return Ok(There::Unfinished(unfinished));
        }
        let control = Control::read(&**host, &self.parts().binaries, directory).await?;
        if control.system_identifier != log.system_identifier {
            return Err(self
                .conflict(format!(
                    "`{place}` is of another cluster: its system identifier is {}, not {}",
                    control.system_identifier, log.system_identifier
                ))
                .with_hint("move it away by hand if it may go"));
        }
        let remains = Remains::read(&**host, &self.parts().binaries, directory, present).await;
        let remains = remains.map_err(|error| dr_provider::error::chain(&error));
        Ok(There::Files(Box::new(remains)))
    }

    /// Returns the processes in a data directory, none of which is left of a server that was killed.
    async fn running(&self, host: &dyn Host, directory: &Path) -> Result<Vec<String>> {
        let running = self.running_without_orphans(host, directory, ORPHANS_LIMIT);
        match running.await? {
            Running::Server(processes) => Ok(processes),
            Running::Orphans(left) => Err(self
                .conflict(format!(
                    "processes {} are left in `{}` of a server whose first process has ended",
                    left.join(", "),
                    directory.display()
                ))
                .with_hint("end them with `kill`, and run the command again")),
        }
    }

    /// Tells whether the server of a region is a standby that streams from the present primary.
    async fn streams(&self, region: &RegionName, log: Log) -> bool {
        let look = async { self.connect(region).await?.position().await };
        let found: Result<_> = look.await;
        found.is_ok_and(|found| {
            found.system_identifier == log.system_identifier
                && found.in_recovery
                && found.receiving
                && found.timeline == log.timeline
        })
    }

    async fn check_primary(&self, primary: &RegionName, log: Log) -> Result<()> {
        let found = self.connect(primary).await?.position().await?;
        if found.system_identifier == log.system_identifier
            && !found.in_recovery
            && found.timeline == log.timeline
        {
            return Ok(());
        }
        Err(self.failed(
            OPERATION,
            format!(
                "the server in {primary} is not the primary of epoch {} on timeline {}",
                log.epoch, log.timeline
            ),
        ))
    }

    async fn cannot_rewind(&self, there: &There, primary: &RegionName) -> Result<Option<String>> {
        let There::Files(remains) = there else {
            return Ok(Some("there is nothing to rewind".to_owned()));
        };
        let remains = match remains.as_ref() {
            Ok(remains) => remains,
            Err(why) => return Ok(Some(why.clone())),
        };
        if !remains.is_ahead() {
            return Ok(Some("it has nothing that would be taken back".to_owned()));
        }
        if !remains.control.may_be_rewound {
            let why = "the old primary had neither page checksums nor wal_log_hints";
            return Ok(Some(why.to_owned()));
        }
        let mut instance = self.connect(primary).await?;
        let mut missing = Vec::new();
        for function in REWIND_GRANTS {
            let name = quote_literal(&format!("pg_catalog.{function}"));
            let sql = format!("select has_function_privilege({name}, 'execute')");
            if !instance.scalar::<bool>(OPERATION, &sql).await? {
                missing.push(function);
            }
        }
        Ok((!missing.is_empty()).then(|| {
            format!(
                "the role may not execute {} (`dr init --sql` prints the grants)",
                missing.join(", ")
            )
        }))
    }

    /// Refuses a directory with tablespaces: they stand elsewhere, and would neither be kept nor cleared.
    async fn refuse_tablespaces(&self, region: &RegionName, discard: bool) -> Result<()> {
        let host = self.host(region)?;
        let directory = &self.instance_options(region)?.data_directory;
        let place = directory.join(crate::backup::TABLESPACES);
        let there = match host.list(&place).await {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if there.is_empty() {
            return Ok(());
        }
        let what = if discard { "cleared" } else { "kept" };
        Err(self
            .conflict(format!(
                "`{}` has tablespaces in other places, which cannot be {what} with it",
                directory.display()
            ))
            .with_hint("move the directory and its tablespaces away by hand"))
    }

    /// Returns the history of the present primary's timeline.
    pub(crate) async fn present_history(
        &self,
        primary: &RegionName,
        log: Log,
    ) -> Result<TimelineHistory> {
        let operation = "read the timeline history of";
        if log.timeline.0 == 1 {
            return Ok(TimelineHistory::root(log.timeline));
        }
        let mut config = self.connection_config(primary)?;
        config.replication = true;
        let subject = format!("{} in {primary}", self.resource());
        let read = async {
            let mut connection = Connection::connect(&config).await?;
            connection.timeline_history(log.timeline).await
        };
        let file = read
            .await
            .map_err(|error| translate(operation, &subject, error))?;
        TimelineHistory::parse(log.timeline, &file.content)
            .map_err(|error| Error::new(ErrorKind::Corrupt, operation, &subject).because(error))
    }

    /// Creates the slot of the standby of `region` on the primary, or keeps the one that is there.
    pub(crate) async fn ensure_standby_slot(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<()> {
        let name = quote_literal(&Options::standby_name(region));
        let operation = "create a replication slot on";
        let mut instance = self.connect(primary).await?;
        // One that was invalidated keeps nothing any more.
        let drop = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where slot_name = {name} and wal_status = 'lost' and not active"
        );
        instance.query(operation, &drop).await?;
        let create = format!(
            "select pg_create_physical_replication_slot({name}, true) \
             where not exists (select from pg_replication_slots where slot_name = {name})"
        );
        instance.query(operation, &create).await.map(|_| ())
    }

    pub(super) fn conflict(&self, why: String) -> Error {
        Error::new(ErrorKind::Conflict, OPERATION, self.resource().to_string()).because(why)
    }
}

impl There {
    fn describe(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Unfinished(unfinished) => format!(
                "what an interrupted command left ({}{})",
                unfinished.method.as_str(),
                match unfinished.whole {
                    Some(epoch) => format!(", whole, of epoch {epoch}"),
                    None => String::new(),
                }
            ),
            Self::Standby => "a standby that streams from the primary".to_owned(),
            Self::Files(remains) => match remains.as_ref() {
                Err(why) => format!("files of the cluster: {why}"),
                Ok(remains) if remains.is_ahead() => format!(
                    "a stopped server on timeline {}, {} bytes beyond {}",
                    remains.control.timeline,
                    remains
                        .end
                        .bytes_since(remains.parting.at.unwrap_or(remains.end)),
                    remains.parting.at.unwrap_or(remains.end)
                ),
                Ok(remains) => format!(
                    "a stopped server on timeline {} at {}, which did not diverge",
                    remains.control.timeline, remains.end
                ),
            },
        }
    }

    /// Returns what is known of a server's files.
    fn remains(&self) -> Option<&Remains> {
        match self {
            Self::Files(remains) => remains.as_ref().as_ref().ok(),
            _ => None,
        }
    }

    fn cannot_follow(&self) -> Option<String> {
        match self {
            Self::Nothing => Some("the directory is missing or empty".to_owned()),
            Self::Unfinished(unfinished) => Some(match unfinished.whole {
                Some(_) => "an interrupted command made it anew".to_owned(),
                None => "its files are not whole".to_owned(),
            }),
            Self::Standby => None,
            Self::Files(remains) => match remains.as_ref() {
                Err(why) => Some(why.clone()),
                Ok(remains) => remains
                    .is_ahead()
                    .then(|| "it has log that the primary has not".to_owned()),
            },
        }
    }
}
