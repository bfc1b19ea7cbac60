//! Answering read-only queries, for checks.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::{RegionName, SystemIdentifier};
use dr_provider::Result;
use dr_provider::driver::{Query, Role};

use crate::driver::PostgresDriver;
use crate::instance::translate;

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
}
