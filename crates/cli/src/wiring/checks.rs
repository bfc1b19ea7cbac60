//! What tells whether a workload works, in each of its regions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_config::{HealthCheckKind, Workload};
use dr_local::{Authorities, HttpProbe};
use dr_model::{RegionName, ResourceId, ServiceName, WorkloadName};
use dr_provider::driver::Role;
use dr_provider::probe::{ClientProbe, Health};
use dr_provider::{Error, Probe, ResourceDriver, Traffic};

use super::Setup;
use super::command_check::CommandCheck;

/// The checks by the region that they look at.
type Probes = BTreeMap<RegionName, Vec<Arc<dyn Probe>>>;

/// How long one look takes at most.
const LIMIT: Duration = Duration::from_secs(2);

impl Setup {
    /// Returns the checks of a workload by the region that they look at, and the descriptions of those that need not pass.
    ///
    /// A check of an answer that a region does not have is left out there: nothing leads to it.
    pub(super) fn probes(
        &self,
        name: &WorkloadName,
        workload: &Workload,
        traffic: &[Arc<dyn Traffic>],
    ) -> crate::error::Result<(Probes, BTreeSet<String>)> {
        let mut probes = BTreeMap::new();
        let (mut optional, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for region in std::iter::once(&workload.home).chain(&workload.recovery) {
            let mut records = traffic.iter();
            let record = records.find(|record| record.answer(region).is_some());
            let answer = record.and_then(|record| record.answer(region));
            let mut here: Vec<Arc<dyn Probe>> = Vec::new();
            for check in &workload.checks {
                let probe: Arc<dyn Probe> = match &check.kind {
                    HealthCheckKind::Http { url, ca_file } => {
                        let is_of_answer = url.contains(ANSWER);
                        let url = match (&answer, is_of_answer) {
                            (Some(answer), _) => url.replace(ANSWER, answer),
                            (None, false) => url.clone(),
                            (None, true) => continue,
                        };
                        let probe = HttpProbe::new(url, LIMIT)?.trusting(self.authorities(ca_file));
                        // Whoever is led there by the name is shown a certificate for that.
                        let name = record.filter(|_| is_of_answer).map(|record| record.name());
                        Arc::new(match name {
                            Some(name) => probe.certified_for(name),
                            None => probe,
                        })
                    }
                    HealthCheckKind::Sql { resource, query } => {
                        let id = ResourceId {
                            workload: name.clone(),
                            resource: resource.clone(),
                        };
                        let driver = self.driver(&id)?;
                        Arc::new(SqlProbe {
                            id,
                            driver,
                            region: region.clone(),
                            query: query.clone(),
                        })
                    }
                    HealthCheckKind::Command { run, on, timeout } => {
                        let Some(words) = filled(run, answer.as_deref()) else {
                            continue;
                        };
                        let host = self.host(region, host_name(workload, on.as_ref(), region))?;
                        Arc::new(CommandCheck::new(host, words, *timeout, name, region))
                    }
                };
                match check.optional {
                    true => optional.insert(probe.describe()),
                    false => needed.insert(probe.describe()),
                };
                here.push(probe);
            }
            probes.insert(region.clone(), here);
        }
        // One that stands there twice has to pass if either has.
        Ok((probes, &optional - &needed))
    }
}

/// Returns the words of a command with the answer of a region in them; `None` if they want one that it does not have.
fn filled(run: &[String], answer: Option<&str>) -> Option<Vec<String>> {
    let fill = |word: &String| match answer {
        Some(answer) => Some(word.replace(ANSWER, answer)),
        None => (!word.contains(ANSWER)).then(|| word.clone()),
    };
    run.iter().map(fill).collect()
}

/// Returns the host that the command of a check runs on: that of a service in the region, or this machine.
pub(crate) fn host_name<'a>(
    workload: &'a Workload,
    on: Option<&ServiceName>,
    region: &RegionName,
) -> &'a str {
    let service = on.and_then(|on| workload.services.get(on));
    let instance = service.and_then(|service| service.regions.get(region));
    instance.map_or("local", |instance| instance.host.as_str())
}

/// A `sql` check of a workload in one region, tried beforehand.
pub(crate) struct Rehearsed {
    /// What is asked where.
    pub(crate) check: String,
    /// What the server there says, and whether it is a primary: the answer of a standby may rightly be another.
    pub(crate) answer: Result<(Option<String>, Role), Error>,
}

impl Setup {
    /// Asks the `sql` checks of a workload, which only read, on the servers of some regions that answer: a query that cannot work is
    /// found out before it is what a failover waits for.
    pub(crate) async fn rehearse_checks(
        &self,
        name: &WorkloadName,
        workload: &Workload,
        regions: impl Iterator<Item = &RegionName> + Clone,
    ) -> crate::error::Result<Vec<Rehearsed>> {
        let mut found = Vec::new();
        for check in &workload.checks {
            let HealthCheckKind::Sql { resource, query } = &check.kind else {
                continue;
            };
            let id = ResourceId {
                workload: name.clone(),
                resource: resource.clone(),
            };
            let driver = self.driver(&id)?;
            let Some(role) = driver.query() else { continue };
            for region in regions.clone() {
                // Whether a server is there, and lets us in, is another look.
                let is = match tokio::time::timeout(LIMIT, role.role(region)).await {
                    Ok(Ok((_, is))) => is,
                    _ => continue,
                };
                let asked = role.scalar(region, query, LIMIT);
                let answer = match tokio::time::timeout(2 * LIMIT, asked).await {
                    Ok(Err(error)) if !error.is_permanent() => continue,
                    Err(_) => continue,
                    Ok(answer) => answer.map(|value| (value, is)),
                };
                found.push(Rehearsed {
                    check: format!("query {id} in {region}: {query}"),
                    answer,
                });
            }
        }
        Ok(found)
    }
}

impl Rehearsed {
    /// Says what is wrong with the check, or else what it answers.
    pub(crate) fn judge(&self) -> Result<String, String> {
        match &self.answer {
            Ok((Some(value), _)) if is_true(value) => Ok("it answers that it is so".to_owned()),
            Ok((_, Role::Standby)) => Ok("a standby can be asked, and does not say so".to_owned()),
            Ok((value, Role::Primary)) => Err(format!(
                "the primary answers {}, and `true` is wanted",
                value.as_ref().map_or_else(
                    || "with no row, or null".to_owned(),
                    |value| format!("`{value}`")
                )
            )),
            Err(error) => Err(dr_provider::error::chain(error)),
        }
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "t" | "true")
}

impl Setup {
    /// Returns whose signatures are believed: those in the file, or the machine's.
    pub(super) fn authorities(&self, ca_file: &Option<PathBuf>) -> Authorities {
        let file = ca_file.as_deref();
        Authorities::of(file.map(|path| crate::kit::file(&self.config, path)))
    }

    /// Returns the checks of a workload as a client makes them: those of an answer that have to pass. Any other goes elsewhere than the name
    /// does.
    pub(super) fn clients(&self, workload: &Workload) -> Vec<Arc<dyn ClientProbe>> {
        let needed = workload.checks.iter().filter(|check| !check.optional);
        let of_answer = needed.filter_map(|check| match &check.kind {
            HealthCheckKind::Http { url, ca_file } if url.contains(ANSWER) => Some((url, ca_file)),
            HealthCheckKind::Http { .. }
            | HealthCheckKind::Sql { .. }
            | HealthCheckKind::Command { .. } => None,
        });
        let client = |(url, ca_file): (&String, &Option<PathBuf>)| {
            let client = HttpClient {
                url: url.clone(),
                authorities: self.authorities(ca_file),
            };
            Arc::new(client) as Arc<dyn ClientProbe>
        };
        of_answer.map(client).collect()
    }
}

/// A request to whatever a name leads to, for that name.
#[derive(Debug)]
struct HttpClient {
    url: String,
    authorities: Authorities,
}

#[async_trait]
impl ClientProbe for HttpClient {
    fn describe(&self, name: &str) -> String {
        format!("GET {}", self.url.replace(ANSWER, name))
    }

    async fn probe(&self, name: &str, answer: &str) -> Health {
        match HttpProbe::new(self.url.replace(ANSWER, answer), LIMIT) {
            Ok(probe) => {
                let probe = probe.trusting(self.authorities.clone()).named(name);
                probe.probe().await
            }
            Err(error) => Health::Unknown(dr_provider::error::chain(&error)),
        }
    }
}

/// What stands for the answer of the region that is looked at.
const ANSWER: &str = "{answer}";

/// A query whose answer must be true, asked of the instance of one region.
#[derive(Debug)]
struct SqlProbe {
    id: ResourceId,
    driver: Arc<dyn ResourceDriver>,
    region: RegionName,
    query: String,
}

#[async_trait]
impl Probe for SqlProbe {
    fn describe(&self) -> String {
        format!("query {} in {}: {}", self.id, self.region, self.query)
    }

    async fn probe(&self) -> Health {
        let Some(query) = self.driver.query() else {
            return Health::Unknown(format!("kind `{}` answers no queries", self.driver.kind()));
        };
        match query.scalar(&self.region, &self.query, LIMIT).await {
            Ok(Some(value)) if is_true(&value) => Health::Healthy(value),
            Ok(value) => Health::Unhealthy(value.unwrap_or_else(|| "no row, or null".to_owned())),
            Err(error) => Health::Unknown(dr_provider::error::chain(&error)),
        }
    }
}
