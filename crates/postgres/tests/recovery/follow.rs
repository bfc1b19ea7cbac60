//! A server follows the primary only if somebody can give it the log in between: after two moves the primary may never have had it, and
//! a server that waits for it waits for ever.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use dr_postgres::{Method, StandbyPlan, StandbyRequest};
use dr_provider::ErrorKind;

use crate::apart::{is_apart, mount_disk, resize_disk};
use crate::restore::protected;
use crate::server::{Server, run};
use crate::site::{EAST, Setup, Site, WEST, region};

/// A directory that is moved out of the way in its own file system makes no room there.
#[tokio::test]
async fn a_directory_stays_where_it_is_while_another_has_no_room() {
    if !is_apart("follow::a_directory_stays_where_it_is_while_another_has_no_room") {
        return;
    }
    let (mut site, _) = protected(1).await;
    let disk = site.place("disk");
    mount_disk(&disk, 200);
    let place = disk.join("recovered");
    let copy = |data: &Path| run(Command::new("cp").arg("-a").arg(data).arg(&place));
    site.crash(copy).await;
    site.set_up(Setup {
        recovered: Some(place.clone()),
        ..Setup::default()
    });
    let request = StandbyRequest {
        region: region(WEST),
        reseed: true,
        method: Some(Method::RecoveryPoint),
        discard: false,
    };
    let plan = site.driver.plan_standby(&request).await.unwrap();
    let taken = Command::new("du").arg("-sm").arg(&disk).output().unwrap();
    let taken = String::from_utf8(taken.stdout).unwrap();
    let mebibytes: u32 = taken.split_whitespace().next().unwrap().parse().unwrap();
    resize_disk(&disk, &format!("remount,size={}m", mebibytes + 8));
    let said = Mutex::new(Vec::new());
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    let refused = site.driver.make_standby(&plan, false, &say).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(*said.lock().unwrap(), [""; 0]);
    assert!(place.join("global/pg_control").exists());
    run(Command::new("umount").arg("--lazy").arg(&disk));
}

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
