//! Whether a store holds the log that a backup needs to become consistent (R2).

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{self, Section, bounds, prove, prove_by_names, read_history};
use dr_model::RegionName;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};

use super::base::Source;
use super::take::OPERATION;
use crate::actions::Log;
use crate::driver::PostgresDriver;
use crate::register::patience;

/// How long the log may take to reach the store after a backup.
const LIMIT: Duration = Duration::from_secs(120);

/// How often the store is looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(250);

/// How often the register is asked meanwhile whether the epoch is over.
const QUESTION_INTERVAL: Duration = Duration::from_secs(5);

impl PostgresDriver {
    /// Says what a store lacks of the log from a backup's start to its stop; `None` if nothing.
    pub(super) async fn missing_log(
        &self,
        store: &Arc<dyn ObjectStore>,
        source: &Source,
    ) -> Result<Option<String>> {
        let (cluster, timeline) = (source.system_identifier, source.timeline);
        let from = source.segment_bytes.start_of(source.start);
        let section = Section::new(cluster, timeline, from, source.stop);
        // Most looks are for log that has not arrived yet, which its names tell at once.
        let mut proven = prove_by_names(&**store, section, patience()).await;
        if proven.is_ok() {
            proven = prove(&**store, section, patience()).await;
        }
        match proven {
            Ok(()) => {}
            Err(hole @ (chain::Error::Hole { .. } | chain::Error::CorruptPiece { .. })) => {
                let hole = match bounds(&**store, cluster, timeline, patience()).await? {
                    Some(_) => hole.to_string(),
                    None => format!("{} has none of it", store.location()),
                };
                return Ok(Some(format!(
                    "it needs the log of timeline {timeline} from {from} to {}, and {hole}",
                    source.stop
                )));
            }
            Err(error) => return Err(error.into()),
        }
        if timeline.0 > 1 && read_history(&**store, cluster, timeline).await?.is_none() {
            return Ok(Some(format!(
                "{} does not hold the history of timeline {timeline}",
                store.location()
            )));
        }
        Ok(None)
    }

    /// Waits until the store of `region` holds the log of a backup just taken. After a failover it never will: the log of the
    /// epoch that is over was sealed, so the register is asked as well.
    pub(super) async fn await_log(
        &self,
        region: &RegionName,
        log: Log,
        source: &Source,
    ) -> Result<()> {
        let store = self.store(region)?;
        let deadline = self.clock().elapsed() + LIMIT;
        let mut next_question = self.clock().elapsed();
        loop {
            let Some(missing) = self.missing_log(store, source).await? else {
                return Ok(());
            };
            let now = self.clock().elapsed();
            if now >= next_question {
                // A register that does not answer says nothing against it.
                if let Ok(Some(superseded)) = self.superseded(region, log).await {
                    return Err(superseded);
                }
                next_question = now + QUESTION_INTERVAL;
            }
            if now >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    OPERATION,
                    self.resource().to_string(),
                )
                .because(format!("after {} s {missing}", LIMIT.as_secs()))
                .with_hint(format!(
                    "no receiver ships the log into {region}: is `dr daemon --region {region}` running?"
                )));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
