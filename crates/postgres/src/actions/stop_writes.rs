//! Ending the primary in an orderly way, for a planned move: every session is ended, and a server that shuts down hands all of
//! its log, the last checkpoint included, to whoever streams from it before it goes.
//!
//! `standby.signal` is left first, as for a fence: whatever starts the server again starts a standby, which adds nothing to the
//! log. What is proven is that the primary has stopped *and* where its log ends; a promotion compares that with what the other region
//! holds.
//!
//! Idempotent because a server that is stopped is only looked at.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::driver::{Applied, Drained, Evidence, Fence, Fenced, StopProof, Verified};
use dr_provider::{Error, ErrorKind, Host, Result};
use serde_json::json;

use crate::data_directory::Claimed;
use crate::driver::PostgresDriver;
use crate::standby::{Control, drained};
use crate::wait::Deadline;

use super::processes;
use super::stop_server::{Mode, Stop};

/// How long a checkpoint before the end may take. What it writes need not be written while nobody can write.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(300);

/// How long the server may take to stop: it waits for whoever streams to confirm everything.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long a server that was started in its place may take to say what it is.
const STANDBY_LIMIT: Duration = Duration::from_secs(30);

const OPERATION: &str = "stop the primary of";

impl PostgresDriver {
    pub(super) async fn checkpoint_primary(&self, region: &RegionName) -> Result<Applied> {
        let checkpoint = async {
            let mut instance = self.connect(region).await?;
            instance
                .query_within(OPERATION, "checkpoint", CHECKPOINT_LIMIT)
                .await
        };
        match checkpoint.await {
            Ok(_) => Ok(self.applied(
                format!("{} in {region} has written a checkpoint", self.resource()),
                json!({}),
            )),
            // It only makes the next step shorter; a guard that has seen the new epoch may be ahead of both.
            Err(error) => Ok(self.applied(
                format!("no checkpoint: {}", dr_provider::error::chain(&error)),
                json!({ "checkpoint": false }),
            )),
        }
    }

    pub(super) async fn stop_writes(
        &self,
        region: &RegionName,
        claimed: Claimed,
        fence: &Fence,
    ) -> Result<Applied> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.admitted(region, fence).await?;
        self.identify(region, claimed).await?;
        host.write(&directory.join("standby.signal"), claimed.mark().as_bytes())
            .await?;
        self.shut_down(region, claimed, &**host).await?;
        // It is stopped, whatever keeps us from seeing where its log ends.
        let unknown = |why: String| {
            let subject = self.resource().to_string();
            Error::new(ErrorKind::Unknown, OPERATION, subject).because(format!(
                "it has stopped, but where its log ends was not seen: {why}"
            ))
        };
        match self.is_drained(region, claimed).await {
            Ok(Verified::Done(applied)) => Ok(applied),
            Ok(Verified::NotDone { seen: why } | Verified::Unknown { why, .. }) => {
                Err(unknown(why))
            }
            Err(error) => Err(unknown(dr_provider::error::chain(&error))),
        }
    }

    /// Shuts the server down. What something has started in its place since is a standby, by the signal.
    async fn shut_down(
        &self,
        region: &RegionName,
        claimed: Claimed,
        host: &dyn Host,
    ) -> Result<()> {
        let directory = &self.instance_options(region)?.data_directory;
        // If it was asked to stop it will, and nobody can write any more.
        let unknown = |why: String| {
            Error::new(ErrorKind::Unknown, OPERATION, self.resource().to_string()).because(why)
        };
        let streams = self.senders(region).await;
        match self
            .stop_server(region, host, Mode::Fast, STOP_LIMIT)
            .await?
        {
            Stop::Ended => Ok(()),
            Stop::Replaced => {
                let deadline = Deadline::new(self.clock(), STANDBY_LIMIT);
                while !self.runs_as_standby(region, claimed).await {
                    if processes(host, directory).await?.is_empty() {
                        return Ok(());
                    }
                    if !deadline.pause().await {
                        let why = "something has started another server in its place, which does not answer as a standby";
                        let hint = "its server log says what it waits for; stop it, and what starts it, and go on";
                        return Err(unknown(why.to_owned()).with_hint(hint));
                    }
                }
                Ok(())
            }
            Stop::Runs { processes, said } => {
                let streams = match streams.as_str() {
                    "" => "something that streams from it may not confirm the log".to_owned(),
                    senders => format!("who streams from it may not confirm the log: {senders}"),
                };
                let why = match said.is_empty() {
                    true => streams,
                    false => format!("{said} ({streams})"),
                };
                Err(unknown(format!(
                    "processes {} still run in `{}`: {why}",
                    processes.join(", "),
                    directory.display()
                ))
                .with_hint("end the one that hangs, and go on; or `dr execution abort` starts the primary again, and waits for nobody"))
            }
        }
    }

    /// Names who streams from the primary, for a person who has to find the one that hangs; empty if that cannot be told.
    async fn senders(&self, region: &RegionName) -> String {
        let sql = "select coalesce(string_agg(format('%s (process %s, %s)', \
            coalesce(nullif(application_name, ''), 'without a name'), pid, coalesce(host(client_addr), 'local')), ', '), '') \
            from pg_stat_replication";
        let asked = async { self.connect(region).await?.scalar(OPERATION, sql).await };
        asked.await.unwrap_or_default()
    }

    /// Tells whether a standby of the cluster answers in the place of the primary.
    pub(super) async fn runs_as_standby(&self, region: &RegionName, claimed: Claimed) -> bool {
        let found = async { self.connect(region).await?.position().await };
        found.await.is_ok_and(|found| {
            found.in_recovery && found.system_identifier == claimed.system_identifier
        })
    }

    pub(super) async fn are_writes_stopped(
        &self,
        region: &RegionName,
        claimed: Claimed,
    ) -> Result<Verified> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let found = self.identify(region, claimed).await?;
        if found.fenced != Some(claimed.timeline) {
            return Ok(Verified::NotDone {
                seen: format!("no standby.signal of ours in `{}`", directory.display()),
            });
        }
        let left = processes(&**host, directory).await?;
        if !left.is_empty() && !self.runs_as_standby(region, claimed).await {
            return Ok(Verified::NotDone {
                seen: format!("processes {} run there", left.join(", ")),
            });
        }
        self.is_drained(region, claimed).await
    }

    /// Looks where the log of a stopped primary ends.
    async fn is_drained(&self, region: &RegionName, claimed: Claimed) -> Result<Verified> {
        let directory = &self.instance_options(region)?.data_directory;
        let host = self.host(region)?;
        let control = Control::read(&**host, &self.parts().binaries, directory).await?;
        let fenced = Fenced {
            proof: Some(StopProof::Stopped),
            at: self.clock().now(),
            // What it acknowledged until then is not in doubt: the end of its log is known.
            ran: false,
            alive: None,
        };
        let mut evidence = fenced.to_evidence();
        let end = match control.may_be_drained() {
            true => drained(&**host, directory, &control).await?,
            false => None,
        };
        let Some(end) = end else {
            // Stopped, but not in an orderly way: that is a fence, and no proof of where the log ends.
            let summary = format!(
                "{} in {region} is stopped, but was not shut down: its control file says `{}`",
                self.resource(),
                control.state
            );
            return Ok(Verified::Done(self.applied(summary, evidence)));
        };
        let drained = Drained {
            timeline: claimed.timeline,
            end,
        };
        if let (Some(all), Some(more)) =
            (evidence.as_object_mut(), drained.to_evidence().as_object())
        {
            all.extend(more.clone());
        }
        Ok(Verified::Done(self.applied(
            format!(
                "{} in {region} is shut down; its log ends at {end}",
                self.resource()
            ),
            evidence,
        )))
    }
}
