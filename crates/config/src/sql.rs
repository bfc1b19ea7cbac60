//! What the role of `dr` needs in a PostgreSQL cluster, and nothing beyond it.
//!
//! `LOGIN REPLICATION` alone may not call `pg_backup_start`, `pg_promote`, `pg_ls_waldir` and others. Each need stands
//! here once, with a query that tells whether it is met and the statement that meets it: `dr init --sql` prints the
//! statements, `dr check --online` asks the queries and prints the statement that is missing. For PostgreSQL 15 and
//! later: earlier versions cannot grant `ALTER SYSTEM` on single settings.

mod script;

pub use script::{Options, Peer, hba, script};

/// Something that the role must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// What it is, for a line of a report.
    pub what: &'static str,
    /// A query that changes nothing and returns one row with one boolean: whether the connected role has it.
    pub test_sql: &'static str,
    /// The statement that gives it, to be run by a superuser; `{role}` is the role, see [`Privilege::statement`].
    pub missing_statement: &'static str,
    /// What `dr` needs it for.
    pub why: &'static str,
}

impl Privilege {
    /// Returns the statement that gives this to `role`.
    #[must_use]
    pub fn statement(&self, role: &str) -> String {
        self.missing_statement.replace("{role}", &identifier(role))
    }
}

/// Quotes an identifier for SQL.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

macro_rules! function {
    ($function:literal, $why:literal) => {
        Privilege {
            what: concat!("execute `", $function, "`"),
            test_sql: concat!(
                "SELECT has_function_privilege('pg_catalog.",
                $function,
                "', 'EXECUTE')"
            ),
            missing_statement: concat!(
                "GRANT EXECUTE ON FUNCTION pg_catalog.",
                $function,
                " TO {role};"
            ),
            why: $why,
        }
    };
}

macro_rules! parameter {
    ($parameter:literal, $why:literal) => {
        Privilege {
            what: concat!("alter the setting `", $parameter, "`"),
            test_sql: concat!(
                "SELECT has_parameter_privilege('",
                $parameter,
                "', 'ALTER SYSTEM')"
            ),
            missing_statement: concat!(
                "GRANT ALTER SYSTEM ON PARAMETER ",
                $parameter,
                " TO {role};"
            ),
            why: $why,
        }
    };
}

/// Everything that the role must be able to do, in the order in which it is given.
pub const PRIVILEGES: &[Privilege] = &[
    Privilege {
        what: "log in for replication",
        test_sql: "SELECT rolcanlogin AND rolreplication FROM pg_roles WHERE rolname = current_user",
        missing_statement: "ALTER ROLE {role} LOGIN REPLICATION;",
        why: "to receive the log and take base backups",
    },
    Privilege {
        what: "be a member of `pg_monitor`",
        test_sql: "SELECT pg_has_role('pg_monitor', 'USAGE')",
        missing_statement: "GRANT pg_monitor TO {role};",
        why: "to see settings, replication and the files of the log (`pg_ls_waldir`)",
    },
    Privilege {
        what: "be a member of `pg_checkpoint`",
        test_sql: "SELECT pg_has_role('pg_checkpoint', 'USAGE')",
        missing_statement: "GRANT pg_checkpoint TO {role};",
        why: "to shorten a planned move, and to rewind an old primary soon after a promotion",
    },
    function!("pg_backup_start(text, boolean)", "to take base backups"),
    function!("pg_backup_stop(boolean)", "to take base backups"),
    function!("pg_switch_wal()", "to complete a segment of the log"),
    function!(
        "pg_create_restore_point(text)",
        "to mark a moment to restore to"
    ),
    function!("pg_reload_conf()", "to put changed settings into effect"),
    function!(
        "pg_promote(boolean, integer)",
        "to make a standby the primary"
    ),
    function!(
        "pg_wal_replay_resume()",
        "to promote a standby whose replay was paused"
    ),
    function!(
        "pg_ls_dir(text, boolean, boolean)",
        "to rewind an old primary (`pg_rewind`); a base backup shows as much"
    ),
    function!(
        "pg_stat_file(text, boolean)",
        "to rewind an old primary (`pg_rewind`)"
    ),
    function!(
        "pg_read_binary_file(text)",
        "to rewind an old primary (`pg_rewind`); a base backup shows as much"
    ),
    function!(
        "pg_read_binary_file(text, bigint, bigint, boolean)",
        "to rewind an old primary (`pg_rewind`); a base backup shows as much"
    ),
    parameter!(
        "primary_conninfo",
        "to detach a standby before its log is sealed"
    ),
    parameter!(
        "primary_slot_name",
        "to detach a standby before its log is sealed"
    ),
    parameter!(
        "restore_command",
        "to serve a standby the end of the log from the store"
    ),
    parameter!(
        "recovery_min_apply_delay",
        "to let a standby that is kept behind replay all of its log before it is promoted"
    ),
    parameter!(
        "synchronous_standby_names",
        "to make commits wait for the recovery region's store"
    ),
    Privilege {
        what: "alter the settings that say where a recovery ends",
        test_sql: "SELECT bool_and(has_parameter_privilege(name, 'ALTER SYSTEM')) \
                   FROM unnest(ARRAY['recovery_target', 'recovery_target_lsn', \
                   'recovery_target_name', 'recovery_target_time', 'recovery_target_timeline', \
                   'recovery_target_xid']) name",
        missing_statement: "GRANT ALTER SYSTEM ON PARAMETER recovery_target, recovery_target_lsn, \
                            recovery_target_name, recovery_target_time, recovery_target_timeline, \
                            recovery_target_xid TO {role};",
        why: "to let standbys of a restored primary go on beyond the end of the restore",
    },
    Privilege {
        what: "read what the server's configuration files hold",
        test_sql: "SELECT has_table_privilege('pg_file_settings', 'SELECT') \
                   AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE')",
        missing_statement: "GRANT SELECT ON pg_file_settings TO {role}; \
                            GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {role};",
        why: "to see that no setting for the end of a recovery is left",
    },
    Privilege {
        what: "use the schema `dr`",
        test_sql: "SELECT coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace \
                   WHERE nspname = 'dr'), false)",
        missing_statement: "CREATE SCHEMA IF NOT EXISTS dr; GRANT USAGE ON SCHEMA dr TO {role};",
        why: "to reach the heartbeat",
    },
    Privilege {
        what: "write and read `dr.heartbeat`",
        test_sql: "SELECT coalesce((SELECT bool_and(has_table_privilege(c.oid, p)) \
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, \
                   unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p \
                   WHERE n.nspname = 'dr' AND c.relname = 'heartbeat'), false)",
        missing_statement: "CREATE TABLE IF NOT EXISTS dr.heartbeat (id int PRIMARY KEY, \
                            at timestamptz NOT NULL, sequence bigint NOT NULL, \
                            epoch bigint NOT NULL, writer text NOT NULL); \
                            GRANT SELECT, INSERT, UPDATE ON dr.heartbeat TO {role};",
        why: "to measure what was lost by reading it back after a recovery",
    },
];
