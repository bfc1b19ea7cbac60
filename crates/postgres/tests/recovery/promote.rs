//! A promotion ends on the timeline that its epoch claims, whatever earlier epochs claimed and never wrote.

use dr_model::Epoch;
use dr_pgwire::Connection;
use dr_provider::ResourceDriver as _;
use dr_provider::driver::{Action, Fence, Undo};
use serde_json::json;

use crate::server::{Server, Version};
use crate::site::{EAST, Setup, Site, region};

#[tokio::test]
async fn timelines_that_were_claimed_and_never_written_are_passed_over() {
    let mut site = site().await;
    site.commit(20).await;
    let before = Site::ledger(&site.primary).await;
    site.restart_as_standby().await;
    // Two epochs claimed timelines 2 and 3, and ended before they promoted anything.
    for (epoch, timeline) in [(2, 2), (3, 3), (4, 4)] {
        site.open_epoch(epoch, timeline).await;
    }
    let action = promotion(&site).await;
    // Who was overtaken promotes nothing.
    site.driver.apply(&action, &fence(3)).await.unwrap_err();
    assert_eq!(site.primary.sql("select pg_is_in_recovery()").await, "t");

    site.driver.apply(&action, &fence(4)).await.unwrap();
    assert_eq!(timeline(&site.primary).await, "00000004");
    assert_eq!(Site::ledger(&site.primary).await, before);
    let history = site.primary.data.join("pg_wal/00000004.history");
    let history = std::fs::read_to_string(history).unwrap();
    let parents: Vec<&str> = history
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(parents, ["1"], "{history}");
    // The same again finds it done.
    site.driver.apply(&action, &fence(4)).await.unwrap();
    assert_eq!(timeline(&site.primary).await, "00000004");
}

/// What stands on the primary's port may be anybody's.
#[tokio::test]
async fn a_heartbeat_is_not_written_into_another_cluster() {
    let mut site = site().await;
    let east = region(EAST);
    let stream = site.driver.log_stream().unwrap();
    stream.beat(&east, Epoch(1)).await.unwrap();
    let own = site.primary.system_identifier().await;
    site.replace_primary().await;
    prepare(&site.primary).await;
    // The kept connection is gone; then there is a new one to the stranger.
    let stream = site.driver.log_stream().unwrap();
    stream.beat(&east, Epoch(1)).await.unwrap_err();
    let error = stream.beat(&east, Epoch(1)).await.unwrap_err();
    let said = dr_provider::error::chain(&error);
    let stranger = site.primary.system_identifier().await;
    for wanted in [own.to_string(), stranger.to_string()] {
        assert!(said.contains(&wanted), "{said}");
    }
    let beats = site.primary.sql("select count(*) from dr.heartbeat").await;
    assert_eq!(beats, "0");

    // Nor are its slots dropped.
    let make = "select pg_create_physical_replication_slot('dr_precious', true)";
    site.primary.sql(make).await;
    let listed = site.driver.slots().await.map(drop);
    let dropped = site.driver.drop_slot("dr_precious").await.map(drop);
    for refused in [listed, dropped] {
        let said = dr_provider::error::chain(&refused.unwrap_err());
        assert!(said.contains(&stranger.to_string()), "{said}");
    }
    let kept = "select count(*) from pg_replication_slots where slot_name = 'dr_precious'";
    assert_eq!(site.primary.sql(kept).await, "1");
}

/// A primary that has what a heartbeat is written to.
async fn site() -> Site {
    let site = Site::start(1).await;
    prepare(&site.primary).await;
    site
}

pub(crate) async fn prepare(primary: &Server) {
    primary.sql("create schema dr").await;
    let table = "create table dr.heartbeat (id int primary key, at timestamptz not null, \
                 sequence bigint not null, epoch bigint not null, writer text not null)";
    primary.sql(table).await;
}

async fn promotion(site: &Site) -> Action {
    let log = json!({
        "system_identifier": site.primary.system_identifier().await,
        "timeline": 1,
        "epoch": 1,
    });
    Action {
        name: "promote-standby".to_owned(),
        summary: "test".to_owned(),
        current: None,
        intended: None,
        dependencies: Vec::new(),
        undo: Undo::Irreversible("test".to_owned()),
        parameters: json!({ "kind": "promote-standby", "region": EAST, "log": log }),
    }
}

fn fence(epoch: u64) -> Fence {
    Fence {
        workload: "orders".parse().unwrap(),
        epoch: Epoch(epoch),
        execution: "test".parse().unwrap(),
        takeovers: 0,
    }
}

/// Connects as the executor of an execution does that was taken over so often, and takes the lock of a promotion.
async fn holder(server: &Server, name: &str) -> Connection {
    let mut config = server.config();
    name.clone_into(&mut config.application_name);
    let mut connection = Connection::connect(&config).await.unwrap();
    let lock = "select pg_advisory_lock(1685218159, 1)";
    connection.query(lock).await.unwrap();
    connection
}

/// As one on a machine that sleeps: it holds its session, and does nothing in it.
#[tokio::test]
async fn the_session_of_an_executor_that_was_taken_over_from_is_ended() {
    let mut site = site().await;
    site.commit(5).await;
    site.restart_as_standby().await;
    site.open_epoch(2, 2).await;
    let action = promotion(&site).await;
    let taken_over = Fence {
        takeovers: 1,
        ..fence(2)
    };
    // Of another execution, or of the one that has taken over: it is named, and left alone.
    for name in ["dr 0 other", "dr 1 test", "dr 2 test", "psql"] {
        let mut other = holder(&site.primary, name).await;
        let pid = other.query("select pg_backend_pid()").await.unwrap();
        let pid: String = pid.first().unwrap().get(0).unwrap();
        let refused = site.driver.apply(&action, &taken_over).await.unwrap_err();
        let said = dr_provider::error::chain(&refused);
        let named = format!("that calls itself `{name}`");
        for wanted in ["lock", &format!("process {pid} of the server"), &named] {
            assert!(said.contains(wanted), "{said}");
        }
        let hint = refused.hint().unwrap();
        assert!(
            hint.contains(&format!("pg_terminate_backend({pid})")),
            "{hint}"
        );
        other.query("select 1").await.unwrap();
        assert_eq!(site.primary.sql("select pg_is_in_recovery()").await, "t");
    }

    let mut asleep = holder(&site.primary, "dr 0 test").await;
    site.driver.apply(&action, &taken_over).await.unwrap();
    assert_eq!(timeline(&site.primary).await, "00000002");
    asleep.query("select 1").await.unwrap_err();
}

async fn timeline(server: &Server) -> String {
    server
        .sql("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
        .await
}

/// The slots of the receivers are made before the promotion; that there is no room for them must not keep it from serving.
#[tokio::test]
async fn a_server_without_room_for_slots_is_promoted_and_it_is_said() {
    let mut site = site().await;
    site.primary
        .sql("alter system set max_replication_slots = 1")
        .await;
    site.restart_as_standby().await;
    let taken = "select pg_create_physical_replication_slot('taken')";
    site.primary.sql(taken).await;
    site.open_epoch(2, 2).await;
    let action = promotion(&site).await;
    let applied = site.driver.apply(&action, &fence(2)).await.unwrap();
    assert_eq!(timeline(&site.primary).await, "00000002");
    assert!(
        applied.summary.contains("all replication slots are in use"),
        "{}",
        applied.summary
    );
}

/// Whoever promotes it may end every session while at it, as a manager does that starts the server anew.
#[tokio::test]
async fn a_promotion_by_a_command_that_ends_all_sessions_is_completed() {
    let mut site = site().await;
    site.commit(5).await;
    let before = Site::ledger(&site.primary).await;
    site.restart_as_standby().await;
    site.open_epoch(2, 2).await;
    let others = "select pg_terminate_backend(pid) from pg_stat_activity \
                  where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let psql = Version::System.binaries().join("psql");
    let (psql, socket) = (psql.display(), site.primary.socket.display());
    let words = format!("{psql} -h {socket} -U postgres -d postgres -q -c");
    let words = words.split(' ');
    let promote = words.chain(["select pg_promote()", "-c", others]);
    site.set_up(Setup {
        promote: Some(promote.map(str::to_owned).collect()),
        ..Setup::default()
    });
    let action = promotion(&site).await;
    site.driver.apply(&action, &fence(2)).await.unwrap();
    assert_eq!(timeline(&site.primary).await, "00000002");
    assert_eq!(Site::ledger(&site.primary).await, before);
}
