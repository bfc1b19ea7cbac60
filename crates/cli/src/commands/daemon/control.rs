//! What the daemon does when it is asked over its control socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dr_jobs::engine::Roster;
use dr_model::{RegionName, ResourceId};
use dr_postgres::PostgresDriver;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};
use dr_server::control::{Control, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest};

use crate::wiring::Setup;

/// The daemon as its control socket sees it.
pub(super) struct DaemonControl {
    roster: Arc<Roster>,
    region: RegionName,
    /// Those whose log this daemon can be given.
    clusters: BTreeMap<ResourceId, PostgresDriver>,
}

impl DaemonControl {
    pub(super) fn new(
        setup: &Setup,
        region: &RegionName,
        roster: Arc<Roster>,
    ) -> crate::error::Result<Self> {
        let mut clusters = BTreeMap::new();
        for (name, workload) in &setup.config.workloads {
            for resource in workload.resources.keys() {
                let id = ResourceId {
                    workload: name.clone(),
                    resource: resource.clone(),
                };
                let driver = setup.postgres(&id)?;
                clusters.insert(id, driver);
            }
        }
        Ok(Self {
            roster,
            region: region.clone(),
            clusters,
        })
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

    async fn push_wal(&self, request: PushRequest) -> Result<PushAnswer, Refusal> {
        let summary = self.push(&request).await.map_err(refusal)?;
        Ok(PushAnswer { summary })
    }
}

impl DaemonControl {
    async fn push(&self, request: &PushRequest) -> Result<String, Error> {
        let refuse = |why: String| {
            Error::new(
                ErrorKind::Invalid,
                "archive",
                request.path.display().to_string(),
            )
            .because(why)
        };
        let id: ResourceId = request
            .resource
            .parse()
            .map_err(|error| refuse(format!("{error}")))?;
        let driver = self
            .clusters
            .get(&id)
            .ok_or_else(|| refuse(format!("this daemon knows no {id}")))?;
        driver.push_wal(&self.region, &request.path).await
    }
}

fn refusal(error: Error) -> Refusal {
    Refusal {
        kind: error.kind().as_str().to_owned(),
        message: chain(&error),
        hint: error.hint().map(ToOwned::to_owned),
    }
}
