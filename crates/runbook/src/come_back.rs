//! An old primary that comes back between the plan and the epoch.
//!
//! People take days to approve a plan, and an execution that was interrupted before it changed anything can be gone on with later. What
//! somebody stated of the old primary, and what was estimated to be lost, was true when the plan was made. As long as its epoch is not
//! ended a primary that has come back is whole, and ending it would be the outage.

use std::time::Duration;

use dr_model::ResourceName;
use dr_provider::error::chain;
use futures::future::try_join_all;

use crate::old_primary;
use crate::plan::{ExpectedProof, Mode, Target};
use crate::step::{Unmet, Work};
use crate::steps::{assess_region, check_data_loss};

/// How old a plan may be for its look at the old primary to count. While it counts the region being left is asked nothing more.
const FRESH: Duration = Duration::from_secs(10);

/// Looks at the old primary of each resource if the plan is old; changes nothing.
///
/// Fails if one that somebody has stated to be off is alive, or if one that is alive has written more than may be lost.
pub(crate) async fn is_as_planned(work: &Work) -> Result<(), Unmet> {
    let plan = work.plan();
    let age = work.site.clock.now().duration_since(plan.observed_at);
    if plan.mode != Mode::Unplanned || age.as_secs_f64() <= FRESH.as_secs_f64() {
        return Ok(());
    }
    let looks = plan.proofs.iter();
    let looks = looks.map(|(name, proof)| is_as_it_was(work, name, *proof));
    try_join_all(looks).await.map(drop)
}

async fn is_as_it_was(work: &Work, name: &ResourceName, proof: ExpectedProof) -> Result<(), Unmet> {
    let target = Target::Resource(name.clone());
    let unfit = |error: dr_provider::Error| Unmet::Unfit(chain(&error));
    let driver = work.driver(&target).map_err(unfit)?;
    let from = &work.plan().from;
    let looked = old_primary::look(&*driver, from).await;
    if !looked.alive {
        return Ok(());
    }
    if proof == ExpectedProof::Witness {
        return Err(Unmet::Unfit(format!(
            "`{name}` in {from} has come back since the plan was made, whatever was witnessed: {}; nothing was changed, and a plan that is made \
             now begins with what is there",
            looked.seen
        )));
    }
    let now = work.site.clock.now();
    let seen = assess_region::resource(work, &target).await;
    let (_, loss) = seen.map_err(unfit)?;
    let estimate = check_data_loss::as_known(work, loss, Some(now));
    let judged = check_data_loss::judged(work, &target, estimate.as_ref());
    judged.map(drop).map_err(unfit)
}
