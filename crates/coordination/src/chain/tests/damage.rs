//! Damage: every flipped byte and every cut is noticed.

use bytes::Bytes;
use dr_encryption::{Key, Keys};
use dr_model::Lsn;
use dr_provider::{ErrorKind, ObjectStore};
use rstest::rstest;

use super::{CLUSTER, ORIGIN, chain, chunk, write, writer};
use crate::chain::{
    ChainReader, Chunk, Cipher, Encoding, decode, decode_header, encode, find_tail,
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
    let mut reader = ChainReader::open(store.clone(), CLUSTER, timeline, ORIGIN, end, IMPATIENT)
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
            assert!(why.contains(key('1').id().as_str()), "{why}");
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
    assert!(why.contains("authentication code"), "{why}");
}
