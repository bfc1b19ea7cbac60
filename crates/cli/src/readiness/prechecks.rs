//! What a failover leans on besides its plan, each tried without changing anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dr_config::{HealthCheckKind, Notify, Workload};
use dr_coordination::identity::read_identity;
use dr_coordination::probe::{newest_probe, probe_write, require_atomic_create};
use dr_model::{RegionName, ResourceId, WorkloadName};
use dr_provider::host::PathKind;
use dr_provider::traffic::Apart;
use dr_provider::{Error, Host, SecretSource, Traffic};
use dr_runbook::Site;
use dr_runbook::plan::Target;
use futures::future::join_all;
use serde::Serialize;

use super::Standpoint;
use crate::wiring::Setup;
use crate::wiring::checks::host_name;

/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Found {
    /// It is as it should be.
    Passed,
    /// A failover would do without, or needs a person for it.
    Warning,
    /// It could not be seen.
    Unknown,
    /// It is not as it should be.
    Failed,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Precheck {
    pub(crate) name: String,
    pub(crate) found: Found,
    pub(crate) detail: String,
}

impl Precheck {
    pub(super) fn new(name: impl Into<String>, found: Found, detail: String) -> Self {
        Self {
            name: name.into(),
            found,
            detail,
        }
    }

    /// What does not answer is unknown, every other error a failure.
    fn of(name: String, result: Result<String, Error>) -> Self {
        match result {
            Ok(detail) => Self::new(name, Found::Passed, detail),
            Err(error) => {
                let found = if error.is_permanent() {
                    Found::Failed
                } else {
                    Found::Unknown
                };
                Self::new(name, found, dr_provider::error::chain(&error))
            }
        }
    }
}

impl Precheck {
    /// Returns the same of a service, a check or a record: a failover does without one that is optional.
    fn of_member(self, site: &Site, target: &Target) -> Self {
        match site.optional.contains(target) {
            true => self.of_optional(),
            false => self,
        }
    }

    fn of_optional(self) -> Self {
        match self.found {
            Found::Passed | Found::Warning => self,
            Found::Unknown | Found::Failed => Self {
                found: Found::Warning,
                detail: format!("{}; it is optional", self.detail),
                ..self
            },
        }
    }
}

/// Awaits a look for as long as it may take.
async fn limited(name: String, look: impl Future<Output = Result<String, Error>>) -> Precheck {
    match tokio::time::timeout(LIMIT, look).await {
        Ok(result) => Precheck::of(name, result),
        Err(_) => Precheck::new(name, Found::Unknown, format!("no answer within {LIMIT:?}")),
    }
}

/// Tries everything that a move to `to` leans on.
pub(super) async fn all(
    setup: &Setup,
    site: &Site,
    workload: &Workload,
    to: &RegionName,
    from: Standpoint,
) -> Vec<Precheck> {
    let store = limited(format!("store of {to}"), store(site, to, from));
    let traffic = join_all(site.traffic.iter().map(|traffic| {
        let target = Target::Traffic(traffic.describe());
        let look = limited(traffic.describe(), async {
            traffic.rehearse().await?;
            Ok("the server would take a switch".to_owned())
        });
        async move { look.await.of_member(site, &target) }
    }));
    let observers = join_all(site.traffic.iter().map(|traffic| async move {
        let target = Target::Traffic(traffic.describe());
        Some(observers(traffic.as_ref()).await?.of_member(site, &target))
    }));
    let services = join_all(site.services.iter().filter_map(|(name, regions)| {
        let service = regions.get(to)?;
        if !from.is_there() && service.host.is_local() {
            return None;
        }
        let start = service.start.argv.first();
        let start = program(service.host.as_ref(), start.map_or("", String::as_str));
        let look = limited(format!("service {name}"), start);
        let target = Target::Service(name.clone());
        Some(async move { look.await.of_member(site, &target) })
    }));
    let commands = workload.checks.iter().filter_map(|check| {
        let HealthCheckKind::Command { run, on, .. } = &check.kind else {
            return None;
        };
        let program = run.first().map_or("", String::as_str);
        let host = setup.host(to, host_name(workload, on.as_ref(), to)).ok()?;
        if !from.is_there() && host.is_local() {
            return None;
        }
        Some((program, host, check.optional))
    });
    let commands = join_all(commands.map(|(words, host, optional)| async move {
        let look = program(host.as_ref(), words);
        let found = limited(format!("check `{words}`"), look).await;
        if optional { found.of_optional() } else { found }
    }));
    let hosts = join_all(
        hosts(setup, &site.workload, workload, to)
            .into_iter()
            .filter_map(|(name, host)| {
                if !from.is_there() && host.as_ref().is_ok_and(|host| host.is_local()) {
                    return None;
                }
                Some(limited(format!("host {name}"), async move {
                    let host = host.map_err(|why| {
                        Error::new(dr_provider::ErrorKind::Invalid, "use the host", "it")
                            .because(why)
                    })?;
                    host.kind(Path::new("/")).await?;
                    Ok("it answers".to_owned())
                }))
            }),
    );
    let (store, traffic, observers, services, commands, hosts) =
        tokio::join!(store, traffic, observers, services, commands, hosts);
    let mut checks = vec![store];
    checks.extend(hosts);
    checks.extend(traffic);
    checks.extend(observers.into_iter().flatten());
    checks.extend(services);
    checks.extend(commands);
    let tried = setup.rehearse_checks(&site.workload, workload, std::iter::once(to));
    // A configuration that cannot be wired makes no plan either, which says so.
    for one in tried.await.unwrap_or_default() {
        let target = Target::Probe(one.check.clone());
        let found = match one.judge() {
            Ok(found) => Precheck::new(one.check, Found::Passed, found),
            Err(why) => Precheck::new(one.check, Found::Failed, why),
        };
        checks.push(found.of_member(site, &target));
    }
    for notify in &workload.notify {
        let Notify::Webhook { url, .. } = notify;
        let resolved = setup.secrets().resolve(url.text());
        let resolved = resolved.map(|_| "its address can be read".to_owned());
        checks.push(Precheck::of(format!("webhook of {}", url.span()), resolved));
    }
    checks
}

/// Compares what other name servers, and resolvers, answer with what the one that takes the switch answers; `None` if there are none, or
/// that one does not answer. A failover waits for those that answer otherwise, and goes on without those that are silent.
async fn observers(traffic: &dyn Traffic) -> Option<Precheck> {
    let look = futures::future::join(traffic.observe(), traffic.views());
    let (authority, views) = tokio::time::timeout(LIMIT, look).await.ok()?;
    let authority = authority.ok()?;
    if views.len() < 2 {
        return None;
    }
    let (mut found, mut said) = (Found::Passed, Vec::new());
    for view in &views {
        match view.apart(&authority) {
            Some(Apart::Elsewhere(answer)) => {
                found = Found::Failed;
                said.push(format!("{} answers {answer}", view.observer));
            }
            Some(Apart::Silent(why)) => {
                found = found.max(Found::Warning);
                said.push(format!("{} is silent: {why}", view.observer));
            }
            None => {}
        }
    }
    if said.is_empty() {
        said.push(format!("all {} answer {}", views.len(), authority.answer));
    }
    let name = format!("everybody who answers {}", traffic.describe());
    Some(Precheck::new(name, found, said.join("; ")))
}

/// Returns the hosts that a move to `to` runs commands on, each once.
fn hosts(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
    to: &RegionName,
) -> BTreeMap<String, Result<Arc<dyn Host>, String>> {
    let resources = workload.resources.keys().filter_map(|resource| {
        let id = ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        };
        let options = setup.postgres_options(&id).ok()?;
        Some(options.instances.get(to)?.host.clone())
    });
    let services = workload.services.values();
    let services = services.filter_map(|service| Some(service.regions.get(to)?.host.clone()));
    let open = |host: String| {
        let opened = setup.host(to, &host).map_err(|error| error.message);
        (host, opened)
    };
    resources.chain(services).map(open).collect()
}

/// The epoch, the seal and the journal rest on create-only writes there.
async fn store(site: &Site, to: &RegionName, from: Standpoint) -> Result<String, Error> {
    let store = site.stores.get(to).ok_or_else(|| {
        Error::new(
            dr_provider::ErrorKind::Invalid,
            "find in the configuration",
            format!("the store of {to}"),
        )
    })?;
    read_identity(&**store, to).await?;
    match newest_probe(&**store).await? {
        Some(report) => {
            require_atomic_create(&**store, &report)?;
            let takes = match from.tries_writing() {
                false => "",
                true => {
                    let tried = probe_write(&**store, site.clock.now(), rand::random()).await?;
                    // Whoever may not delete leaves it there: a few bytes.
                    store.delete(&tried).await.ok();
                    "it takes writes, and "
                }
            };
            Ok(format!(
                "{takes}creates are atomic, as probed at {:.0}",
                report.at
            ))
        }
        None => Err(Error::new(
            dr_provider::ErrorKind::Unavailable,
            "tell what can be relied on of",
            store.location(),
        )
        .because("it was never probed")
        .with_hint("`dr check --online` probes it")),
    }
}

/// What cannot be found now will not be found then. A name without a path is left to the machine's PATH.
async fn program(host: &dyn Host, program: &str) -> Result<String, Error> {
    if !program.starts_with('/') {
        return Ok(format!("`{program}` is looked for when it is started"));
    }
    match host.kind(Path::new(program)).await? {
        PathKind::File => Ok(format!("`{program}` is there")),
        _ => Err(Error::new(
            dr_provider::ErrorKind::NotFound,
            "find the program",
            program,
        )),
    }
}
