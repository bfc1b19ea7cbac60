//! Secrets: those that are not on this machine, those that more can read than should, and keys that lie with what they open.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::findings::{Finding, Level};
use super::stores::data_directories;
use crate::commands::restore::store_room::in_store;
use crate::error::Result;
use crate::kit;
use crate::wiring::Setup;

/// What everybody on the machine may do with a file that has this bit: read it.
const READABLE_BY_ALL: u32 = 0o004;

/// Names the secrets that the files refer to and that are not on this machine, and where one stands in the files itself. Which of them
/// the machine needs, only its work tells.
pub(super) fn missing(setup: &Setup) -> Vec<Finding> {
    let content = kit::content(setup).and_then(|content| Ok((content, kit::made_up(setup)?)));
    let (content, made_up) = match content {
        Ok(found) => found,
        // Without what a kit is made of there is nothing to compare.
        Err(error) => {
            let found = format!("cannot be looked for: {}", error.message);
            return vec![Finding::new(Level::Warning, "secrets", found)];
        }
    };
    let mut findings = Vec::new();
    for note in &content.secrets {
        if !made_up.contains(&note.reference) {
            continue;
        }
        let places: BTreeSet<&str> = note.used_at.iter().map(String::as_str).collect();
        let places: Vec<&str> = places.into_iter().collect();
        let found = format!(
            "it stands there itself, for whoever reads the file; the recovery kit leaves it out and asks for it as `{}`",
            note.reference
        );
        findings.push(
            Finding::new(
                Level::Warning,
                format!("secret in {}", places.join(", ")),
                found,
            )
            .remedy("put it into a file, and write `${file:/path}` in its place"),
        );
    }
    for note in kit::missing(setup, &content) {
        if made_up.contains(&note.reference) {
            continue;
        }
        let found = format!("it is not on this machine ({})", note.used_at.join(", "));
        findings.push(Finding::new(Level::Warning, &note.reference, found).remedy(
            "put it where the daemon and `dr failover` run; `--online` tries what it opens",
        ));
    }
    findings
}

/// Names the files of keys and passwords that everybody on this machine may read.
pub(super) fn exposed(setup: &Setup) -> Result<Vec<Finding>> {
    let mut files: BTreeSet<PathBuf> = key_files(setup).into_iter().collect();
    for (name, workload) in &setup.config.workloads {
        for text in setup.secret_texts(name, workload)? {
            let named = referred_to(&text).into_iter();
            files.extend(named.map(|path| kit::file(&setup.config, &setup.config.base.join(path))));
        }
    }
    let exposed = files.into_iter().filter_map(|file| {
        // That one is missing is said elsewhere.
        let mode = std::fs::metadata(&file).ok()?.permissions().mode();
        if mode & READABLE_BY_ALL == 0 {
            return None;
        }
        let found = format!(
            "every user of this machine may read it (mode {:04o})",
            mode & 0o7777
        );
        let file = file.display();
        let remedy = format!("chmod 600 {file}   (it belongs to whoever runs `dr`)");
        Some(Finding::new(Level::Warning, format!("secret in `{file}`"), found).remedy(remedy))
    });
    Ok(exposed.collect())
}

/// Names the key files that lie in a store, or where its backups get them: whoever has that reads everything in it, and who has lost it
/// has lost the key.
pub(super) fn keys_with_what_they_open(setup: &Setup) -> Result<Vec<Finding>> {
    let directories = data_directories(setup)?;
    let mut findings = Vec::new();
    for key in key_files(setup) {
        let in_directory = || {
            let mut around = directories.iter();
            let (whose, _) = around.find(|(_, directory)| key.starts_with(directory))?;
            Some(format!(
                "it lies in the data directory of {whose}, and every backup holds it"
            ))
        };
        if let Some(found) = in_store(&setup.config, &key).or_else(in_directory) {
            findings.push(
                Finding::new(Level::Failed, format!("key file `{}`", key.display()), found).remedy(
                    "put it where neither a store nor a backup is, and keep a copy where neither region is: who has both reads everything",
                ),
            );
        }
    }
    Ok(findings)
}

fn key_files(setup: &Setup) -> Vec<PathBuf> {
    let keys = setup.config.encryption.iter();
    let keys = keys.flat_map(|keys| std::iter::once(&keys.key_file).chain(&keys.old_key_files));
    keys.map(|file| kit::file(&setup.config, file)).collect()
}

/// Returns the files that a text refers to.
fn referred_to(text: &str) -> Vec<&Path> {
    let parts = text.split("${file:").skip(1);
    let named = parts.filter_map(|part| Some(Path::new(part.split_once('}')?.0)));
    named.collect()
}
