//! The recovery kit on this machine: put together out of a configuration, and unpacked into one.

mod page;
mod secrets;
mod unpack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dr_config::{Config, StoreLocation};
use dr_coordination::kit::{Content, FORMAT_VERSION, Kit, Program, SecretNote};
use dr_model::RegionName;

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::wiring::Setup;
pub(crate) use secrets::{find, is_optional, made_up};
pub(crate) use unpack::{Unpacked, fetch, unpack};

/// The directory beside an unpacked configuration that holds the files of secrets.
pub(crate) const SECRETS: &str = "secrets";

/// The file of an unpacked kit that is the kit itself.
const MANIFEST: &str = "kit.json";

/// The file of an unpacked kit that is to be read by a person.
const PAGE: &str = "README.txt";

/// Returns where a file is that the configuration names: at its path, or among those that were put beside an unpacked kit.
pub(crate) fn file(config: &Config, path: &Path) -> PathBuf {
    match path.file_name() {
        Some(name) if config.base != config.directory && !path.exists() => {
            config.directory.join(SECRETS).join(name)
        }
        _ => path.to_owned(),
    }
}

/// Puts together what a kit of this configuration holds.
pub(crate) fn content(setup: &Setup) -> Result<Content> {
    let mut files = files(&setup.config)?;
    let secrets = secrets::take_out(setup, &mut files)?;
    let stores = setup.config.regions.iter().map(|(name, region)| {
        let location = match &region.store {
            StoreLocation::Directory(path) => path.display().to_string(),
            StoreLocation::Other { .. } => setup
                .stores
                .get(name)
                .map_or_else(String::new, |store| store.location().to_owned()),
        };
        (name.clone(), location)
    });
    let mut content = Content {
        organization: setup.config.organization.clone(),
        program: program()?,
        directory: setup.config.base.display().to_string(),
        configuration: setup.config.digest().to_hex().to_string(),
        files,
        secrets,
        stores: stores.collect::<BTreeMap<RegionName, String>>(),
        page: String::new(),
    };
    content.page = page::write(setup, &content);
    Ok(content)
}

/// Returns the secrets of a kit that are not to be found on this machine; those that a failover does without too.
pub(crate) fn missing<'k>(setup: &Setup, kit: &'k Content) -> Vec<&'k SecretNote> {
    let notes = kit.secrets.iter();
    notes
        .filter(|note| secrets::find(setup, note).is_err())
        .collect()
}

/// Makes a kit of a content, now.
pub(crate) fn kit(setup: &Setup, content: Content) -> Kit {
    Kit {
        version: FORMAT_VERSION,
        created_at: setup.clock.now(),
        created_by: setup.actor.clone(),
        content,
    }
}

/// Returns the program that runs, as it was when it was started: its file may have been replaced since.
pub(crate) fn program() -> Result<Program> {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    if let Some(known) = PROGRAM.get() {
        return Ok(known.clone());
    }
    let read = || {
        let file = std::fs::File::open("/proc/self/exe")?;
        Program::read(env!("CARGO_PKG_VERSION"), file)
    };
    let program = read().map_err(|error| {
        CommandError::new(Exit::Failed, "cannot read the file of this program").because(error)
    })?;
    Ok(PROGRAM.get_or_init(|| program).clone())
}

/// Reads the files of a configuration by their paths in its directory. A runbook that cannot be used and is no text takes the others
/// not with it.
fn files(config: &Config) -> Result<BTreeMap<String, String>> {
    let directory = &config.directory;
    let mut names = vec!["dr.yaml".to_owned()];
    for folder in ["schedules", "runbooks"] {
        let entries = match std::fs::read_dir(directory.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unreadable(&directory.join(folder), &error)),
        };
        for entry in entries {
            let name = entry.map_err(|error| unreadable(&directory.join(folder), &error))?;
            let name = name.file_name().to_string_lossy().into_owned();
            if name.ends_with(".yaml") && !name.starts_with('.') {
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    let unusable = config.runbooks.unusable();
    let read = |name: String| {
        let path = directory.join(&name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(Ok((name, text))),
            Err(_) if unusable.iter().any(|runbook| runbook.file == name) => None,
            Err(error) => Some(Err(unreadable(&path, &error))),
        }
    };
    names.into_iter().filter_map(read).collect()
}

fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot read `{}`", path.display())).because(error)
}
