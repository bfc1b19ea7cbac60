//! Who asks for a move that other people have to approve.
//!
//! Operators often share the account that everything runs as, so an account says who somebody is only where the
//! configuration says that it is one person's alone. Everybody else shows a key.

use std::path::Path;

use dr_config::Workload;
use dr_model::{ApproverName, WorkloadName};
use dr_runbook::Site;

use crate::commands::approval::read;
use crate::error::{CommandError, Result};
use crate::exit::Exit;

/// Returns who asks, by their key or their account; `None` if nobody has to know, or if nothing is asked for yet.
pub(crate) fn of(
    key: Option<&Path>,
    is_plan: bool,
    name: &WorkloadName,
    workload: &Workload,
    site: &Site,
) -> Result<Option<ApproverName>> {
    let policy = &workload.approval;
    if policy.quorum == 0 {
        // What is shown to nobody is read all the same: it may be the wrong file on the day it is needed.
        return key
            .map_or(Ok(()), |file| read(file).map(drop))
            .map(|()| None);
    }
    let known = match key {
        Some(file) => {
            let key = read(file)?.public();
            let mut all = policy.approvers.iter();
            let known = all.find(|approver| approver.key == key);
            let stranger = || {
                let what = format!(
                    "the key in `{}` is not of anybody whom `{name}` knows",
                    file.display()
                );
                CommandError::new(Exit::Refused, what).hint(format!(
                    "its public half is {key}: put it into `approval.approvers`"
                ))
            };
            Some(known.ok_or_else(stranger)?)
        }
        None => {
            let mut all = policy.approvers.iter();
            all.find(|approver| approver.account.as_ref() == Some(&site.actor.user))
        }
    };
    match known {
        Some(approver) => Ok(Some(approver.name.clone())),
        None if is_plan => Ok(None),
        None => Err(CommandError::new(
            Exit::Usage,
            format!("`{name}` is moved with approvals, and nobody approves what they asked for: it is not known who asks"),
        )
        .hint("show your key with `--key FILE`")),
    }
}
