//! Making the standby the primary (PROTOCOL 6, steps 6 and 7).
//!
//! Before it promotes, the new topology is prepared on the standby: no synchronous names, which it would inherit and then
//! hang on its first write, and the slots of the next receivers, which survive the promotion. What it says of itself
//! afterwards is compared with the timeline that the epoch's record claims. The old primary's last heartbeat is read
//! before the new one is written.
//!
//! Idempotent because an instance that is a primary on the claimed timeline is left as it is.

use std::time::Duration;

use dr_model::{Epoch, Lsn, RegionName, TimelineId};
use dr_pgwire::{Connection, quote_literal};
use dr_provider::driver::{Applied, Evidence, Fence, Recovered, Verified};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Result};

use crate::driver::PostgresDriver;
use crate::instance::{Instance, translate};
use crate::lock::session_name;
use crate::manager::is_managed;
use crate::options::Options;
use crate::wait::Deadline;
use crate::wal::TimelineHistory;

/// How long the promotion itself may take, replay being complete.
const PROMOTION_LIMIT: Duration = Duration::from_secs(60);

const OPERATION: &str = "promote the standby of";

impl PostgresDriver {
    pub(super) async fn promote_standby(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let session = session_name(fence);
        let mut instance = self.connect_as(region, &session).await?;
        // Whoever makes its commits wait for somebody later must not find that undone by a late promotion.
        instance.lock_for(OPERATION, fence).await?;
        let claimed = self.claim(fence).await?;
        let mut position = instance.position().await?;
        let mut unslotted = None;
        if position.in_recovery {
            let options = self.instance_options(region)?;
            let is_managed = is_managed(&**self.host(region)?, &options.data_directory).await?;
            self.refuse_managed(OPERATION, region, is_managed)?;
            instance
                .query(OPERATION, "alter system set synchronous_standby_names = ''")
                .await?;
            instance.query(OPERATION, "select pg_reload_conf()").await?;
            // Without them the log may go before a receiver has it: worth saying, and no reason to serve nobody.
            unslotted = self.create_slots(&mut instance).await.err();
            self.pass_over_timelines(region, position.timeline, claimed)
                .await?;
            if let Some(words) = &options.promote {
                self.promote_by(OPERATION, region, words).await?;
                // It may have started the server anew, which ended this session and its lock.
                instance = self.connect_as(region, &session).await?;
                instance.lock_for(OPERATION, fence).await?;
                position = instance.position().await?;
            }
        }
        if position.in_recovery {
            let seconds = PROMOTION_LIMIT.as_secs();
            let sql = format!("select pg_promote(true, {seconds})");
            let limit = PROMOTION_LIMIT + Duration::from_secs(5);
            let promoted = instance.query_within(OPERATION, &sql, limit).await;
            if let Err(error) = promoted {
                // One that an executor before us has asked for goes on without it, and may have ended just now.
                position = instance.position().await?;
                if position.in_recovery {
                    return Err(error);
                }
            }
            let deadline = Deadline::new(self.clock(), PROMOTION_LIMIT);
            while position.in_recovery {
                position = instance.position().await?;
                if position.in_recovery && !deadline.pause().await {
                    let why = format!("it is still in recovery after {seconds} s");
                    let subject = self.resource().to_string();
                    return Err(Error::new(ErrorKind::Unknown, OPERATION, subject).because(why));
                }
            }
        }
        if position.timeline != claimed {
            return Err(self.failed(
                OPERATION,
                format!(
                    "it runs on timeline {}, but epoch {} claims timeline {claimed}",
                    position.timeline, fence.epoch
                ),
            ));
        }
        // It serves the tail of a log that has ended: the next standby made from this server must not inherit it.
        for sql in [
            "alter system reset restore_command",
            "select pg_reload_conf()",
        ] {
            let set = instance.query(OPERATION, sql).await;
            set.map_err(|error| self.promoted_but(error))?;
        }
        self.write_beat(&mut instance, region, fence.epoch)
            .await
            .map_err(|error| self.promoted_but(error))?;
        let recovered = self
            .recovered(&mut instance, region, fence, claimed)
            .await
            .map_err(|error| self.promoted_but(error))?;
        let mut summary = format!(
            "{} in {region} is primary on timeline {claimed} from {}",
            self.resource(),
            recovered.start
        );
        if let Some(error) = unslotted {
            let why = dr_provider::error::chain(&error);
            summary.push_str(&format!("; its log is kept for nobody: {why}"));
        }
        Ok(self.applied(summary, recovered.to_evidence()))
    }

    /// An error of what follows the promotion: that is done, and nothing takes it back.
    fn promoted_but(&self, error: Error) -> Error {
        let why = format!("it is promoted, but {}", dr_provider::error::chain(&error));
        let unknown = Error::new(ErrorKind::Unknown, OPERATION, self.resource().to_string());
        match error.hint().map(str::to_owned) {
            Some(hint) => unknown.because(why).with_hint(hint),
            None => unknown.because(why),
        }
    }

    pub(super) async fn is_standby_promoted(
        &self,
        region: &RegionName,
        fence: &Fence,
    ) -> Result<Verified> {
        let claimed = self.claim(fence).await?;
        let mut instance = self.connect(region).await?;
        let position = instance.position().await?;
        if position.in_recovery || position.timeline != claimed {
            let role = if position.in_recovery {
                "a standby"
            } else {
                "a primary"
            };
            let seen = format!("{role} on timeline {}", position.timeline);
            return Ok(Verified::NotDone { seen });
        }
        let beaten = self.read_beat(&mut instance, None).await?;
        let recovered = self
            .recovered(&mut instance, region, fence, claimed)
            .await?;
        if beaten == recovered.heartbeat {
            return Ok(Verified::NotDone {
                seen: "a primary that has not committed a heartbeat yet".to_owned(),
            });
        }
        Ok(Verified::Done(self.applied(
            format!(
                "{} in {region} is primary on timeline {claimed}",
                self.resource()
            ),
            recovered.to_evidence(),
        )))
    }

    async fn claim(&self, fence: &Fence) -> Result<TimelineId> {
        let record = self.read_register(OPERATION).await?;
        if record.epoch != fence.epoch {
            return Err(Error::new(
                ErrorKind::Superseded,
                OPERATION,
                self.resource().to_string(),
            )
            .because(format!(
                "the newest epoch is {}, not {}",
                record.epoch, fence.epoch
            )));
        }
        self.claimed_timeline(&record, OPERATION)
    }

    /// Makes the promotion choose the claimed timeline where earlier epochs claimed timelines that nobody ever wrote.
    ///
    /// PostgreSQL takes the number after the highest timeline that has a history file (`findNewestTimeLine`). A file is
    /// left for each number to be passed over, with a fork that lies before everything replayed, so that no standby
    /// follows it: "new timeline forked off current database system timeline before current recovery point".
    async fn pass_over_timelines(
        &self,
        region: &RegionName,
        current: TimelineId,
        claimed: TimelineId,
    ) -> Result<()> {
        let host = self.host(region)?;
        let directory = self.instance_options(region)?.data_directory.join("pg_wal");
        let mut timeline = current.next();
        while timeline < claimed {
            let path = directory.join(timeline.history_file_name());
            if host.kind(&path).await? == PathKind::Missing {
                let text = format!("{current}\t{}\tclaimed, and never written\n", Lsn(1));
                host.write(&path, text.as_bytes()).await?;
            }
            timeline = timeline.next();
        }
        Ok(())
    }

    /// Creates the slots that the receivers of all regions will stream from, keeping those that exist.
    async fn create_slots(&self, instance: &mut Instance) -> Result<()> {
        for region in self.options().instances.keys() {
            let name = quote_literal(&Options::receiver_name(region));
            let sql = format!(
                "select pg_create_physical_replication_slot({name}, true) \
                 where not exists (select from pg_replication_slots where slot_name = {name})"
            );
            instance.query("create a replication slot on", &sql).await?;
        }
        Ok(())
    }

    async fn recovered(
        &self,
        instance: &mut Instance,
        region: &RegionName,
        fence: &Fence,
        timeline: TimelineId,
    ) -> Result<Recovered> {
        let ended = Epoch(fence.epoch.0.saturating_sub(1));
        Ok(Recovered {
            timeline,
            start: self.fork_point(region, timeline).await?,
            heartbeat: self.read_beat(instance, Some(ended)).await?,
            newest_commit: self.read_newest_replayed(instance).await?,
            doubts: Vec::new(),
        })
    }

    /// Returns where `timeline` branched off, from the history file that the promotion wrote.
    pub(super) async fn fork_point(
        &self,
        region: &RegionName,
        timeline: TimelineId,
    ) -> Result<Lsn> {
        let mut config = self.connection_config(region)?;
        config.replication = true;
        let subject = format!("{} in {region}", self.resource());
        let operation = "read the timeline history of";
        let read = async {
            let mut connection = Connection::connect(&config).await?;
            connection.timeline_history(timeline).await
        };
        let file = read
            .await
            .map_err(|error| translate(operation, &subject, error))?;
        let history = TimelineHistory::parse(timeline, &file.content)
            .map_err(|error| Error::new(ErrorKind::Corrupt, operation, &subject).because(error))?;
        history.begin().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, operation, &subject).because("it names no ancestor")
        })
    }
}
