//! Stores on S3: each region's bucket goes with its region, and what the other one holds is enough.

use dr_sandbox::layout::StoreKind;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rstest::rstest;

use crate::support::{
    acknowledge, acknowledge_after, backup, dr, end, fail_over, is_primary, judged, lost_before,
    now_us, start,
};

/// Nothing that was acknowledged is lost where commits wait for the other region's bucket; without,
/// what was acknowledged while the receivers kept up is there. Both ways of coming back.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_region_with_its_bucket_is_lost(
    #[values(true, false)] sync: bool,
    #[values("promote", "restore")] rung: &str,
) {
    let builder = Sandbox::builder()
        .store(StoreKind::S3)
        .sync(sync)
        .standby(rung == "promote");
    let sandbox = start(builder).await;
    let home = sandbox.region(HOME).unwrap();
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    for region in [HOME, RECOVERY] {
        backup(&sandbox, region).await;
    }
    let safe = now_us(&sandbox);
    acknowledge(&load, 300).await;
    let checked = dr(&sandbox, &["check", "--online"]).await;
    assert!(
        checked.stdout.contains("at s3://store, probed"),
        "{checked:?}"
    );

    let lost_at = home.lose(LostStore::Renamed).unwrap();
    let failover = fail_over(&sandbox, &[]).await;
    assert_eq!((failover.rung.as_str(), failover.epoch), (rung, 2));
    assert!(is_primary(&sandbox, RECOVERY).await);
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    let lost = lost_before(&verdict, if sync { lost_at } else { safe });
    assert_eq!(lost, 0, "{verdict:?}");
    assert_eq!(verdict.holes, [], "{verdict:?}");
    end(sandbox);
}
