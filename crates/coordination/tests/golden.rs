//! The stored formats, byte for byte: what one version has written every later one reads.
//!
//! `DR_WRITE_GOLDEN=1` writes files that are missing; a file that is there is never changed, because stores out there hold
//! what it shows. `docs/formats` explains them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use dr_coordination::approval::{Approval, SigningKey};
use dr_coordination::chain::{
    ChainId, ChainWriter, Chunk, Cipher, Encoding, Facts, Floor, GapRecord, LogStart, Options,
    Origin, PieceFacts, Promise, SealRecord, Span, decode, decode_header, decode_piece, encode,
    encode_piece, pass_over,
};
use dr_coordination::evidence::{self, Evidence};
use dr_coordination::identity::Identity;
use dr_coordination::journal::{Body, Entry, Journal};
use dr_coordination::kit::{self, Content, Kit, Program, SecretNote};
use dr_coordination::outage::{self, Outage, Proposal, Sign};
use dr_coordination::register::{ClusterClaim, EpochRecord, Guard, SyncLost};
use dr_coordination::{Actor, Patience};
use dr_encryption::{Key, Keys};
use dr_model::{Epoch, ExecutionId, Lsn, ManualClock, ResourceName, SystemIdentifier, TimelineId};
use dr_provider::ObjectStore;
use dr_provider::store::MemoryStore;
use dr_provider::store::record::verified;
use jiff::Timestamp;

/// Returns the bytes of a golden file, which is written from `current` if it is missing and that is wanted.
fn golden(name: &str, current: &[u8]) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if !path.exists() && std::env::var_os("DR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, current).unwrap();
    }
    std::fs::read(&path).unwrap().into()
}

/// Returns the bytes of a record as it was written before there were hashes, and as it is written now.
fn record(name: &str, current: &[u8]) -> [Bytes; 2] {
    let old = golden(&format!("{name}.json"), &[]);
    let stored = golden(&format!("{name}-hashed.json"), current);
    assert_eq!(stored, current);
    assert_eq!(verified(&stored).unwrap(), old);
    [old, stored]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_426_205 + second).unwrap()
}

fn actor() -> Actor {
    Actor::new("postgres", "db1.us-west-2", 4711)
}

fn execution() -> ExecutionId {
    "20261123T093005Z-us-west-2-7f3a".parse().unwrap()
}

fn chain() -> ChainId {
    ChainId {
        system_identifier: SystemIdentifier(7_341_234_567_890_123_456),
        timeline: TimelineId(1),
        epoch: Epoch::FIRST,
    }
}

fn chunk(log: impl Into<Bytes>) -> Chunk {
    Chunk {
        start: Lsn(0x1_6B37_4D48),
        log: log.into(),
        facts: Facts {
            commits: 3,
            last_commit_at: Some(at(0)),
            received_at: at(1),
            primary_end: Lsn(0x1_6B37_9000),
            promise: Some(Promise {
                held: false,
                checked_at: at(-3),
                reasons: vec![
                    "synchronous_standby_names is `` instead of `FIRST 1 (dr_us_west_2)`".into(),
                ],
                epoch: None,
                from: None,
            }),
        },
    }
}

#[test]
fn a_raw_chunk() {
    let chunk = chunk(b"no repetition".to_vec());
    let current = encode(&chain(), &chunk, Lsn(0x1_6B37_0000), "us-west-2", None);
    let stored = golden("chunk-raw", &current);
    assert_eq!(stored, current);
    let (header, log) = decode(&stored, &chain(), chunk.start, &Keys::default()).unwrap();
    assert_eq!((header.encoding, log), (Encoding::Raw, chunk.log));
    assert_eq!(header.promise, chunk.facts.promise);
}

#[test]
fn a_compressed_chunk() {
    let chunk = chunk(b"WAL ".repeat(200));
    let current = encode(&chain(), &chunk, Lsn(0x1_6B37_0000), "us-west-2", None);
    // Another version of zstd may write other bytes; it has to read these.
    let stored = golden("chunk-zstd", &current);
    let (header, log) = decode(&stored, &chain(), chunk.start, &Keys::default()).unwrap();
    assert_eq!((header.encoding, log), (Encoding::Zstd, chunk.log));
    assert_eq!(header.durable_through, Lsn(0x1_6B37_0000));
}

#[test]
fn a_chunk_whose_promise_is_of_a_later_epoch() {
    let mut chunk = chunk(b"WAL".to_vec());
    chunk.facts.promise = Some(Promise {
        held: true,
        checked_at: at(-3),
        reasons: Vec::new(),
        epoch: Some(Epoch(3)),
        from: Some(Lsn(0x1_6B37_0000)),
    });
    let current = encode(&chain(), &chunk, Lsn(0x1_6B37_0000), "us-west-2", None);
    let stored = golden("chunk-promise", &current);
    assert_eq!(stored, current);
    let (header, _) = decode(&stored, &chain(), chunk.start, &Keys::default()).unwrap();
    assert_eq!(header.promise, chunk.facts.promise);
    let promise = header.promise.unwrap();
    assert!(promise.covers(chain().epoch, Epoch(3), header.end));
    assert!(!promise.covers(chain().epoch, chain().epoch, header.end));
    assert!(!promise.covers(chain().epoch, Epoch(3), Lsn(0x1_6B36_FFFF)));
}

fn cipher() -> (Keys, Cipher) {
    let key = Key::parse(&format!("dr-key1 {}", "5a".repeat(32))).unwrap();
    (
        Keys::new(vec![key.clone()]),
        Cipher::with_salt(key, [7; 32]),
    )
}

#[test]
fn an_encrypted_chunk() {
    let (keys, cipher) = cipher();
    let chunk = chunk(b"no repetition".to_vec());
    let through = Lsn(0x1_6B37_0000);
    let current = encode(&chain(), &chunk, through, "us-west-2", Some(&cipher));
    let stored = golden("chunk-encrypted", &current);
    assert_eq!(stored, current);
    let (header, log) = decode(&stored, &chain(), chunk.start, &keys).unwrap();
    assert_eq!((header.encoding, log), (Encoding::Raw, chunk.log));
    assert!(decode(&stored, &chain(), chunk.start, &Keys::default()).is_err());
}

#[test]
fn an_encrypted_piece() {
    let (keys, cipher) = cipher();
    let (cluster, timeline) = (chain().system_identifier, chain().timeline);
    let start = Lsn(0x1_6B00_0000);
    let log = Bytes::from_static(b"no repetition");
    let facts = PieceFacts {
        epochs: vec![Epoch::FIRST],
        commits: 1,
        last_commit_at: Some(at(0)),
        received_at: at(1),
    };
    let writer = "compact-wal us-west-2";
    let current = encode_piece(
        cluster,
        timeline,
        start,
        &log,
        &facts,
        writer,
        Some(&cipher),
    );
    let stored = golden("piece-encrypted", &current);
    assert_eq!(stored, current);
    let span = Span {
        from: start,
        to: start.advance(log.len() as u64),
    };
    let (_, read) = decode_piece(&stored, cluster, timeline, span, &keys).unwrap();
    assert_eq!(read, log);
}

#[tokio::test]
async fn a_chunk_whose_log_is_lost() {
    let (from, to) = (Lsn(0x1_6B00_0000), Lsn(0x1_7700_0000));
    let store = Arc::new(MemoryStore::new("us-west-2"));
    let options = Options {
        writer: "us-west-2".to_owned(),
        ..Options::new("", Arc::new(ManualClock::new(at(0))))
    };
    drop(
        ChainWriter::open(store.clone(), chain(), from, options)
            .await
            .unwrap(),
    );
    let writer = (at(1), "us-west-2");
    pass_over(&*store, &chain(), from, to, writer, Patience::default())
        .await
        .unwrap();
    let current = store.get(&chain().link_key(from)).await.unwrap();
    let stored = golden("chunk-lost", &current);
    assert_eq!(stored, current);
    let (header, _) = decode_header(&stored, &chain(), from).unwrap().unwrap();
    assert_eq!((header.encoding, header.end), (Encoding::Lost, to));
    assert!(decode(&stored, &chain(), from, &Keys::default()).is_err());
}

#[test]
fn an_epoch_record_that_lost_synchronous_mode() {
    let stored = golden("epoch.json", &[]);
    let workload = "orders".parse().unwrap();
    let before = EpochRecord::from_bytes(&stored, &workload, Epoch(2)).unwrap();
    let lost = SyncLost {
        since: Lsn(0x1_6B37_9000),
        regions: vec!["us-west-2".parse().unwrap()],
    };
    let database = "database".parse().unwrap();
    let next = before.with_synchronous(&database, Vec::new(), Some(lost));
    for stored in record("epoch-sync-lost", &next.to_bytes()) {
        let read = EpochRecord::from_bytes(&stored, &workload, Epoch(3)).unwrap();
        assert_eq!(read.chain(&database).unwrap().epoch, Epoch(2));
        assert_eq!(read, next);
    }
}

#[test]
fn origin_and_seal() {
    let origin = Origin {
        version: 1,
        system_identifier: chain().system_identifier,
        timeline: chain().timeline,
        epoch: chain().epoch,
        start_lsn: Lsn(0x1_6B00_0000),
        created_at: at(0),
        writer: "us-west-2".into(),
    };
    for stored in record("origin", &origin.to_bytes()) {
        assert_eq!(Origin::from_bytes(&stored, &chain()), Ok(origin.clone()));
    }
    let seal = SealRecord {
        version: 1,
        system_identifier: chain().system_identifier,
        timeline: chain().timeline,
        epoch: chain().epoch,
        lsn: Lsn(0x1_6B37_9000),
        successor: Epoch(2),
        execution: Some(execution()),
        sealed_by: actor(),
        sealed_at: at(9),
    };
    for stored in record("seal", &seal.to_bytes()) {
        let read = SealRecord::from_bytes(&stored, &chain(), seal.lsn);
        assert_eq!(read, Ok(seal.clone()));
    }
}

#[test]
fn a_piece_a_floor_and_a_gap() {
    let (cluster, timeline) = (chain().system_identifier, chain().timeline);
    let log: Bytes = b"WAL ".repeat(300).into();
    let start = Lsn(0x1_6B37_4D48);
    let span = Span {
        from: start,
        to: start.advance(log.len() as u64),
    };
    let facts = PieceFacts {
        epochs: vec![Epoch::FIRST, Epoch(2)],
        commits: 7,
        last_commit_at: Some(at(0)),
        received_at: at(1),
    };
    let current = encode_piece(cluster, timeline, start, &log, &facts, "us-west-2", None);
    // Another version of zstd may write other bytes; it has to read these.
    let stored = golden("piece", &current);
    let (header, read) = decode_piece(&stored, cluster, timeline, span, &Keys::default()).unwrap();
    assert_eq!((header.facts(), read), (facts, log));
    assert_eq!(
        span.key(cluster, timeline).as_str(),
        "postgres/7341234567890123456/wal/00000001/log/000000016B374D48-000000016B3751F8"
    );

    let floor = Floor {
        version: 1,
        system_identifier: cluster,
        timeline,
        epoch: chain().epoch,
        lsn: start,
        created_at: at(2),
        writer: "us-west-2".into(),
    };
    for stored in record("floor", &floor.to_bytes()) {
        let read = Floor::from_bytes(&stored, &chain(), start);
        assert_eq!(read, Ok(floor.clone()));
    }
    let begin = LogStart {
        version: 1,
        system_identifier: cluster,
        timeline,
        lsn: start,
        created_at: at(2),
        writer: "us-west-2".to_owned(),
    };
    for stored in record("start", &begin.to_bytes()) {
        let read = LogStart::from_bytes(&stored, cluster, timeline, start);
        assert_eq!(read, Ok(begin.clone()));
    }

    let gap = GapRecord {
        version: 1,
        system_identifier: cluster,
        timeline,
        from: start,
        to: None,
        found_at: at(3),
        by: "receiver us-west-2".into(),
        why: "the slot dr_us_west_2 was invalidated".into(),
    };
    for stored in record("gap", &gap.to_bytes()) {
        let read = GapRecord::from_bytes(&stored, cluster, timeline, start);
        assert_eq!(read, Ok(gap.clone()));
    }
}

#[test]
fn an_epoch_record() {
    let epoch = EpochRecord {
        version: 1,
        epoch: Epoch(2),
        workload: "orders".parse().unwrap(),
        primary: "us-west-2".parse().unwrap(),
        register: "us-west-2".parse().unwrap(),
        clusters: BTreeMap::from([(
            "database".parse().unwrap(),
            ClusterClaim {
                system_identifier: chain().system_identifier,
                timeline: TimelineId(2),
                start_lsn: None,
                log_epoch: None,
            },
        )]),
        sync: BTreeMap::from([(
            "database".parse().unwrap(),
            vec!["us-west-2".parse().unwrap()],
        )]),
        created_at: at(5),
        created_by: actor(),
        reason: "failover to us-west-2".into(),
        sync_lost: std::collections::BTreeMap::new(),
        guards: std::collections::BTreeMap::new(),
        execution: Some(execution()),
        override_reason: Some("the provider confirms the loss by telephone".into()),
    };
    for stored in record("epoch", &epoch.to_bytes()) {
        let read = EpochRecord::from_bytes(&stored, &epoch.workload, epoch.epoch);
        assert_eq!(read, Ok(epoch.clone()));
    }
}

#[test]
fn an_epoch_record_with_a_guard() {
    let database: ResourceName = "database".parse().unwrap();
    let stored = golden("epoch.json", &[]);
    let before = EpochRecord::from_bytes(&stored, &"orders".parse().unwrap(), Epoch(2)).unwrap();
    let guards = BTreeMap::from([(database, Guard { lease_seconds: 10 })]);
    let guarded = EpochRecord {
        created_at: at(20),
        reason: "the primary was seen to run under its guard: `database` 10 s".into(),
        ..before.with_guards(guards)
    };
    for stored in record("epoch-guard", &guarded.to_bytes()) {
        let read = EpochRecord::from_bytes(&stored, &guarded.workload, guarded.epoch);
        assert_eq!(read, Ok(guarded.clone()));
    }
}

#[test]
fn an_identity() {
    let region = "us-west-2".parse().unwrap();
    let identity = Identity::new(region, 0x0123_4567_89ab_cdef, at(0));
    assert_eq!(
        golden("identity.json", &identity.to_bytes()),
        identity.to_bytes()
    );
}

#[tokio::test]
async fn journal_entries() {
    let key = |sequence| Entry::<String>::key(&execution(), sequence);
    let written = Arc::new(MemoryStore::new("written"));
    let clock = Arc::new(ManualClock::new(at(0)));
    let note = "begin step seal".to_owned();
    Journal::create(written.clone(), clock.clone(), execution(), actor(), note)
        .await
        .unwrap();
    let mut taken = Journal::<String>::open(written.clone(), clock.clone(), execution())
        .await
        .unwrap();
    let successor = Actor::new("postgres", "laptop", 99);
    taken.take_over(successor.clone(), "resumed").await.unwrap();
    for (sequence, name) in [(1, "entry-3-record.json"), (2, "entry-3-takeover.json")] {
        let current = written.get(&key(sequence)).await.unwrap();
        assert_eq!(golden(name, &current), current, "{name}");
    }
    read_back(["entry-3-record.json", "entry-3-takeover.json"], &successor).await;
}

#[tokio::test]
async fn journal_entries_of_version_2() {
    let successor = Actor::new("postgres", "laptop", 99);
    read_back(["entry-2-record.json", "entry-2-takeover.json"], &successor).await;
}

#[tokio::test]
async fn journal_entries_of_version_1() {
    let successor = Actor::new("postgres", "laptop", 99);
    read_back(["entry-record.json", "entry-takeover.json"], &successor).await;
}

/// Reads a journal of two entries, and goes on with it.
async fn read_back(names: [&str; 2], successor: &Actor) {
    let stored = Arc::new(MemoryStore::new("stored"));
    for (index, name) in names.iter().enumerate() {
        let key = Entry::<String>::key(&execution(), index as u64 + 1);
        stored.create(&key, golden(name, &[])).await.unwrap();
    }
    let clock = Arc::new(ManualClock::new(at(0)));
    let open = || Journal::<String>::open(stored.clone(), clock.clone(), execution());
    let mut read = open().await.unwrap();
    read.take_over(actor(), "go on").await.unwrap();
    assert_eq!(open().await.unwrap().entries().len(), 3);
    let read = read.entries()[..2].to_vec();
    assert_eq!(read[0].record().unwrap(), "begin step seal");
    assert!(matches!(&read[1].body, Body::Takeover { reason } if reason == "resumed"));
    assert_eq!(&read[1].actor, successor);
}

#[test]
fn an_outage() {
    let outage = Outage {
        version: outage::FORMAT_VERSION,
        workload: "orders".parse().unwrap(),
        epoch: Epoch::FIRST,
        primary: "us-east-1".parse().unwrap(),
        seen_from: "us-west-2".parse().unwrap(),
        last_answered_at: Some(at(0)),
        last_sign: Sign::Answered,
        first_missed_at: at(2),
        detected_at: at(6),
        looks: vec!["database in us-east-1: connection refused".to_owned()],
        landmarks: vec!["rfc2136 orders.acme.example".to_owned()],
        proposal: Proposal {
            to: "us-west-2".parse().unwrap(),
            plan: None,
            refusal: Some("there is no runbook for it".to_owned()),
            command: "dr failover --to us-west-2 orders".to_owned(),
        },
        reported_by: actor(),
    };
    for stored in record("outage", &outage.to_bytes()) {
        assert_eq!(Outage::from_bytes(&stored).unwrap(), outage);
    }
    assert_eq!(outage.id(), "outage/orders/00000001/20261123T093011Z");
    let beaten = Outage {
        last_sign: Sign::Heartbeat,
        ..outage
    };
    for stored in record("outage-heartbeat", &beaten.to_bytes()) {
        assert_eq!(Outage::from_bytes(&stored).unwrap(), beaten);
    }
}

#[tokio::test]
async fn the_end_of_an_outage() {
    let store = MemoryStore::new("west");
    let bytes = golden("outage.json", &[]);
    let outage = Outage::from_bytes(&bytes).unwrap();
    let ended = outage::Mark::Ended { announced: true };
    outage::report(&store, &outage).await.unwrap();
    outage::mark(&store, &outage, ended, at(70)).await.unwrap();
    let key = dr_provider::Key::new(format!("{}/ended", outage.id())).unwrap();
    let current = store.get(&key).await.unwrap();
    assert_eq!(golden("outage-ended-hashed.json", &current), current);
    let found = outage::newest(&store, &outage.workload, outage.epoch).await;
    assert_eq!(found.unwrap().unwrap().untold_end, Some(at(70)));
}

#[test]
fn a_recovery_kit() {
    let kit = Kit {
        version: kit::FORMAT_VERSION,
        created_at: at(0),
        created_by: actor(),
        content: Content {
            organization: Some("Acme".to_owned()),
            program: Program {
                version: "0.1.0".to_owned(),
                blake3: "0123456789abcdef".repeat(4),
                size_bytes: 31_415_926,
            },
            directory: "/etc/dr".to_owned(),
            configuration: "fedcba9876543210".repeat(4),
            files: BTreeMap::from([("dr.yaml".to_owned(), "version: 1\n".to_owned())]),
            secrets: vec![SecretNote {
                reference: "${file:/etc/dr/tsig.key}".to_owned(),
                used_at: vec!["dr.yaml:33".to_owned()],
            }],
            stores: BTreeMap::from([(
                "us-west-2".parse().unwrap(),
                "s3://acme-dr-usw2".to_owned(),
            )]),
            page: "RECOVERY KIT of Acme\n".to_owned(),
        },
    };
    for stored in record("kit", &kit.to_bytes()) {
        assert_eq!(Kit::from_bytes(&stored).unwrap(), kit);
    }
    let key = kit.key();
    let hash = key.as_str().strip_prefix("kit/20261123T093005Z-").unwrap();
    assert_eq!(hash, &kit.content.hash()[..32]);
}

#[test]
fn an_approval() {
    let key = SigningKey::parse(&format!("dr-approver-key1 {}", "9d".repeat(32))).unwrap();
    let plan = blake3::hash(b"a plan").to_hex().to_string();
    let name = "ada".parse().unwrap();
    // Ed25519 signs the same text the same way every time.
    let approval = Approval::sign(&key, execution(), plan, 60_000, name, at(90));
    for stored in record("approval", &approval.to_bytes()) {
        let read = Approval::from_bytes(&stored).unwrap();
        assert_eq!(read, approval);
        assert!(read.is_signed_by(&key.public()));
    }
}

#[test]
fn a_record_of_evidence() {
    let evidence = Evidence {
        version: evidence::FORMAT_VERSION,
        workload: "orders".parse().unwrap(),
        sequence: 2,
        previous: Some("5f".repeat(32)),
        kind: "execution".to_owned(),
        subject: execution().to_string(),
        state: "completed".to_owned(),
        recorded_at: at(9),
        recorded_by: actor(),
        body: serde_json::json!({ "plan": "c0".repeat(32), "runbook": "failover-region", "report": {} }),
    };
    let current = dr_provider::store::record::encode(&evidence);
    let stored = golden("evidence-hashed.json", &current);
    assert_eq!(stored, current);
    let read: Evidence = dr_provider::store::record::decode(&stored).unwrap();
    assert_eq!(read, evidence);
}
