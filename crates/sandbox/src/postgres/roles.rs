//! The roles and grants of the sandbox's clusters.

use crate::layout::{APP_ROLE, DR_ROLE, Layout, STANDBY_ROLE, WORKLOAD};
use crate::{Error, Result};

/// The functions that a `LOGIN REPLICATION` role may not call by itself and `dr` has to.
const FUNCTIONS: [&str; 10] = [
    "pg_backup_start(text, boolean)",
    "pg_backup_stop(boolean)",
    "pg_promote(boolean, integer)",
    "pg_switch_wal()",
    "pg_create_restore_point(text)",
    "pg_reload_conf()",
    "pg_wal_replay_pause()",
    "pg_wal_replay_resume()",
    "pg_ls_dir(text, boolean, boolean)",
    "pg_read_file(text)",
];

/// Returns the statements that make the roles, to be run one by one in `postgres`.
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

/// Returns the statements that let `dr` do its work, to be run in the workload's database.
pub(super) fn grants() -> Vec<String> {
    let mut grants = vec![
        format!("GRANT pg_monitor, pg_checkpoint TO {DR_ROLE}"),
        format!("GRANT CREATE, CONNECT ON DATABASE {WORKLOAD} TO {DR_ROLE}"),
        format!("CREATE SCHEMA dr AUTHORIZATION {DR_ROLE}"),
    ];
    grants.extend(
        FUNCTIONS
            .iter()
            .map(|function| format!("GRANT EXECUTE ON FUNCTION {function} TO {DR_ROLE}")),
    );
    grants.extend(
        [
            "primary_conninfo",
            "primary_slot_name",
            "synchronous_standby_names",
            "restore_command",
        ]
        .iter()
        .map(|name| format!("GRANT ALTER SYSTEM ON PARAMETER {name} TO {DR_ROLE}")),
    );
    grants
}

/// Makes the application's table. The time is the database's own, at the insertion itself.
pub(super) fn table() -> String {
    format!(
        "CREATE TABLE ledger (
             id bigint PRIMARY KEY,
             client integer NOT NULL,
             sequence bigint NOT NULL,
             written_at timestamptz NOT NULL DEFAULT clock_timestamp()
         );
         ALTER TABLE ledger OWNER TO {APP_ROLE}"
    )
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
