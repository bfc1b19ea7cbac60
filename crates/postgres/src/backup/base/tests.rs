//! Descriptions as they stand in stores, of every version that was ever written.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const CLUSTER: SystemIdentifier = SystemIdentifier(7_710_488_070_149_487_696);

/// As version 1 wrote it.
const VERSION_1: &str = r#"{"version":1,"system_identifier":"7710488070149487696","timeline":1,"start":"0/4000028",
    "stop":"0/4000100","started_at":"2026-11-21T05:13:21.5Z","stopped_at":"2026-11-21T05:13:22Z",
    "server_version":"15.18 (Debian 15.18-0+deb12u1)","segment_bytes":16777216,"data_checksums":true,
    "tablespaces":{"16999":"/srv/fast"}}"#;

/// What version 2 has beside that.
const SINCE_2: &str = r#"{"version":2,"read_by":"agent","incremental":{"parent":"20261121T051321Z-018d",
    "full":"20261120T051321Z-0001","full_at":"2026-11-20T05:13:21Z","found_by":"summaries"},"read_bytes":81920,
    "changed_bytes":16384,"damaged_pages":[{"file":"base/5/16384.1","block":131073,"lsn":"0/3000060"},
    {"file":"global/1262","block":0,"lsn":null}],"more_damaged_pages":3,
    "configuration":{"pg_hba.conf":"/etc/postgresql/15/main/pg_hba.conf"},"remarks":["left out long"]}"#;

impl Base {
    /// Makes one of a timeline, with the log that makes it consistent, begun and complete at one moment.
    pub(crate) fn for_tests(timeline: TimelineId, log: [Lsn; 2], at: Timestamp) -> Self {
        let mut base = read(&serde_json::from_str(VERSION_1).unwrap()).unwrap();
        let [start, stop] = log;
        base.label = Label::new(at, u16::try_from(timeline.0).unwrap());
        base.source = Source {
            timeline,
            start,
            stop,
            started_at: at,
            stopped_at: at,
            ..base.source
        };
        base
    }
}

fn read(source: &Value) -> Result<Base> {
    let header = json!({
        "format": 2, "required_features": [], "label": "20261122T051321Z-0002", "source": source,
        "stats": {"files": 1, "file_bytes": 2, "packs": 3, "stored_bytes": 4},
        "body_bytes": 0, "body_plain_bytes": 0, "body_hash": "0".repeat(64),
    });
    Base::of(serde_json::from_value(header).unwrap(), CLUSTER)
}

fn version_2() -> Value {
    let mut source: Value = serde_json::from_str(VERSION_1).unwrap();
    let since: Value = serde_json::from_str(SINCE_2).unwrap();
    source
        .as_object_mut()
        .unwrap()
        .extend(since.as_object().unwrap().clone());
    source
}

#[test]
fn version_1_is_a_full_backup_that_the_server_sent() {
    let base = read(&serde_json::from_str(VERSION_1).unwrap()).unwrap();
    assert_eq!(base.source.read_by, ReadBy::Server);
    let taken = base.recovery_point().taken;
    assert_eq!(
        (taken.parent, taken.read_by.as_str(), taken.damaged_pages),
        (None, "server", 0)
    );
    assert_eq!(base.source.tablespaces[&16_999], "/srv/fast");
}

#[test]
fn version_2_says_what_it_shares_and_what_is_damaged() {
    let base = read(&version_2()).unwrap();
    assert_eq!(serde_json::to_value(&base.source).unwrap(), version_2());
    let taken = base.recovery_point().taken;
    assert_eq!(taken.parent.as_deref(), Some("20261121T051321Z-018d"));
    assert_eq!(taken.full.as_deref(), Some("20261120T051321Z-0001"));
    assert_eq!(
        (taken.read_by.as_str(), taken.found_by.as_deref()),
        ("agent", Some("summaries"))
    );
    assert_eq!(
        (taken.read_bytes, taken.changed_bytes, taken.damaged_pages),
        (81_920, 16_384, 5)
    );
    let damaged = [
        "block 131073 in base/5/16384.1 (its header says 0/3000060)",
        "block 0 in global/1262",
    ];
    assert_eq!(taken.damaged, damaged);
}

#[rstest]
#[case(json!(3), "version 3")]
#[case(json!(0), "version 0")]
#[case(Value::Null, "version none")]
fn other_versions_are_refused(#[case] version: Value, #[case] expected: &str) {
    let mut source = version_2();
    source["version"] = version;
    let error = read(&source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = dr_provider::error::chain(&error);
    assert!(
        text.contains(expected) && text.contains("knows 1 to 2"),
        "{text}"
    );
}
