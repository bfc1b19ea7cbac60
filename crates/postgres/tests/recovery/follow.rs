//! A server follows the primary only if somebody can give it the log in between: after two moves the primary may never have had it, and
//! a server that waits for it waits for ever.

use std::path::Path;
use std::process::Command;

use dr_postgres::{Method, StandbyPlan, StandbyRequest};

use crate::restore::protected;
use crate::server::{Server, run};
use crate::site::{EAST, Site, WEST, region};

async fn planned(site: &Site) -> StandbyPlan {
    let request = StandbyRequest {
        region: region(WEST),
        reseed: false,
        method: None,
        discard: false,
    };
    site.driver.plan_standby(&request).await.unwrap()
}

/// Makes a standby of nobody out of a copy of the primary's files, and stops it in an orderly way. Returns the name of the segment in
/// which its log ends.
async fn stopped_standby(site: &mut Site) -> String {
    let place = site.place("recovered");
    let copy = |data: &Path| {
        run(Command::new("cp").arg("-a").arg(data).arg(&place));
        run(Command::new("cp")
            .arg("--preserve=ownership")
            .arg(place.join("PG_VERSION"))
            .arg(place.join("standby.signal")));
    };
    // Its log ends in the middle of a segment.
    site.commit(5).await;
    site.crash(copy).await;
    let mut standby = Server::start(&place, &[""; 0]).await;
    let lsn = standby.sql("select pg_last_wal_replay_lsn()").await;
    standby.stop();
    site.primary
        .sql(&format!("select pg_walfile_name('{lsn}')"))
        .await
}

#[tokio::test]
async fn what_nobody_can_give_is_not_waited_for() {
    let (mut site, _) = protected(1).await;
    let segment = stopped_standby(&mut site).await;
    let plan = planned(&site).await;
    assert_eq!(plan.method, Some(Method::Follow), "{plan:?}");

    // The store of its region has what the primary has no more.
    site.forget(&segment).await;
    site.push(EAST).await;
    site.push(WEST).await;
    let plan = planned(&site).await;
    assert_eq!(plan.method, Some(Method::Follow), "{plan:?}");

    // Nobody has what has been written since; but for the recovery points the same holds.
    site.commit(20).await;
    site.switch().await;
    let unpushed = site.segments().pop().unwrap();
    site.forget(&unpushed).await;
    let plan = planned(&site).await;
    assert_eq!(plan.method, Some(Method::BaseBackup), "{plan:?}");
    let [follow, rewind, recovery_point] = plan.passed_over.as_slice() else {
        panic!("{plan:?}");
    };
    assert!(
        follow.starts_with("follow: the primary has the log from"),
        "{follow}"
    );
    assert!(follow.contains("has it only to"), "{follow}");
    assert!(
        rewind.contains("nothing that would be taken back"),
        "{rewind}"
    );
    assert!(
        recovery_point.starts_with("recovery-point: the primary has the log from"),
        "{recovery_point}"
    );
    assert_eq!(plan.recovery_point, None);

    // One that is there again may be taken.
    site.push(EAST).await;
    site.push(WEST).await;
    let plan = planned(&site).await;
    assert_eq!(plan.method, Some(Method::Follow), "{plan:?}");
}
