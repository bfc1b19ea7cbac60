//! What is looked at in a server that came up: its heartbeat, its tables and indexes, and what the configuration asks.
//!
//! What cannot be looked at is said: a check that was left out is not one that passed.

use std::process::Stdio;
use std::time::Duration;

use dr_model::{Lsn, RegionName};
use dr_pgwire::sql_state;
use dr_provider::driver::{Query as _, RestoreRequest, Role};
use dr_provider::{Error, ErrorKind, Result};
use jiff::Timestamp;
use tokio::process::Command;

use super::OPERATION;
use super::scratch::Scratch;
use super::server::Server;
use crate::driver::PostgresDriver;
use crate::instance::{Instance, sql_state_of, translate};

/// How long one check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// How long a server that has other work to do is asked one.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) reached: Lsn,
    pub(super) heartbeat_at: Option<Timestamp>,
    pub(super) said: Vec<String>,
}

impl PostgresDriver {
    /// Looks at a server that has replayed its log.
    pub(super) async fn check_booted(
        &self,
        scratch: &Scratch,
        server: &Server<'_>,
        instance: &mut Instance,
    ) -> Result<Checked> {
        let position = instance.position().await?;
        let mut said = Vec::new();
        let heartbeats = "select to_regclass('dr.heartbeat') is not null";
        let heartbeat_at = if instance.scalar::<bool>(OPERATION, heartbeats).await? {
            self.read_beat(instance, None).await?
        } else {
            said.push("there is no heartbeat to read".to_owned());
            None
        };
        // Whoever reaches the socket may be anybody: the role of `dr` may not look at every table.
        let owner = "select rolname::text from pg_catalog.pg_roles where oid = 10";
        let owner: String = instance.scalar(OPERATION, owner).await?;
        let mut with = Vec::new();
        for database in databases(instance).await? {
            let config = server.config(&owner, &database);
            let mut there = Instance::connect(&config, self.resource().to_string()).await?;
            let installed =
                "select count(*) > 0 from pg_catalog.pg_extension where extname = 'amcheck'";
            if there.scalar::<bool>(OPERATION, installed).await? {
                with.push(database);
            } else {
                said.push(format!(
                    "the tables of database `{database}` were not looked at: it has no extension amcheck"
                ));
            }
        }
        if !with.is_empty() {
            said.push(self.amcheck(scratch, &owner, &with).await?);
        }
        let config = server.config(&owner, &self.options().database);
        for query in &self.options().verify.checks {
            let mut there = Instance::connect(&config, self.resource().to_string()).await?;
            said.push(self.ask(&mut there, query).await?);
        }
        Ok(Checked {
            reached: position.replayed.unwrap_or(position.position),
            heartbeat_at,
            said,
        })
    }

    /// Runs a check of the configuration: one row whose first column is true.
    async fn ask(&self, instance: &mut Instance, query: &str) -> Result<String> {
        let database = &self.options().database;
        let what = |why: String| format!("check `{query}`: {why} (asked in database `{database}`)");
        let wrong = |why: String| self.failed(OPERATION, what(why));
        let rows = match instance.query_within(OPERATION, query, CHECK_LIMIT).await {
            Ok(rows) => rows,
            Err(error) if error.kind() == ErrorKind::Unknown => return Err(error),
            Err(error) => {
                let why = dr_provider::error::chain(&error);
                if !self.is_refused_by_primary(query, &error).await {
                    return Err(wrong(why));
                }
                let why = what(format!(
                    "{why}; the primary refuses it as well, and for the same reason"
                ));
                return Err(self.invalid(OPERATION, why).with_hint(
                    "put it right under `verify: { checks: … }` of the resource, and boot the recovery point again: nothing was learnt of it",
                ));
            }
        };
        let answer = match rows.first() {
            Some(row) => row
                .text(0)
                .map_err(|error| translate(OPERATION, instance.subject(), error))?,
            None => None,
        };
        match answer.as_deref() {
            Some("t") => Ok(format!("check `{query}` holds")),
            Some(other) => Err(wrong(format!("it answers `{other}`"))),
            None => Err(wrong("it answers nothing".to_owned())),
        }
    }

    /// Asks the server of a region a check of the configuration.
    pub(super) async fn rehearse_check(
        &self,
        region: &RegionName,
        query: &str,
    ) -> Result<Option<String>> {
        // A check may read whole tables, and a server goes on with a query whose client has gone.
        let limit = REHEARSAL_LIMIT.as_millis();
        let bounded = format!("set statement_timeout = {limit}; {query}");
        self.scalar(region, &bounded, 2 * REHEARSAL_LIMIT).await
    }

    /// Tells whether the primary takes a check for as wrong as what was booted does: then it is the check that is wrong.
    async fn is_refused_by_primary(&self, query: &str, error: &Error) -> bool {
        let Some(state) = sql_state_of(error).filter(|state| is_mistake(state)) else {
            return false;
        };
        for region in self.options().instances.keys() {
            let role = tokio::time::timeout(REHEARSAL_LIMIT, self.role(region)).await;
            if !matches!(role, Ok(Ok((_, Role::Primary)))) {
                continue;
            }
            let refused = self.rehearse_check(region, query).await.err();
            return refused.is_some_and(|refused| sql_state_of(&refused) == Some(state));
        }
        false
    }

    async fn amcheck(
        &self,
        scratch: &Scratch,
        owner: &str,
        databases: &[String],
    ) -> Result<String> {
        let program = self.parts().binaries.join("pg_amcheck");
        if !program.exists() {
            return Ok(format!(
                "tables and indexes were not looked at: there is no `{}`",
                program.display()
            ));
        }
        let mut command = Command::new(program);
        command.arg("--host").arg(scratch.socket());
        command.arg("--port").arg(RestoreRequest::PORT.to_string());
        command.arg("--username").arg(owner).arg("--no-password");
        for database in databases {
            command.arg("--database").arg(exactly(database));
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let unknown = |why: String| {
            Error::new(ErrorKind::Unknown, OPERATION, self.resource().to_string()).because(why)
        };
        let output = tokio::time::timeout(CHECK_LIMIT, command.output()).await;
        let output = output.map_err(|_| unknown("pg_amcheck does not end".to_owned()))?;
        let output = output.map_err(|error| unknown(format!("pg_amcheck: {error}")))?;
        if output.status.success() {
            return Ok(format!(
                "pg_amcheck found nothing in {}",
                databases.join(", ")
            ));
        }
        let mut found = String::from_utf8_lossy(&output.stdout).into_owned();
        found.push_str(&String::from_utf8_lossy(&output.stderr));
        let why = format!("pg_amcheck: {}", found.trim());
        Err(Error::new(ErrorKind::Corrupt, OPERATION, self.resource().to_string()).because(why))
    }
}

/// Tells whether a state is of a query that is wrong in itself, or asked where what it names is not (class 42). What a role may not
/// read says nothing of the query.
fn is_mistake(state: &str) -> bool {
    state.starts_with("42") && state != sql_state::INSUFFICIENT_PRIVILEGE
}

/// Returns the databases that can be connected to.
async fn databases(instance: &mut Instance) -> Result<Vec<String>> {
    let sql = "select datname::text from pg_catalog.pg_database \
               where datallowconn and not datistemplate order by datname";
    let rows = instance.query(OPERATION, sql).await?;
    let name = |row: &dr_pgwire::Row| {
        row.get::<String>(0)
            .map_err(|error| translate(OPERATION, instance.subject(), error))
    };
    rows.iter().map(name).collect()
}

/// Returns a pattern that matches one name only (`--database` of `pg_amcheck` takes patterns).
fn exactly(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
