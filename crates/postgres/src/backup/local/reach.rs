//! Whether the data directory can be read here, and is that of the server that answers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dr_model::{Lsn, RegionName};
use dr_provider::{Error, ErrorKind, Result};

use super::control::{self, Control};
use super::walk::about;
use crate::backup::server::Server;
use crate::backup::take::OPERATION;
use crate::driver::PostgresDriver;

/// How often a control file that does not hold together is read again: the server was writing it.
const READINGS: usize = 16;

/// Returns the data directory if it can be read here and seems to be the server's, or why not.
pub(in crate::backup) async fn reachable(
    driver: &PostgresDriver,
    region: &RegionName,
    server: &Server,
) -> Result<std::result::Result<PathBuf, String>> {
    if !driver.host(region)?.is_local() {
        return Ok(Err(format!("the host in {region} is not this machine")));
    }
    if !server.may_begin {
        return Ok(Err(
            "the role may not call `pg_backup_start` and `pg_backup_stop`; `dr init --sql` prints the grants".to_owned(),
        ));
    }
    let directory = driver.instance_options(region)?.data_directory.clone();
    let server = server.clone();
    let looked = tokio::task::spawn_blocking(move || look(&directory, &server).map(|()| directory));
    let looked = looked
        .await
        .map_err(|error| driver.failed(OPERATION, error.to_string()))?;
    Ok(looked.map_err(|error| error.to_string()))
}

/// Looks for what must be there, and whether it says what the server says.
fn look(directory: &Path, server: &Server) -> io::Result<()> {
    let place = directory.join("PG_VERSION");
    let version = fs::read_to_string(&place).map_err(|error| about(&place, error))?;
    let other = |what: String| {
        io::Error::other(format!(
            "`{}` is not the server's: {what}",
            directory.display()
        ))
    };
    if version.trim() != server.major.to_string() {
        return Err(other(format!("it is of PostgreSQL {}", version.trim())));
    }
    let (control, _) = read_control(directory)?;
    if control.system_identifier != server.system_identifier {
        return Err(other(format!(
            "it is of cluster {}",
            control.system_identifier
        )));
    }
    if control.catalog_version != server.catalog_version || !control.in_production {
        return Err(other("no server accepts writes in it".to_owned()));
    }
    Ok(())
}

/// Reads the control file: what it says, and its bytes.
pub(super) fn read_control(directory: &Path) -> io::Result<(Control, Vec<u8>)> {
    let place = directory.join(control::PATH);
    let mut last = None;
    for _ in 0..READINGS {
        let content = fs::read(&place).map_err(|error| about(&place, error))?;
        match Control::parse(&content) {
            Ok(control) => return Ok((control, content)),
            Err(error) => last = Some(error),
        }
    }
    Err(about(
        &place,
        last.unwrap_or_else(|| io::Error::other("it cannot be read")),
    ))
}

/// Proves, once the server has begun a backup, that the directory is the one it writes: only there can the checkpoint be
/// that it has just made. A copy of it has the same identity, and a standby's directory as well.
pub(super) fn prove(control: &Control, start: Lsn, directory: &Path, subject: &str) -> Result<()> {
    if control.in_production && control.redo >= start {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Invalid, OPERATION, subject).because(format!(
        "`{}` is not the directory that it writes: its last checkpoint begins at {}, the server's at {start}",
        directory.display(),
        control.redo
    ));
    Err(error.with_hint("correct `data_directory` of the region in the configuration"))
}
