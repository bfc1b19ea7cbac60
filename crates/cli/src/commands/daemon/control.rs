//! What the daemon does when it is asked over its control socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use dr_jobs::engine::Roster;
use dr_model::{RegionName, ResourceId, WorkloadName};
use dr_postgres::PostgresDriver;
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind};
use dr_server::control::{
    Control, LeaveAnswer, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest, WhoAnswer,
};
use serde_json::json;
use tokio::sync::Notify;

use super::check_readiness::{self, CheckReadiness};
use crate::readiness::Readiness;
use crate::wiring::Setup;

/// The daemon as its control socket sees it.
pub(super) struct DaemonControl {
    roster: Arc<Roster>,
    readiness: Arc<CheckReadiness>,
    region: RegionName,
    /// Where this daemon answers HTTP.
    listen: SocketAddr,
    /// Those whose log this daemon can be given.
    clusters: BTreeMap<ResourceId, PostgresDriver>,
    /// Told when somebody asks it to leave.
    leaving: Arc<Notify>,
}

impl DaemonControl {
    pub(super) fn new(
        setup: &Setup,
        region: &RegionName,
        listen: SocketAddr,
        roster: Arc<Roster>,
        readiness: Arc<CheckReadiness>,
        leaving: Arc<Notify>,
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
            readiness,
            region: region.clone(),
            listen,
            clusters,
            leaving,
        })
    }

    /// Assesses one workload, or all that have a place in this region.
    async fn check_readiness(&self, only: Option<&WorkloadName>) -> Result<RunAnswer, Refusal> {
        let names: Vec<_> = self.readiness.workloads().cloned().collect();
        let names = names
            .iter()
            .filter(|name| only.is_none_or(|only| only == *name));
        let mut found = Vec::new();
        for name in names {
            let known = self.readiness.check(name).await.map_err(|error| Refusal {
                kind: "failed".to_owned(),
                message: error.message,
                hint: error.hints.into_iter().next(),
            })?;
            found.push((name.clone(), known.readiness));
        }
        Ok(answer(&found))
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
        if request.name == check_readiness::NAME {
            let workload = resource.as_ref().map(|id| &id.workload);
            return self.check_readiness(workload).await;
        }
        let job = self
            .roster
            .find(&request.name, resource.as_ref())
            .map_err(refusal)?;
        let outcome = job.run_now().await.map_err(refusal)?;
        Ok(RunAnswer {
            summary: outcome.summary,
            detail: outcome.detail,
            alarm: outcome.alarm,
        })
    }

    async fn push_wal(&self, request: PushRequest) -> Result<PushAnswer, Refusal> {
        let summary = self.push(&request).await.map_err(refusal)?;
        Ok(PushAnswer { summary })
    }

    async fn who(&self) -> Result<WhoAnswer, Refusal> {
        Ok(WhoAnswer {
            process: std::process::id(),
            listen: self.listen,
        })
    }

    async fn leave(&self) -> Result<LeaveAnswer, Refusal> {
        self.leaving.notify_one();
        Ok(LeaveAnswer {
            process: std::process::id(),
        })
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

/// Puts assessments together as the answer to who asked for them.
pub(crate) fn answer(found: &[(WorkloadName, Option<Readiness>)]) -> RunAnswer {
    let line = |(name, readiness): &(WorkloadName, Option<Readiness>)| match readiness {
        Some(readiness) => format!("{name}: {}", readiness.describe()),
        None => format!("{name}: the primary is here"),
    };
    let each = |(name, readiness): &(WorkloadName, Option<Readiness>)| json!({ "workload": name, "readiness": readiness });
    RunAnswer {
        summary: found.iter().map(line).collect::<Vec<_>>().join("\n"),
        detail: found.iter().map(each).collect(),
        alarm: None,
    }
}

fn refusal(error: Error) -> Refusal {
    Refusal {
        kind: error.kind().as_str().to_owned(),
        message: chain(&error),
        hint: error.hint().map(ToOwned::to_owned),
    }
}
