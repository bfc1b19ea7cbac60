//! The decoder against WAL written by a real server, with the server's own readers as judges: `pg_walinspect` for record
//! starts and ends, `pg_waldump` for commit times and for what is left of a truncated segment.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dr_model::{Lsn, SegmentSize};
use dr_postgres::wal::{Decoder, Expected, Record, SEGMENT_HEADER_BYTES, check_segment};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use support::Cluster;

const SEGMENT_BYTES: u32 = 1 << 20;

fn segment_size() -> SegmentSize {
    SegmentSize::try_from(SEGMENT_BYTES).unwrap()
}

/// WAL of every shape that matters, and where it begins and ends.
struct Workload {
    cluster: Cluster,
    start: Lsn,
    end: Lsn,
    bytes: Vec<u8>,
}

fn load() -> Workload {
    let cluster = Cluster::start(
        SEGMENT_BYTES,
        "wal_level=logical\nmax_prepared_transactions=5\nautovacuum=off\n\
         max_wal_size=1GB\ncheckpoint_timeout=1h\nsynchronous_commit=on\n",
    );
    cluster.sql("CREATE EXTENSION pg_walinspect; CREATE TABLE t(i bigserial, v text); CREATE TABLE t2(i int primary key); SELECT pg_switch_wal()");
    let start = segment_size().start_of(cluster.lsn("SELECT pg_current_wal_insert_lsn()"));
    cluster.sql("CHECKPOINT");
    for size in [10, 900, 8000, 70_000] {
        cluster.sql(&format!("INSERT INTO t(v) SELECT repeat(md5(g::text), {size} / 32) FROM generate_series(1, 40) g"));
    }
    cluster.sql(
        "UPDATE t SET v = v || 'x'; DELETE FROM t WHERE i % 3 = 0; VACUUM t; CREATE INDEX ON t(i)",
    );
    cluster.sql("SELECT pg_logical_emit_message(false, 'big', repeat('abcdefghij', 350000))");
    cluster.sql("BEGIN; INSERT INTO t(v) VALUES ('a'); ROLLBACK");
    cluster.sql("BEGIN; INSERT INTO t(v) VALUES ('b'); PREPARE TRANSACTION 'one'");
    cluster.sql("BEGIN; INSERT INTO t(v) VALUES ('c'); PREPARE TRANSACTION 'two'");
    cluster.sql("COMMIT PREPARED 'one'");
    cluster.sql("ROLLBACK PREPARED 'two'");
    cluster.sql("SELECT pg_create_restore_point('before the change')");
    cluster.sql(
        "BEGIN; INSERT INTO t(v) VALUES ('d'); SAVEPOINT s; INSERT INTO t(v) VALUES ('e'); COMMIT",
    );
    cluster.sql("BEGIN; INSERT INTO t(v) VALUES ('x'); SAVEPOINT s; INSERT INTO t(v) VALUES ('y'); ROLLBACK");
    // More subtransactions than the head of a record has room for.
    let nested = "SAVEPOINT s; INSERT INTO t(v) VALUES ('s'); RELEASE s; ".repeat(100);
    cluster.sql(&format!("BEGIN; {nested}COMMIT"));
    cluster.sql(
        "BEGIN; CREATE TABLE w(i int); SAVEPOINT s; INSERT INTO w VALUES (1); DROP TABLE t2; PREPARE TRANSACTION 'three'",
    );
    cluster.sql("COMMIT PREPARED 'three'");
    cluster.sql(
        "SELECT pg_replication_origin_create('o'); SELECT pg_replication_origin_session_setup('o'); \
         BEGIN; INSERT INTO t(v) VALUES ('f'); SELECT pg_replication_origin_xact_setup('0/1', now()); COMMIT",
    );
    cluster.sql("SELECT pg_switch_wal()");
    cluster
        .sql("CREATE TABLE u AS SELECT g, random() FROM generate_series(1, 60000) g; DROP TABLE u");
    cluster.sql("SELECT pg_switch_wal()");
    for _ in 0..300 {
        cluster.sql_later("INSERT INTO t(v) VALUES ('commit');");
    }
    cluster.flush_sql();
    let end = cluster.lsn("SELECT pg_current_wal_flush_lsn()");
    let bytes = cluster.wal(start, end, segment_size());
    Workload {
        cluster,
        start,
        end,
        bytes,
    }
}

fn decode(start: Lsn, bytes: &[u8], expected: Option<Expected>) -> (Vec<Record>, Decoder) {
    let mut decoder = Decoder::new(start, segment_size(), expected);
    let mut records = Vec::new();
    let stop = decoder.feed(bytes, |record| records.push(record)).err();
    assert!(stop.is_none(), "{stop:?}");
    (records, decoder)
}

fn commit_time(line: &str) -> Option<Timestamp> {
    let description = line.split("desc: ").nth(1)?;
    let rest = description.strip_prefix("COMMIT ").or_else(|| {
        let prepared = description.strip_prefix("COMMIT_PREPARED ")?;
        prepared.split_once(": ").map(|(_, rest)| rest)
    })?;
    let text = rest.split(" UTC").next()?;
    let local: DateTime = text.replace(' ', "T").parse().ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[test]
fn agrees_with_the_server() {
    let Workload {
        cluster,
        start,
        end,
        bytes,
    } = load();
    let expected = Expected {
        system_identifier: cluster.system_identifier(),
        timeline: dr_model::TimelineId(1),
    };
    let (records, decoder) = decode(start, &bytes, Some(expected));
    assert_eq!(decoder.major_version(), Some(15));

    let seen = cluster.rows(&format!(
        "SELECT start_lsn, end_lsn, xid FROM pg_get_wal_records_info('{start}', '{end}') ORDER BY 1"
    ));
    let ours: Vec<String> = records
        .iter()
        .map(|r| format!("{}|{}|{}", r.start, r.end, r.transaction))
        .collect();
    // The view leaves out a last record that ends exactly at the end asked for.
    assert!(
        seen.len() + 1 >= ours.len() && seen.len() > 1000,
        "{} {}",
        seen.len(),
        ours.len()
    );
    for (index, row) in seen.iter().enumerate() {
        assert_eq!(&ours[index], row);
    }

    let dump = cluster.waldump(start, end);
    let theirs: Vec<(Lsn, Timestamp)> = dump
        .lines()
        .filter_map(|line| Some((support::dumped_lsn(line)?, commit_time(line)?)))
        .collect();
    let commits: Vec<(Lsn, Timestamp)> = records
        .iter()
        .filter_map(|r| Some((r.start, r.committed_at?)))
        .collect();
    assert!(commits.len() > 300);
    assert_eq!(commits, theirs);
    assert!(dump.contains("COMMIT_PREPARED") && dump.contains("origin: node"));

    endings(&dump, &records);
    every_start(start, &bytes, &records);
    every_cut(start, &bytes, &records);
    cuts_against_waldump(start, end, &bytes);
    segments(&cluster, start, end);
}

/// Who ends with a transaction, what files go with it, and which transaction is the next one.
fn endings(dump: &str, records: &[Record]) {
    let (mut children, mut files, mut prepared, mut running) = (0, 0, 0, 0);
    for line in dump.lines() {
        let Some(start) = support::dumped_lsn(line) else {
            continue;
        };
        let record = records.iter().find(|record| record.start == start).unwrap();
        let description = line.split("desc: ").nth(1).unwrap_or_default();
        if let Some(next) = description.strip_prefix("RUNNING_XACTS nextXid ") {
            let next = next.split(' ').next().unwrap();
            assert_eq!(record.next_transaction, next.parse().ok(), "{line}");
            running += 1;
            continue;
        }
        assert_eq!(record.next_transaction, None, "{line}");
        if record.transaction_end().is_none() {
            assert_eq!(record.ending, None, "{line}");
            continue;
        }
        let ending = record.ending.as_deref().cloned().unwrap_or_default();
        assert!(record.ending.is_none() || ending.is_whole, "{line}");
        let list = |name: &str| -> Vec<String> {
            let list = description.split(name).nth(1).unwrap_or_default();
            let list = list.split(';').next().unwrap_or_default();
            list.split_whitespace().map(str::to_owned).collect()
        };
        let ours = ending.children.iter().map(ToString::to_string);
        assert_eq!(ours.collect::<Vec<_>>(), list("; subxacts:"), "{line}");
        let ours = ending.dropped.iter();
        let ours = ours.map(|file| format!("base/{}/{}", file.database, file.number));
        assert_eq!(ours.collect::<Vec<_>>(), list("; rels:"), "{line}");
        let number = description.split_once("_PREPARED ");
        let number = number.and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
        assert_eq!(ending.prepared, number, "{line}");
        children = children.max(ending.children.len());
        files = files.max(ending.dropped.len());
        prepared += u32::from(ending.prepared.is_some());
    }
    assert_eq!((children, prepared), (100, 3));
    assert!(files > 0 && running > 0);
}

/// Reading from any segment on finds the same records.
fn every_start(start: Lsn, bytes: &[u8], records: &[Record]) {
    for skipped in (0..bytes.len()).step_by(SEGMENT_BYTES as usize) {
        let from = start.advance(skipped as u64);
        let (found, _) = decode(from, &bytes[skipped..], None);
        let same: Vec<Record> = records
            .iter()
            .filter(|r| r.start >= from)
            .cloned()
            .collect();
        assert_eq!(found, same, "{from}");
    }
}

/// Truncation at every byte of the last two pages of each segment.
fn every_cut(start: Lsn, bytes: &[u8], records: &[Record]) {
    let ends: Vec<(&Record, Lsn)> = records
        .iter()
        .map(|record| (record, data_end(record, bytes, start)))
        .collect();
    for (index, segment) in bytes.chunks(SEGMENT_BYTES as usize).enumerate() {
        let from = start.advance(index as u64 * u64::from(SEGMENT_BYTES));
        let before = segment.len().saturating_sub(16384);
        let mut decoder = Decoder::new(from, segment_size(), None);
        decoder.feed(&segment[..before], |_| ()).unwrap();
        let inside: Vec<_> = ends.iter().filter(|(r, _)| r.start >= from).collect();
        for cut in before..=segment.len() {
            let mut cut_short = decoder.clone();
            cut_short.feed(&segment[before..cut], |_| ()).unwrap();
            let reached = from.advance(cut as u64);
            let complete = inside.partition_point(|(_, end)| *end <= reached);
            let last = inside[..complete].last();
            assert_eq!(
                cut_short.last_end(),
                last.map(|(r, _)| r.end),
                "{from} cut at {reached}"
            );
        }
        let mut whole = Decoder::new(from, segment_size(), None);
        whole.feed(segment, |_| ()).ok();
        assert_eq!(whole.last_end(), decoder_end(from, segment));
    }
}

fn decoder_end(from: Lsn, bytes: &[u8]) -> Option<Lsn> {
    decode(from, bytes, None).0.last().map(|record| record.end)
}

/// Position after the last byte of a record, without padding.
fn data_end(record: &Record, bytes: &[u8], start: Lsn) -> Lsn {
    let at = usize::try_from(record.start.0 - start.0).unwrap();
    let mut left = u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
    let mut position = record.start;
    loop {
        let room = 8192 - position.0 % 8192;
        if left <= room {
            return position.advance(left);
        }
        left -= room;
        position = position.advance(room);
        let header = if segment_size().offset_of(position) == 0 {
            40
        } else {
            24
        };
        position = position.advance(header);
    }
}

/// What the server's reader finds in a zero-padded tail is what was computed.
fn cuts_against_waldump(start: Lsn, end: Lsn, bytes: &[u8]) {
    let last_segment = segment_size().start_of(Lsn(end.0 - 1));
    let begin = usize::try_from(last_segment.0 - start.0).unwrap();
    let tail = &bytes[begin..];
    let name = segment_size().file_name(dr_model::TimelineId(1), last_segment);
    let directory = tempfile::tempdir().unwrap();
    for step in 0..60 {
        let cut = tail.len() - step * 37;
        let mut padded = tail[..cut].to_vec();
        padded.resize(SEGMENT_BYTES as usize, 0);
        std::fs::write(directory.path().join(&name), &padded).unwrap();
        let theirs = Cluster::waldump_file(&directory.path().join(&name));
        let mut last_start = None;
        let mut decoder = Decoder::new(last_segment, segment_size(), None);
        let mut note = |record: Record| last_start = Some(record.start);
        decoder.feed(&tail[..cut], &mut note).unwrap();
        // A record whose missing bytes are zeros is complete for the server.
        let page_rest = cut.next_multiple_of(8192) - cut;
        let _end_of_wal = decoder.feed(&padded[cut..cut + page_rest], &mut note);
        let dumped = theirs.lines().filter_map(support::dumped_lsn).next_back();
        assert_eq!(dumped, last_start);
    }
}

fn segments(cluster: &Cluster, start: Lsn, end: Lsn) {
    let mut at = start;
    while at < end {
        let name = segment_size().file_name(dr_model::TimelineId(1), at);
        let file = std::fs::read(cluster.wal_directory().join(&name)).unwrap();
        let head = &file[..SEGMENT_HEADER_BYTES];
        let cluster_id = cluster.system_identifier();
        let check =
            |name: &str, head: &[u8], bytes: usize, id| check_segment(name, head, bytes as u64, id);
        let info = check(&name, head, file.len(), cluster_id).unwrap();
        assert_eq!(
            (info.start, info.size, info.major_version),
            (at, segment_size(), 15)
        );
        assert!(check(&format!("{name}.partial"), head, file.len(), cluster_id).is_ok());
        assert!(check(&name, head, file.len() - 1, cluster_id).is_err());
        assert!(check(&name, &head[..20], 20, cluster_id).is_err());
        assert!(check(&name, head, file.len(), dr_model::SystemIdentifier(1)).is_err());
        let elsewhere = segment_size().file_name(dr_model::TimelineId(1), at.advance(1 << 20));
        assert!(check(&elsewhere, head, file.len(), cluster_id).is_err());
        let mut damaged = head.to_vec();
        damaged[0] ^= 1;
        assert!(check(&name, &damaged, file.len(), cluster_id).is_err());
        at = at.advance(u64::from(SEGMENT_BYTES));
    }
}

#[test]
fn a_record_that_a_crash_cut_short_is_passed_over() {
    let cluster = Cluster::start(
        SEGMENT_BYTES,
        "autovacuum=off\ncheckpoint_timeout=1h\nmax_wal_size=1GB\nwal_keep_size=1GB\n",
    );
    cluster.sql("CREATE EXTENSION pg_walinspect; CREATE TABLE t(v text); SELECT pg_switch_wal()");
    let start = segment_size().start_of(cluster.lsn("SELECT pg_current_wal_insert_lsn()"));
    cluster.sql("CHECKPOINT; INSERT INTO t VALUES ('before')");
    let begun = cluster.lsn("SELECT pg_current_wal_insert_lsn()");
    cluster.sql("SELECT pg_logical_emit_message(true, 'big', repeat('x', 2500000))");
    let first = segment_size().file_name(dr_model::TimelineId(1), begun);
    cluster.stop_at_once();
    for entry in std::fs::read_dir(cluster.wal_directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.len() == 24 && name > first {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    cluster.start_again();
    cluster.sql("INSERT INTO t VALUES ('after')");
    let end = cluster.lsn("SELECT pg_current_wal_flush_lsn()");
    let bytes = cluster.wal(start, end, segment_size());
    let (records, _) = decode(start, &bytes, None);
    let dump = cluster.waldump(start, end);
    assert!(dump.contains("OVERWRITE_CONTRECORD"), "{dump}");
    let theirs: Vec<Lsn> = dump.lines().filter_map(support::dumped_lsn).collect();
    let ours: Vec<Lsn> = records.iter().map(|r| r.start).collect();
    assert_eq!(ours, theirs);
}
