//! The roles and grants of the sandbox's clusters.
//!
//! What `dr` may do is exactly what `dr init --sql` prints, so that a missing grant shows here first.

use dr_config::sql::PRIVILEGES;

use crate::layout::{APP_ROLE, DR_ROLE, Layout, STANDBY_ROLE, WORKLOAD};
use crate::{Error, Result};

/// Returns the statements that make the roles and the database, to be run one by one in `postgres`.
pub(super) fn statements(layout: &Layout) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for (role, attributes) in [
        (DR_ROLE, "REPLICATION"),
        (STANDBY_ROLE, "REPLICATION"),
        (APP_ROLE, ""),
    ] {
        // Generated from letters and digits: nothing to quote.
        let password = layout.password(role)?;
        statements.push(format!(
            "CREATE ROLE {role} LOGIN {attributes} PASSWORD '{password}'"
        ));
    }
    statements.push(format!("CREATE DATABASE {WORKLOAD} OWNER {APP_ROLE}"));
    Ok(statements)
}

/// Returns the statements that make the application's table and let `dr` do its work, to be run in the workload's
/// database.
pub(super) fn grants() -> Vec<String> {
    // The time is the database's own, at the insertion itself.
    let table = format!(
        "CREATE TABLE ledger (
             id bigint PRIMARY KEY,
             client integer NOT NULL,
             sequence bigint NOT NULL,
             written_at timestamptz NOT NULL DEFAULT clock_timestamp()
         );
         ALTER TABLE ledger OWNER TO {APP_ROLE};
         GRANT SELECT ON ledger TO {DR_ROLE}"
    );
    let privileges = PRIVILEGES
        .iter()
        .map(|privilege| privilege.statement(DR_ROLE));
    std::iter::once(table).chain(privileges).collect()
}

/// Names a statement for an error without showing a password.
pub(super) fn failed(region: &str) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let region = region.to_owned();
    move |source| Error::Sql {
        operation: "make the roles",
        region,
        source,
    }
}
