//! The fence `stopped` proves something about the old primary only: whatever else stands at its path is left alone, and
//! no plan expects a proof from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dr_model::Epoch;
use dr_pgwire::Connection;
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::driver::{
    Action, Evidence as _, Facts, Fence, Fenced, Goal, Instance, StopProof, Verified,
};
use dr_provider::error::chain;
use dr_provider::{ErrorKind, ObjectStore, ResourceDriver as _};

use crate::promote::prepare;
use crate::server::{PATIENCE, Server, give_to_postgres, run};
use crate::site::{EAST, Setup, Site, WEST, region};

fn goal() -> Goal {
    Goal::Fence {
        region: region(EAST),
    }
}

fn fence() -> Fence {
    Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(2),
        execution: "test".parse().unwrap(),
        takeovers: 0,
    }
}

async fn observe(site: &Site) -> Facts {
    site.driver.observe(&[region(EAST), region(WEST)]).await
}

/// The action as planned while everything was in order.
async fn planned(site: &Site) -> Action {
    let actions = site.driver.plan(&goal(), &observe(site).await).unwrap();
    let [action] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    action.clone()
}

/// Makes sure that nothing is expected and nothing proven, and returns both reasons.
async fn not_proven(site: &Site, action: &Action) -> (String, String) {
    let facts = observe(site).await;
    let expected = match (
        &facts.regions[&region(EAST)].instance,
        site.driver.plan(&goal(), &facts),
    ) {
        // It is tried, and nothing is expected of it: a plan wants a witness then.
        (Instance::Unreachable { why, .. }, Ok(_)) => why.clone(),
        (_, planned) => chain(&planned.unwrap_err()),
    };
    let error = site.driver.apply(action, &fence()).await.unwrap_err();
    let verified = site.driver.verify(action, &fence()).await.unwrap();
    assert!(!matches!(verified, Verified::Done(_)), "{verified:?}");
    (expected, chain(&error))
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// A cluster that stands still proves nothing of the old primary while neither the register nor a copy of it says which that is.
#[tokio::test]
async fn what_has_stopped_counts_only_as_long_as_somebody_knows_whose_it_is() {
    let mut site = Site::start(1).await;
    site.primary.stop();
    let seen = site.driver.look(&region(EAST)).await;
    assert_eq!(seen, Instance::Stopped);
    for name in [EAST, WEST] {
        let away = site.place(&format!("{name}-away"));
        fs::rename(site.place(name), away).unwrap();
    }
    let seen = site.driver.look(&region(EAST)).await;
    let Instance::Unreachable { why, runs, .. } = seen else {
        panic!("{seen:?}");
    };
    assert!(!runs && why.contains("whose data directory"), "{why}");
}

#[tokio::test]
async fn the_old_primary_is_stopped_and_known_by_the_mark_of_the_fence() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let before = site.driver.verify(&action, &fence()).await.unwrap();
    assert!(matches!(before, Verified::NotDone { .. }), "{before:?}");
    let applied = site.driver.apply(&action, &fence()).await.unwrap();
    let fenced = Fenced::from_evidence(&applied.evidence).unwrap();
    assert_eq!(fenced.proof, Some(StopProof::Stopped));
    let verified = site.driver.verify(&action, &fence()).await.unwrap();
    assert!(matches!(verified, Verified::Done(_)), "{verified:?}");
    // Again, as after a crash in between.
    site.driver.apply(&action, &fence()).await.unwrap();

    // An init system starts it as a standby: it does not come back writable, shows nothing that may never have been acknowledged, and can
    // be fenced once more.
    let data = site.primary.data.clone();
    site.primary.stop();
    let mut silent = Server::spawn(&data, &[] as &[&str]);
    let refused = async {
        loop {
            match Connection::connect(&silent.config()).await {
                Ok(_) => panic!("it answers"),
                Err(error) if error.to_string().contains("is not accepting connections") => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    silent.stop();
    site.primary = Server::start(&data, &["hot_standby=on"]).await;
    assert_eq!(site.primary.sql("select pg_is_in_recovery()").await, "t");
    site.driver.apply(&action, &fence()).await.unwrap();
}

/// A store that lists what it holds only after half a minute takes nothing from what is seen of the machine beside it, and a look with a
/// limit keeps to it.
#[tokio::test]
async fn a_slow_store_hides_no_data_directory() {
    let mut site = Site::start(1).await;
    site.primary.stop();
    let east = region(EAST);
    let slow = Rule::on(Operation::List, "*", Fault::Delay(PATIENCE));
    let slow = Faulty::scripted(site.store(EAST), vec![slow]);
    let stores: BTreeMap<_, Arc<dyn ObjectStore>> = BTreeMap::from([
        (east.clone(), Arc::new(slow) as Arc<dyn ObjectStore>),
        (region(WEST), site.store(WEST)),
    ]);
    let setup = Setup {
        data: Some(site.primary.data.clone()),
        ..Setup::default()
    };
    let driver = setup.driver(site.directory.path(), stores);
    let limit = Duration::from_millis(2400);
    let looked = driver.observe_within(std::slice::from_ref(&east), limit);
    let facts = tokio::time::timeout(limit + limit, looked).await.unwrap();
    let seen = &facts.regions[&east];
    assert_eq!(seen.instance, Instance::Stopped);
    let why = seen.log.as_ref().unwrap_err();
    assert!(why.contains("no answer within 2.4 s"), "{why}");
    assert_eq!(seen.late, Vec::<String>::new());
    driver.plan(&goal(), &facts).unwrap();
}

/// Processes that are frozen, and thawed in the end if they are still there: nobody could stop them otherwise.
struct Frozen(Vec<OsString>);

impl Frozen {
    fn new(processes: Vec<OsString>) -> Self {
        let frozen = Self(processes);
        // What ran for a moment only, as the archiver's command, may have ended meanwhile.
        let _ended = Command::new("kill").arg("-STOP").args(&frozen.0).output();
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _gone = Command::new("kill").arg("-CONT").args(&self.0).output();
    }
}

/// A server that is frozen takes part in no shutdown; it could be thawed, and acknowledge what it was in the middle of.
#[tokio::test]
async fn a_frozen_primary_is_killed() {
    let mut site = Site::start(1).await;
    site.set_up(Setup {
        says_how_to_stop: false,
        ..Setup::default()
    });
    let action = planned(&site).await;
    let data = fs::canonicalize(&site.primary.data).unwrap();
    let of_it = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|place| place == data)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let processes: Vec<_> = all.filter(of_it).map(|one| one.file_name()).collect();
    assert!(processes.len() > 1, "{processes:?}");
    let frozen = Frozen::new(processes);
    let applied = site.driver.apply(&action, &fence()).await.unwrap();
    let fenced = Fenced::from_evidence(&applied.evidence).unwrap();
    assert_eq!(fenced.proof, Some(StopProof::Stopped));
    let left = fs::read_dir("/proc").unwrap().flatten();
    assert_eq!(left.filter(of_it).count(), 0);
    drop(frozen);
}

/// As with a command that was cut off between its mark and the shutdown: the server goes on, and only its next start would be wrong.
#[tokio::test]
async fn a_primary_that_goes_on_keeps_no_mark_of_a_fence() {
    let mut site = Site::start(1).await;
    prepare(&site.primary).await;
    let cluster = site.primary.system_identifier().await;
    let signal = site.primary.data.join("standby.signal");
    fs::write(&signal, format!("fenced-by-dr {cluster} 1\n")).unwrap();
    give_to_postgres(&signal);
    let goal = Goal::ResumePrimary {
        region: region(EAST),
        standby: region(WEST),
        unpromoted: true,
    };
    let actions = site.driver.plan(&goal, &observe(&site).await).unwrap();
    let [action] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    let before = site.driver.verify(action, &fence()).await.unwrap();
    assert!(matches!(before, Verified::NotDone { .. }), "{before:?}");
    site.driver.apply(action, &fence()).await.unwrap();
    assert!(!signal.exists());
    let after = site.driver.verify(action, &fence()).await.unwrap();
    assert!(matches!(after, Verified::Done(_)), "{after:?}");
    let data = site.primary.data.clone();
    site.primary.stop();
    site.primary = Server::start(&data, &["wal_level=replica"]).await;
    assert_eq!(site.primary.sql("select pg_is_in_recovery()").await, "f");
}

#[tokio::test]
async fn another_cluster_at_the_path_is_left_alone() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let data = site.primary.data.clone();
    site.primary.stop();
    fs::rename(&data, site.place("old")).unwrap();
    Server::initialise(&data, 1);
    site.primary = Server::start(&data, &["wal_level=replica"]).await;

    let (expected, why) = not_proven(&site, &action).await;
    assert!(expected.contains("another cluster answers"), "{expected}");
    assert!(why.contains("is of another cluster"), "{why}");
    assert_eq!(site.primary.sql("select 1").await, "1");
    assert!(!data.join("standby.signal").exists());

    site.primary.stop();
    let (expected, why) = not_proven(&site, &action).await;
    assert!(expected.contains("is of another cluster"), "{expected}");
    assert!(why.contains("is of another cluster"), "{why}");
}

#[tokio::test]
async fn a_path_without_the_old_primary_proves_nothing() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let data = site.primary.data.clone();
    site.primary.stop();
    let old = site.place("old");
    fs::rename(&data, &old).unwrap();
    let (expected, why) = not_proven(&site, &action).await;
    assert!(
        expected.contains("there is no such directory"),
        "{expected}"
    );
    assert!(why.contains("there is no such directory"), "{why}");

    fs::create_dir(&data).unwrap();
    give_to_postgres(&data);
    let (expected, why) = not_proven(&site, &action).await;
    assert!(expected.contains("the directory is empty"), "{expected}");
    assert!(why.contains("the directory is empty"), "{why}");

    fs::write(data.join("lost+found"), "").unwrap();
    let (expected, why) = not_proven(&site, &action).await;
    assert!(expected.contains("pg_control"), "{expected}");
    assert!(why.contains("pg_control"), "{why}");

    // A link to where it is now is the old primary all the same.
    fs::remove_dir_all(&data).unwrap();
    symlink(&old, &data).unwrap();
    site.driver.apply(&action, &fence()).await.unwrap();
}

#[tokio::test]
async fn a_standby_of_the_same_cluster_is_not_taken_for_it() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let data = site.primary.data.clone();
    site.primary.stop();
    let standby = site.place("recovered");
    copy(&data, &standby);
    fs::rename(&data, site.place("old")).unwrap();
    fs::write(standby.join("standby.signal"), "").unwrap();
    let mut server = Server::start(&standby, &["hot_standby=on"]).await;

    // The target's own standby, through a link.
    symlink(&standby, &data).unwrap();
    let (_, why) = not_proven(&site, &action).await;
    assert!(why.contains("is of a standby"), "{why}");
    assert_eq!(server.sql("select pg_is_in_recovery()").await, "t");

    // Promoted by somebody: it is on a timeline of its own, and still the target's.
    server.sql("select pg_promote()").await;
    server.wait_until_promoted().await;
    let (_, why) = not_proven(&site, &action).await;
    assert!(why.contains("timeline 2"), "{why}");
    server.stop();
}

#[tokio::test]
async fn a_directory_that_two_regions_share_by_a_link_proves_nothing() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    site.primary.stop();
    symlink(&site.primary.data, site.place("recovered")).unwrap();
    let refused = site.driver.plan(&goal(), &observe(&site).await);
    let refused = refused.unwrap_err();
    let why = chain(&refused);
    assert!(why.contains("is that of us-west-2 as well"), "{why}");
    assert!(refused.hint().unwrap().contains("`data_directory`"));
    let error = site.driver.apply(&action, &fence()).await.unwrap_err();
    assert!(
        chain(&error).contains("is that of us-west-2 as well"),
        "{}",
        chain(&error)
    );
    assert!(!site.primary.data.join("standby.signal").exists());
}

#[tokio::test]
async fn a_copy_proves_nothing_while_the_primary_answers_elsewhere() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let data = site.primary.data.clone();
    site.primary.stop();
    let moved = site.place("moved");
    copy(&data, &moved);
    let socket = format!("unix_socket_directories={}", site.primary.socket.display());
    let mut server = Server::spawn(&moved, &[socket]);
    server.socket.clone_from(&site.primary.socket);
    server.wait_until_ready().await;

    let error = site.driver.apply(&action, &fence()).await.unwrap_err();
    assert!(chain(&error).contains("still answers"), "{}", chain(&error));
    assert_eq!(server.sql("select 1").await, "1");
}

/// That it answers is the consequence; what an operator has to put right comes first.
#[tokio::test]
async fn why_a_primary_that_answers_was_not_stopped_is_said_first() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    site.set_up(Setup {
        data: Some(site.place("unmounted")),
        ..Setup::default()
    });
    let error = site.driver.apply(&action, &fence()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let said = chain(&error);
    let why = said.find("there is no such directory").unwrap();
    let answers = said.find("still answers").unwrap();
    assert!(why < answers && !said.contains("not its own"), "{said}");
}

#[tokio::test]
async fn a_server_on_another_port_is_not_stopped() {
    let mut site = Site::start(1).await;
    let action = planned(&site).await;
    let data = site.primary.data.clone();
    site.primary.stop();
    let mut server = Server::spawn(&data, &["port=5499"]);
    let file = data.join("postmaster.pid");
    let started = async {
        while fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count()
            < 8
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
    let error = site.driver.apply(&action, &fence()).await.unwrap_err();
    assert!(chain(&error).contains("on port 5499"), "{}", chain(&error));
    assert!(file.exists());
    server.stop();
}
