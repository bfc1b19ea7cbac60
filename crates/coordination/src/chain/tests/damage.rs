//! Damage: every flipped byte and every cut is noticed.

use std::sync::Arc;

use bytes::Bytes;
use dr_encryption::{Key, Keys};
use dr_model::Lsn;
use dr_provider::decorate::{Fault, Faulty, Operation, Rule};
use dr_provider::store::MemoryStore;
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;

use super::compacting::{Bench, CHUNK, SEGMENT_BYTES, TIMELINE, span};
use super::{CLUSTER, ORIGIN, chain, chunk, log, write, writer};
use crate::chain::{
    ChainReader, Chunk, Cipher, Encoding, Flaw, PieceFacts, Section, Span, bounds, decode,
    decode_header, encode, encode_piece, examine, find_tail, prove, prove_readable,
};
use crate::testing::{IMPATIENT, Scripted};

fn compressible() -> Chunk {
    let mut chunk = chunk(ORIGIN, 4096);
    chunk.log = vec![7; 4096].into();
    chunk
}

fn incompressible() -> Chunk {
    let mut chunk = chunk(ORIGIN, 1);
    chunk.log = blake3::Hasher::new().finalize().as_bytes().to_vec().into();
    chunk
}

#[rstest]
#[case(compressible(), Encoding::Zstd)]
#[case(incompressible(), Encoding::Raw)]
fn any_flipped_byte_and_any_cut_is_noticed(#[case] chunk: Chunk, #[case] encoding: Encoding) {
    let bytes = encode(&chain(1), &chunk, ORIGIN, "west", None);
    let (header, log) = decode(&bytes, &chain(1), ORIGIN, &Keys::default()).unwrap();
    assert_eq!((header.encoding, &log), (encoding, &chunk.log));
    assert_eq!(header.end, chunk.end());
    for position in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 0x10;
        let damaged = Bytes::from(damaged);
        assert!(
            decode(&damaged, &chain(1), ORIGIN, &Keys::default()).is_err(),
            "byte {position}"
        );
        let cut = bytes.slice(..position);
        assert!(
            decode(&cut, &chain(1), ORIGIN, &Keys::default()).is_err(),
            "cut at {position}"
        );
    }
    let longer = Bytes::from([&bytes[..], b"x"].concat());
    assert!(decode(&longer, &chain(1), ORIGIN, &Keys::default()).is_err());
}

#[test]
fn a_chunk_in_another_place_is_refused() {
    let bytes = encode(&chain(1), &compressible(), ORIGIN, "west", None);
    assert!(decode(&bytes, &chain(1), Lsn(ORIGIN.0 + 1), &Keys::default()).is_err());
    assert!(decode(&bytes, &chain(2), ORIGIN, &Keys::default()).is_err());
    assert_eq!(decode_header(&bytes[..40], &chain(1), ORIGIN), Ok(None));
}

#[tokio::test]
async fn damage_in_a_store_is_named() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    let end = write(&mut writer, &[100, 100]).await;
    let key = chain(1).link_key(ORIGIN.advance(100));
    let mut bytes = store.get(&key).await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    store.delete(&key).await.unwrap();
    store.create(&key, bytes.into()).await.unwrap();
    // The header is whole, so the tail is where it was; the log is not, so it is not handed out.
    let tail = find_tail(&*store, &chain(1), IMPATIENT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tail.end, end);
    let timeline = chain(1).timeline;
    let mut reader = ChainReader::open(
        store.clone(),
        Section::new(CLUSTER, timeline, ORIGIN, end),
        IMPATIENT,
    )
    .await
    .unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().1.len(), 100);
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains(&ORIGIN.advance(100).to_string()),
        "{error}"
    );
    store.delete(&key).await.unwrap();
    store
        .create(&key, Bytes::from_static(b"nonsense"))
        .await
        .unwrap();
    let error = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// The chain is not taken for one that nobody has begun: neither would its log be left out, nor begun anew behind it.
#[tokio::test]
async fn an_origin_that_is_gone_is_damage() {
    let store = Scripted::new("west");
    assert!(
        find_tail(&*store, &chain(1), IMPATIENT)
            .await
            .unwrap()
            .is_none()
    );
    let mut begun = writer(&store).await;
    let end = write(&mut begun, &[100, 100]).await;
    store.delete(&chain(1).origin_key()).await.unwrap();

    let error = find_tail(&*store, &chain(1), IMPATIENT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = error.to_string();
    assert!(
        said.contains("/origin` in ") && said.contains("missing"),
        "{said}"
    );
    let section = Section::new(CLUSTER, chain(1).timeline, ORIGIN, end);
    let whole = prove(&*store, section, IMPATIENT).await.unwrap_err();
    assert_eq!(whole.kind(), ErrorKind::Corrupt);
    let outer = bounds(&*store, CLUSTER, chain(1).timeline, IMPATIENT).await;
    assert_eq!(outer.unwrap_err().kind(), ErrorKind::Corrupt);
}

fn key(digit: char) -> Key {
    Key::parse(&format!("dr-key1 {}", digit.to_string().repeat(64))).unwrap()
}

#[test]
fn what_is_encrypted_tells_nothing_and_any_changed_bit_is_noticed() {
    let keys = Keys::new(vec![key('1')]);
    for chunk in [compressible(), chunk(ORIGIN, 300)] {
        let cipher = Cipher::draw(&keys).unwrap().unwrap();
        let bytes = encode(&chain(1), &chunk, ORIGIN, "west", Some(&cipher));
        let (header, offset) = decode_header(&bytes, &chain(1), ORIGIN).unwrap().unwrap();
        assert_eq!(header.encryption.unwrap().key, key('1').id().as_str());
        assert_ne!(
            header.log_blake3,
            blake3::hash(&chunk.log).to_hex().as_str()
        );
        assert!(!bytes.windows(32).any(|window| window == &chunk.log[..32]));
        let (_, log) = decode(&bytes, &chain(1), ORIGIN, &keys).unwrap();
        assert_eq!(log, chunk.log);
        // After a change of keys the one before still reads.
        let later = Keys::new(vec![key('2'), key('1')]);
        assert!(decode(&bytes, &chain(1), ORIGIN, &later).is_ok());
        for at in offset..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            let damaged = Bytes::from(damaged);
            assert!(decode(&damaged, &chain(1), ORIGIN, &keys).is_err(), "{at}");
        }
        for keys in [Keys::default(), Keys::new(vec![key('2')])] {
            let why = decode(&bytes, &chain(1), ORIGIN, &keys).unwrap_err();
            let locked = Flaw::Locked(key('1').id().to_string());
            assert_eq!(why, locked);
        }
        let again = Cipher::draw(&keys).unwrap().unwrap();
        assert_ne!(
            bytes,
            encode(&chain(1), &chunk, ORIGIN, "west", Some(&again))
        );
    }
}

/// Who can write to the store and has not the key makes headers whose hashes are right.
#[test]
fn a_header_that_was_changed_by_a_stranger_is_noticed() {
    let keys = Keys::new(vec![key('1')]);
    let cipher = Cipher::draw(&keys).unwrap().unwrap();
    let bytes = encode(
        &chain(1),
        &chunk(ORIGIN, 300),
        ORIGIN,
        "west",
        Some(&cipher),
    );
    let (_, offset) = decode_header(&bytes, &chain(1), ORIGIN).unwrap().unwrap();
    let header = String::from_utf8(bytes[12..offset - 32].to_vec()).unwrap();
    let forged = header.replace("\"commits\":2", "\"commits\":3");
    assert_ne!(forged, header);
    let mut changed = bytes[..12].to_vec();
    changed.extend(forged.as_bytes());
    let hash = blake3::hash(&changed);
    changed.extend(hash.as_bytes());
    changed.extend(&bytes[offset..]);
    let changed = Bytes::from(changed);
    assert!(decode_header(&changed, &chain(1), ORIGIN).is_ok());
    let why = decode(&changed, &chain(1), ORIGIN, &keys).unwrap_err();
    assert!(why.to_string().contains("authentication code"), "{why}");
}

/// The name of a piece says what was in it, not what is left. Its chunks take its place for as long as they are there.
#[rstest]
#[case::empty(0)]
#[case::within_the_header(200)]
#[case::behind_the_header(1000)]
#[tokio::test]
async fn a_piece_that_was_cut_is_not_taken_for_there(#[case] left: usize) {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK; 600]).await;
    bench.compact().await.unwrap();
    let key = span(0, SEGMENT_BYTES).key(CLUSTER, TIMELINE);
    let body = bench.store.get(&key).await.unwrap();
    bench.store.delete(&key).await.unwrap();
    let cut = body.slice(..left);
    bench.store.create(&key, cut.clone()).await.unwrap();
    let whole = || async {
        let store = &*bench.store;
        prove(
            store,
            Section::new(CLUSTER, TIMELINE, ORIGIN, end),
            IMPATIENT,
        )
        .await
    };
    whole().await.unwrap();
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );

    // Now they go, which they do not while the piece is as it is.
    bench.store.delete(&key).await.unwrap();
    bench.store.create(&key, body).await.unwrap();
    bench.settle().await;
    bench.store.delete(&key).await.unwrap();
    bench.store.create(&key, cut).await.unwrap();
    let store = &*bench.store;
    let proven = prove(
        store,
        Section::new(CLUSTER, TIMELINE, ORIGIN, end),
        IMPATIENT,
    )
    .await;
    let error = proven.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(key.as_str()), "{error}");
    let section = Section::new(CLUSTER, TIMELINE, ORIGIN, end);
    let seen = examine(store, section, &Keys::default(), IMPATIENT).await;
    let begin = seen.unwrap().there[0].from;
    assert_eq!(begin, ORIGIN.advance(SEGMENT_BYTES));
    bench.read(ORIGIN, end).await.unwrap_err();
}

/// Changes the last byte of the piece that is the second segment.
async fn flip_in_second_piece(bench: &Bench<MemoryStore>) {
    let key = span(SEGMENT_BYTES, 2 * SEGMENT_BYTES).key(CLUSTER, TIMELINE);
    let mut body = bench.store.get(&key).await.unwrap().to_vec();
    *body.last_mut().unwrap() ^= 1;
    bench.store.delete(&key).await.unwrap();
    bench.store.create(&key, body.into()).await.unwrap();
}

#[tokio::test]
async fn a_piece_with_a_flipped_byte_is_replaced_by_its_chunks() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK; 600]).await;
    bench.compact().await.unwrap();
    flip_in_second_piece(&bench).await;
    assert_eq!(
        bench.read(ORIGIN, end).await.unwrap(),
        log(ORIGIN, end.bytes_since(ORIGIN))
    );
}

/// That a piece is damaged is said once nothing takes its place, and not while nobody can look.
#[tokio::test]
async fn a_silent_store_does_not_make_a_damaged_piece_the_end() {
    let mut bench = Bench::new(MemoryStore::new("west"));
    let end = bench.write(&[CHUNK; 600]).await;
    bench.compact().await.unwrap();
    flip_in_second_piece(&bench).await;
    let faulty = Arc::new(Faulty::scripted(bench.store.clone(), Vec::new()));
    let section = Section::new(CLUSTER, TIMELINE, ORIGIN, end);
    let reader = ChainReader::open(faulty.clone(), section, IMPATIENT).await;
    let mut reader = reader.unwrap();
    let silent = Fault::Before(ErrorKind::Unavailable);
    faulty.set_rules(vec![Rule::on(Operation::List, "*", silent)]);
    let mut read = Vec::new();
    let error = loop {
        match reader.next().await {
            Ok(part) => read.extend(part.unwrap().1),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    faulty.set_rules(Vec::new());
    read.extend(reader.read_to_end().await.unwrap());
    assert_eq!(read, log(ORIGIN, end.bytes_since(ORIGIN)));
}

/// With another key nothing is known to be wrong.
#[tokio::test]
async fn what_another_key_opens_is_not_called_damaged() {
    let store = Scripted::new("west");
    writer(&store).await;
    let keys = Keys::new(vec![key('1')]);
    let cipher = Cipher::draw(&keys).unwrap();
    let one = encode(&chain(1), &compressible(), ORIGIN, "west", cipher.as_ref());
    let place = chain(1).link_key(ORIGIN);
    store.create(&place, one).await.unwrap();
    let end = compressible().end();
    for (digit, expected) in [('1', None), ('2', Some(ErrorKind::Denied))] {
        let open = ChainReader::open(
            store.clone(),
            Section::new(CLUSTER, TIMELINE, ORIGIN, end),
            IMPATIENT,
        );
        let mut reader = open.await.unwrap().with_keys(&Keys::new(vec![key(digit)]));
        let error = reader.read_to_end().await.err();
        assert_eq!(error.as_ref().map(|error| error.kind()), expected);
        let said = error.map_or_else(String::new, |error| error.to_string());
        assert!(!said.contains("damaged"), "{said}");
    }
}

/// After a change of keys the newest log can be read, and what comes before it only with the old one: in chunks, and merged.
#[rstest]
#[case::chunks(false)]
#[case::pieces(true)]
#[tokio::test]
async fn log_is_readable_only_with_all_its_keys(#[case] is_merged: bool) {
    let store = Arc::new(MemoryStore::new("west"));
    writer(&store).await;
    let mut at = ORIGIN;
    let mut begins = Vec::new();
    for digit in [None, Some('1'), Some('1'), Some('2')] {
        let keys = Keys::new(digit.map(key).into_iter().collect());
        let cipher = Cipher::draw(&keys).unwrap();
        let chunk = chunk(at, 300);
        begins.push(at);
        let (place, body) = match is_merged {
            false => {
                let body = encode(&chain(1), &chunk, ORIGIN, "west", cipher.as_ref());
                (chain(1).link_key(at), body)
            }
            true => {
                let facts = PieceFacts {
                    epochs: vec![chain(1).epoch],
                    commits: 2,
                    last_commit_at: None,
                    received_at: chunk.facts.received_at,
                };
                let (log, cipher) = (&chunk.log, cipher.as_ref());
                let body = encode_piece(CLUSTER, TIMELINE, at, log, &facts, "west", cipher);
                let to = chunk.end();
                (Span { from: at, to }.key(CLUSTER, TIMELINE), body)
            }
        };
        at = chunk.end();
        store.create(&place, body).await.unwrap();
    }
    let locked = async |from: Lsn, digits: &[char]| {
        let section = Section::new(CLUSTER, TIMELINE, from, at);
        prove(&*store, section, IMPATIENT).await.unwrap();
        let keys = Keys::new(digits.iter().copied().map(key).collect());
        let proven = prove_readable(&*store, section, &keys, IMPATIENT).await;
        proven.err().map(|error| (error.kind(), error.to_string()))
    };
    assert_eq!(locked(ORIGIN, &['2', '1']).await, None);
    assert_eq!(locked(begins[3], &['2']).await, None);
    for from in &begins[..3] {
        let (kind, why) = locked(*from, &['2']).await.unwrap();
        assert_eq!(kind, ErrorKind::Denied);
        assert!(why.contains(key('1').id().as_str()), "{why}");
    }
    let (_, why) = locked(begins[3], &['1']).await.unwrap();
    assert!(why.contains(key('2').id().as_str()), "{why}");
}
