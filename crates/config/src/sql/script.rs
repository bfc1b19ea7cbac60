//! What `dr init --sql` prints.

use super::{PRIVILEGES, identifier};

/// For whom and from where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The role, `dr` unless configured otherwise.
    pub role: String,
    /// The database that holds the heartbeat.
    pub database: String,
    /// Who connects: the daemon of each region.
    pub peers: Vec<Peer>,
}

/// Somebody who connects to the cluster.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is, for a comment.
    pub name: String,
    /// Its address with the length of the prefix, such as `10.8.1.10/32`.
    pub address: String,
}

/// A setting without which the log cannot be shipped or a cluster cannot come back.
struct Setting {
    name: &'static str,
    /// What it becomes where it is not enough.
    value: &'static str,
    /// When its `value` is not enough, in SQL. More than enough is left as it is: a server may need it for something else.
    lacks: &'static str,
    why: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "wal_level",
        value: "replica",
        lacks: "value = 'minimal'",
        why: "the log holds what a standby needs; restart",
    },
    Setting {
        name: "max_wal_senders",
        value: "10",
        lacks: "value::integer < 10",
        why: "two for each region and some to spare; restart",
    },
    Setting {
        name: "max_replication_slots",
        value: "10",
        lacks: "value::integer < 10",
        why: "one for each region and standby, and some to spare; restart",
    },
    Setting {
        name: "hot_standby",
        value: "on",
        lacks: "NOT value::boolean",
        why: "a standby answers queries; restart",
    },
    Setting {
        name: "wal_log_hints",
        value: "on",
        lacks: "NOT value::boolean AND NOT current_setting('data_checksums')::boolean",
        why: "an old primary can be rewound; needless with checksums; restart",
    },
    Setting {
        name: "max_slot_wal_keep_size",
        value: "16GB",
        lacks: "value = '-1'",
        why: "a region that is away cannot fill the disk",
    },
];

impl Setting {
    /// Returns one line that sets it unless what is set is enough, be it in force or written and waiting for a restart. `ALTER SYSTEM`
    /// stands in no block, hence `\gexec`.
    fn statement(&self) -> String {
        let Self {
            name, value, lacks, ..
        } = self;
        format!(
            "SELECT $$ALTER SYSTEM SET {name} = '{value}'$$ FROM (SELECT coalesce((SELECT setting FROM pg_file_settings \
             WHERE name = '{name}' ORDER BY seqno DESC LIMIT 1), current_setting('{name}'))) AS now (value) WHERE {lacks} \\gexec"
        )
    }
}

/// Returns statements for `psql`, run by a superuser in the database of the heartbeat on the primary.
///
/// They can be run again. Lines for `pg_hba.conf` and the choice of a password stand in comments.
#[must_use]
pub fn script(options: &Options) -> String {
    let role = identifier(&options.role);
    let literal = options.role.replace('\'', "''");
    let shown = options.role.replace(['\n', '\r'], " ");
    let database = options.database.replace(['\n', '\r'], " ");
    let mut lines = vec![
        "-- The role that dr connects as, for PostgreSQL 15 and later.".to_owned(),
        format!("-- Run as a superuser on the primary, in the database `{database}`: psql -f FILE"),
        "-- Standbys have it from there, except pg_hba.conf and the settings.".to_owned(),
        "\\set ON_ERROR_STOP on".to_owned(),
        String::new(),
        "DO $dr$ BEGIN".to_owned(),
        format!("  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{literal}') THEN"),
        format!("    CREATE ROLE {role};"),
        "  END IF;".to_owned(),
        "END $dr$;".to_owned(),
        "-- Its password, which then goes into the file that dr.yaml names:".to_owned(),
        format!("--   \\password {shown}"),
        String::new(),
    ];
    for privilege in PRIVILEGES {
        lines.push(format!("-- {}: {}.", privilege.what, privilege.why));
        lines.push(privilege.statement(&options.role));
    }
    lines.extend([
        String::new(),
        "-- `restore_command` is a shell command: with it the role can run programs as the"
            .to_owned(),
        "-- user of the server, on a standby. Guard its password as you guard that user."
            .to_owned(),
        "-- Each `sql` check reads with this role: grant it SELECT on what the check reads."
            .to_owned(),
        String::new(),
        "-- Settings, on the primary and on each standby. What is enough already stays as it is."
            .to_owned(),
    ]);
    for setting in SETTINGS {
        lines.push(format!(
            "-- {} = {}: {}.",
            setting.name, setting.value, setting.why
        ));
        lines.push(setting.statement());
    }
    lines.extend([
        "SELECT pg_reload_conf();".to_owned(),
        String::new(),
        "-- pg_hba.conf, on the primary and on each standby, above broader lines; then reload:"
            .to_owned(),
    ]);
    lines.extend(hba(options).into_iter().map(|line| format!("--   {line}")));
    lines.join("\n") + "\n"
}

/// Returns the lines for `pg_hba.conf`: from each peer, for replication and for the one database.
#[must_use]
pub fn hba(options: &Options) -> Vec<String> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (role, database) = (quote(&options.role), quote(&options.database));
    let mut lines = Vec::new();
    for peer in &options.peers {
        let address = &peer.address;
        lines.push(format!(
            "host replication {role} {address} scram-sha-256 # {}",
            peer.name
        ));
        lines.push(format!(
            "host {database} {role} {address} scram-sha-256 # {}",
            peer.name
        ));
    }
    lines
}
