//! Whether the promise of synchronous mode holds (PROTOCOL 5).
//!
//! PostgreSQL offers ways around the wait for a synchronous standby. Those that can be seen from outside are looked for
//! every few seconds and what was found is written into the next chunk: a seal proves that nothing acknowledged is lost
//! only if the conditions held shortly before. What a single session does to itself, `set synchronous_commit = local` or
//! the cancelling of a wait, cannot be seen from outside and is outside the promise: such a client did not wait.

use dr_model::{Epoch, Lsn, RegionName};
use dr_provider::Result;
use jiff::Timestamp;

use crate::driver::PostgresDriver;
use crate::instance::translate;
use crate::options::Options;

const OPERATION: &str = "look at the promise conditions of";

/// What was found, for the header of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The epoch whose sync set it was compared with.
    pub(crate) epoch: Epoch,
    /// The walsender of the session that it is about.
    pub(crate) pid: Option<i32>,
    pub(crate) checked_at: Timestamp,
    /// Where the primary's WAL ended when the conditions began to hold; `None` if they do not.
    pub(crate) from: Option<Lsn>,
    pub(crate) reasons: Vec<String>,
}

impl Found {
    pub(crate) fn held(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// The conditions as they are now.
pub(super) struct Conditions {
    /// Those that do not hold.
    pub(super) reasons: Vec<String>,
    /// When the server last loaded its configuration, as it writes it.
    pub(super) loaded_at: String,
    /// The end of its WAL after the conditions were looked at: whatever was acknowledged before they held lies before it.
    pub(super) position: Lsn,
}

/// One row for each condition that does not hold.
///
/// - Only `on` will do for `synchronous_commit`: `remote_write` waits for receipt, which is not durable, and
///   `remote_apply` for an application that the receiver does not make (R21).
/// - `pg_settings` shows what *this* session has. Where the role or database of this session overrides the
///   configuration, what the configuration says cannot be seen, and that does not hold either.
/// - Names of standbys are compared without regard to case, as PostgreSQL does (`SyncRepGetStandbyPriority`).
const QUERY: &str = "\
    select format('synchronous_standby_names is %L, not %L', setting, $names) \
      from pg_settings where name = 'synchronous_standby_names' and setting <> $names \
    union all \
    select format('synchronous_commit is %L in the configuration', setting) \
      from pg_settings where name = 'synchronous_commit' and setting <> 'on' \
    union all \
    select format('the configured %s cannot be seen: it is overridden for %s', name, current_user) \
      from pg_settings where name in ('synchronous_commit', 'synchronous_standby_names') \
      and source not in ('default', 'configuration file', 'command line', 'environment variable') \
    union all \
    select format('role %s, database %s: %s', coalesce(r.rolname, 'any'), coalesce(d.datname, 'any'), c) \
      from pg_db_role_setting s cross join unnest(s.setconfig) c \
      left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase \
      where c ~ '^synchronous_commit=' and c !~ '=(on|true|yes|1)$' \
    union all \
    select format('%s walsenders stream as %s', count(w.pid), n) \
      from unnest($walsenders) n left join pg_stat_replication w on lower(w.application_name) = n \
      group by n having count(w.pid) <> 1 \
    union all \
    select format('walsender %s is %s, %s', application_name, state, sync_state) \
      from pg_stat_replication where lower(application_name) = any ($walsenders) \
      and (state <> 'streaming' or sync_state not in ('sync', 'quorum')) \
    union all \
    select format('walsender %s does not stream from the slot of its receiver', application_name) \
      from pg_stat_replication w where lower(application_name) = any ($walsenders) \
      and not exists (select from pg_replication_slots s \
        where s.slot_name = lower(w.application_name) and s.active_pid = w.pid) \
    union all \
    select format('walsender %s of process %s is not that of this receiver, process %s', application_name, pid, $pid) \
      from pg_stat_replication where lower(application_name) = $own and pid <> $pid";

impl PostgresDriver {
    /// Looks at the conditions on the primary in `region`, given whom commits wait for, and which of the walsenders is that
    /// of the receiver that asks.
    ///
    /// A walsender of the same name that is not ours would acknowledge what is not in our store. It is seen if it is there
    /// at the moment; one that came and went between two looks is not.
    pub(super) async fn look_at_conditions(
        &self,
        primary: &RegionName,
        sync: &[RegionName],
        (own, pid): (&RegionName, Option<i32>),
    ) -> Result<Conditions> {
        let mut instance = self.connect(primary).await?;
        let names = dr_pgwire::quote_literal(&Options::standby_names_of(sync));
        let walsenders: Vec<String> = sync
            .iter()
            .map(|region| dr_pgwire::quote_literal(&Options::receiver_name(region)))
            .collect();
        let sql = QUERY
            .replace("$names", &names)
            .replace(
                "$walsenders",
                &format!("array[{}]::text[]", walsenders.join(", ")),
            )
            .replace(
                "$own",
                &dr_pgwire::quote_literal(&Options::receiver_name(own)),
            )
            .replace("$pid", &pid.unwrap_or(0).to_string());
        let mut reasons = Vec::new();
        for row in &instance.query(OPERATION, &sql).await? {
            let reason: Option<String> = row
                .get(0)
                .map_err(|error| translate(OPERATION, instance.subject(), error))?;
            reasons.extend(reason);
        }
        let rows = instance.query(OPERATION, AFTERWARDS).await?;
        let read = || {
            let row = rows.only()?;
            Ok((row.get(0)?, row.get(1)?))
        };
        let (loaded_at, position) =
            read().map_err(|error| translate(OPERATION, instance.subject(), error))?;
        Ok(Conditions {
            reasons,
            loaded_at,
            position,
        })
    }
}

/// When the configuration was loaded, and where the WAL ends.
const AFTERWARDS: &str = "select pg_conf_load_time()::text, pg_current_wal_insert_lsn()";
