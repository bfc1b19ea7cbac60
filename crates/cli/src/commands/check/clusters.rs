//! PostgreSQL clusters: connection, privileges, settings, slots and the heartbeat of each instance.

use std::collections::BTreeSet;
use std::time::Duration;

use dr_config::{Workload, sql};
use dr_coordination::register::EpochRecord;
use dr_model::{RegionName, ResourceId, ResourceName, WorkloadName};
use dr_postgres::{Options, StandbyPolicy};
use dr_provider::driver::{Facts, Goal, LogFacts, Query, RehearsedCheck};
use dr_provider::{Error, ErrorKind, ResourceDriver, Result};
use futures::future::join_all;

use super::findings::{Finding, Level};
use super::synchronous;
use crate::output::counted;
use crate::wiring::Setup;

/// How long one query may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks at every instance of every cluster of a workload.
pub(super) async fn check(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> crate::error::Result<Vec<Finding>> {
    // What the register says when it is asked and does not answer is told elsewhere.
    let record = setup.register(name, workload).read().await;
    let newest = record.as_ref().map(Option::as_ref).map_err(|_| ());
    let mut findings = Vec::new();
    for resource in workload.resources.keys() {
        let id = ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        };
        let options = setup.postgres_options(&id)?;
        let driver = setup.driver(&id)?;
        let Some(query) = driver.query() else {
            continue;
        };
        let looks = options
            .instances
            .keys()
            .map(|region| instance(&id, region, &options, newest, query));
        findings.extend(join_all(looks).await.into_iter().flatten());
        let regions: Vec<RegionName> = options.instances.keys().cloned().collect();
        // All of them: whose directory it is depends on the others too.
        let facts = driver.observe(&regions).await;
        if let Ok(Some(record)) = newest {
            findings.push(fence(&id, &record.primary, &*driver, &facts));
        }
        for (region, seen) in &facts.regions {
            if let Ok(Some(held)) = &seen.log {
                let closed = closed(setup, region, &*driver).await;
                findings.extend(recovery_points(&id, region, held, &closed));
            }
        }
        if let (Ok(Some(record)), Some(verify)) = (newest, driver.verify_role()) {
            let answers = verify.rehearse_checks(&record.primary).await;
            findings.extend(answers.into_iter().filter_map(|one| boot_check(&id, one)));
        }
    }
    Ok(findings)
}

/// Returns the labels of the recovery points in a region's store whose keys are not at hand here.
async fn closed(
    setup: &Setup,
    region: &RegionName,
    driver: &dyn ResourceDriver,
) -> BTreeSet<String> {
    let (Some(backup), Some(store)) = (driver.backup(), setup.stores.get(region)) else {
        return BTreeSet::new();
    };
    // What the store does not say is told elsewhere.
    let listed = backup.list(store).await.unwrap_or_default();
    listed.no_key.into_keys().collect()
}

/// Whether what a store holds could be restored with what is at hand here: the keys, first of all.
fn recovery_points(
    id: &ResourceId,
    region: &RegionName,
    held: &LogFacts,
    closed: &BTreeSet<String>,
) -> Vec<Finding> {
    let subject = format!("recovery points of {id} in {region}");
    let points = &held.recovery_points;
    let is_closed = |what: &&String| {
        let label = what.split_once(':').map_or("", |(label, _)| label);
        closed.contains(label)
    };
    let (locked, unusable): (Vec<&String>, Vec<&String>) =
        held.unusable.iter().partition(is_closed);
    let failed = points
        .iter()
        .filter_map(|point| Some(format!("{}: {}", point.label, point.failure.as_ref()?)));
    let wrong: Vec<String> = unusable.into_iter().cloned().chain(failed).collect();
    let first_of = |all: &[String]| {
        let first = all.first()?;
        Some(match all.len() - 1 {
            0 => first.clone(),
            more => format!("{first}; and {more} more"),
        })
    };
    let locked: Vec<String> = locked.into_iter().cloned().collect();
    let mut findings = Vec::new();
    if let Some(first) = first_of(&locked) {
        let found = format!("they cannot be read with the keys that are at hand here: {first}");
        let remedy = "name the file of each key under `encryption` in `dr.yaml`; nothing is known to be wrong with them";
        findings.push(Finding::new(Level::Failed, &subject, found).remedy(remedy));
    }
    if let Some(first) = first_of(&wrong) {
        let found = format!("they cannot be relied on: {first}");
        findings.push(Finding::new(Level::Failed, &subject, found).remedy(format!(
            "see `dr recovery-point list {id} --region {region}`"
        )));
    }
    // That there is none yet is a matter of `dr status`.
    if findings.is_empty() && !points.is_empty() {
        let count = counted(points.len(), "recovery point");
        findings.push(Finding::ok(
            subject,
            format!("nothing speaks against {count}"),
        ));
    }
    findings
}

/// Whether a check that booted recovery points have to pass can be, by what the primary says to it. `None` if there is no primary that
/// can be asked, which another look says.
fn boot_check(id: &ResourceId, check: RehearsedCheck) -> Option<Finding> {
    let RehearsedCheck {
        query,
        database,
        answer,
    } = check;
    let subject = format!("boot test of {id}: {query}");
    let wrong = |found: String| {
        Finding::new(Level::Failed, &subject, found).remedy(
            "put it right under `verify: { checks: … }` of the resource: recovery points with which nothing is wrong would fail by it",
        )
    };
    Some(match answer {
        Ok(Some(value)) if value == "t" => {
            let found = format!("the primary answers that it is so, in database `{database}`");
            Finding::ok(subject, found)
        }
        Ok(value) => {
            let value = value.map_or_else(
                || "with no row, or null".to_owned(),
                |value| format!("`{value}`"),
            );
            wrong(format!(
                "the primary answers {value} in database `{database}`, and `t` is wanted"
            ))
        }
        Err(error) if error.kind() == ErrorKind::Unavailable => return None,
        Err(error) if error.kind() == ErrorKind::Unknown => {
            let found = format!(
                "the primary takes longer than a few seconds in database `{database}`, and was not waited for: a boot test is"
            );
            Finding::ok(subject, found)
        }
        Err(error) if error.kind() == ErrorKind::Denied => {
            let why = dr_provider::error::chain(&error);
            let found = format!(
                "whether it can be answered is not known, because the role may not ask it on the primary, as a boot test may: {why}"
            );
            Finding::new(Level::Warning, subject, found).remedy(
                "grant the role SELECT on what it reads, or try it with `dr recovery-point verify --boot`",
            )
        }
        Err(error) => {
            let why = dr_provider::error::chain(&error);
            wrong(format!(
                "the primary does not take it in database `{database}`: {why}"
            ))
        }
    })
}

/// Whether a failover that begins now could stop the primary and prove it.
fn fence(
    id: &ResourceId,
    region: &RegionName,
    driver: &dyn ResourceDriver,
    facts: &Facts,
) -> Finding {
    let subject = format!("{id} in {region}");
    let goal = Goal::Fence {
        region: region.clone(),
    };
    match driver.plan(&goal, facts) {
        Ok(_) => Finding::ok(subject, "a failover can stop it and prove that"),
        Err(error) => Finding::new(
            Level::Failed,
            subject,
            format!(
                "a failover could not prove that it has stopped: {}",
                dr_provider::error::chain(&error)
            ),
        )
        .remedy(
            error
                .hint()
                .unwrap_or("see `data_directory`; PostgreSQL's programs are looked for in DR_POSTGRES_BIN and PATH"),
        ),
    }
}

/// The newest record, if there is one; an error if the register cannot be read.
type Newest<'a> = std::result::Result<Option<&'a EpochRecord>, ()>;

/// One instance, and what it answers.
struct Server<'a> {
    subject: String,
    region: &'a RegionName,
    options: &'a Options,
    newest: Newest<'a>,
    resource: &'a ResourceName,
    query: &'a dyn Query,
}

async fn instance(
    id: &ResourceId,
    region: &RegionName,
    options: &Options,
    newest: Newest<'_>,
    query: &dyn Query,
) -> Vec<Finding> {
    let server = Server {
        subject: format!("{id} in {region}"),
        region,
        options,
        newest,
        resource: &id.resource,
        query,
    };
    // A region without a standby has no server to look at while it is not the primary.
    let may_be_away = options
        .instances
        .get(region)
        .is_some_and(|instance| instance.standby == StandbyPolicy::None);
    let is_standby = match server.text("select pg_is_in_recovery()").await {
        Ok(value) => value == "t",
        Err(error) if error.kind() == ErrorKind::Unavailable && may_be_away => {
            let found = format!(
                "no server answers, and `standby: none` keeps none here unless it is the primary: {}",
                dr_provider::error::chain(&error)
            );
            return vec![Finding::new(Level::Warning, server.subject, found)];
        }
        Err(error) => return vec![Finding::error(server.subject, &error)],
    };
    let role = if is_standby { "standby" } else { "primary" };
    // Nothing else that it says is about the resource then.
    match server.whose().await {
        Ok(None) => {}
        Ok(Some(stranger)) => return vec![stranger],
        Err(error) => return vec![Finding::error(server.subject, &error)],
    }
    let mut findings = vec![Finding::ok(
        server.subject.clone(),
        format!("a {role} answers as `{}`", options.user),
    )];
    findings.extend(server.privileges().await);
    let settings = if is_standby {
        server.settings().await
    } else {
        server.primary().await
    };
    findings.extend(
        settings.unwrap_or_else(|error| vec![Finding::error(server.subject.clone(), &error)]),
    );
    findings
}

impl Server<'_> {
    async fn text(&self, query: &str) -> Result<String> {
        let value = self.query.scalar(self.region, query, LIMIT).await?;
        value.ok_or_else(|| {
            Error::new(ErrorKind::Failed, "ask", self.subject.clone())
                .because(format!("`{query}` returned nothing"))
        })
    }

    /// Says so if it is of another cluster than the newest epoch is about.
    async fn whose(&self) -> Result<Option<Finding>> {
        let Ok(Some(record)) = self.newest else {
            return Ok(None);
        };
        let Some(expected) = record.clusters.get(self.resource) else {
            return Ok(None);
        };
        let expected = expected.system_identifier;
        let (found, _) = self.query.role(self.region).await?;
        Ok((found != expected).then(|| {
            let why = format!(
                "another cluster answers there: its system identifier is {found}, that of epoch {} is {expected}",
                record.epoch
            );
            Finding::new(Level::Failed, self.subject.clone(), why).remedy(
                "correct `host`, `address` and `port` of the resource, or start the right server there",
            )
        }))
    }

    async fn number(&self, setting: &str) -> Result<i64> {
        // `setting` in `pg_settings` is without a unit, unlike `current_setting`.
        let query = format!("select setting from pg_settings where name = '{setting}'");
        let text = self.text(&query).await?;
        text.parse().map_err(|source: std::num::ParseIntError| {
            Error::new(ErrorKind::Failed, "read the setting", setting).because(source)
        })
    }

    fn finding(&self, met: bool, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        if met {
            Finding::ok(self.subject.clone(), found)
        } else {
            Finding::new(Level::Failed, self.subject.clone(), found).remedy(remedy)
        }
    }

    async fn privileges(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut met = 0;
        for privilege in sql::PRIVILEGES {
            match self.text(privilege.test_sql).await {
                Ok(value) if value == "t" => met += 1,
                Ok(_) => {
                    let found = format!(
                        "`{}` may not {}, {}",
                        self.options.user, privilege.what, privilege.why
                    );
                    let remedy = privilege.statement(&self.options.user);
                    findings.push(
                        Finding::new(Level::Failed, self.subject.clone(), found).remedy(remedy),
                    );
                }
                Err(error) => findings.push(Finding::error(
                    format!("{}: {}", self.subject, privilege.what),
                    &error,
                )),
            }
        }
        findings.push(Finding::ok(
            self.subject.clone(),
            format!("{met} of {} privileges", sql::PRIVILEGES.len()),
        ));
        findings
    }

    /// Settings that a server needs in whatever role: it may become the other.
    async fn settings(&self) -> Result<Vec<Finding>> {
        let regions = i64::try_from(self.options.instances.len()).unwrap_or(i64::MAX);
        let level = self.text("select current_setting('wal_level')").await?;
        let mut findings = vec![self.finding(
            matches!(level.as_str(), "replica" | "logical"),
            format!("wal_level is `{level}`"),
            "ALTER SYSTEM SET wal_level = 'replica'; then restart",
        )];
        for (setting, wanted) in [
            ("max_wal_senders", 2 * regions),
            ("max_replication_slots", 2 * regions),
        ] {
            let value = self.number(setting).await?;
            findings.push(self.finding(
                value >= wanted,
                format!("{setting} is {value}, and {wanted} are needed"),
                format!(
                    "ALTER SYSTEM SET {setting} = {}; then restart",
                    wanted.max(10)
                ),
            ));
        }
        let keep = self.number("max_slot_wal_keep_size").await?;
        findings.push(match (keep, self.options.slot.unlimited) {
            (..0, true) => {
                let found = "slots hold back the log without a limit, as `slot: unlimited` says";
                Finding::new(Level::Warning, self.subject.clone(), found)
            }
            (..0, false) => self.finding(
                false,
                "max_slot_wal_keep_size is unlimited: a region that is away fills the disk",
                "ALTER SYSTEM SET max_slot_wal_keep_size = '16GB'; SELECT pg_reload_conf();",
            ),
            (keep, _) => {
                let found = format!("max_slot_wal_keep_size is {keep} MB");
                Finding::ok(self.subject.clone(), found)
            }
        });
        Ok(findings)
    }

    /// Settings, slots and the heartbeat of a primary.
    async fn primary(&self) -> Result<Vec<Finding>> {
        let mut findings = self.settings().await?;
        let names = self
            .text("select current_setting('synchronous_standby_names')")
            .await?;
        findings.push(match self.newest {
            Ok(record) => synchronous::judge(
                &self.subject,
                &names,
                self.region,
                self.resource,
                &self.options.sync,
                record,
            ),
            Err(()) => Finding::new(
                Level::Unknown,
                self.subject.clone(),
                "whether commits should wait is not known: the register cannot be read",
            ),
        });
        for region in self.options.instances.keys() {
            let slot = Options::receiver_name(region);
            let query = format!(
                "select coalesce((select case when wal_status = 'lost' then 'lost' when active then 'active' else 'idle' end \
                 from pg_replication_slots where slot_name = '{slot}'), 'missing')"
            );
            let state = self.text(&query).await?;
            let found = format!("the slot `{slot}` of the receiver in {region} is {state}");
            let remedy = format!("start `dr daemon --region {region}`, and see its log");
            findings.push(match state.as_str() {
                "active" => Finding::ok(self.subject.clone(), found),
                "lost" => Finding::new(Level::Failed, self.subject.clone(), found).remedy(format!(
                    "SELECT pg_drop_replication_slot('{slot}'); and take a new snapshot"
                )),
                _ => Finding::new(Level::Warning, self.subject.clone(), found).remedy(remedy),
            });
        }
        findings.push(self.heartbeat().await?);
        Ok(findings)
    }

    async fn heartbeat(&self) -> Result<Finding> {
        let query =
            "select coalesce(extract(epoch from now() - max(at))::text, 'never') from dr.heartbeat";
        let age = self.text(query).await?;
        let limit = self.options.heartbeat.as_secs_f64() * 3.0 + 5.0;
        let fresh = age.parse::<f64>().is_ok_and(|age| age <= limit);
        let level = if fresh { Level::Ok } else { Level::Warning };
        let found = match age.parse::<f64>() {
            Ok(age) => format!("the last heartbeat is {age:.1} s old"),
            Err(_) => "there was never a heartbeat".to_owned(),
        };
        let finding = Finding::new(level, self.subject.clone(), found);
        Ok(if fresh {
            finding
        } else {
            finding.remedy(format!("start `dr daemon --region {}`", self.region))
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::holds(Ok(Some("t".to_owned())), Some(Level::Ok))]
    #[case::does_not_hold(Ok(Some("f".to_owned())), Some(Level::Failed))]
    #[case::says_nothing(Ok(None), Some(Level::Failed))]
    #[case::is_wrong(Err(ErrorKind::Failed), Some(Level::Failed))]
    #[case::takes_long(Err(ErrorKind::Unknown), Some(Level::Ok))]
    #[case::may_not_be_asked(Err(ErrorKind::Denied), Some(Level::Warning))]
    #[case::nobody_answers(Err(ErrorKind::Unavailable), None)]
    fn a_check_is_judged_by_what_the_primary_says(
        #[case] answer: std::result::Result<Option<String>, ErrorKind>,
        #[case] level: Option<Level>,
    ) {
        let check = RehearsedCheck {
            query: "select true".to_owned(),
            database: "shop".to_owned(),
            answer: answer.map_err(|kind| Error::new(kind, "query", "it")),
        };
        let found = boot_check(&"orders/database".parse().unwrap(), check);
        assert_eq!(found.as_ref().map(|found| found.level), level);
        assert!(found.is_none_or(
            |found| found.level == Level::Warning || found.found.contains("database `shop`")
        ));
    }
}
