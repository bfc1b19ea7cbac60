//! What tells whether a workload works, in each of its regions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_config::{HealthCheck, Workload};
use dr_local::HttpProbe;
use dr_model::{RegionName, ResourceId, WorkloadName};
use dr_provider::probe::{ClientProbe, Health};
use dr_provider::{Probe, ResourceDriver, Traffic};

use super::Setup;
use crate::error::Result;

/// How long one look takes at most.
const LIMIT: Duration = Duration::from_secs(2);

impl Setup {
    /// Returns the checks of a workload by the region that they look at.
    ///
    /// A check of an answer that a region does not have is left out there: nothing leads to it.
    pub(super) fn probes(
        &self,
        name: &WorkloadName,
        workload: &Workload,
        traffic: &[Arc<dyn Traffic>],
    ) -> Result<BTreeMap<RegionName, Vec<Arc<dyn Probe>>>> {
        let mut probes = BTreeMap::new();
        for region in std::iter::once(&workload.home).chain(&workload.recovery) {
            let answer = traffic.iter().find_map(|record| record.answer(region));
            let mut here: Vec<Arc<dyn Probe>> = Vec::new();
            for check in &workload.checks {
                match check {
                    HealthCheck::Http { url } => {
                        let url = match (&answer, url.contains(ANSWER)) {
                            (Some(answer), _) => url.replace(ANSWER, answer),
                            (None, false) => url.clone(),
                            (None, true) => continue,
                        };
                        here.push(Arc::new(HttpProbe::new(url, LIMIT)?));
                    }
                    HealthCheck::Sql { resource, query } => {
                        let id = ResourceId {
                            workload: name.clone(),
                            resource: resource.clone(),
                        };
                        let driver = self.driver(&id)?;
                        here.push(Arc::new(SqlProbe {
                            id,
                            driver,
                            region: region.clone(),
                            query: query.clone(),
                        }));
                    }
                }
            }
            probes.insert(region.clone(), here);
        }
        Ok(probes)
    }
}

impl Setup {
    /// Returns the checks of a workload as a client makes them: those of an answer. Any other goes elsewhere than the name does.
    pub(super) fn clients(workload: &Workload) -> Vec<Arc<dyn ClientProbe>> {
        let of_answer = workload.checks.iter().filter_map(|check| match check {
            HealthCheck::Http { url } if url.contains(ANSWER) => Some(url),
            HealthCheck::Http { .. } | HealthCheck::Sql { .. } => None,
        });
        let client =
            |url: &String| Arc::new(HttpClient { url: url.clone() }) as Arc<dyn ClientProbe>;
        of_answer.map(client).collect()
    }
}

/// A request to whatever a name leads to, for that name.
#[derive(Debug)]
struct HttpClient {
    url: String,
}

#[async_trait]
impl ClientProbe for HttpClient {
    fn describe(&self, name: &str) -> String {
        format!("GET {}", self.url.replace(ANSWER, name))
    }

    async fn probe(&self, name: &str, answer: &str) -> Health {
        match HttpProbe::new(self.url.replace(ANSWER, answer), LIMIT) {
            Ok(probe) => probe.named(name).probe().await,
            Err(error) => Health::Unknown(dr_provider::error::chain(&error)),
        }
    }
}

/// What stands for the answer of the region that is looked at.
const ANSWER: &str = "{answer}";

/// A query whose answer must be true, asked of the instance of one region.
#[derive(Debug)]
struct SqlProbe {
    id: ResourceId,
    driver: Arc<dyn ResourceDriver>,
    region: RegionName,
    query: String,
}

#[async_trait]
impl Probe for SqlProbe {
    fn describe(&self) -> String {
        format!("query {} in {}: {}", self.id, self.region, self.query)
    }

    async fn probe(&self) -> Health {
        let Some(query) = self.driver.query() else {
            return Health::Unknown(format!("kind `{}` answers no queries", self.driver.kind()));
        };
        match query.scalar(&self.region, &self.query, LIMIT).await {
            Ok(Some(value)) if matches!(value.as_str(), "t" | "true") => Health::Healthy(value),
            Ok(value) => Health::Unhealthy(value.unwrap_or_else(|| "no row, or null".to_owned())),
            Err(error) => Health::Unknown(dr_provider::error::chain(&error)),
        }
    }
}
