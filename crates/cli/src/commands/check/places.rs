//! What surrounds the databases: name servers and their keys, services, webhooks and daemons.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dr_config::{Notify, Workload};
use dr_local::rfc2136::Rfc2136Options;
use dr_model::{ResourceId, WorkloadName};
use dr_provider::SecretSource;
use dr_provider::error::chain;
use dr_provider::host::{Command, PathKind};
use futures::future::join_all;

use super::findings::{Finding, Level};
use crate::commands::status;
use crate::error::Result;
use crate::wiring::Setup;
use crate::wiring::checks::Rehearsed;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Clients keep an old answer for this long at most without a warning.
const LONGEST_TTL_SECONDS: u32 = 60;

/// Looks at the traffic, services and notifications of a workload.
pub(super) async fn check(
    setup: &Setup,
    name: &WorkloadName,
    workload: &Workload,
) -> Result<Vec<Finding>> {
    let mut findings = traffic(setup, workload).await?;
    findings.push(detection(setup, name, workload).await?);
    findings.extend(hosts(setup, name, workload).await?);
    findings.extend(services(setup, name, workload).await?);
    findings.extend(checks(setup, name, workload).await?);
    for notify in &workload.notify {
        let Notify::Webhook { url, .. } = notify;
        let subject = format!("webhook of {}", url.span());
        findings.push(match setup.secrets().resolve(url.text()) {
            Ok(_) => Finding::ok(subject, "its address can be read"),
            Err(error) => Finding::error(subject, &error),
        });
    }
    Ok(findings)
}

async fn traffic(setup: &Setup, workload: &Workload) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (record, entry) in setup.traffic(workload)?.iter().zip(&workload.traffic) {
        let subject = record.describe();
        findings.push(match tokio::time::timeout(LIMIT, record.observe()).await {
            Ok(Ok(state)) => {
                let region = state.region.map_or_else(
                    || "none of the regions".to_owned(),
                    |region| region.to_string(),
                );
                let found = format!(
                    "it answers {} ({region}) for {} s",
                    state.answer, state.ttl_seconds
                );
                let level = if state.ttl_seconds > LONGEST_TTL_SECONDS {
                    Level::Warning
                } else {
                    Level::Ok
                };
                Finding::new(level, subject.clone(), found)
            }
            Ok(Err(error)) => Finding::error(subject.clone(), &error),
            Err(_) => Finding::new(
                Level::Unknown,
                subject.clone(),
                format!("no answer within {LIMIT:?}"),
            ),
        });
        let options: std::result::Result<Rfc2136Options, _> = setup.config.read(&entry.node);
        if let Some(key) = options.ok().and_then(|options| options.tsig) {
            findings.push(match setup.secrets().resolve(key.secret.expose()) {
                Ok(_) => Finding::ok(&subject, format!("the key `{}` can be read", key.name)),
                Err(error) => Finding::error(format!("{subject}: key `{}`", key.name), &error),
            });
        }
        findings.push(match tokio::time::timeout(LIMIT, record.rehearse()).await {
            Ok(Ok(())) => Finding::ok(subject, "the server takes an update (a change of nothing)"),
            Ok(Err(error)) => Finding::error(subject, &error),
            Err(_) => {
                let what = format!("no answer to an update within {LIMIT:?}");
                Finding::new(Level::Unknown, subject, what)
            }
        });
    }
    Ok(findings)
}

/// Whether the `sql` checks can be answered, where a server is.
async fn checks(setup: &Setup, name: &WorkloadName, workload: &Workload) -> Result<Vec<Finding>> {
    let regions = std::iter::once(&workload.home).chain(&workload.recovery);
    let tried = setup.rehearse_checks(name, workload, regions).await?;
    let finding = |one: Rehearsed| {
        match one.judge() {
        Ok(found) => Finding::ok(one.check, found),
        Err(why) => Finding::new(Level::Failed, one.check, why).remedy(
            "put the query right, or grant the role SELECT on what it reads: `check-health` would wait for it in vain",
        ),
    }
    };
    Ok(tried.into_iter().map(finding).collect())
}

/// Whether anybody would be told of an outage of the primary.
async fn detection(setup: &Setup, name: &WorkloadName, workload: &Workload) -> Result<Finding> {
    let site = setup.site(name, workload)?;
    let subject = format!("detection for {name}");
    let primary = match setup.register(name, workload).read().await {
        Ok(newest) => newest.map_or_else(|| workload.home.clone(), |record| record.primary),
        Err(error) => {
            let why = format!("where the primary is cannot be told: {}", chain(&error));
            return Ok(Finding::new(Level::Unknown, subject, why));
        }
    };
    Ok(match setup.blind(workload, &site, &primary) {
        Some((why, remedy)) => Finding::new(Level::Warning, subject, why).remedy(remedy),
        None => {
            let found = format!("an outage of {primary} can be told from a broken network");
            Finding::ok(subject, found)
        }
    })
}

/// Asks each host over ssh for something that it always has; whether the server runs there is another look.
async fn hosts(setup: &Setup, name: &WorkloadName, workload: &Workload) -> Result<Vec<Finding>> {
    let mut all = BTreeSet::new();
    for resource in workload.resources.keys() {
        let id = ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        };
        let instances = setup.postgres_options(&id)?.instances;
        all.extend(
            instances
                .into_iter()
                .map(|(region, instance)| (region, instance.host)),
        );
    }
    for service in workload.services.values() {
        let regions = service.regions.iter();
        all.extend(regions.map(|(region, instance)| (region.clone(), instance.host.clone())));
    }
    let mut findings = Vec::new();
    for (region, host) in all.into_iter().filter(|(_, host)| host != "local") {
        let subject = format!("host {host} in {region}");
        findings.push(
            match setup.host(&region, &host)?.kind(Path::new("/")).await {
                Ok(_) => Finding::ok(subject, "it answers, and `dr` runs there"),
                Err(error) => Finding::error(subject, &error),
            },
        );
    }
    Ok(findings)
}

async fn services(setup: &Setup, name: &WorkloadName, workload: &Workload) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (service, regions) in &workload.services {
        for (region, instance) in &regions.regions {
            let subject = format!("service {name}/{service} in {region}");
            let host = setup.host(region, &instance.host)?;
            if let Some(program) = instance
                .start
                .first()
                .filter(|program| program.starts_with('/'))
            {
                findings.push(match host.kind(Path::new(program)).await {
                    Ok(PathKind::File | PathKind::Other) => {
                        Finding::ok(subject.clone(), format!("`{program}` is there"))
                    }
                    Ok(_) => Finding::new(
                        Level::Failed,
                        subject.clone(),
                        format!("there is no program `{program}`"),
                    ),
                    Err(error) => Finding::error(subject.clone(), &error),
                });
            }
            let Some(check) = &instance.check else {
                continue;
            };
            findings.push(match host.run(&Command::new(check.clone()), LIMIT).await {
                Ok(output) if output.status == Some(0) => Finding::ok(subject, "it runs"),
                // Where the workload is not served that is as it should be; who is primary, `dr
                // status` says.
                Ok(_) => Finding::ok(subject, "it does not run"),
                Err(error) => Finding::error(subject, &error),
            });
        }
    }
    Ok(findings)
}

/// Asks the daemons. One that cannot be asked from here is known by the log that its store takes.
pub(super) async fn daemons(setup: &Setup) -> Vec<Finding> {
    let views = status::daemons(setup).await;
    let looks = views.into_iter().map(|mut view| async move {
        let subject = format!("daemon of {}", view.region);
        match view.status.as_deref() {
            Some("healthy") => return Finding::ok(subject, "it is healthy"),
            // It says so itself: a store without room, a server that it cannot reach.
            Some("unhealthy") => {
                return Finding::new(Level::Failed, subject, view.problems.join("; "));
            }
            Some(_) => return Finding::new(Level::Unknown, subject, view.problems.join("; ")),
            None => {}
        }
        view.took_log_at = status::took_log_at(setup, &view.region).await;
        if view.is_seen_at_work(setup.clock.now()) {
            return Finding::ok(
                subject,
                "it cannot be asked from here, and its store takes the log",
            );
        }
        let what = format!(
            "{}; nor does its store take any log",
            view.problems.join("; ")
        );
        let start = format!("where it should run: `dr daemon --region {}`", view.region);
        Finding::new(Level::Unknown, subject, what).remedy(start)
    });
    join_all(looks).await
}
