//! `dr check`.

mod clusters;
mod findings;
mod places;
mod schedules;
mod secrets;
mod stores;
mod synchronous;

use std::path::Path;

use futures::future::join_all;
use serde_json::json;

use crate::commands::runbook;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Tone, counted};
use crate::wiring::Setup;
pub(crate) use findings::{Finding, Level};

/// Validate the configuration, and with --online everything that it names
///
/// Without --online only the files are read, and the runbooks looked over as by `dr runbook check`. With it: each store, register, server, privilege,
/// setting, name server, key and daemon; what is missing is printed as the statement that gives it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Try out everything that the configuration names
    #[arg(long)]
    online: bool,
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = match Setup::load(config) {
        Ok(setup) => setup,
        Err(error) => {
            if output.json && error.exit == Exit::Configuration {
                output
                    .json(&json!({ "valid": false, "problems": error.details, "findings": [] }))?;
            }
            return Err(error);
        }
    };
    // What only shows when the parts are put together: addresses that cannot be used, hosts that
    // cannot be reached.
    let mut findings = Vec::new();
    for (name, workload) in &setup.config.workloads {
        let site = setup.site(name, workload);
        let site = site.map_err(|error| CommandError {
            exit: Exit::Configuration,
            ..error
        })?;
        // Online it is said of the region that has the primary now.
        if let Some((why, remedy)) = setup.blind(workload, &site, &workload.home) {
            let subject = format!("detection for {name}");
            findings.push(Finding::new(Level::Warning, subject, why).remedy(remedy));
        }
    }
    if args.online {
        findings = online(&setup).await?;
    } else {
        findings.extend(secrets::missing(&setup));
    }
    findings.extend(secrets::exposed(&setup)?);
    findings.extend(schedules::check(&setup.config));
    findings.extend(stores::keys_from_environment(&setup)?);
    let (runbooks, unusable) = runbooks(&setup);
    findings.extend(runbooks);
    let inside = stores::inside_what_they_protect(&setup)?;
    let keys = secrets::keys_with_what_they_open(&setup)?;
    let scratch = stores::scratch_where_something_is(&setup)?;
    let wrong = Wrong {
        runbooks: unusable,
        stores: inside.len(),
        keys: keys.len(),
        scratch: scratch.len(),
    };
    findings.extend(inside.into_iter().chain(keys).chain(scratch));
    report(&setup, args.online, &wrong, &findings, output)
}

/// How much the files say that should not be so.
struct Wrong {
    runbooks: usize,
    stores: usize,
    keys: usize,
    scratch: usize,
}

impl Wrong {
    fn any(&self) -> bool {
        self.runbooks + self.stores + self.keys + self.scratch > 0
    }

    /// Says how much of what there is.
    fn counted(&self) -> String {
        let each = [
            (self.runbooks, "runbook"),
            (self.stores, "store"),
            (self.keys, "key file"),
            (self.scratch, "boot test"),
        ];
        let there = each.iter().filter(|(count, _)| *count > 0);
        let words: Vec<_> = there.map(|(count, what)| counted(*count, what)).collect();
        words.join(" and ")
    }
}

/// Says what is wrong with the runbooks, and how many should not be used as they are.
fn runbooks(setup: &Setup) -> (Vec<Finding>, usize) {
    let (mut all, mut unusable) = (Vec::new(), 0);
    for file in setup.config.runbooks.unusable() {
        unusable += 1;
        all.extend(
            file.problems
                .0
                .iter()
                .map(|problem| Finding::new(Level::Failed, "runbook", problem.to_string())),
        );
    }
    for runbook in setup.config.runbooks.usable() {
        let name = &runbook.name;
        let found = runbook::findings(&setup.config, runbook);
        unusable += usize::from(found.iter().any(|finding| finding.is_grave));
        all.extend(found.into_iter().map(|finding| {
            let level = match finding.is_grave {
                true => Level::Failed,
                false => Level::Warning,
            };
            let subject = format!("runbook {name}, step `{}`", finding.step);
            Finding::new(level, subject, finding.what).remedy(finding.hint)
        }));
    }
    (all, unusable)
}

async fn online(setup: &Setup) -> Result<Vec<Finding>> {
    let mut findings = stores::check(setup).await;
    let workloads = setup.config.workloads.iter();
    let looks = join_all(workloads.map(|(name, workload)| async move {
        let mut findings = stores::register(setup, name, workload).await;
        findings.extend(clusters::check(setup, name, workload).await?);
        findings.extend(places::check(setup, name, workload).await?);
        Ok::<_, CommandError>(findings)
    }));
    for found in looks.await {
        findings.extend(found?);
    }
    findings.extend(places::daemons(setup).await);
    Ok(findings)
}

fn report(
    setup: &Setup,
    online: bool,
    wrong: &Wrong,
    findings: &[Finding],
    output: &Output,
) -> Result<Exit> {
    let worst = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    let warnings: Vec<String> = setup.warnings.iter().map(ToString::to_string).collect();
    if output.json {
        let valid = !wrong.any();
        output.json(&json!({ "valid": valid, "problems": warnings, "findings": findings }))?;
    } else {
        for warning in &warnings {
            output.say(warning);
        }
        for finding in findings {
            output.data(&finding.render(output.stdout))?;
        }
        summary(setup, online, wrong, findings, output)?;
    }
    // What a file says is put right in the file, whatever else is wrong.
    if wrong.any() {
        return Ok(Exit::Configuration);
    }
    Ok(match worst {
        Level::Ok | Level::Warning => Exit::Ok,
        Level::Unknown => Exit::Unavailable,
        Level::Failed => Exit::Failed,
    })
}

fn summary(
    setup: &Setup,
    online: bool,
    wrong: &Wrong,
    findings: &[Finding],
    output: &Output,
) -> Result<()> {
    let config = &setup.config;
    let style = output.stdout;
    if !online && wrong.any() {
        let text = format!(
            "The configuration in {} has {} that should not be used like this.",
            config.directory.display(),
            wrong.counted()
        );
        return output.data(&style.paint(Tone::Bad, &text));
    }
    if !online {
        let text = format!(
            "The configuration in {} is valid: {}, {}, {}, {}.",
            config.directory.display(),
            counted(config.regions.len(), "region"),
            counted(config.workloads.len(), "workload"),
            counted(config.schedules.len(), "schedule"),
            counted(config.runbooks.names().count(), "runbook")
        );
        return output.data(&style.paint(Tone::Good, &text));
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (failed, unknown, warnings) = (
        count(Level::Failed),
        count(Level::Unknown),
        count(Level::Warning),
    );
    let tone = if failed + unknown > 0 {
        Tone::Bad
    } else {
        Tone::Good
    };
    let text = format!(
        "{}: {failed} failed, {unknown} unknown, {}.",
        counted(findings.len(), "check"),
        counted(warnings, "warning")
    );
    output.data(&style.paint(tone, &text))
}
