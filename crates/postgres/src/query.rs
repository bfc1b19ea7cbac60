//! Answering read-only queries, for checks.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::{RegionName, SystemIdentifier};
use dr_provider::driver::{Query, Role};
use dr_provider::{Error, ErrorKind, Result};

use crate::driver::PostgresDriver;
use crate::instance::translate;

/// Counts the sessions of clients: neither what the server runs itself, nor who streams its log, nor sessions of `dr`. Null if
/// the kind of a session is hidden, as it is without `pg_monitor`.
const SESSIONS: &str = "select case when bool_or(usename is not null and backend_type is null) then null \
     else count(*) filter (where backend_type = 'client backend' \
     and not (usename = current_user and (application_name = 'dr' or application_name like 'dr %'))) end \
     from pg_stat_activity where pid <> pg_backend_pid()";

#[async_trait]
impl Query for PostgresDriver {
    async fn scalar(
        &self,
        region: &RegionName,
        query: &str,
        limit: Duration,
    ) -> Result<Option<String>> {
        let operation = "query";
        let mut instance = self.connect(region).await?;
        instance
            .query_within(operation, "set default_transaction_read_only = on", limit)
            .await?;
        let rows = instance.query_within(operation, query, limit).await?;
        match rows.first() {
            Some(row) => row
                .text(0)
                .map_err(|error| translate(operation, instance.subject(), error)),
            None => Ok(None),
        }
    }

    async fn role(&self, region: &RegionName) -> Result<(SystemIdentifier, Role)> {
        let position = self.connect(region).await?.position().await?;
        let role = match position.in_recovery {
            true => Role::Standby,
            false => Role::Primary,
        };
        Ok((position.system_identifier, role))
    }

    async fn sessions(&self, region: &RegionName) -> Result<(SystemIdentifier, u64)> {
        let operation = "count the sessions of clients at";
        let mut instance = self.connect(region).await?;
        let cluster = instance.position().await?.system_identifier;
        let count: Option<i64> = instance.scalar(operation, SESSIONS).await?;
        let count = count.and_then(|count| u64::try_from(count).ok());
        let hidden = || {
            Error::new(ErrorKind::Denied, operation, instance.subject())
                .because("some sessions are hidden from this role".to_owned())
                .with_hint("`grant pg_monitor` to it; `dr init --sql` prints all that is needed")
        };
        Ok((cluster, count.ok_or_else(hidden)?))
    }
}
