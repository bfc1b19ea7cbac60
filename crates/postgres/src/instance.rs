//! Talking to one instance of the cluster.

use std::time::Duration;

use dr_model::{Lsn, RegionName, SystemIdentifier, TimelineId};
use dr_pgwire::{Config, Connection, Rows, sql_state};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;

use crate::driver::PostgresDriver;

/// How long connecting to an instance may take.
///
/// A dead host answers nothing; a failover observes every region at once and waits this long at most.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long an administrative statement may take.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);

/// A connection for administrative statements, each within a time limit.
#[derive(Debug)]
pub(crate) struct Instance {
    connection: Connection,
    subject: String,
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) in_recovery: bool,
    /// Of a primary the timeline that it writes, of a standby the one that it has replayed up to.
    pub(crate) timeline: TimelineId,
    /// Flushed (primary) or received and flushed (standby).
    pub(crate) position: Lsn,
    /// Replayed, on a standby.
    pub(crate) replayed: Option<Lsn>,
    /// When the newest commit was made that a standby has replayed, by the clock of its primary.
    pub(crate) replayed_at: Option<Timestamp>,
    /// Whether a walreceiver runs, on a standby.
    pub(crate) receiving: bool,
    /// How long a standby keeps behind its primary (`recovery_min_apply_delay`), as it writes it; `None` if it does not.
    pub(crate) delay: Option<String>,
    /// The physical slots that somebody streams from, on a primary.
    pub(crate) streams: Vec<String>,
}

/// What is done to find out whether a server is the one that is meant.
const CLUSTER: &str = "find out the cluster of";

impl PostgresDriver {
    /// Returns how to connect to the instance in `region`.
    pub(crate) fn connection_config(&self, region: &RegionName) -> Result<Config> {
        let instance = self.instance_options(region)?;
        let options = self.options();
        let mut config = Config::new(
            instance.address.clone(),
            instance.port,
            options.user.clone(),
        );
        config.database = Some(options.database.clone());
        config.password = match &options.password {
            Some(reference) => {
                let secret = self.secrets().resolve(reference)?;
                Some(secret.expose().to_owned().into())
            }
            None => None,
        };
        config.tls = options.tls.clone();
        config.connect_timeout = CONNECT_LIMIT;
        Ok(config)
    }

    /// Connects to the instance in `region`.
    pub(crate) async fn connect(&self, region: &RegionName) -> Result<Instance> {
        self.open(region, self.connection_config(region)?).await
    }

    /// Connects to the instance in `region` under a name that its administrators see.
    pub(crate) async fn connect_as(&self, region: &RegionName, name: &str) -> Result<Instance> {
        let mut config = self.connection_config(region)?;
        name.clone_into(&mut config.application_name);
        self.open(region, config).await
    }

    /// Connects to the instance in `region`, and refuses one of another cluster than the epochs are about.
    pub(crate) async fn connect_to_own(&self, region: &RegionName) -> Result<Instance> {
        let mut instance = self.connect(region).await?;
        match self.known_cluster().await {
            Some(cluster) => instance.require_cluster(cluster).await?,
            None => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    CLUSTER,
                    self.resource().to_string(),
                )
                .because("no record of an epoch could be read".to_owned()));
            }
        }
        Ok(instance)
    }

    async fn open(&self, region: &RegionName, config: Config) -> Result<Instance> {
        let subject = format!("{} in {region} ({})", self.resource(), config.target());
        let connection = Connection::connect(&config)
            .await
            .map_err(|error| translate("connect to", &subject, error))?;
        Ok(Instance {
            connection,
            subject,
        })
    }
}

impl Instance {
    /// Connects to a server that is of no region.
    pub(crate) async fn connect(config: &Config, subject: String) -> Result<Self> {
        let connection = Connection::connect(config).await;
        let connection = connection.map_err(|error| translate("connect to", &subject, error))?;
        Ok(Self {
            connection,
            subject,
        })
    }

    /// Runs statements within the usual limit.
    pub(crate) async fn query(&mut self, operation: &str, sql: &str) -> Result<Rows> {
        self.query_within(operation, sql, STATEMENT_LIMIT).await
    }

    /// Runs statements within `limit`. After a time-out it is unknown whether they took effect.
    pub(crate) async fn query_within(
        &mut self,
        operation: &str,
        sql: &str,
        limit: Duration,
    ) -> Result<Rows> {
        match tokio::time::timeout(limit, self.connection.query(sql)).await {
            Ok(answer) => answer.map_err(|error| translate(operation, &self.subject, error)),
            Err(_) => Err(Error::new(ErrorKind::Unknown, operation, &self.subject)
                .because(format!("no answer within {} s", limit.as_secs_f64()))),
        }
    }

    /// Returns the first column of the only row.
    pub(crate) async fn scalar<T: dr_pgwire::FromText>(
        &mut self,
        operation: &str,
        sql: &str,
    ) -> Result<T> {
        let rows = self.query(operation, sql).await?;
        let value = rows.only().and_then(|row| row.get(0));
        value.map_err(|error| translate(operation, &self.subject, error))
    }

    /// Fails with `Invalid` if the server is of another cluster: nothing may be written there.
    pub(crate) async fn require_cluster(&mut self, expected: SystemIdentifier) -> Result<()> {
        let sql = "select system_identifier from pg_control_system()";
        let found = self.scalar(CLUSTER, sql).await?;
        self.check_cluster(found, expected)
    }

    /// Fails with `Invalid` if the cluster that the server was found to be of is not the expected one.
    pub(crate) fn check_cluster(
        &self,
        found: SystemIdentifier,
        expected: SystemIdentifier,
    ) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let why = format!(
            "another cluster answers there: its system identifier is {found}, not {expected}"
        );
        let error = Error::new(ErrorKind::Invalid, CLUSTER, &self.subject).because(why);
        Err(error.with_hint(
            "correct the address and port of the resource, or start the right server there",
        ))
    }

    /// Returns the server's major version.
    pub(crate) fn major_version(&self) -> Result<u32> {
        let version = self.connection.server_version();
        version.map(dr_pgwire::ServerVersion::major).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "find out the version of",
                &self.subject,
            )
            .because("it does not say it".to_owned())
        })
    }

    /// Returns the name of the instance for messages.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Tells whether recovery has come to where it is to end: it is over, or paused.
    pub(crate) async fn has_recovered(&mut self, operation: &str) -> Result<bool> {
        let sql = "select not pg_is_in_recovery() or pg_get_wal_replay_pause_state() = 'paused'";
        self.scalar(operation, sql).await
    }

    /// Asks the instance who and where it is.
    pub(crate) async fn position(&mut self) -> Result<Position> {
        let operation = "read the WAL position of";
        let in_recovery: bool = self.scalar(operation, "select pg_is_in_recovery()").await?;
        let sql = if in_recovery {
            STANDBY_POSITION
        } else {
            PRIMARY_POSITION
        };
        let rows = self.query(operation, sql).await?;
        let read = || {
            let row = rows.only()?;
            Ok(Position {
                system_identifier: row.get("system_identifier")?,
                in_recovery,
                timeline: row.get("timeline")?,
                position: row.get::<Option<Lsn>>("position")?.unwrap_or(Lsn::INVALID),
                replayed: row.get("replayed")?,
                replayed_at: row
                    .get::<Option<i64>>("replayed_at")?
                    .and_then(|micros| Timestamp::from_microsecond(micros).ok()),
                receiving: row.get("receiving")?,
                delay: row
                    .get::<Option<String>>("delay")?
                    .filter(|delay| delay != "0"),
                streams: row
                    .get::<Option<String>>("streams")?
                    .map(|names| names.split(',').map(str::to_owned).collect())
                    .unwrap_or_default(),
            })
        };
        read().map_err(|error| translate(operation, &self.subject, error))
    }
}

/// The timeline is read from the name of the segment being written: the control file shows the old one until the first
/// checkpoint after a promotion.
const PRIMARY_POSITION: &str = "select s.system_identifier, \
    ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int as timeline, \
    pg_current_wal_flush_lsn() as position, null::pg_lsn as replayed, null::bigint as replayed_at, false as receiving, null::text as delay, \
    (select string_agg(slot_name, ',') from pg_replication_slots where slot_type = 'physical' and active) as streams \
    from pg_control_system() s";

/// A standby that has only ever read an archive has received nothing: what it has replayed is what it has.
///
/// The control file shows the timeline of the last restart point, which may be the one before a switch that was followed
/// minutes ago. Once the walreceiver has gone only the name of the segment that holds the position tells the right one:
/// `pg_walfile_name` may not be asked during recovery, so it is put together here.
const STANDBY_POSITION: &str = "select s.system_identifier, \
    greatest(r.received_tli, c.timeline_id, f.timeline) as timeline, \
    p.position, pg_last_wal_replay_lsn() as replayed, \
    (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint as replayed_at, r.pid is not null as receiving, \
    current_setting('recovery_min_apply_delay') as delay, \
    null::text as streams \
    from pg_control_system() s cross join pg_control_checkpoint() c \
    cross join (select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) as position) p \
    cross join lateral (select greatest((p.position - '0/0'::pg_lsn)::bigint - 1, 0) as byte, \
      pg_size_bytes(current_setting('wal_segment_size')) as size) b \
    left join pg_stat_wal_receiver r on true \
    left join lateral (select max(('x' || substr(w.name, 1, 8))::bit(32)::int) as timeline \
      from pg_ls_waldir() w where length(w.name) = 24 and substr(w.name, 9) = \
      upper(lpad(to_hex(b.byte >> 32), 8, '0') || lpad(to_hex((b.byte & 4294967295) / b.size), 8, '0'))) f on true";

/// Turns an error of the wire into one of the seam: what it means for the caller, and what to do about it.
pub(crate) fn translate(operation: &str, subject: &str, error: dr_pgwire::Error) -> Error {
    use dr_pgwire::Error as Wire;
    // One that starts, shuts down or calls a query off answers as well, and serves nobody by that.
    let serves = !matches!(
        error.sql_state().unwrap_or_default(),
        sql_state::CANNOT_CONNECT_NOW
            | sql_state::ADMIN_SHUTDOWN
            | sql_state::CRASH_SHUTDOWN
            | sql_state::QUERY_CANCELED
    );
    let is_answer = serves
        && matches!(
            error,
            Wire::Server(_)
                | Wire::PasswordRequired { .. }
                | Wire::AuthenticationMethod { .. }
                | Wire::Scram { .. }
                | Wire::ServerVersion { .. }
                | Wire::TlsRefused { .. }
        );
    let (kind, hint) = match &error {
        Wire::Connect { .. } | Wire::ConnectTimeout { .. } => (ErrorKind::Unavailable, None),
        Wire::Tls { .. } | Wire::TlsRefused { .. } => (
            ErrorKind::Denied,
            Some("check `tls` of the resource and the server's certificate"),
        ),
        // A file of ours: nobody was asked, so nobody has turned us away.
        Wire::CaFile { .. } => (
            ErrorKind::Invalid,
            Some("check `tls` of the resource: it names the file"),
        ),
        Wire::PasswordRequired { .. } | Wire::Scram { .. } => (
            ErrorKind::Denied,
            Some("check `password` of the resource and the role's password"),
        ),
        Wire::Io { .. } | Wire::Closed { .. } | Wire::Unusable { .. } => (ErrorKind::Unknown, None),
        Wire::ServerVersion { .. } | Wire::AuthenticationMethod { .. } => {
            (ErrorKind::Unsupported, None)
        }
        Wire::Server(_) => match error.sql_state().unwrap_or_default() {
            sql_state::CANNOT_CONNECT_NOW => (ErrorKind::Unavailable, None),
            "53300" => (
                ErrorKind::Unavailable,
                Some("end sessions that nobody needs, or raise `max_connections`"),
            ),
            sql_state::ADMIN_SHUTDOWN | sql_state::CRASH_SHUTDOWN | sql_state::QUERY_CANCELED => {
                (ErrorKind::Unknown, None)
            }
            sql_state::INVALID_AUTHORIZATION | sql_state::INVALID_PASSWORD => (
                ErrorKind::Denied,
                Some(
                    "check the role, its password and `pg_hba.conf`; `dr init --sql` prints what is needed",
                ),
            ),
            sql_state::INSUFFICIENT_PRIVILEGE => (
                ErrorKind::Denied,
                Some(
                    "`dr check --online` names the missing grant; `dr init --sql` prints all of them",
                ),
            ),
            sql_state::UNDEFINED_OBJECT | sql_state::UNDEFINED_FILE => (ErrorKind::NotFound, None),
            sql_state::DUPLICATE_OBJECT => (ErrorKind::AlreadyExists, None),
            sql_state::OBJECT_IN_USE => (ErrorKind::Conflict, None),
            sql_state::DATA_CORRUPTED => (ErrorKind::Corrupt, None),
            _ => (ErrorKind::Failed, None),
        },
        _ => (ErrorKind::Failed, None),
    };
    let translated = Error::new(kind, operation, subject).because(error);
    let translated = match is_answer {
        true => translated.answered(),
        false => translated,
    };
    match hint {
        Some(hint) => translated.with_hint(hint),
        None => translated,
    }
}

/// Returns the state with which the server answered, if it is what the error comes from.
pub(crate) fn sql_state_of(error: &Error) -> Option<&str> {
    let cause = std::error::Error::source(error)?;
    cause.downcast_ref::<dr_pgwire::Error>()?.sql_state()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// A server that turns somebody away runs; a file of ours that cannot be read says nothing of it.
    #[test]
    fn a_fault_of_ours_is_not_taken_for_an_answer() {
        let error = dr_pgwire::Error::CaFile {
            path: "/etc/dr/ca.pem".into(),
            source: std::io::Error::other("gone"),
        };
        let translated = translate("connect to", "it", error);
        assert_eq!(translated.kind(), ErrorKind::Invalid);
        assert!(!translated.is_answer());
    }

    /// Clients who have taken every connection are served; one that starts or shuts down serves nobody.
    #[rstest]
    #[case::too_many_connections("53300", true)]
    #[case::wrong_password("28P01", true)]
    #[case::starting("57P03", false)]
    #[case::shutting_down("57P01", false)]
    #[case::called_off("57014", false)]
    fn only_an_answer_of_one_that_serves_counts(#[case] code: &str, #[case] serves: bool) {
        let message = dr_pgwire::ServerMessage {
            code: code.to_owned(),
            ..dr_pgwire::ServerMessage::default()
        };
        let error = dr_pgwire::Error::Server(Box::new(message));
        assert_eq!(translate("connect to", "it", error).is_answer(), serves);
    }
}
