//! The highest epoch that this machine has seen of each workload.
//!
//! One directory a workload, one empty file an epoch. Whoever acts for an epoch leaves its file first and looks for a
//! higher one then: of two at once at least the later sees the other, and there is no lock that a stopped process could
//! hold while somebody takes over from it.

use std::path::Path;

use dr_model::Epoch;
use dr_provider::{Error, ErrorKind, Result};

use super::files;
use crate::errno::io_kind;

/// Remembers `epoch` in `directory`, or fails with `Superseded` if a higher one has been seen.
pub(super) fn admit(directory: &Path, epoch: Epoch) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    refuse_higher(directory, epoch)?;
    let file = directory.join(epoch.to_string());
    if !file.exists() {
        files::write(&file, b"")?;
    }
    refuse_higher(directory, epoch)
}

fn refuse_higher(directory: &Path, epoch: Epoch) -> Result<()> {
    match highest(directory)? {
        Some(seen) if seen > epoch => Err(Error::new(
            ErrorKind::Superseded,
            format!("act for epoch {epoch} on this host, which remembers in"),
            directory.display().to_string(),
        )
        .because(format!("epoch {seen} has been seen here"))),
        _ => Ok(()),
    }
}

fn highest(directory: &Path) -> Result<Option<Epoch>> {
    let mut highest = None;
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let name = entry.map_err(failed(directory))?.file_name();
        let name = name.to_string_lossy();
        // What is being written has a name of its own until it is whole.
        if name.starts_with('.') {
            continue;
        }
        let number = name.parse().map_err(|_| {
            // Passing over what may have been an epoch would admit a superseded primary.
            let subject = directory.join(&*name).display().to_string();
            Error::new(ErrorKind::Corrupt, "read the epoch in the name of", subject)
                .with_hint("remove it; the file of the newest epoch in `dr status` has to be there")
        })?;
        highest = highest.max(Some(Epoch(number)));
    }
    Ok(highest)
}

fn failed(directory: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| {
        let subject = directory.display().to_string();
        Error::new(io_kind(&source), "remember epochs in", subject).because(source)
    }
}
