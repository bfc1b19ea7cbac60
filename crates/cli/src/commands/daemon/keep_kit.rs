//! Keeping a fresh recovery kit in the store of the daemon's region.
//!
//! It is made of the files as they are now, which whoever fails over would read too, and written only if it differs from the
//! newest one there. Of the older ones the newest few are kept, where the daemon may delete; it need not be able to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::kit;
use dr_jobs::engine::{Board, Condition};
use dr_model::RegionName;
use dr_provider::error::chain;
use tokio::sync::watch;

use crate::kit::{content, kit as make};
use crate::wiring::Setup;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(15);

/// How many kits are kept, with the newest: who made a mistake in the configuration yesterday can go back.
const KEPT: usize = 5;

/// The name of its line on the board.
const TASK: &str = "recovery kit";

/// Keeps the kit of one region.
pub(super) struct KeepKit {
    setup: Arc<Setup>,
    config: PathBuf,
    region: RegionName,
    board: Arc<Board>,
}

impl KeepKit {
    pub(super) fn new(
        setup: &Arc<Setup>,
        config: &Path,
        region: &RegionName,
        board: Arc<Board>,
    ) -> Self {
        Self {
            setup: Arc::clone(setup),
            config: config.to_owned(),
            region: region.clone(),
            board,
        }
    }

    /// Keeps it until `stop` turns true.
    pub(super) async fn keep(&self, mut stop: watch::Receiver<bool>) {
        let mut newest = None;
        while !*stop.borrow() {
            let condition = match self.refresh(&mut newest).await {
                Ok(what) => Condition::Good(what),
                Err(why) => Condition::Bad(why),
            };
            self.board.set(TASK, condition);
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _stopped = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Writes it if it differs; `newest` is what the store holds, once that is known. Says what is there, or why it is not.
    async fn refresh(&self, newest: &mut Option<String>) -> Result<String, String> {
        let failed = |error: crate::error::CommandError| {
            std::iter::once(error.message)
                .chain(error.details)
                .chain(error.causes)
                .collect::<Vec<_>>()
                .join(": ")
        };
        let setup = Setup::load(&self.config).map_err(failed)?;
        let content = tokio::task::spawn_blocking(move || content(&setup))
            .await
            .map_err(|error| error.to_string())?
            .map_err(failed)?;
        let hash = content.hash();
        if newest.as_ref() != Some(&hash) {
            let store = self.setup.stores.get(&self.region);
            let store = store.ok_or("this region has no store")?;
            let there = kit::newest(&**store).await;
            // One that cannot be read is no kit.
            let there = there.ok().flatten().map(|kit| kit.content.hash());
            if there.as_ref() != Some(&hash) {
                let made = make(&self.setup, content);
                let written = kit::write(&**store, &made).await;
                written.map_err(|error| chain(&error))?;
            }
            if let Err(error) = kit::prune(&**store, KEPT).await {
                tracing::debug!(error = %chain(&error), "older recovery kits stay");
            }
            *newest = Some(hash.clone());
        }
        Ok(format!("the newest in the store is {:.16}", hash))
    }
}
