//! Approvals: signed, create-only statements of people who agree to one plan of one execution.
//!
//! An approval lies beside the journal of the execution that waits for it, in the same store, and says which plan it is
//! for by the plan's hash. It is signed with the approver's own key (Ed25519), whose public half the configuration names.
//! What counts is decided by [`tally()`], which is pure and the same for whoever gives an approval, waits for some, or shows
//! them. Nobody approves what they asked for, nobody counts twice, and nothing counts longer than the request itself.
//!
//! Format: `docs/formats/execution.md`.

mod key;
mod record;
mod tally;

#[cfg(test)]
mod tests;

use dr_model::ExecutionId;
use dr_provider::store::list_all;
use dr_provider::{Error, ErrorKind, ObjectStore, Result};

pub use key::{SigningKey, SigningKeyError};
pub use record::{Approval, FORMAT_VERSION};
pub use tally::{Counted, Refused, Request, Tally, tally};

use crate::Patience;
use crate::operation::{key, read};
use crate::publish::{Published, publish};

/// An object that lies where an approval does.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The last part of its key: whose approval it should be.
    pub name: String,
    /// What it says, or why it cannot be read.
    pub approval: std::result::Result<Approval, String>,
}

fn prefix(execution: &ExecutionId) -> String {
    format!("execution/{execution}/approval/")
}

/// Writes an approval; returns the one that was there already, if so. The first one stays.
///
/// # Errors
///
/// If the store cannot be written.
pub async fn give(store: &dyn ObjectStore, approval: &Approval) -> Result<Option<Found>> {
    let name = approval.approver.to_string();
    let at = key(format!("{}{name}", prefix(&approval.execution)));
    match publish(store, at, approval.to_bytes(), Patience::default()).await? {
        Published::Ours => Ok(None),
        Published::Theirs(bytes) => Ok(Some(Found {
            name,
            approval: Approval::from_bytes(&bytes),
        })),
    }
}

/// Reads everything that lies where approvals of an execution do, in the order of the names.
///
/// # Errors
///
/// If the store cannot be read: what was not seen is not known to be missing.
pub async fn read_all(store: &dyn ObjectStore, execution: &ExecutionId) -> Result<Vec<Found>> {
    let prefix = prefix(execution);
    let mut found = Vec::new();
    for info in list_all(store, &prefix).await? {
        let name = info.key.as_str().strip_prefix(&prefix).unwrap_or_default();
        let bytes = read(store, &info.key, Patience::default()).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "read", info.key.to_string())
                .because("it was listed and is not there")
        })?;
        found.push(Found {
            name: name.to_owned(),
            approval: Approval::from_bytes(&bytes),
        });
    }
    Ok(found)
}
