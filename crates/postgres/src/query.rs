//! Answering read-only queries, for checks.

use std::time::Duration;

use async_trait::async_trait;
use dr_model::RegionName;
use dr_provider::Result;
use dr_provider::driver::Query;

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
}
