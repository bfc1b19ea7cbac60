//! Whether the promise of synchronous mode holds (PROTOCOL 5).
//!
//! PostgreSQL offers ways around the wait for a synchronous standby. Those that can be seen from outside are looked for
//! every few seconds and what was found is written into the next chunk: a seal proves that nothing acknowledged is lost
//! only if the conditions held shortly before. What a single session does to itself, `set synchronous_commit = local` or
//! the cancelling of a wait, cannot be seen from outside and is outside the promise: such a client did not wait.

use std::time::Duration;

use dr_model::RegionName;
use dr_provider::Result;
use jiff::Timestamp;

use crate::driver::PostgresDriver;
use crate::options::Options;

/// How often the conditions are looked at; they are written at least every 10 s.
pub(crate) const INTERVAL: Duration = Duration::from_secs(4);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) held: bool,
    pub(crate) checked_at: Timestamp,
    pub(crate) reasons: Vec<String>,
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
        where s.slot_name = lower(w.application_name) and s.active_pid = w.pid)";

impl PostgresDriver {
    /// Looks at the conditions on the primary in `region`.
    pub(crate) async fn check_promise(&self, region: &RegionName) -> Result<Found> {
        let checked_at = self.clock().now();
        let mut instance = self.connect(region).await?;
        let names = dr_pgwire::quote_literal(&self.options().synchronous_standby_names());
        let walsenders: Vec<String> = self
            .options()
            .sync
            .iter()
            .map(|region| dr_pgwire::quote_literal(&Options::receiver_name(region)))
            .collect();
        let sql = QUERY.replace("$names", &names).replace(
            "$walsenders",
            &format!("array[{}]::text[]", walsenders.join(", ")),
        );
        let rows = instance
            .query("look at the promise conditions of", &sql)
            .await?;
        let mut reasons = Vec::new();
        for row in &rows {
            let reason: Option<String> = row.get(0).map_err(|error| {
                crate::instance::translate(
                    "look at the promise conditions of",
                    instance.subject(),
                    error,
                )
            })?;
            reasons.extend(reason);
        }
        Ok(Found {
            held: reasons.is_empty(),
            checked_at,
            reasons,
        })
    }
}
