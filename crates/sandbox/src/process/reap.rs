//! Taking in orphans.
//!
//! A process whose parent has ended goes to the nearest reaper above it. While a sandbox runs, that is this program, so
//! it must also notice their end: a killed PostgreSQL that nobody reaps looks alive to whoever asks for its process id,
//! such as the fence of a failover.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};

use super::Table;
use crate::{Error, Result};

/// The children that somebody here waits for. Held while one is started, so that a child which ends at once is not
/// taken for an orphan.
static AWAITED: LazyLock<Mutex<BTreeSet<i32>>> = LazyLock::new(Mutex::default);

/// Opens the list of awaited children.
pub(super) fn awaited() -> MutexGuard<'static, BTreeSet<i32>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this program the reaper of its descendants, and reaps them as they end for as long as the runtime runs.
///
/// Must be called within a tokio runtime.
pub fn adopt_orphans() -> Result<()> {
    let failed = |source: std::io::Error| Error::Start {
        program: "a reaper of orphans".into(),
        source,
    };
    // The kernel reads the argument as yes or no.
    let yes = Some(rustix::process::getpid());
    set_child_subreaper(yes).map_err(|errno| failed(errno.into()))?;
    let mut ended =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child()).map_err(failed)?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            reap_adopted();
        }
    });
    Ok(())
}

/// Reaps every ended child that nobody waits for.
pub(super) fn reap_adopted() {
    let awaited = awaited();
    let own = std::process::id().cast_signed();
    for process in Table::read().iter() {
        if process.parent == own && process.is_zombie() && !awaited.contains(&process.pid) {
            let pid = Pid::from_raw(process.pid);
            // Somebody else may have reaped it.
            let _gone = waitpid(pid, WaitOptions::NOHANG);
        }
    }
}
