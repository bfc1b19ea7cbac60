//! The evidence of an execution: the record that whoever ends it adds to the chain in the store of the region moved to, where its journal
//! is (PROTOCOL 1: an execution writes to no other store).

use dr_coordination::evidence::{Draft, Evidence};
use dr_provider::{Error, ErrorKind, ObjectStore, Result};
use serde_json::{Value, json};

use crate::history::History;
use crate::outcome::Report;
use crate::site::Site;

/// What a record of it is of.
const KIND: &str = "execution";

/// The same of what was measured of the divergence that it left.
const DIVERGENCE: &str = "divergence";

/// Adds the record of an execution that has come to `report`, unless it is there.
///
/// # Errors
///
/// Those of the store.
pub(crate) async fn append(site: &Site, history: &History, report: &Report) -> Result<Evidence> {
    let draft = draft(site, history, report);
    dr_coordination::evidence::append(store(site, history)?, &draft).await
}

/// Looks whether the record of an execution that has come to `report` is there.
///
/// # Errors
///
/// Those of the store.
pub(crate) async fn find(
    site: &Site,
    history: &History,
    report: &Report,
) -> Result<Option<Evidence>> {
    let draft = draft(site, history, report);
    dr_coordination::evidence::find(store(site, history)?, &draft).await
}

/// Adds what was measured of the divergence behind an execution: until then its record says no more than a bound (PROTOCOL 7).
///
/// # Errors
///
/// Those of the store.
pub async fn record_divergence(
    site: &Site,
    history: &History,
    diverged: bool,
    measured: Value,
) -> Result<Evidence> {
    let state = if diverged { "diverged" } else { "whole" };
    let draft = Draft {
        workload: history.plan.workload.clone(),
        kind: DIVERGENCE.to_owned(),
        subject: history.execution.to_string(),
        state: state.to_owned(),
        recorded_at: site.clock.now(),
        recorded_by: site.actor.clone(),
        body: measured,
    };
    dr_coordination::evidence::append(store(site, history)?, &draft).await
}

fn store<'a>(site: &'a Site, history: &History) -> Result<&'a dyn ObjectStore> {
    let region = &history.plan.to;
    let Some(store) = site.stores.get(region) else {
        let subject = region.as_str();
        let error = Error::new(ErrorKind::Invalid, "find in the configuration", subject);
        return Err(error.because("this region has no store"));
    };
    Ok(store.as_ref())
}

fn draft(site: &Site, history: &History, report: &Report) -> Draft {
    let plan = &history.plan;
    Draft {
        workload: plan.workload.clone(),
        kind: KIND.to_owned(),
        subject: history.execution.to_string(),
        state: report.state.as_str().to_owned(),
        recorded_at: site.clock.now(),
        recorded_by: site.actor.clone(),
        body: json!({
            "plan": plan.hash,
            "runbook": plan.runbook,
            "requester": plan.requester,
            "statements": history.statements,
            "report": report,
        }),
    }
}
