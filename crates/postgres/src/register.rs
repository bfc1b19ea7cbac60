//! Who is primary, as the driver asks it.

use dr_coordination::Patience;
use dr_coordination::register::EpochRecord;
use dr_model::TimelineId;
use dr_provider::{Error, ErrorKind, Result};

use crate::actions::Log;
use crate::driver::PostgresDriver;

impl PostgresDriver {
    /// Reads the newest epoch; a register that cannot be read, or has no epoch yet, is an error, never a guess.
    pub(crate) async fn read_register(&self, operation: &str) -> Result<EpochRecord> {
        let record = self.parts().register.read().await.map_err(Error::from)?;
        record.ok_or_else(|| self.no_epoch(operation))
    }

    /// As [`Self::read_register`], by whoever asks again and again while somebody else looks for what contradicts it.
    pub(crate) async fn follow_register(&self, operation: &str) -> Result<EpochRecord> {
        let record = self.parts().register.follow().await.map_err(Error::from)?;
        record.ok_or_else(|| self.no_epoch(operation))
    }

    fn no_epoch(&self, operation: &str) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            operation,
            self.resource().to_string(),
        )
        .because("its workload has no epoch yet")
        .with_hint("the daemon of the first recovery region opens epoch 1 once the primary runs")
    }

    /// Returns the chain that an epoch's record names for this cluster.
    pub(crate) fn log_of(&self, record: &EpochRecord, operation: &str) -> Result<Log> {
        let chain = record.chain(&self.resource().resource).ok_or_else(|| {
            self.failed(
                operation,
                format!("epoch {} says nothing of it", record.epoch),
            )
        })?;
        Ok(Log {
            system_identifier: chain.system_identifier,
            timeline: chain.timeline,
            epoch: chain.epoch,
        })
    }

    /// Returns the timeline that an epoch's record claims for this cluster (PROTOCOL 2).
    pub(crate) fn claimed_timeline(
        &self,
        record: &EpochRecord,
        operation: &str,
    ) -> Result<TimelineId> {
        Ok(self.log_of(record, operation)?.timeline)
    }
}

/// How long a store is waited for while somebody waits for an answer.
pub(crate) fn patience() -> Patience {
    Patience {
        attempts: 3,
        ..Patience::default()
    }
}
