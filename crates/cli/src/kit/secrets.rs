//! Which secrets a configuration needs, and taking those out of its files that stand there themselves.
//!
//! A kit lies in every store, and holds none: what refers to a secret stays, and what is one becomes a reference to a variable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dr_config::{HealthCheckKind, Notify, Workload};
use dr_coordination::kit::SecretNote;
use dr_model::WorkloadName;
use dr_provider::{Error, ErrorKind, SecretSource};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::wiring::Setup;

/// Shorter ones cannot be taken out of a text without taking out other words.
const SHORTEST: usize = 8;

/// Takes the secrets out of the files; returns every one that is needed.
pub(super) fn take_out(
    setup: &Setup,
    files: &mut BTreeMap<String, String>,
) -> Result<Vec<SecretNote>> {
    replace(files, &literal(setup)?)?;
    let mut notes = references(files);
    if let Some(encryption) = &setup.config.encryption {
        let keys = std::iter::once(&encryption.key_file).chain(&encryption.old_key_files);
        notes.extend(keys.map(|path| SecretNote {
            reference: path.display().to_string(),
            used_at: vec!["dr.yaml: encryption".to_owned()],
        }));
    }
    for (name, region) in &setup.config.regions {
        let files = region
            .ssh
            .iter()
            .flat_map(|ssh| [&ssh.identity, &ssh.known_hosts]);
        notes.extend(files.map(|path| SecretNote {
            reference: path.display().to_string(),
            used_at: vec![format!("dr.yaml: regions.{name}.ssh")],
        }));
    }
    for (name, workload) in &setup.config.workloads {
        let told = workload.notify.iter().filter_map(|notify| {
            let Notify::Webhook { ca_file, .. } = notify;
            ca_file.as_ref()
        });
        let checked = workload
            .checks
            .iter()
            .filter_map(|check| match &check.kind {
                HealthCheckKind::Http { ca_file, .. } => ca_file.as_ref(),
                HealthCheckKind::Sql { .. } | HealthCheckKind::Command { .. } => None,
            });
        // No secrets, but they have to be there as well; each once.
        let files: BTreeSet<_> = told.chain(checked).collect();
        notes.extend(files.into_iter().map(|path| SecretNote {
            reference: path.display().to_string(),
            used_at: vec![format!("dr.yaml: workloads.{name}")],
        }));
    }
    Ok(notes)
}

/// Returns the secrets that stand in the configuration itself.
fn literal(setup: &Setup) -> Result<BTreeSet<String>> {
    let mut literal = BTreeSet::new();
    for (name, workload) in &setup.config.workloads {
        let texts = setup.secret_texts(name, workload)?;
        literal.extend(texts.into_iter().filter(|text| !text.contains("${")));
    }
    Ok(literal)
}

/// Returns the references of a kit that stand in its files for secrets that stand in the configuration itself.
pub(crate) fn made_up(setup: &Setup) -> Result<BTreeSet<String>> {
    let count = literal(setup)?.len();
    Ok((1..=count).map(reference).collect())
}

/// Returns what stands in a kit for the secret of this number.
fn reference(number: usize) -> String {
    format!("${{env:DR_SECRET_{number}}}")
}

/// Looks for a secret of a kit that has been unpacked into the configuration.
pub(crate) fn find(setup: &Setup, note: &SecretNote) -> dr_provider::Result<()> {
    if note.reference.starts_with("${") {
        return setup.secrets().resolve(&note.reference).map(drop);
    }
    if super::file(&setup.config, Path::new(&note.reference)).exists() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, "find", &note.reference))
}

/// Tells whether a failover does without a secret: nothing but webhooks refers to it.
pub(crate) fn is_optional(setup: &Setup, note: &SecretNote) -> bool {
    let workloads = setup.config.workloads.values();
    let notified = workloads.flat_map(|workload| &workload.notify);
    let webhooks = notified.map(|Notify::Webhook { url, .. }| url.text());
    let told: usize = webhooks
        .map(|text| text.matches(&note.reference).count())
        .sum();
    let needed = |(name, workload): (&WorkloadName, &Workload)| {
        let texts = setup.needed_texts(name, workload);
        // What cannot be read may need it.
        texts.map_or(true, |texts| {
            texts.iter().any(|text| text.contains(&note.reference))
        })
    };
    told >= note.used_at.len() && told > 0 && !setup.config.workloads.iter().any(needed)
}

/// Puts a reference in the place of each text.
fn replace(files: &mut BTreeMap<String, String>, literal: &BTreeSet<String>) -> Result<()> {
    for (number, secret) in (1..).zip(literal) {
        let mut found = false;
        for text in files.values_mut() {
            if secret.len() >= SHORTEST && text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), &reference(number));
                found = true;
            }
        }
        if !found {
            let what = "a secret stands in the configuration itself and cannot be taken out of it";
            return Err(CommandError::new(Exit::Configuration, what)
                .because("it is shorter than 8 characters, or written with escapes")
                .hint("write `${file:/path}` or `${env:NAME}` in its place"));
        }
    }
    Ok(())
}

/// Finds every reference, with the lines that it stands in.
fn references(files: &BTreeMap<String, String>) -> Vec<SecretNote> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, text) in files {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split_once(" #").map_or(line, |(line, _)| line);
            if line.trim_start().starts_with('#') {
                continue;
            }
            let mut rest = line;
            while let Some(at) = rest.find("${") {
                let escaped = rest[..at].ends_with('$');
                rest = &rest[at..];
                let Some(end) = rest.find('}') else { break };
                if !escaped {
                    let reference = rest[..=end].to_owned();
                    let place = format!("{name}:{number}");
                    found.entry(reference).or_default().push(place);
                }
                rest = &rest[end + 1..];
            }
        }
    }
    let note = |(reference, used_at)| SecretNote { reference, used_at };
    found.into_iter().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("dr.yaml".to_owned(), text.to_owned())])
    }

    #[test]
    fn references_are_found_and_comments_are_not() {
        let files = files(
            "# ${env:NOT}\na: \"${file:/k} and ${env:X:-y}\" # ${env:NOR}\nb: ${file:/k}\nc: $${env:Z}\n",
        );
        let found: Vec<_> = references(&files)
            .into_iter()
            .map(|note| (note.reference, note.used_at.join(" ")))
            .collect();
        let expected = [
            ("${env:X:-y}", "dr.yaml:2"),
            ("${file:/k}", "dr.yaml:2 dr.yaml:3"),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_secret_that_stands_there_itself_is_taken_out_or_refused() {
        let literal = |text: &str| BTreeSet::from([text.to_owned()]);
        let mut taken = files("password: hunter2hunter2\n");
        replace(&mut taken, &literal("hunter2hunter2")).unwrap();
        assert_eq!(taken, files("password: ${env:DR_SECRET_1}\n"));
        for secret in ["dr", "not in there"] {
            let error = replace(&mut files("password: dr\n"), &literal(secret)).unwrap_err();
            assert_eq!(error.exit, Exit::Configuration);
        }
    }
}
