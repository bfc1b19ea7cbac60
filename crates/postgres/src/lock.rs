//! The lock under which it is changed what a server is and whom its commits wait for: who holds it, and from whom it is taken.
//!
//! It is an advisory lock on the server itself, and ends with the session that holds it. A promotion holds it from before it
//! asks for the newest epoch until it is over. Whoever lets a standby follow the old primary again finds a promotion that came
//! first, and one that comes later finds a newer epoch.
//!
//! An executor that is frozen, as on a laptop that sleeps, holds its session and with it the lock for as long as the server
//! believes in the connection. Whoever has taken over the execution since has the say (PROTOCOL 9), and ends that session:
//! - Only that of an earlier executor of the same execution. Its name says of which execution it is and how often that had been
//!   taken over; takeovers are create-only entries of the journal, so that the one who comes later always has the larger number, and one
//!   that wakes up ends nobody's session who took over from it. It is a session of our own role, as which nobody else
//!   logs in.
//! - Only while nothing is at work in it. A promotion goes on without the session that asked for it: nobody may have the lock
//!   meanwhile who would look for it in vain.
//! - What it had done is what we would do: both act on the same server in the same epoch. An execution that takes a move back is
//!   another one, and never ends the session of the move: it waits, and then says whose it is.

use std::time::Duration;

use dr_pgwire::quote_literal;
use dr_provider::driver::Fence;
use dr_provider::{Error, Result};

use crate::instance::Instance;

/// Names the advisory lock, in the database with the schema `dr`.
const CLASS: u32 = 1_685_218_159;
const OBJECT: u32 = 1;

/// How long another session may hold the lock.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// How long a session may take to be gone that was told to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The longest name of a session that a server keeps as it is (`NAMEDATALEN`).
const NAME_BYTES: usize = 63;

/// Returns the name of the sessions in which an executor does what takes the lock.
pub(crate) fn session_name(fence: &Fence) -> String {
    name(fence, fence.takeovers)
}

fn name(fence: &Fence, takeovers: u32) -> String {
    format!("dr {takeovers} {}", fence.execution)
}

/// A session that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    /// The number of its process on the server's machine.
    pid: String,
    /// What it calls itself; nothing if that is hidden from our role.
    name: String,
    role: String,
    /// Whether that is our own role.
    is_ours: bool,
    /// Where it comes from.
    client: String,
    /// When it began, as the server writes it.
    since: String,
    /// What it does: `active`, `idle`, …
    state: String,
}

impl Holder {
    /// Tells whether it is a session of an executor that `fence`'s has taken over from.
    fn is_superseded_by(&self, fence: &Fence) -> bool {
        let words = self.name.strip_prefix("dr ");
        let takeovers = words.and_then(|words| words.split(' ').next()?.parse().ok());
        self.is_ours
            && self.name.len() < NAME_BYTES
            && takeovers
                .is_some_and(|known| known < fence.takeovers && self.name == name(fence, known))
    }

    /// Tells whether nothing is at work in it: all that it has asked for has come to its end.
    fn is_idle(&self) -> bool {
        self.state == "idle"
    }

    fn described(&self) -> String {
        let Self {
            pid,
            name,
            role,
            client,
            since,
            state,
            ..
        } = self;
        let name = match name.as_str() {
            "" => "whose name is hidden".to_owned(),
            name => format!("that calls itself `{name}`"),
        };
        format!(
            "process {pid} of the server, a session of `{role}` from {client} {name}, since {since}, {state}"
        )
    }

    /// Says how the lock comes free.
    fn hint(&self) -> String {
        let pid = &self.pid;
        let execution = self.name.strip_prefix("dr ");
        let whose = match execution.and_then(|words| words.split_once(' ')) {
            Some((_, execution)) => {
                format!(" (`dr execution show {execution}` names it and its machine)")
            }
            None => String::new(),
        };
        match self.is_idle() {
            true => format!(
                "end the process that the session belongs to{whose}, or the session: `select pg_terminate_backend({pid})` on that server; then again"
            ),
            false => format!(
                "it is at work: let it come to its end, or end the process that the session belongs to{whose}; then again"
            ),
        }
    }
}

impl Instance {
    /// Takes the lock; it ends with this session. Waits for whoever has it, and then says who that is.
    pub(crate) async fn lock(&mut self, operation: &str) -> Result<()> {
        let limit = LOCK_LIMIT.as_millis();
        self.query(operation, &format!("set lock_timeout = {limit}"))
            .await?;
        let sql = format!("select pg_advisory_lock({CLASS}, {OBJECT})");
        let locked = self
            .query_within(operation, &sql, LOCK_LIMIT + Duration::from_secs(2))
            .await;
        let Err(error) = locked else { return Ok(()) };
        match self.lock_holder(operation).await {
            Ok(Some(holder)) => Err(Error::new(error.kind(), operation, self.subject())
                .because(format!(
                    "the lock under which that is done is held by {}",
                    holder.described()
                ))
                .with_hint(holder.hint())),
            _ => Err(error
                .with_hint("somebody else changes it; try again when that has come to its end")),
        }
    }

    /// As [`lock`](Self::lock), for an executor: ends the session of one that it has taken over from.
    pub(crate) async fn lock_for(&mut self, operation: &str, fence: &Fence) -> Result<()> {
        let sql = format!("select pg_try_advisory_lock({CLASS}, {OBJECT})");
        if self.scalar(operation, &sql).await? {
            return Ok(());
        }
        if self.end_superseded(operation, fence).await? {
            return self.lock(operation).await;
        }
        match self.lock(operation).await {
            // What was at work in it has come to its end meanwhile.
            Err(_) if self.end_superseded(operation, fence).await? => self.lock(operation).await,
            locked => locked,
        }
    }

    /// Ends the session that holds the lock if that is one of an executor that we have taken over from; tells whether it was.
    async fn end_superseded(&mut self, operation: &str, fence: &Fence) -> Result<bool> {
        let Some(holder) = self.lock_holder(operation).await? else {
            return Ok(false);
        };
        if !holder.is_superseded_by(fence) || !holder.is_idle() {
            return Ok(false);
        }
        let Holder {
            pid, name, since, ..
        } = &holder;
        let limit = END_LIMIT.as_millis();
        // The number alone may be another session's by now, and it may have woken up.
        let sql = format!(
            "select pg_terminate_backend(pid, {limit}) from pg_stat_activity where pid = {pid} and state = 'idle' \
             and application_name = {} and backend_start = {}",
            quote_literal(name),
            quote_literal(since)
        );
        let limit = END_LIMIT + Duration::from_secs(2);
        self.query_within(operation, &sql, limit).await?;
        tracing::warn!(session = holder.described(), "ended");
        Ok(true)
    }

    async fn lock_holder(&mut self, operation: &str) -> Result<Option<Holder>> {
        let sql = format!(
            "select a.pid::text, coalesce(a.application_name, ''), coalesce(a.usename, ''), \
             coalesce(a.usename = current_user, false), coalesce(host(a.client_addr), 'its own machine'), \
             coalesce(a.backend_start::text, ''), coalesce(a.state, 'of which no more is shown') \
             from pg_locks l join pg_stat_activity a on a.pid = l.pid \
             where l.locktype = 'advisory' and l.granted and l.classid = {CLASS} and l.objid = {OBJECT} and l.objsubid = 2 \
             and l.database = (select oid from pg_database where datname = current_database())"
        );
        let rows = self.query(operation, &sql).await?;
        let read = |row: &dr_pgwire::Row| {
            Ok(Holder {
                pid: row.get(0)?,
                name: row.get(1)?,
                role: row.get(2)?,
                is_ours: row.get(3)?,
                client: row.get(4)?,
                since: row.get(5)?,
                state: row.get(6)?,
            })
        };
        let holder: std::result::Result<Option<Holder>, dr_pgwire::Error> =
            rows.first().map(read).transpose();
        holder.map_err(|error| crate::instance::translate(operation, self.subject(), error))
    }
}

#[cfg(test)]
mod tests {
    use dr_model::Epoch;
    use rstest::rstest;

    use super::*;

    fn fence(execution: &str, takeovers: u32) -> Fence {
        Fence {
            workload: "orders".parse().unwrap(),
            epoch: Epoch(2),
            execution: execution.parse().unwrap(),
            takeovers,
        }
    }

    fn holder(name: &str) -> Holder {
        Holder {
            pid: "77".to_owned(),
            name: name.to_owned(),
            role: "dr".to_owned(),
            is_ours: true,
            client: "10.0.0.1".to_owned(),
            since: "2026-11-01 00:00:00+00".to_owned(),
            state: "idle".to_owned(),
        }
    }

    /// The one that has taken over ends the other's session, and never the other way round.
    #[rstest]
    #[case::before_the_takeover("dr 0 move", true)]
    #[case::before_the_last_one("dr 1 move", true)]
    #[case::our_own("dr 2 move", false)]
    #[case::taken_over_from_us("dr 3 move", false)]
    #[case::another_execution("dr 0 other", false)]
    #[case::a_longer_name("dr 0 move-2", false)]
    #[case::no_executor("dr", false)]
    #[case::no_number("dr x move", false)]
    #[case::hidden("", false)]
    fn only_an_earlier_executor_of_the_same_execution_is_superseded(
        #[case] name: &str,
        #[case] superseded: bool,
    ) {
        let fence = fence("move", 2);
        assert_eq!(holder(name).is_superseded_by(&fence), superseded);
        let foreign = Holder {
            is_ours: false,
            ..holder(name)
        };
        assert!(!foreign.is_superseded_by(&fence));
    }

    /// What the server cut off says no more of which execution it is.
    #[test]
    fn a_name_that_was_cut_off_proves_nothing() {
        let long = fence(&"a".repeat(NAME_BYTES - 5), 1);
        let other = name(&long, 0);
        assert_eq!(other.len(), NAME_BYTES);
        assert!(!holder(&other).is_superseded_by(&long));
        let short = fence(&"a".repeat(NAME_BYTES - 6), 1);
        assert!(holder(&name(&short, 0)).is_superseded_by(&short));
    }

    #[test]
    fn how_the_lock_comes_free_is_said() {
        let idle = holder("dr 0 move").hint();
        for said in ["dr execution show move", "pg_terminate_backend(77)"] {
            assert!(idle.contains(said), "{idle}");
        }
        let busy = Holder {
            state: "active".to_owned(),
            ..holder("psql")
        };
        assert!(!busy.is_idle() && !busy.hint().contains("pg_terminate_backend"));
        assert!(busy.described().contains("from 10.0.0.1"));
    }
}
