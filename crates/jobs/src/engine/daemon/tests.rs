//! A daemon that ends while something does not answer.

use std::future::pending;

use async_trait::async_trait;
use dr_coordination::Patience;
use dr_model::ManualClock;
use dr_provider::store::ObjectInfo;
use dr_provider::{Key, Result};
use tokio::sync::Notify;

use super::*;

/// A store that never answers, and tells when it was asked.
#[derive(Debug, Default)]
struct Hanging {
    asked: Notify,
}

impl Hanging {
    async fn hang<T>(&self) -> Result<T> {
        self.asked.notify_one();
        pending().await
    }
}

#[async_trait]
impl ObjectStore for Hanging {
    fn location(&self) -> &str {
        "hanging"
    }

    async fn create(&self, _: &Key, _: bytes::Bytes) -> Result<()> {
        self.hang().await
    }

    async fn get(&self, _: &Key) -> Result<bytes::Bytes> {
        self.hang().await
    }

    async fn get_range(&self, _: &Key, _: u64, _: u64) -> Result<bytes::Bytes> {
        self.hang().await
    }

    async fn head(&self, _: &Key) -> Result<ObjectInfo> {
        self.hang().await
    }

    async fn list(&self, _: &str, _: Option<&Key>, _: usize) -> Result<Vec<ObjectInfo>> {
        self.hang().await
    }

    async fn delete(&self, _: &Key) -> Result<()> {
        self.hang().await
    }
}

/// Whoever follows the register ends at once, however long the store that it asks needs: commits may wait for the next daemon.
#[tokio::test]
async fn a_store_that_hangs_does_not_hold_up_the_end() {
    let (region, workload): (RegionName, WorkloadName) =
        ("us-west-2".parse().unwrap(), "orders".parse().unwrap());
    let hanging = Arc::new(Hanging::default());
    let store: Arc<dyn ObjectStore> = hanging.clone();
    let stores = BTreeMap::from([(region.clone(), Arc::clone(&store))]);
    let endless = Patience {
        attempts: 1,
        timeout: Duration::from_secs(7200),
    };
    let site = WorkloadSite {
        name: workload.clone(),
        home: "us-east-1".parse().unwrap(),
        initial: region.clone(),
        register: Register::new(workload, stores, region.clone()).with_patience(endless),
        resources: BTreeMap::new(),
        sync: BTreeMap::new(),
    };
    let actor = Actor::new("test", "localhost", 1);
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let daemon = Daemon::new(region, actor, store, vec![site], Vec::new(), clock);
    let (stop, stopped) = watch::channel(false);
    let ends = Ends {
        all: stopped.clone(),
        jobs: stopped,
    };
    let (sender, ended) = watch::channel(Ended::default());
    let stopping = async {
        hanging.asked.notified().await;
        assert_eq!(
            *ended.borrow(),
            Ended {
                jobs: true,
                streams: false
            }
        );
        stop.send_replace(true);
    };
    tokio::join!(daemon.run(ends, &sender), stopping);
    assert_eq!(
        *ended.borrow(),
        Ended {
            jobs: true,
            streams: true
        }
    );
}
