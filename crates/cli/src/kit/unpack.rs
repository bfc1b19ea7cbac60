//! From a store to a directory that `dr --config` can be pointed at.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_config::RELATIVE_TO;
use dr_coordination::kit::{self, Kit};
use dr_provider::ObjectStore;
use dr_provider::store::record;

use super::{MANIFEST, PAGE, SECRETS};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::wiring::Setup;

/// The configuration that is unpacked, if a directory holds one of this kit already, stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// It has been written.
    Written,
    /// It was there.
    Present,
}

/// Fetches the newest kit from the store at a location that is written as in `dr.yaml`: a path, a URL, or a map with a URL.
pub(crate) async fn fetch(location: &str) -> Result<Kit> {
    let (_room, store) = open(location)?;
    let found = kit::newest(&*store).await?;
    found.ok_or_else(|| {
        CommandError::new(
            Exit::Failed,
            format!("there is no recovery kit in {}", store.location()),
        )
        .hint("the daemon of its region writes one; so does `dr kit write --region REGION`")
    })
}

/// A directory that is removed when it is dropped.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Opens a store by a configuration that names nothing else.
fn open(location: &str) -> Result<(Room, Arc<dyn ObjectStore>)> {
    let name = format!("dr-from-store-{:016x}", rand::random::<u64>());
    let room = Room(std::env::temp_dir().join(name));
    make_directory(&room.0)?;
    let entry = if location.trim_start().starts_with('{') {
        location.to_owned()
    } else {
        serde_json::Value::from(location).to_string()
    };
    let text = format!("version: 1\nregions:\n  kit:\n    store: {entry}\nworkloads: {{}}\n");
    write_file(&room.0.join("dr.yaml"), &text)?;
    let here = std::env::current_dir()?;
    write_file(&room.0.join(RELATIVE_TO), &here.display().to_string())?;
    let setup = Setup::load(&room.0).map_err(|error| named(location, &room.0, error))?;
    let region = setup.stores.keys().next();
    let region = region.ok_or_else(|| CommandError::new(Exit::Usage, "no store is named"))?;
    Ok((room, setup.store_of_anybody(region)?))
}

/// Says of an error what was written on the command line, and not in which file it was put to be read.
fn named(location: &str, room: &Path, error: CommandError) -> CommandError {
    let what = format!("`--from-store {location}` names no store that can be used");
    let mut made = CommandError::new(Exit::Usage, what);
    let file = format!("{}/", room.display());
    if error.details.is_empty() {
        made = made.because(error.message);
    }
    for detail in error.details {
        // `FILE:LINE:COLUMN: error: regions.kit.store: what is wrong`, and further lines.
        let rest = match detail.split_once("regions.kit.store") {
            Some((_, rest)) => rest.trim_start_matches([':', '.', ' ']).to_owned(),
            None => detail.replace(&file, ""),
        };
        made = made.because(rest);
    }
    made.causes.extend(error.causes);
    made.hint("write a path, a URL such as `s3://bucket`, or `{ url: \"s3://bucket\", region: …, endpoint: … }` as in dr.yaml")
}

/// Unpacks a kit into a directory, which must be empty or missing, or hold the same kit.
///
/// Files of secrets are looked for in its directory `secrets` if they are not at their paths. `option` is what names the directory on
/// the command line.
pub(crate) fn unpack(kit: &Kit, directory: &Path, option: &str) -> Result<Unpacked> {
    let manifest = directory.join(MANIFEST);
    if let Ok(there) = std::fs::read(&manifest) {
        let same = Kit::from_bytes(&there).is_ok_and(|there| there.content == kit.content);
        if same {
            return Ok(Unpacked::Present);
        }
        return Err(CommandError::new(
            Exit::Refused,
            format!("`{}` holds another recovery kit", directory.display()),
        )
        .hint(format!(
            "use it as it is with `--config`, or name another directory with `{option}`"
        )));
    }
    let mut entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(directory, &error)),
    };
    // Secrets may have been put there before.
    entries.retain(|entry| entry.file_name() != SECRETS);
    if !entries.is_empty() {
        let what = format!("`{}` is not empty", directory.display());
        return Err(CommandError::new(Exit::Refused, what).hint(format!(
            "name a directory that is empty or missing with `{option}`"
        )));
    }
    make_directory(&directory.join(SECRETS))?;
    for (name, text) in &kit.content.files {
        let path = inside(directory, name)?;
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        write_file(&path, text)?;
    }
    write_file(&directory.join(RELATIVE_TO), &kit.content.directory)?;
    write_file(&directory.join(PAGE), &kit.content.page)?;
    // Last: what has it is whole.
    // Without the line that holds its hash, so that anything that reads JSON can read it.
    let bytes = kit.to_bytes();
    let text = record::verified(&bytes).unwrap_or(&bytes);
    write_file(&manifest, &String::from_utf8_lossy(text))?;
    Ok(Unpacked::Written)
}

/// A kit comes from a store, which somebody may have written to: no name in it leads elsewhere.
fn inside(directory: &Path, name: &str) -> Result<PathBuf> {
    let known = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
    let parts: Vec<&str> = name.split('/').collect();
    let allowed = match parts.as_slice() {
        ["dr.yaml"] => true,
        ["schedules" | "runbooks", file] => known(file) && file.ends_with(".yaml"),
        _ => false,
    };
    if allowed {
        return Ok(directory.join(name));
    }
    Err(CommandError::new(
        Exit::Refused,
        format!("the recovery kit holds `{name}`, which is no file of a configuration"),
    ))
}

fn make_directory(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|error| failed(path, &error))
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot write `{}`", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let directory = Path::new("/kit");
        for name in ["dr.yaml", "schedules/orders.yaml", "runbooks/x.yaml"] {
            assert_eq!(inside(directory, name).unwrap(), directory.join(name));
        }
        for name in [
            "../dr.yaml",
            "/etc/passwd",
            "schedules/../../x.yaml",
            "schedules/.hidden.yaml",
            "runbooks/x.sh",
            "secrets/key",
            "kit.json",
            "",
        ] {
            assert!(inside(directory, name).is_err(), "{name}");
        }
    }
}
