//! Doing what a plan for a standby says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dr_model::{Lsn, RegionName};
use dr_provider::host::{Command, PathKind};
use dr_provider::{ErrorKind, Result};
use serde::Serialize;

use super::keep::{How, LONG};
use super::progress::{Hold, Unfinished};
use super::remains::Remains;
use super::{Kept, Method, OPERATION, StandbyPlan, settings};
use crate::actions::processes;
use crate::driver::PostgresDriver;
use crate::options::Options;
use crate::wait::{Deadline, Standstill};

/// How long the standby may go without a byte of progress before it streams.
const STANDSTILL: Duration = Duration::from_secs(60);

/// How long the primary may take to write its first checkpoint after a promotion, without which `pg_rewind` takes it for
/// what it was before.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(600);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandbyReport {
    /// The way that was taken: another than planned if `pg_rewind` could not do it.
    pub method: Option<Method>,
    /// What was kept, and where.
    pub kept: Option<Kept>,
    /// Where the standby has got to.
    pub received: Lsn,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// What `pg_rewind` did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rewound {
    /// It took back what diverged.
    Done,
    /// It found nothing to take back.
    NotNeeded,
}

impl PostgresDriver {
    /// Makes a standby as planned, unless the situation has changed; `say` is told what is being done.
    ///
    /// # Errors
    ///
    /// `Superseded` if a newer epoch was opened. After any error the same again goes on from what there is.
    pub async fn make_standby(
        &self,
        plan: &StandbyPlan,
        discard: bool,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<StandbyReport> {
        let region = &plan.region;
        let host = self.host(region)?;
        let mut report = StandbyReport {
            method: plan.method,
            kept: None,
            received: Lsn::INVALID,
            notes: Vec::new(),
        };
        let Some(method) = plan.method else {
            report.received = self.connect(region).await?.position().await?.position;
            return Ok(report);
        };
        host.admit(&self.resource().workload, plan.epoch).await?;
        let mut hold = Hold::take(&plan.directory)?;
        let earlier = hold.earlier()?;
        // A server may have been started since the plan was made.
        if host.kind(&plan.directory).await? == PathKind::Directory
            && !processes(&**host, &plan.directory).await?.is_empty()
        {
            return Err(self.conflict(format!(
                "a server was started in `{}` meanwhile",
                plan.directory.display()
            )));
        }
        self.ensure_standby_slot(region, &plan.primary).await?;
        match method {
            Method::Follow => {
                say("follow: its log is part of the primary's");
                self.follow_from_here(region, &plan.primary).await?;
            }
            Method::Rewind => {
                if let Some(why) = self.rewind(plan, &mut hold, &mut report, say).await? {
                    say(&format!("not rewound: {why}"));
                    report.notes.push(format!("not rewound: {why}"));
                    let point = self.point_again(plan).await;
                    let way = match point {
                        Some(_) => Method::RecoveryPoint,
                        None => Method::BaseBackup,
                    };
                    report.method = Some(way);
                    self.rebuild(plan, way, point, &mut hold, &mut report, discard, say)
                        .await?;
                }
            }
            Method::RecoveryPoint | Method::BaseBackup => {
                if let Some(earlier) = &earlier {
                    report.kept = self.note_of(region, earlier).await?;
                }
                match &earlier {
                    Some(earlier) if plan.whole && earlier.is_whole(plan.epoch) => {
                        say(
                            "go on with the files that an interrupted command left, which are whole",
                        );
                        self.put_in_place(plan).await?;
                    }
                    found => {
                        if found.is_some() {
                            say("remove what an interrupted command left");
                        }
                        let point = plan.recovery_point.clone();
                        self.rebuild(plan, method, point, &mut hold, &mut report, discard, say)
                            .await?;
                    }
                }
            }
        }
        hold.finish()?;
        say("start the server");
        self.start_server(region, OPERATION).await?;
        report.received = self.await_streaming(region, &plan.primary).await?;
        report.notes.extend(self.drop_old_slots(region).await?);
        Ok(report)
    }

    async fn note_of(&self, region: &RegionName, earlier: &Unfinished) -> Result<Option<Kept>> {
        let kept = self.kept_directories(region).await?;
        Ok(kept
            .into_iter()
            .find(|kept| Some(&kept.directory) == earlier.kept.as_ref()))
    }

    async fn point_again(&self, plan: &StandbyPlan) -> Option<String> {
        let record = self.read_register(OPERATION).await.ok()?;
        let log = self.log_of(&record, OPERATION).ok()?;
        let point = self.point_to_follow_from(&plan.region, log).await.ok()?;
        Some(point.label.to_string())
    }

    /// Writes what makes a stopped server, whose files are whole and part of the primary's history, follow it.
    pub(crate) async fn follow_from_here(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<()> {
        let directory = &self.instance_options(region)?.data_directory;
        self.make_follow(region, primary, directory).await
    }

    /// The same for files that are to be put in the place of the server of `region`.
    async fn make_follow(
        &self,
        region: &RegionName,
        primary: &RegionName,
        directory: &Path,
    ) -> Result<()> {
        let host = self.host(region)?;
        host.write(&directory.join("standby.signal"), b"").await?;
        host.remove(&directory.join("recovery.signal")).await?;
        self.write_password_file(region, directory).await?;
        let added = self.standby_settings(region, primary)?;
        settings::append(&**host, directory, &added).await
    }

    /// Rewinds the directory in place; returns why that cannot be done, if nothing of it was changed, or if what is left has
    /// to be rebuilt.
    async fn rewind(
        &self,
        plan: &StandbyPlan,
        hold: &mut Hold,
        report: &mut StandbyReport,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Option<String>> {
        let region = &plan.region;
        let host = self.host(region)?;
        let directory = &plan.directory;
        let record = self.read_register(OPERATION).await?;
        let log = self.log_of(&record, OPERATION)?;
        let present = self.present_history(&plan.primary, log).await?;
        let remains = Remains::read(&**host, &self.parts().binaries, directory, &present).await?;
        if let Some(place) = &plan.kept {
            say(&format!(
                "copy {} to {}",
                directory.display(),
                place.display()
            ));
            let divergence = plan.divergence.clone();
            let kept = self.keep(region, plan.epoch, place, How::Copy, divergence);
            report.kept = Some(kept.await?);
        }
        if !remains.control.state.starts_with("shut down") {
            say("let the old primary replay its own log, alone");
        }
        self.settle(region, &remains.control, remains.end).await?;
        self.await_checkpoint(&plan.primary, log.timeline).await?;
        self.append_restore_command(plan, directory).await?;
        match self.run_rewind(plan, directory, true).await? {
            Err(why) => return Ok(Some(why)),
            // Up to PostgreSQL 15 it goes by the newest checkpoint, which a server that died just after its promotion has from before.
            Ok(Rewound::NotNeeded) if remains.is_ahead() => {
                let why = "pg_rewind finds nothing to take back, although its log goes on beyond the primary's";
                return Ok(Some(why.to_owned()));
            }
            Ok(_) => {}
        }
        hold.begin(&Unfinished {
            method: Method::Rewind,
            kept: plan.kept.clone(),
            whole: None,
        })?;
        say("rewind it with pg_rewind");
        // It removes `standby.signal`, which the primary has not: meanwhile nobody may find a server to start there.
        let beside = beside(directory);
        self.remove_all(&**host, &beside).await?;
        self.rename(&**host, directory, &beside).await?;
        if let Err(why) = self.run_rewind(plan, &beside, false).await? {
            return Ok(Some(why));
        }
        self.make_follow(region, &plan.primary, &beside).await?;
        self.rename(&**host, &beside, directory).await?;
        Ok(None)
    }

    /// Waits until the primary's control file names its timeline: until then `pg_rewind` sees no difference.
    async fn await_checkpoint(
        &self,
        primary: &RegionName,
        timeline: dr_model::TimelineId,
    ) -> Result<()> {
        let mut instance = self.connect(primary).await?;
        let sql = "select timeline_id from pg_control_checkpoint()";
        let deadline = Deadline::new(self.clock(), CHECKPOINT_LIMIT);
        let mut asked = false;
        while instance
            .scalar::<dr_model::TimelineId>(OPERATION, sql)
            .await?
            != timeline
        {
            if !asked {
                asked = true;
                let checkpoint = instance.query_within(OPERATION, "checkpoint", CHECKPOINT_LIMIT);
                match checkpoint.await {
                    Ok(_) => continue,
                    // Without the right to ask for one it comes by itself.
                    Err(error) if error.kind() == ErrorKind::Denied => {}
                    Err(error) => return Err(error),
                }
            }
            if !deadline.pause().await {
                let why = format!(
                    "the primary in {primary} has written no checkpoint since it was promoted"
                );
                return Err(self.failed(OPERATION, why));
            }
        }
        Ok(())
    }

    /// Lets `pg_rewind` find log in the region's store that the server has removed.
    async fn append_restore_command(&self, plan: &StandbyPlan, directory: &Path) -> Result<()> {
        let command = self.standby_restore_command(&plan.region)?;
        let remark = "Written by dr, for pg_rewind.";
        let added = settings::text(remark, &[("restore_command", command)]);
        settings::append(&**self.host(&plan.region)?, directory, &added).await
    }

    async fn run_rewind(
        &self,
        plan: &StandbyPlan,
        directory: &Path,
        dry: bool,
    ) -> Result<std::result::Result<Rewound, String>> {
        let host = self.host(&plan.region)?;
        let program = self
            .parts()
            .binaries
            .join("pg_rewind")
            .display()
            .to_string();
        let database = format!("dbname='{}'", self.options().database.replace('\'', r"\'"));
        let source = format!("{} {database}", self.conninfo(&plan.primary)?);
        // It asks the server's program for the command, which needs the configuration.
        let conf = directory.join("postgresql.conf");
        let is_configured = host.kind(&conf).await? == PathKind::File;
        let directory = directory.display().to_string();
        let mut argv = vec![
            program,
            "--no-ensure-shutdown".to_owned(),
            "--target-pgdata".to_owned(),
            directory,
            "--source-server".to_owned(),
            source,
        ];
        if dry {
            argv.push("--dry-run".to_owned());
        }
        if is_configured {
            argv.push("--restore-target-wal".to_owned());
        }
        let mut command = Command::new(argv);
        command.environment = self.password_environment()?;
        command
            .environment
            .push(("LC_ALL".to_owned(), "C".to_owned()));
        let output = host.run(&command, LONG).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status == Some(0) {
            let is_needed = !said.contains("no rewind required");
            return Ok(Ok(match is_needed {
                true => Rewound::Done,
                false => Rewound::NotNeeded,
            }));
        }
        let line = said
            .lines()
            .find(|line| line.contains("error:"))
            .or(said.lines().last());
        Ok(Err(line.unwrap_or("pg_rewind failed").trim().to_owned()))
    }

    /// Builds the files anew, the old ones out of the way.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one piece of work, used in two places"
    )]
    async fn rebuild(
        &self,
        plan: &StandbyPlan,
        method: Method,
        point: Option<String>,
        hold: &mut Hold,
        report: &mut StandbyReport,
        discard: bool,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<()> {
        let region = &plan.region;
        let host = self.host(region)?;
        let directory = &plan.directory;
        let there = host.kind(directory).await?;
        let ours = super::progress::Unfinished::read(&**host, directory).await?;
        if there == PathKind::Directory && ours.is_none() && report.kept.is_none() && !discard {
            // Given another name in its file system, it makes no room there.
            if let (Some(label), Method::RecoveryPoint) = (&point, method) {
                let record = self.read_register(OPERATION).await?;
                let log = self.log_of(&record, OPERATION)?;
                self.check_room_to_follow(region, log, label, directory)
                    .await?;
            }
            let place = plan
                .kept
                .clone()
                .unwrap_or_else(|| self.place_to_keep(directory));
            say(&format!(
                "move {} to {}",
                directory.display(),
                place.display()
            ));
            let divergence = plan.divergence.clone();
            let kept = self.keep(region, plan.epoch, &place, How::Move, divergence);
            report.kept = Some(kept.await?);
        }
        let mut unfinished = Unfinished {
            method,
            kept: report.kept.as_ref().map(|kept| kept.directory.clone()),
            whole: None,
        };
        hold.begin(&unfinished)?;
        self.remove_all(&**host, &beside(directory)).await?;
        self.empty(region, directory).await?;
        match point {
            Some(label) if method == Method::RecoveryPoint => {
                say(&format!("restore recovery point {label}"));
                let record = self.read_register(OPERATION).await?;
                let log = self.log_of(&record, OPERATION)?;
                let settings = self.standby_settings(region, &plan.primary)?;
                self.restore_follower(region, log, &label, directory, settings)
                    .await?;
                self.write_password_file(region, directory).await?;
            }
            _ => {
                say(&format!(
                    "copy the files of the primary in {}",
                    plan.primary
                ));
                self.copy_from_primary(plan).await?;
            }
        }
        // Whoever is interrupted from here on need not copy it again.
        unfinished.whole = Some(plan.epoch);
        hold.begin(&unfinished)?;
        self.put_in_place(plan).await
    }

    /// Gives what was copied beside the directory its name, unless it has that.
    async fn put_in_place(&self, plan: &StandbyPlan) -> Result<()> {
        let host = self.host(&plan.region)?;
        let beside = beside(&plan.directory);
        if host.kind(&beside).await? != PathKind::Directory {
            return Ok(());
        }
        if host.kind(&plan.directory).await? == PathKind::EmptyDirectory {
            let empty = plan.directory.display().to_string();
            self.made(&**host, &["rmdir", "--", &empty]).await?;
        }
        self.rename(&**host, &beside, &plan.directory).await
    }

    /// Removes what is in a directory, and leaves the directory: it may be where a volume is mounted.
    async fn empty(&self, region: &RegionName, directory: &Path) -> Result<()> {
        let host = self.host(region)?;
        if host.kind(directory).await? != PathKind::Directory {
            return Ok(());
        }
        let shown = directory.display().to_string();
        let command = Command::new(["find", &shown, "-mindepth", "1", "-delete"]);
        self.run_long(&**host, command, LONG).await.map(drop)
    }

    /// Copies the primary's files, into a directory beside: what has its final name is a standby from the first moment.
    async fn copy_from_primary(&self, plan: &StandbyPlan) -> Result<()> {
        let region = &plan.region;
        let host = self.host(region)?;
        let beside = beside(&plan.directory);
        let program = self.parts().binaries.join("pg_basebackup");
        let mut command = Command::new([
            program.display().to_string(),
            "--pgdata".to_owned(),
            beside.display().to_string(),
            "--wal-method=stream".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--no-password".to_owned(),
            "--slot".to_owned(),
            Options::standby_name(region),
            "--dbname".to_owned(),
            self.conninfo(&plan.primary)?,
        ]);
        command.environment = self.password_environment()?;
        command
            .environment
            .push(("LC_ALL".to_owned(), "C".to_owned()));
        self.run_long(&**host, command, LONG).await?;
        self.make_follow(region, &plan.primary, &beside).await?;
        let shown = beside.display().to_string();
        self.made(&**host, &["chmod", "0700", "--", &shown]).await?;
        Ok(())
    }

    /// Waits until the standby streams from the primary.
    pub(crate) async fn await_streaming(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<Lsn> {
        let timeline = self.connect(primary).await?.position().await?.timeline;
        let mut standstill = Standstill::new(self.clock(), STANDSTILL);
        loop {
            let found = async { self.connect(region).await?.position().await }.await;
            let (at, seen) = match found {
                Ok(found) if found.in_recovery && found.receiving && found.timeline == timeline => {
                    return Ok(found.position);
                }
                Ok(found) if !found.in_recovery => {
                    return Err(self.conflict(format!("the server in {region} is no standby")));
                }
                Ok(found) => {
                    let seen = format!(
                        "it has replayed {} on timeline {} and does not stream",
                        found.replayed.unwrap_or_default(),
                        found.timeline
                    );
                    (Some((found.timeline, found.replayed)), seen)
                }
                Err(error) => (None, dr_provider::error::chain(&error)),
            };
            if !standstill.pause(at).await {
                let why = format!("the standby in {region} was started, but {seen}");
                return Err(self
                    .failed(OPERATION, why)
                    .with_hint(format!(
                        "its server log says what it waits for; if that cannot come, stop it, and `dr standby reseed {} --in {region}` builds it anew",
                        self.resource()
                    )));
            }
        }
    }

    /// Drops the slots that a former primary kept for `dr`: nobody streams from them, and they would keep its log for ever
    /// and be stale when it is promoted again. Names those of others that do the same.
    pub(crate) async fn drop_old_slots(&self, region: &RegionName) -> Result<Vec<String>> {
        let operation = "drop the old slots of";
        let mut instance = self.connect(region).await?;
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                   where slot_type = 'physical' and slot_name like 'dr\\_%' and not active";
        instance.query(operation, sql).await?;
        let sql = "select slot_name from pg_replication_slots where not active order by 1";
        let rows = instance.query(operation, sql).await?;
        let names: Vec<String> = rows.iter().filter_map(|row| row.get(0).ok()).collect();
        Ok(names
            .into_iter()
            .map(|name| {
                format!("slot `{name}` of the server in {region} keeps log there that nobody takes")
            })
            .collect())
    }
}

/// Returns where files are made ready that are not to be found by whoever starts servers.
fn beside(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}.dr-new"))
}
