//! What is still connected to the old primary once clients are led elsewhere: reported, and never a failure.
//!
//! The region being left is asked only where the fence saw its primary alive and could not stop it, because nothing else in an
//! execution may call there (L1). Where it is known to have stopped nobody is connected, and otherwise nothing is known.

use std::collections::BTreeMap;
use std::time::Duration;

use dr_model::{RegionName, ResourceName};
use serde::Serialize;

use crate::history::History;
use crate::proof;
use crate::step::Work;

/// How long the old primary may take to say it: the step waits for it, and with it the end of the move.
const LIMIT: Duration = Duration::from_millis(500);

/// What is known of the sessions of clients at one old primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Residual {
    /// It has stopped.
    Stopped,
    /// It said how many there are.
    Sessions(u64),
    /// Nothing, and why.
    Unknown(String),
}

impl Residual {
    /// Says it in a few words; nothing of a primary that has stopped.
    pub(crate) fn say(&self, resource: &ResourceName, left: &RegionName) -> Option<String> {
        match self {
            Self::Stopped => None,
            Self::Sessions(count) => Some(format!(
                "{count} sessions of clients are open at the old primary of `{resource}` in {left}"
            )),
            Self::Unknown(why) => Some(format!(
                "who is still connected to `{resource}` in {left} is unknown: {why}"
            )),
        }
    }
}

/// Looks at every old primary that may be asked, all at once.
pub(crate) async fn look(work: &Work) -> BTreeMap<ResourceName, Residual> {
    let looks = work.plan().claims.keys().map(|resource| async move {
        let found = match before_asking(&work.history, resource) {
            Some(known) => known,
            None => ask(work, resource).await,
        };
        (resource.clone(), found)
    });
    futures::future::join_all(looks).await.into_iter().collect()
}

/// Returns what is known without asking; `None` if it may be asked.
fn before_asking(history: &History, resource: &ResourceName) -> Option<Residual> {
    if proof::has_stopped(history, resource) {
        return Some(Residual::Stopped);
    }
    match proof::alive(history, resource) {
        Some(_) => None,
        None => {
            let why = "nothing saw it answer, and a lost region is not called";
            Some(Residual::Unknown(why.to_owned()))
        }
    }
}

async fn ask(work: &Work, resource: &ResourceName) -> Residual {
    let plan = work.plan();
    let driver = work.site.resources.get(resource);
    let Some(query) = driver.and_then(|driver| driver.query()) else {
        return Residual::Unknown("its kind answers no queries".to_owned());
    };
    let claimed = plan.claims.get(resource);
    match tokio::time::timeout(LIMIT, query.sessions(&plan.from)).await {
        Ok(Ok((cluster, count))) if claimed.is_some_and(|c| c.system_identifier == cluster) => {
            Residual::Sessions(count)
        }
        Ok(Ok((cluster, _))) => Residual::Unknown(format!("cluster {cluster} answers there")),
        Ok(Err(error)) => Residual::Unknown(dr_provider::error::chain(&error)),
        Err(_) => Residual::Unknown(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
