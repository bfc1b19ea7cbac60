//! `await-approval`: the place where people say yes.
//!
//! This version knows workloads that need no approval (`quorum: 0`), and records that none was required. A plan for a
//! workload that needs some is refused when it is made, so nobody believes in an approval that nobody gave. Idempotent
//! because it only records.

use std::time::Duration;

use async_trait::async_trait;
use dr_provider::Result;
use dr_provider::driver::{Action, Applied, Verified};
use serde_json::{Value, json};

use crate::plan::{Idempotency, Target};
use crate::step::{Impossible, Scene, Step, Work, look, look_again};

/// The step's name.
pub const NAME: &str = "await-approval";

/// The step.
#[derive(Debug)]
pub struct AwaitApproval;

#[async_trait]
impl Step for AwaitApproval {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "wait until enough people have approved"
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::ReadOnly
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn targets(&self, _: &Scene<'_>) -> Vec<Target> {
        vec![Target::Workload]
    }

    fn plan(
        &self,
        _: &Scene<'_>,
        _: &Target,
        _: &Value,
    ) -> std::result::Result<Vec<Action>, Impossible> {
        let summary = "record that no approval is required (quorum 0)";
        Ok(vec![look("record-approval", summary)])
    }

    async fn apply(&self, work: &Work, _: &Target, _: &Action) -> Result<Applied> {
        let evidence = json!({ "quorum": 0, "requested_by": work.site.actor });
        Ok(work.applied("not required", evidence))
    }

    async fn verify(&self, _: &Work, _: &Target, _: &Action) -> Verified {
        look_again()
    }
}
