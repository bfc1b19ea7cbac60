//! Making the stopped old primary a standby of the new one, after a planned move: its log is a part of the new one's, so it
//! needs nothing but to be told whom to follow.
//!
//! Idempotent because a standby that streams is left as it is.

use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::{Applied, Fence, Verified};
use serde_json::json;

use super::processes;
use crate::driver::PostgresDriver;
use crate::standby::Remains;

const OPERATION: &str = "make a standby of the old primary of";

impl PostgresDriver {
    pub(super) async fn follow_primary(
        &self,
        region: &RegionName,
        primary: &RegionName,
        fence: &Fence,
    ) -> Result<Applied> {
        let host = self.admitted(region, fence).await?;
        if let Verified::Done(applied) = self.is_following(region, primary).await? {
            return Ok(applied);
        }
        let directory = &self.instance_options(region)?.data_directory;
        let record = self.read_register(OPERATION).await?;
        let log = self.log_of(&record, OPERATION)?;
        let running = !processes(&**host, directory).await?.is_empty();
        if !running || self.follows_nobody(region).await {
            let present = self.present_history(primary, log).await?;
            let remains =
                Remains::read(&**host, &self.parts().binaries, directory, &present).await?;
            if remains.is_ahead() {
                let why = format!(
                    "its log goes on to {}, behind {}, where the new primary's leaves it",
                    remains.end,
                    remains.parting.at.unwrap_or_default()
                );
                return Err(self.failed(OPERATION, why).with_hint(format!(
                    "`dr standby create {} --in {region}` keeps what it has, and rewinds it",
                    self.resource()
                )));
            }
            self.ensure_standby_slot(region, primary).await?;
            // Before it is stopped: whatever starts it then starts it as it is to be.
            self.follow_from_here(region, primary).await?;
            if running {
                self.stop_standby(region, &**host, OPERATION).await?;
            }
        }
        self.start_server(region, OPERATION).await?;
        let received = self.await_streaming(region, primary).await?;
        let notes = self.drop_old_slots(region).await?;
        Ok(self.applied(
            format!("the old primary in {region} is a standby, and has received {received}"),
            json!({ "received": received, "notes": notes }),
        ))
    }

    /// Tells whether a server that something has started since the old primary was stopped is a standby, by the signal that was left: it
    /// follows nobody, because nobody has told it whom. One that does not answer yet, or accepts no sessions, is waited for as it is.
    async fn follows_nobody(&self, region: &RegionName) -> bool {
        let found = async { self.connect(region).await?.position().await };
        found.await.is_ok_and(|found| found.in_recovery)
    }

    pub(super) async fn is_following(
        &self,
        region: &RegionName,
        primary: &RegionName,
    ) -> Result<Verified> {
        let timeline = self.connect(primary).await?.position().await?.timeline;
        let found = async { self.connect(region).await?.position().await };
        Ok(match found.await {
            Ok(found) if found.in_recovery && found.receiving && found.timeline == timeline => {
                Verified::Done(self.applied(
                    format!("the server in {region} streams from {primary}"),
                    json!({ "received": found.position }),
                ))
            }
            Ok(_) => Verified::NotDone {
                seen: format!("the server in {region} does not stream from {primary}"),
            },
            Err(error) => Verified::NotDone {
                seen: dr_provider::error::chain(&error),
            },
        })
    }
}
