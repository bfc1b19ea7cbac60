//! The heartbeat: a row that says when the primary last wrote, read back from what was recovered (PROTOCOL 10).
//!
//! Each epoch has a row of its own, so that the last beat of the old primary stays readable after the new one beats. Nothing is
//! written into another cluster: whoever connects to beat asks first, in the same session, whose server it is.

use dr_model::{Epoch, RegionName};
use dr_pgwire::quote_literal;
use dr_provider::Result;
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::driver::PostgresDriver;
use crate::instance::{Instance, translate};

/// The connection that the daemon's heartbeat keeps, with the region that it leads to.
#[derive(Debug, Default)]
pub(crate) struct BeatConnection(Mutex<Option<(RegionName, Instance)>>);

impl PostgresDriver {
    /// Writes a beat on a connection that is kept from one beat to the next, and given up on any error.
    pub(crate) async fn beat_on_kept_connection(
        &self,
        region: &RegionName,
        epoch: Epoch,
    ) -> Result<Timestamp> {
        let mut kept = self.beats().0.lock().await;
        let mut instance = match kept.take() {
            Some((connected, instance)) if connected == *region => instance,
            _ => self.connect_to_own(region).await?,
        };
        let at = self.write_beat(&mut instance, region, epoch).await?;
        *kept = Some((region.clone(), instance));
        Ok(at)
    }

    /// Writes a beat of `epoch` on the primary in `region`; the time is the server's.
    pub(crate) async fn write_beat(
        &self,
        instance: &mut Instance,
        region: &RegionName,
        epoch: Epoch,
    ) -> Result<Timestamp> {
        let writer = quote_literal(&format!("dr {region}"));
        let sql = format!(
            "insert into dr.heartbeat as h (id, at, sequence, epoch, writer) \
             values ({epoch}, clock_timestamp(), 1, {epoch}, {writer}) \
             on conflict (id) do update set at = clock_timestamp(), sequence = h.sequence + 1, \
             writer = excluded.writer returning (extract(epoch from at) * 1000000)::bigint"
        );
        let micros: i64 = instance.scalar("write a heartbeat to", &sql).await?;
        from_micros(instance, micros)
    }

    /// Reads the newest beat of any epoch up to `newest`.
    pub(crate) async fn read_beat(
        &self,
        instance: &mut Instance,
        newest: Option<Epoch>,
    ) -> Result<Option<Timestamp>> {
        let filter = newest
            .map(|epoch| format!("where epoch <= {epoch}"))
            .unwrap_or_default();
        let sql = format!(
            "select (extract(epoch from max(at)) * 1000000)::bigint from dr.heartbeat {filter}"
        );
        let micros: Option<i64> = instance.scalar("read the heartbeat of", &sql).await?;
        micros
            .map(|micros| from_micros(instance, micros))
            .transpose()
    }

    /// Reads when the newest commit was made that the server replayed before it became a primary; `None` if it has replayed none since
    /// it was started.
    ///
    /// "If recovery has completed this will remain static at the value in effect at that time" (PostgreSQL manual, Recovery
    /// Information Functions).
    pub(crate) async fn read_newest_replayed(
        &self,
        instance: &mut Instance,
    ) -> Result<Option<Timestamp>> {
        let sql = "select (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint";
        let operation = "read the newest replayed commit of";
        let micros: Option<i64> = instance.scalar(operation, sql).await?;
        micros
            .map(|micros| from_micros(instance, micros))
            .transpose()
    }
}

fn from_micros(instance: &Instance, micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros).map_err(|_| {
        let error = dr_pgwire::Error::Missing(format!("time that fits a timestamp: {micros}"));
        translate("read the heartbeat of", instance.subject(), error)
    })
}
