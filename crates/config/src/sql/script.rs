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

/// Settings without which the log cannot be shipped or a cluster cannot come back; some need a restart.
const SETTINGS: &[(&str, &str, &str)] = &[
    (
        "wal_level",
        "replica",
        "the log holds what a standby needs; restart",
    ),
    (
        "max_wal_senders",
        "10",
        "two for each region and some to spare; restart",
    ),
    (
        "max_replication_slots",
        "10",
        "one for each region and standby, and some to spare; restart",
    ),
    ("hot_standby", "on", "a standby answers queries; restart"),
    (
        "wal_log_hints",
        "on",
        "an old primary can be rewound; needless with checksums; restart",
    ),
    (
        "max_slot_wal_keep_size",
        "16GB",
        "a region that is away cannot fill the disk",
    ),
];

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
        "-- Settings, on the primary and on each standby.".to_owned(),
    ]);
    for (name, value, why) in SETTINGS {
        lines.push(format!("ALTER SYSTEM SET {name} = '{value}'; -- {why}"));
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
