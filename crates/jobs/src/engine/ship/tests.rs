//! When a stream that would go on by itself is left.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dr_coordination::Actor;
use dr_coordination::chain::{SealRequest, seal};
use dr_coordination::register::{ClusterClaim, EpochRecord, FORMAT_VERSION};
use dr_model::{Epoch, Lsn, SystemIdentifier, TimelineId};
use dr_provider::driver::{
    Action, Applied, CompactReport, Facts, Fence, Goal, LogStream, LossFacts, Verified,
};
use dr_provider::store::MemoryStore;
use dr_provider::{Error, ErrorKind, ResourceDriver};
use jiff::Timestamp;
use tokio::time::timeout;

use super::*;

/// A receiver of an old primary that writes nothing: it never meets a seal and never ends by itself.
#[derive(Debug, Default)]
pub(in crate::engine) struct Idle {
    started: AtomicUsize,
}

#[async_trait]
impl LogStream for Idle {
    async fn ship(
        &self,
        _: &RegionName,
        frontier: watch::Sender<Frontier>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        self.started.fetch_add(1, Ordering::SeqCst);
        frontier.send_modify(|frontier| "streaming".clone_into(&mut frontier.state));
        stopped(&mut stop).await;
        Ok(())
    }

    fn heartbeat_interval(&self) -> Duration {
        unreachable!("nobody beats here")
    }

    async fn beat(&self, region: &RegionName, _: Epoch) -> Result<Timestamp> {
        Err(Error::new(
            ErrorKind::Unavailable,
            "beat in",
            region.to_string(),
        ))
    }

    async fn compact(&self, _: &RegionName) -> Result<CompactReport> {
        unreachable!("nobody merges here")
    }

    async fn lost_since(&self, _: &RegionName, _: Lsn) -> Result<Vec<String>> {
        unreachable!("nobody asks")
    }

    async fn last_beat(&self, _: &RegionName) -> Result<Option<Timestamp>> {
        unreachable!("nobody beats here")
    }
}

#[async_trait]
impl ResourceDriver for Idle {
    fn kind(&self) -> &'static str {
        "idle"
    }

    async fn observe(&self, _: &[RegionName]) -> Facts {
        unreachable!("nobody looks at it")
    }

    fn plan(&self, _: &Goal, _: &Facts) -> Result<Vec<Action>> {
        unreachable!("nobody moves it")
    }

    async fn apply(&self, _: &Action, _: &Fence) -> Result<Applied> {
        unreachable!("nobody moves it")
    }

    async fn verify(&self, _: &Action, _: &Fence) -> Result<Verified> {
        unreachable!("nobody moves it")
    }

    fn loss(&self, _: &RegionName, _: &Facts) -> LossFacts {
        unreachable!("nobody moves it")
    }

    fn log_stream(&self) -> Option<&dyn LogStream> {
        Some(self)
    }
}

pub(in crate::engine) fn resource() -> ResourceId {
    "orders/database".parse().unwrap()
}

pub(in crate::engine) fn view(record: EpochRecord) -> View {
    View {
        record: Some(record),
        problem: None,
    }
}

pub(in crate::engine) fn first() -> EpochRecord {
    let claim = ClusterClaim {
        system_identifier: SystemIdentifier(7),
        timeline: TimelineId(1),
        start_lsn: Some(Lsn(1)),
        log_epoch: None,
    };
    EpochRecord {
        version: FORMAT_VERSION,
        epoch: Epoch::FIRST,
        workload: resource().workload,
        primary: "us-east-1".parse().unwrap(),
        register: "us-west-2".parse().unwrap(),
        clusters: BTreeMap::from([(resource().resource, claim)]),
        sync: BTreeMap::new(),
        sync_lost: BTreeMap::new(),
        guards: BTreeMap::new(),
        created_at: Timestamp::UNIX_EPOCH,
        created_by: Actor::new("test", "localhost", 1),
        reason: "test".to_owned(),
        execution: None,
        override_reason: None,
    }
}

/// The record of a failover to the other region.
pub(in crate::engine) fn moved() -> EpochRecord {
    let mut record = first();
    record.epoch = Epoch(2);
    record.primary = "us-west-2".parse().unwrap();
    let claim = record.clusters.get_mut(&resource().resource).unwrap();
    claim.timeline = TimelineId(2);
    record
}

/// Ships under epoch 1, shows what follows to whoever ships, and tells after each of them whether the stream was left at once; then how long
/// it went on, if it has been left by then.
async fn left_after(
    store: &Arc<dyn ObjectStore>,
    views: impl IntoIterator<Item = View>,
) -> (Vec<bool>, Option<Duration>) {
    let driver = Arc::new(Idle::default());
    let stream = ShipWal {
        region: "us-west-2".parse().unwrap(),
        driver: Arc::clone(&driver) as Arc<dyn ResourceDriver>,
    };
    let (board, resource) = (Board::default(), resource());
    let (sender, receiver) = watch::channel(view(first()));
    let (_keep, stop) = watch::channel(false);
    let mut shipping = pin!(ship(&resource, &stream, store, &board, receiver, stop));
    let moment = Duration::from_secs(1);
    assert!(timeout(moment, &mut shipping).await.is_err());
    assert_eq!(driver.started.load(Ordering::SeqCst), 1);
    let mut left = Vec::new();
    for view in views {
        sender.send_replace(view);
        let ended = timeout(moment, &mut shipping).await;
        left.push(ended.is_ok_and(|ended| ended.is_ok()));
    }
    if left.last() == Some(&true) {
        return (left, None);
    }
    let mut waited = Duration::ZERO;
    while timeout(moment, &mut shipping).await.is_err() {
        waited += moment;
        assert!(waited < Duration::from_secs(3600), "it is never left");
    }
    (left, Some(waited))
}

fn store() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::new("west"))
}

/// Seals the chain of epoch 1, in which nothing was ever stored.
async fn seal_first(store: &Arc<dyn ObjectStore>) {
    let chain = first().chain(&resource().resource).unwrap();
    let request = SealRequest {
        successor: Epoch(2),
        execution: None,
        actor: Actor::new("test", "localhost", 1),
        at: Timestamp::UNIX_EPOCH,
        origin_if_empty: Lsn(1),
    };
    let sealed = seal(&**store, &chain, &request, Patience::default()).await;
    sealed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_old_primary_is_left_once_its_log_is_sealed() {
    let store = store();
    seal_first(&store).await;
    assert_eq!(
        left_after(&store, [view(moved())]).await,
        (vec![true], None)
    );
}

/// Its last bytes come behind the new epoch, while it is being shut down.
#[tokio::test(start_paused = true)]
async fn an_old_primary_is_waited_for_and_not_for_ever() {
    let (left, waited) = left_after(&store(), [view(moved())]).await;
    assert_eq!(left, [false]);
    let waited = waited.unwrap();
    assert!(waited + Duration::from_secs(2) >= LEAVE_LIMIT, "{waited:?}");
    assert!(waited <= LEAVE_LIMIT, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn another_sync_set_leaves_the_stream_as_it_is() {
    let store = store();
    seal_first(&store).await;
    let west = vec!["us-west-2".parse().unwrap()];
    let waits = first().with_synchronous(&resource().resource, west, None);
    let waits_no_more = waits.with_synchronous(&resource().resource, Vec::new(), None);
    let mut moved = moved();
    moved.epoch = Epoch(4);
    let views = [waits, waits_no_more, moved].map(view);
    let (left, _) = left_after(&store, views).await;
    assert_eq!(left, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_register_that_cannot_be_read_leaves_nothing() {
    let store = store();
    seal_first(&store).await;
    let unreadable = View {
        problem: Some("not reachable".to_owned()),
        ..view(moved())
    };
    let (left, _) = left_after(&store, [unreadable, view(moved())]).await;
    assert_eq!(left, [false, true]);
}

/// What a person has to see to is no good condition, however well the log streams.
#[test]
fn an_alarm_is_bad() {
    let mut frontier = Frontier {
        state: "streaming".to_owned(),
        epoch: Some(Epoch::FIRST),
        ..Frontier::default()
    };
    assert!(matches!(condition(&frontier), Condition::Good(_)));
    frontier.alarms = vec!["slot `dr_west` was invalidated".to_owned()];
    assert_eq!(
        condition(&frontier),
        Condition::Bad("slot `dr_west` was invalidated".to_owned())
    );
}
