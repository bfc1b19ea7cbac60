//! What the daemon does when it is asked over its control socket.

use std::sync::Arc;

use async_trait::async_trait;
use dr_jobs::engine::Roster;
use dr_model::ResourceId;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};
use dr_server::control::{Control, Refusal, RunAnswer, RunRequest};

/// The daemon as its control socket sees it.
pub(super) struct DaemonControl {
    roster: Arc<Roster>,
}

impl DaemonControl {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self { roster }
    }
}

#[async_trait]
impl Control for DaemonControl {
    async fn run_job(&self, request: RunRequest) -> Result<RunAnswer, Refusal> {
        let resource = request.resource.map(|text| {
            text.parse::<ResourceId>().map_err(|error| {
                Error::new(ErrorKind::Invalid, "run", request.name.clone()).because(error)
            })
        });
        let resource = resource.transpose().map_err(refusal)?;
        let job = self
            .roster
            .find(&request.name, resource.as_ref())
            .map_err(refusal)?;
        let outcome = job.run_now().await.map_err(refusal)?;
        Ok(RunAnswer {
            summary: outcome.summary,
            detail: outcome.detail,
        })
    }
}

fn refusal(error: Error) -> Refusal {
    Refusal {
        kind: error.kind().as_str().to_owned(),
        message: chain(&error),
        hint: error.hint().map(ToOwned::to_owned),
    }
}
