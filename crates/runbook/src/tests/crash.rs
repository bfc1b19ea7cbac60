//! An executor that dies at any write of its journal, before or after the write landed, is resumed from another
//! machine: everything is done, and what counts is done once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::{Epoch, RegionName};
use dr_provider::store::ObjectInfo;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use super::runs::planned;
use super::world::{Everything, west};
use crate::events::Silent;
use crate::outcome::State;
use crate::request::{Request, Rung};
use crate::site::Site;
use crate::{Plan, execute, executions, resume};

/// A store whose user dies at its `last`-th journal entry: nothing answers it from then on.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn ObjectStore>,
    writes: AtomicU64,
    last: u64,
    /// Whether that write still lands.
    lands: bool,
}

impl Mortal {
    fn dead(&self) -> Error {
        Error::new(ErrorKind::Unknown, "use", "a dead process's store")
    }

    fn alive(&self) -> Result<()> {
        match self.writes.load(Ordering::SeqCst) < self.last {
            true => Ok(()),
            false => Err(self.dead()),
        }
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.alive()?;
        if key.as_str().starts_with("execution/") {
            let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
            if number == self.last {
                if self.lands {
                    self.inner.create(key, body).await?;
                }
                return Err(self.dead());
            }
        }
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.alive()?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

/// Runs a failover that dies at its `last`-th write; returns whether it died.
pub(super) async fn die(world: &Everything, request: &Request, last: u64, lands: bool) -> bool {
    let plan = planned(world, request).await;
    die_in(world, plan, last, lands).await
}

/// The same with a plan.
pub(super) async fn die_in(world: &Everything, plan: Plan, last: u64, lands: bool) -> bool {
    let site = mortal_site(world, &plan.to, last, lands);
    execute(Arc::new(site), plan, &Silent).await.is_err()
}

/// Makes a site whose user dies at its `last`-th write of a journal in the store of `region`.
pub(super) fn mortal_site(world: &Everything, region: &RegionName, last: u64, lands: bool) -> Site {
    mortal(world.site("laptop"), region, last, lands)
}

/// The same of a site.
pub(super) fn mortal(mut site: Site, region: &RegionName, last: u64, lands: bool) -> Site {
    let store: Arc<dyn ObjectStore> = Arc::new(Mortal {
        inner: Arc::clone(&site.stores[region]),
        writes: AtomicU64::new(0),
        last,
        lands,
    });
    site.stores.insert(region.clone(), store);
    site
}

async fn every_crash_is_survived(request: &Request, rung: Rung, effect: &str) {
    for lands in [false, true] {
        let mut survived = 0;
        for last in 1.. {
            let world = Everything::new().await;
            if !die(&world, request, last, lands).await {
                break;
            }
            survived += 1;
            let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
            let (found, _) = executions::list(&world.stores, &clock).await;
            let Some(left) = found.first() else {
                // It died before anybody could know of it, and so before it did anything.
                assert_eq!((last, lands), (1, false));
                assert_eq!(world.state().effects, []);
                continue;
            };
            let state = left.state;
            let site = Arc::new(world.site("desk"));
            let resumed = resume(site, &left.execution, "it died", vec![], &Silent).await;
            let at = format!("death {last}, landed: {lands}");
            match resumed {
                Ok(report) => {
                    assert_eq!(report.state, State::Completed, "{at}: {report:#?}");
                    assert_eq!(report.rung, rung, "{at}");
                    let rpa = (report.rpa_seconds, report.rpa_at_least_seconds);
                    assert_eq!(rpa, (None, Some(0.0)), "{at}");
                }
                // Only its last word was lost on the way back to it.
                Err(crate::Error::Over { state, .. }) => assert_eq!(state, State::Completed),
                Err(error) => panic!("{at}: {error} ({state:?})"),
            }
            assert_eq!(world.count(effect), 1, "{at}");
            assert_eq!(world.count("seal-chain"), 1, "{at}");
            assert_eq!(world.count("switch-traffic"), 1, "{at}");
            assert_eq!(world.count("start-service"), 1, "{at}");
            assert!((1..=2).contains(&world.count("notify")), "{at}");
            let keys: std::collections::BTreeSet<_> = {
                let state = world.state();
                state
                    .messages
                    .iter()
                    .map(|m| m.idempotency_key.clone())
                    .collect()
            };
            assert_eq!(keys.len(), 1, "{at}");
            let head = world.register().read().await.unwrap().unwrap();
            assert_eq!((head.epoch, head.primary), (Epoch(2), west()), "{at}");
        }
        assert!(survived > 10, "{survived}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_promotion_survives_every_crash() {
    let request = Request::new(west());
    every_crash_is_survived(&request, Rung::Promote, "promote-standby").await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_survives_every_crash() {
    let request = Request {
        rung: Some(Rung::Restore),
        ..Request::new(west())
    };
    every_crash_is_survived(&request, Rung::Restore, "restore-instance").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_amid_a_fallback_goes_on_with_the_fallback() {
    for lands in [false, true] {
        for last in 1.. {
            let world = Everything::new().await;
            let faults = [super::world::Fault::Definite; 8];
            world.script("promote-standby", faults);
            if !die(&world, &Request::new(west()), last, lands).await {
                break;
            }
            let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
            let (found, _) = executions::list(&world.stores, &clock).await;
            let Some(left) = found.first().filter(|left| !left.state.is_final()) else {
                continue;
            };
            let site = Arc::new(world.site("desk"));
            let report = resume(site, &left.execution, "it died", vec![], &Silent).await;
            let report = report.unwrap();
            assert_eq!(
                (report.state, report.rung),
                (State::Completed, Rung::Restore)
            );
            assert_eq!(world.count("restore-instance"), 1);
            assert_eq!(world.count("promote-standby"), 0);
        }
    }
}
