//! What lies ahead of an execution that goes on: whoever resumes tries what a new plan tries, before anything is written. While nobody
//! worked at it a key may have been exchanged and a store have filled up.
//!
//! As long as the execution can be taken back, what would stop it later refuses it now. Behind that it goes on with a warning: a
//! database that serves is worth more than the name that leads to it.

use std::collections::BTreeSet;

use dr_provider::Traffic;
use futures::future::{join, join_all};

use super::Decided;
use crate::abort::refuse_what_stays;
use crate::history::History;
use crate::plan::{PlannedStep, Refusal, Target};
use crate::report::passed_return;
use crate::request::{Statement, clients_by_hand, override_reason};
use crate::site::Site;
use crate::steps::{await_approval, open_epoch, switch_traffic};
use crate::world::{denied, unwritable};

/// Tells whether all that an execution has done can still be taken back.
pub(super) fn may_be_taken_back(history: &History) -> bool {
    passed_return(history).is_none() && refuse_what_stays(history).is_ok()
}

/// Returns what would stop an execution that goes on now: a store that takes nothing, or a name server that does not take the key of a
/// switch that is still to come. Changes nothing.
pub(super) async fn obstacle(
    site: &Site,
    history: &History,
    decided: &Decided,
    statements: &[Statement],
) -> Option<Refusal> {
    let (store, switch) = join(
        store(site, history, decided),
        switch(site, history, decided, statements),
    )
    .await;
    store.or(switch)
}

/// Returns what the configuration says that people have not agreed to, unless somebody says why it is gone by all the same. Where nobody had
/// to agree to the plan, there is nothing to disagree with.
pub(super) fn disagreement(
    site: &Site,
    history: &History,
    statements: &[Statement],
) -> Option<Refusal> {
    let stated = override_reason(&history.statements).or_else(|| override_reason(statements));
    let agreed = await_approval::report(history).is_some() || site.approval.quorum > 0;
    reconfigured(site, history).filter(|_| agreed && stated.is_none())
}

/// Compares what the configuration says here of each part of the workload with what it said when the plan was made.
pub(super) fn reconfigured(site: &Site, history: &History) -> Option<Refusal> {
    let (planned, now) = (&history.plan.definitions, &site.definitions);
    // A plan of an older version says nothing of it.
    if planned.is_empty() {
        return None;
    }
    let paths: BTreeSet<&String> = planned.keys().chain(now.keys()).collect();
    let parts = paths
        .into_iter()
        .filter(|path| planned.get(*path) != now.get(*path));
    let parts: Vec<String> = parts.map(|path| format!("`{path}`")).collect();
    (!parts.is_empty()).then_some(Refusal::Reconfigured { parts })
}

/// Looks whether the stores take what is still to be written: the journal, and the epoch unless it is open.
async fn store(site: &Site, history: &History, decided: &Decided) -> Option<Refusal> {
    let plan = &history.plan;
    if let Some(store) = unwritable(site, &plan.to).await {
        return Some(store.into());
    }
    let opens = plan
        .steps
        .iter()
        .any(|step| step.uses == open_epoch::NAME && is_ahead(history, decided, step));
    // One that is silent takes no record: an override puts it into the store moved to.
    let region = &plan.register.region;
    let takes = opens && plan.register.unproven.is_none();
    if !takes || [&plan.to, &plan.from].contains(&region) {
        return None;
    }
    unwritable(site, region).await.map(Refusal::from)
}

/// Looks whether the name servers take our key, where they still need it.
async fn switch(
    site: &Site,
    history: &History,
    decided: &Decided,
    statements: &[Statement],
) -> Option<Refusal> {
    let stated = clients_by_hand(&history.statements).or_else(|| clients_by_hand(statements));
    if stated.is_some() {
        return None;
    }
    let steps = history.plan.steps.iter();
    let steps =
        steps.filter(|step| step.uses == switch_traffic::NAME && is_ahead(history, decided, step));
    let targets: Vec<&Target> = steps
        .flat_map(|step| step.lanes.iter().map(|lane| &lane.target))
        .filter(|target| history.done(switch_traffic::NAME, target).next().is_none())
        .collect();
    let needed = |traffic: &&std::sync::Arc<dyn Traffic>| {
        targets.contains(&&Target::Traffic(traffic.describe()))
    };
    let tries = site
        .traffic
        .iter()
        .filter(needed)
        .map(|traffic| async move {
            let denied = denied(traffic.as_ref()).await?;
            Some(denied.refuses(traffic.describe()))
        });
    join_all(tries).await.into_iter().flatten().next()
}

/// Tells whether a step is still to be done.
fn is_ahead(history: &History, decided: &Decided, step: &PlannedStep) -> bool {
    let left_out = decided.skip.contains(&step.id);
    let taken_up = decided.unskip.contains(&step.id);
    taken_up || !left_out && !history.is_over(&step.id)
}
