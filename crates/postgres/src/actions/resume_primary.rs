//! Giving the old primary its place back, after a move that came to no promotion (PROTOCOL 3).
//!
//! First the standby is attached again. That takes the lock which a promotion holds from before it asks for the newest epoch
//! until it is over: a promotion that has it already is seen here, and one that comes later finds a newer epoch and stops. Only
//! then does the old primary lose its `standby.signal` and start.
//!
//! Idempotent because each part looks first.

use dr_model::{RegionName, TimelineId};
use dr_pgwire::quote_literal;
use dr_provider::Result;
use dr_provider::driver::{Applied, Evidence, Fence, Recovered, Verified};
use dr_provider::host::PathKind;
use serde_json::json;

use super::processes;
use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::instance::Instance;
use crate::lock::session_name;
use crate::standby::{Control, drained, end_quarantine};

const OPERATION: &str = "resume the primary of";

/// What a server has to be set up with so that nothing it acknowledged is missing when it has replayed its own log after a crash, and
/// what is missing otherwise. `synchronous_commit` is also what roles and databases override.
const DURABILITY: &str = "select \
    (select setting from pg_settings where name = 'fsync') = 'off' as no_fsync, \
    (select setting from pg_settings where name = 'full_page_writes') = 'off' as no_pages, \
    (select setting from pg_settings where name = 'synchronous_commit') = 'off' or exists ( \
      select from pg_db_role_setting s cross join unnest(s.setconfig) c where c = 'synchronous_commit=off') as no_wait, \
    current_setting('wal_writer_delay') as delay";

impl PostgresDriver {
    pub(super) async fn attach_standby(
        &self,
        region: &RegionName,
        primary: &RegionName,
        timeline: TimelineId,
        fence: &Fence,
    ) -> Result<Applied> {
        self.admitted(region, fence).await?;
        let mut instance = self.connect_as(region, &session_name(fence)).await?;
        instance.lock_for(OPERATION, fence).await?;
        let found = instance.position().await?;
        if !found.in_recovery || found.timeline != timeline {
            let why = format!(
                "the server in {region} is not a standby on timeline {timeline} any more: it was promoted"
            );
            return Err(self.failed(OPERATION, why));
        }
        let directory = &self.instance_options(region)?.data_directory;
        self.write_password_file(region, directory).await?;
        let conninfo = self.standby_conninfo(region, primary, directory)?;
        let sql = format!(
            "alter system set primary_conninfo = {}",
            quote_literal(&conninfo)
        );
        instance.query(OPERATION, &sql).await?;
        instance.query(OPERATION, "select pg_reload_conf()").await?;
        Ok(self.applied(
            format!("the standby in {region} follows {primary} again, once it runs"),
            json!({ "timeline": timeline, "received": found.position }),
        ))
    }

    pub(super) async fn is_standby_attached(
        &self,
        region: &RegionName,
        timeline: TimelineId,
    ) -> Result<Verified> {
        let mut instance = self.connect(region).await?;
        let found = instance.position().await?;
        let setting: String = instance
            .scalar(OPERATION, "select current_setting('primary_conninfo')")
            .await?;
        if found.in_recovery && found.timeline == timeline && !setting.is_empty() {
            return Ok(Verified::Done(self.applied(
                format!("the standby in {region} follows a primary"),
                json!({ "timeline": timeline, "received": found.position }),
            )));
        }
        Ok(Verified::NotDone {
            seen: format!("the server in {region} follows nobody"),
        })
    }

    pub(super) async fn resume_primary(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.admitted(region, fence).await?;
        if let Verified::Done(applied) = self.is_primary_resumed(region, claimed).await? {
            return Ok(applied);
        }
        let directory = &self.instance_options(region)?.data_directory;
        self.identify_left(region, claimed).await?;
        let signal = directory.join("standby.signal");
        let ran = !processes(&**host, directory).await?.is_empty();
        if ran && self.runs_as_primary(region, claimed).await.is_ok() {
            // Whoever was to stop it did not come so far: only the next start would make it a standby.
            host.remove(&signal).await?;
            return self.resumed(region, claimed).await;
        }
        end_quarantine(&**host, directory).await?;
        let marked = host.kind(&signal).await? == PathKind::File;
        // Before it is stopped: whatever starts it then starts the primary.
        host.remove(&signal).await?;
        if ran && (marked || self.runs_as_standby(region, claimed).await) {
            // Something has started it as the standby that it was to be.
            self.stop_standby(region, &**host, OPERATION).await?;
        }
        let found = self.start_server(region, OPERATION).await?;
        if found.in_recovery || found.timeline != claimed.timeline {
            let why = format!(
                "the server in {region} runs on timeline {}, and not as the primary of timeline {}",
                found.timeline, claimed.timeline
            );
            return Err(self.failed(OPERATION, why));
        }
        let mut instance = self.connect(region).await?;
        self.write_beat(&mut instance, region, fence.epoch).await?;
        self.resumed(region, claimed).await
    }

    /// Makes sure that the directory is what the old primary left, even if a standby was started on it since and its mark is gone: its log
    /// ends then with the checkpoint that the primary shut down with.
    async fn identify_left(&self, region: &RegionName, claimed: Claimed) -> Result<()> {
        let Err(error) = self.identify(region, claimed).await else {
            return Ok(());
        };
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let control = Control::read(&**host, &self.parts().binaries, directory).await?;
        let is_its = control.system_identifier == claimed.system_identifier
            && control.timeline == claimed.timeline
            && control.may_be_drained();
        match is_its && drained(&**host, directory, &control).await?.is_some() {
            true => Ok(()),
            false => Err(error),
        }
    }

    pub(super) async fn is_primary_resumed(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> Result<Verified> {
        if let Err(seen) = self.runs_as_primary(region, claimed).await {
            return Ok(Verified::NotDone { seen });
        }
        let directory = &self.instance_options(region)?.data_directory;
        let signal = directory.join("standby.signal");
        Ok(match self.host(region)?.kind(&signal).await? {
            PathKind::Missing => Verified::Done(self.resumed(region, claimed).await?),
            _ => Verified::NotDone {
                seen: format!(
                    "the server in {region} is the primary, but `{}` would make it a standby at its next start",
                    signal.display()
                ),
            },
        })
    }

    /// Looks whether the server accepts writes on its timeline; says what was seen otherwise.
    async fn runs_as_primary(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> std::result::Result<(), String> {
        let found = async { self.connect(region).await?.position().await };
        match found.await {
            Ok(found) if found.system_identifier != claimed.system_identifier => Err(format!(
                "another cluster answers where that in {region} listens"
            )),
            Ok(found) if !found.in_recovery && found.timeline == claimed.timeline => Ok(()),
            Ok(_) => Err(format!("the server in {region} is not the primary")),
            Err(error) => Err(dr_provider::error::chain(&error)),
        }
    }

    /// Says why what it acknowledged may be missing all the same, as it is set up now.
    async fn doubts(&self, instance: &mut Instance) -> Result<Vec<String>> {
        let rows = instance.query(OPERATION, DURABILITY).await?;
        let read = || {
            let row = rows.only()?;
            let delay: String = row.get("delay")?;
            let doubts = [
                (
                    row.get::<bool>("no_fsync")?,
                    "`fsync` is off: what its machine had not written yet is missing, or damaged, if that went down too".to_owned(),
                ),
                (
                    row.get::<bool>("no_pages")?,
                    "`full_page_writes` is off: a page may be half written if its machine went down too".to_owned(),
                ),
                (
                    row.get::<bool>("no_wait")?,
                    format!(
                        "`synchronous_commit` is off, for all or for some: what these committed within three times `wal_writer_delay` \
                         ({delay}) before it ended may be missing"
                    ),
                ),
            ];
            Ok(doubts
                .into_iter()
                .filter_map(|(holds, why)| holds.then_some(why))
                .collect())
        };
        read().map_err(|error| crate::instance::translate(OPERATION, instance.subject(), error))
    }

    async fn resumed(&self, region: &RegionName, claimed: Claimed) -> Result<Applied> {
        let mut instance = self.connect(region).await?;
        let found = instance.position().await?;
        let recovered = Recovered {
            timeline: claimed.timeline,
            start: found.position,
            heartbeat: self.read_beat(&mut instance, None).await?,
            newest_commit: None,
            doubts: self.doubts(&mut instance).await?,
        };
        Ok(self.applied(
            format!(
                "{} in {region} accepts writes again, on timeline {}",
                self.resource(),
                claimed.timeline
            ),
            recovered.to_evidence(),
        ))
    }
}
