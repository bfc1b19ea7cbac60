//! Whom commits wait for, changed while the primary runs and the receiver streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dr_coordination::Patience;
use dr_coordination::chain::{ChainId, chains, find_tail};
use dr_coordination::register::EpochRecord;
use dr_model::{Epoch, Lsn, RegionName};
use dr_postgres::{PostgresDriver, StoreLoss, SyncWish};
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{
    Evidence as _, Fence, Frontier, Goal, LogStream as _, LossFacts, ResourceDriver as _, Sealed,
};
use dr_provider::{ErrorKind, ObjectStore};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::server::PATIENCE;
use crate::site::{EAST, Setup, Site, WEST, region};

const DURABLE: Duration = Duration::from_secs(30);

/// A receiver of the west that runs until it is dropped.
struct Shipping {
    frontier: watch::Receiver<Frontier>,
    task: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl Shipping {
    fn start(driver: &PostgresDriver) -> Self {
        let (sender, frontier) = watch::channel(Frontier::default());
        let (stop, stopped) = watch::channel(false);
        let driver = driver.clone();
        let task = tokio::spawn(async move {
            let ended = driver.ship(&region(WEST), sender, stopped).await;
            panic!("the receiver ended: {ended:?}");
        });
        Self {
            frontier,
            task,
            _stop: stop,
        }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut seen = String::new();
    let looking = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(other) => seen = other,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: {seen}"))
}

async fn names(site: &Site) -> String {
    site.primary.sql("show synchronous_standby_names").await
}

async fn newest(site: &Site) -> EpochRecord {
    site.register().read().await.unwrap().unwrap()
}

async fn loss(driver: &PostgresDriver) -> LossFacts {
    let facts = driver.observe(&[region(EAST), region(WEST)]).await;
    driver.loss(&region(WEST), &facts)
}

/// Waits until a plan would say that a seal proves that nothing is lost.
async fn proven(site: &Site, driver: &PostgresDriver) {
    until("a promise that holds", async || {
        site.commit(1).await;
        let loss = loss(driver).await;
        match loss.sealing_proves_zero {
            true => Ok(()),
            false => Err(format!("{:?}", loss.because)),
        }
    })
    .await;
}

fn database() -> dr_model::ResourceName {
    "database".parse().unwrap()
}

fn west() -> Vec<RegionName> {
    vec![region(WEST)]
}

/// The configuration of the driver wishes for nothing: what is promised is what the record says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_wait_and_wait_no_more_and_wait_again() {
    let site = Site::start(1).await;
    let shipping = Shipping::start(&site.driver);
    site.commit(3).await;

    let wait = SyncWish::Exactly(west());
    let change = site.driver.change_synchronous(&wait, "test", DURABLE).await;
    let change = change.unwrap();
    assert_eq!((change.epoch, change.opened), (Epoch(2), true));
    assert_eq!(names(&site).await, "FIRST 1 (dr_us_west_2)");
    let chain = newest(&site).await.chain(&database()).unwrap();
    assert_eq!(chain.epoch, Epoch(1));
    for _ in 0..5 {
        site.commit(1).await;
        let committed: Lsn = site
            .primary
            .sql("select max(flush_lsn) from pg_stat_replication")
            .await
            .parse()
            .unwrap();
        let stored = find_tail(&*site.store(WEST), &chain, Patience::default()).await;
        assert!(stored.unwrap().unwrap().end >= committed);
    }
    proven(&site, &site.driver).await;
    let again = site.driver.change_synchronous(&wait, "test", DURABLE).await;
    assert!(!again.unwrap().opened);

    // From the record on nothing is promised, however fresh the last finding is.
    let no_more = SyncWish::Exactly(Vec::new());
    let change = site
        .driver
        .change_synchronous(&no_more, "test", DURABLE)
        .await;
    assert_eq!(change.unwrap().epoch, Epoch(3));
    assert_eq!(names(&site).await, "");
    assert!(!loss(&site.driver).await.sealing_proves_zero);

    site.driver
        .change_synchronous(&wait, "test", DURABLE)
        .await
        .unwrap();
    proven(&site, &site.driver).await;
    assert_eq!(newest(&site).await.epoch, Epoch(4));
    assert_eq!(newest(&site).await.synchronous(&database()), west());
    // One chain all along, and it is the one that a failover seals.
    let system_identifier = site.primary.system_identifier().await;
    let all = chains(&*site.store(WEST), system_identifier).await.unwrap();
    assert_eq!(all, vec![chain]);
    assert_eq!(shipping.frontier.borrow().epoch, Some(Epoch(1)));
    let sealed = seal(&site, Epoch(4)).await;
    assert_eq!(sealed.promise.map(|(held, _)| held), Some(true));
    drop(shipping);
    let tail = find_tail(&*site.store(WEST), &chain, Patience::default()).await;
    assert_eq!(tail.unwrap().unwrap().seal.unwrap().lsn, sealed.lsn);
}

/// Ends the log as a failover out of `ended` does.
async fn seal(site: &Site, ended: Epoch) -> Sealed {
    let facts = site.driver.observe(&[region(EAST), region(WEST)]).await;
    let goal = Goal::Seal {
        region: region(WEST),
        ended,
        gather: Vec::new(),
    };
    let actions = site.driver.plan(&goal, &facts).unwrap();
    let [action] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let fence = Fence {
        workload: "orders".parse().unwrap(),
        epoch: ended.next(),
        execution: "20261121T120000Z-0000".parse().unwrap(),
        takeovers: 0,
    };
    let applied = site.driver.apply(action, &fence).await.unwrap();
    Sealed::from_evidence(&applied.evidence).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_the_log_is_not_waited_for() {
    let site = Site::start(1).await;
    let wait = SyncWish::Exactly(west());
    let nothing = site
        .driver
        .change_synchronous(&wait, "test", Duration::ZERO)
        .await;
    let error = nothing.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = dr_provider::error::chain(&error);
    assert!(text.contains("no receiver of us-west-2"), "{text}");
    let own = SyncWish::Exactly(vec![region(EAST)]);
    let error = site.driver.change_synchronous(&own, "test", DURABLE).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(newest(&site).await.epoch, Epoch(1));
    assert_eq!(names(&site).await, "");
}

/// A store that takes no log any more, and a register that answers only at the fifth time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_store_releases_commits_after_the_record_and_comes_back() {
    let site = Site::start(1).await;
    let faulty = Arc::new(Faulty::scripted(site.store(WEST), Vec::new()));
    let stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::from([
        (region(EAST), site.store(EAST)),
        (region(WEST), Arc::clone(&faulty) as Arc<dyn ObjectStore>),
    ]);
    let setup = Setup {
        on_store_loss: StoreLoss::DegradeAfter(Duration::from_secs(5)),
        ..Setup::default()
    };
    let driver = setup.driver(site.directory.path(), stores);
    let shipping = Shipping::start(&driver);
    site.commit(3).await;
    let wait = SyncWish::Exactly(west());
    driver
        .change_synchronous(&wait, "test", DURABLE)
        .await
        .unwrap();
    proven(&site, &driver).await;

    let fails = Fault::Before(ErrorKind::Unavailable);
    faulty.set_rules(vec![
        Rule::on(Operation::Create, "postgres/*", fails),
        Rule::on(Operation::Create, "register/*", fails).times(4),
    ]);
    // It returns only once the record stands, and what it wrote is not in the store.
    site.commit(1).await;
    let record = newest(&site).await;
    let lost = record
        .sync_lost
        .get(&database())
        .expect("a record that says so");
    assert_eq!(lost.regions, west());
    assert!(record.synchronous(&database()).is_empty());
    let chain: ChainId = record.chain(&database()).unwrap();
    let tail = find_tail(&*site.store(WEST), &chain, Patience::default()).await;
    assert!(lost.since <= tail.unwrap().unwrap().end);
    assert_eq!(names(&site).await, "");
    let conditional = loss(&driver).await;
    assert!(!conditional.sealing_proves_zero);
    let because = conditional.because.join("; ");
    assert!(
        because.contains(&format!("lost at {}", lost.since)),
        "{because}"
    );

    faulty.set_rules(Vec::new());
    until("commits that wait again", async || {
        site.commit(1).await;
        let record = newest(&site).await;
        match record.sync_lost.is_empty() {
            true => Ok(()),
            false => Err(record.reason),
        }
    })
    .await;
    proven(&site, &driver).await;
    assert_eq!(names(&site).await, "FIRST 1 (dr_us_west_2)");
    drop(shipping);
}
