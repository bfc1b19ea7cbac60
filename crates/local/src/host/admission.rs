//! The highest epoch that this machine has seen of each workload.
//!
//! One file a workload, holding the number in decimal. A lock on a second file, which is never
//! replaced, serialises the processes of this machine; the kernel drops it when its holder dies.

use std::fs::{File, OpenOptions};
use std::path::Path;

use dr_model::Epoch;
use dr_provider::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;

use super::files;
use crate::errno::io_kind;

/// Raises the number to `epoch`, or fails with `Superseded` if it is higher already.
pub(super) fn admit(directory: &Path, file: &Path, epoch: Epoch) -> Result<()> {
    let _lock = lock(directory, file).map_err(|source| {
        let subject = file.display().to_string();
        Error::new(io_kind(&source), "lock epoch file", subject).because(source)
    })?;
    match seen(file)? {
        Some(seen) if seen > epoch => Err(Error::new(
            ErrorKind::Superseded,
            format!("act for epoch {epoch} on this host, which remembers in"),
            file.display().to_string(),
        )
        .because(format!("epoch {seen} has been seen here"))),
        Some(seen) if seen == epoch => Ok(()),
        _ => files::write(file, format!("{epoch}\n").as_bytes()),
    }
}

fn lock(directory: &Path, file: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file.with_extension("lock"))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn seen(file: &Path) -> Result<Option<Epoch>> {
    let content = match files::read(file, 0, 64) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let number = std::str::from_utf8(&content)
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    match number {
        Some(number) => Ok(Some(Epoch(number))),
        // Starting again at nothing would admit a superseded primary.
        None => Err(Error::new(
            ErrorKind::Corrupt,
            "read the epoch in",
            file.display().to_string(),
        )
        .with_hint("write the newest epoch from `dr status` into it, as a decimal number")),
    }
}
