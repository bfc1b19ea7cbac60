//! Segments of 1 GiB, the longest that there are: everything works with them, and none of it has one in memory (R34).

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use dr_model::SegmentSize;
use dr_provider::driver::{Backup as _, Frontier, LogStream as _, RestoreTarget};
use dr_provider::error::chain;
use tokio::sync::watch;

use crate::restore::{restore, walk};
use crate::server::{PATIENCE, Server, Version, run};
use crate::site::{EAST, Site, WEST, new_directory, region};

const MOST_MEMORY_KIBIBYTES: u64 = 192 << 10;

/// Returns the most memory that this process has ever had.
fn most_memory_kibibytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// Set in the copy of this program whose buffers go back to the system when they are done with, so that what it has is what it uses.
const FRUGAL: &str = "DR_TEST_FRUGAL";

/// Fails if this process had more than it may.
fn frugal_until(what: &str) {
    let most = most_memory_kibibytes();
    assert!(most < MOST_MEMORY_KIBIBYTES, "{most} KiB until {what}");
}

/// Returns a hash of a file's first bytes, and whether nothing but zeros follows.
fn look(path: &Path, length: u64) -> (blake3::Hash, bool) {
    let mut file = File::open(path).unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader((&mut file).take(length)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut zeros = true;
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return (hasher.finalize(), zeros),
            read => zeros &= buffer[..read].iter().all(|byte| *byte == 0),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_segment_has_to_fit_the_memory() {
    if std::env::var_os(FRUGAL).is_none() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "long_segments::no_segment_has_to_fit_the_memory"]);
        let settings = [
            (FRUGAL, "yes"),
            ("MALLOC_ARENA_MAX", "2"),
            ("MALLOC_MMAP_THRESHOLD_", "262144"),
        ];
        run(again.arg("--nocapture").envs(settings));
        return;
    }
    let directory = new_directory();
    // The archive gets the files themselves: they are not used again.
    let archive = format!(
        "archive_command=ln %p {}/archive/%f",
        directory.path().display()
    );
    let further = [
        "max_wal_size=4GB",
        "wal_init_zero=off",
        "wal_recycle=off",
        &archive,
    ];
    let site = Site::start_in(directory, Version::System, 1024, &further).await;
    let size = SegmentSize::try_from(1 << 30).unwrap();
    let (east, west) = (region(EAST), region(WEST));

    // Streamed, backed up, and streamed over the boundary of a segment.
    let (sender, mut frontier) = watch::channel(Frontier::default());
    let (stop, stopped) = watch::channel(false);
    let driver = site.driver.clone();
    let place = east.clone();
    let shipping = tokio::spawn(async move { driver.ship(&place, sender, stopped).await });
    site.commit(20).await;
    let point = site.driver.take(&east).await.unwrap().recovery_point;
    site.commit(20).await;
    site.switch().await;
    site.commit(20).await;
    let expected = Site::ledger(&site.primary).await;
    let end = site.primary.lsn().await;
    let there = frontier.wait_for(|frontier| frontier.durable >= end);
    tokio::time::timeout(2 * PATIENCE, there)
        .await
        .unwrap()
        .unwrap();
    stop.send_replace(true);
    shipping.await.unwrap().unwrap();

    frugal_until("it was streamed");
    // Pushed where there is nothing, and compared where it was streamed to.
    let segments = site.segments();
    assert!(segments.len() >= 2, "{segments:?}");
    for name in &segments {
        let path = site.archive().join(name);
        let said = site.driver.push_wal(&west, &path).await.unwrap();
        assert!(said.contains("1073741824 bytes of it new"), "{said}");
    }
    let last = segments.last().unwrap();
    let streamed = site
        .driver
        .push_wal(&east, &site.archive().join(last))
        .await;
    assert!(streamed.unwrap().contains("already"));
    frugal_until("it was pushed");
    // A hole in the middle of it is filled.
    let (_, start) = size.parse_file_name(last).unwrap();
    let middle = start.advance(size.bytes() / 2);
    let mut chunks = walk(&site.place(WEST));
    chunks.retain(|path| path.ends_with(&format!("/{}", middle.to_key())));
    fs::remove_file(&chunks[0]).unwrap();
    let fetched = site.place("fetched");
    let error = site
        .driver
        .fetch_wal(&west, last, &fetched, None)
        .await
        .unwrap_err();
    assert!(
        chain(&error).contains(&format!("a hole from {middle}")),
        "{}",
        chain(&error)
    );
    let filled = site
        .driver
        .push_wal(&west, &site.archive().join(last))
        .await;
    assert!(filled.unwrap().contains("closes a hole"));

    frugal_until("a hole was filled");
    // Merged, and fetched from chunks and from pieces.
    let compacted = site.driver.compact(&east).await.unwrap();
    assert_eq!(compacted.missing, Vec::<String>::new());
    assert!(compacted.log_bytes >= size.bytes(), "{compacted:?}");
    frugal_until("it was merged");
    for (place, name) in [(&west, &segments[0]), (&west, last), (&east, last)] {
        assert!(
            site.driver
                .fetch_wal(place, name, &fetched, None)
                .await
                .unwrap()
        );
        let (ours, theirs) = (
            look(&fetched, u64::MAX),
            look(&site.archive().join(name), u64::MAX),
        );
        assert!(ours == theirs, "{name} from {place}");
        fs::remove_file(&fetched).unwrap();
    }
    // The last one of a log, with zeros behind its end.
    let through = start.advance(5000);
    let cut = site.driver.fetch_wal(&west, last, &fetched, Some(through));
    assert!(cut.await.unwrap());
    assert_eq!(fs::metadata(&fetched).unwrap().len(), size.bytes());
    let (head, zeros) = look(&fetched, 5000);
    assert!(zeros && head == look(&site.archive().join(last), 5000).0);
    fs::remove_file(&fetched).unwrap();
    assert!(
        !site
            .driver
            .fetch_wal(&west, last, &fetched, Some(start))
            .await
            .unwrap()
    );

    frugal_until("it was fetched");

    let place = site.place("recovered");
    let report = restore(&site, EAST, RestoreTarget::Latest, &place)
        .await
        .unwrap();
    assert_eq!(report.plan.recovery_point, point);
    let settings = [
        "track_commit_timestamp=on",
        "max_wal_size=4GB",
        "wal_init_zero=off",
    ];
    let server = Server::start(&place, &settings).await;
    server.wait_until_promoted().await;
    assert_eq!(Site::ledger(&server).await, expected);
}
