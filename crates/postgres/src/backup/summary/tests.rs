//! Summaries written by hand; a server's own are compared with `pg_walsummary` in the tests against real servers.

#![expect(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges are compared"
)]

use std::io::Cursor;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::backup::local::name::Fork;

/// An entry: relation, fork, limit, chunks.
type Entry<'a> = (u32, u32, u32, &'a [&'a [u16]]);

fn file(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 0x652B_137B_u32.to_le_bytes().to_vec();
    for (relation, fork, limit, chunks) in entries {
        for word in [
            1663,
            5,
            *relation,
            *fork,
            *limit,
            u32::try_from(chunks.len()).unwrap(),
        ] {
            bytes.extend(word.to_le_bytes());
        }
        for chunk in *chunks {
            bytes.extend(u16::try_from(chunk.len()).unwrap().to_le_bytes());
        }
        for number in chunks.iter().copied().flatten() {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes.extend([0; 24]);
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn read(files: &[Vec<u8>]) -> io::Result<Changes> {
    let mut changes = Changes::default();
    for file in files {
        table::read_into(&mut Cursor::new(file), &mut changes)?;
    }
    Ok(changes)
}

const KEY: (u32, u32, u32, Fork) = (1663, 5, 16_384, Fork::Main);

#[test]
fn blocks_of_several_summaries_are_joined() {
    let changes = read(&[
        file(&[
            (16_384, 0, u32::MAX, &[&[7, 3, 4]]),
            (16_384, 2, u32::MAX, &[&[1]]),
        ]),
        file(&[(16_384, 0, u32::MAX, &[&[5], &[0]])]),
    ])
    .unwrap();
    assert_eq!(changes.of(&KEY, 0..100), [3..6, 7..8]);
    assert_eq!(changes.of(&KEY, 4..7), [4..6]);
    assert_eq!(changes.of(&KEY, 65_530..65_540), [65_536..65_537]);
    assert_eq!(changes.of(&(1663, 5, 16_385, Fork::Main), 0..100), []);
    assert!(!changes.is_new_database(1663, 5));
}

#[test]
fn what_stands_behind_a_cut_is_new() {
    let changes = read(&[
        file(&[(16_384, 0, 20, &[&[3]])]),
        file(&[(16_384, 0, 10, &[&[12, 25]]), (0, 0, 0, &[])]),
    ])
    .unwrap();
    assert_eq!(changes.of(&KEY, 0..30), [3..4, 10..30]);
    assert_eq!(changes.of(&KEY, 15..30), [15..30]);
    assert_eq!(changes.of(&KEY, 0..5), [3..4]);
    assert!(changes.is_new_database(1663, 5) && !changes.is_new_database(1663, 6));
}

proptest! {
    #[test]
    fn both_shapes_of_a_chunk_say_the_same(
        some in proptest::collection::btree_set(any::<u16>(), 0..300),
        others in proptest::collection::btree_set(any::<u16>(), 0..300),
    ) {
        let numbers = |set: &std::collections::BTreeSet<u16>| set.iter().copied().collect::<Vec<_>>();
        let mut map = vec![0_u16; 4096];
        for block in &others {
            map[usize::from(*block / 16)] |= 1 << (block % 16);
        }
        let few = read(&[
            file(&[(16_384, 0, u32::MAX, &[&numbers(&some)])]),
            file(&[(16_384, 0, u32::MAX, &[&numbers(&others)])]),
        ]).unwrap();
        let many = read(&[
            file(&[(16_384, 0, u32::MAX, &[&map])]),
            file(&[(16_384, 0, u32::MAX, &[&numbers(&some)])]),
        ]).unwrap();
        prop_assert_eq!(few.of(&KEY, 0..70_000), many.of(&KEY, 0..70_000));
        let all: Vec<u32> = few.of(&KEY, 0..70_000).into_iter().flatten().collect();
        let expected: Vec<u32> = some.union(&others).map(|block| u32::from(*block)).collect();
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn every_damage_is_refused() {
    let good = file(&[(16_384, 0, 20, &[&[3, 9], &[1]])]);
    assert!(read(std::slice::from_ref(&good)).is_ok());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert!(read(&[bad]).is_err(), "byte {at}");
        assert!(read(&[good[..at].to_vec()]).is_err(), "{at} bytes");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(read(&[longer]).is_err());
}

#[rstest]
#[case::whole(&[(1, 0x10, 0x20), (1, 0x20, 0x30)], Ok(2))]
#[case::overlapping(&[(1, 0x08, 0x18), (1, 0x10, 0x28), (1, 0x18, 0x40)], Ok(2))]
#[case::hole(&[(1, 0x10, 0x20), (1, 0x21, 0x30)], Err((0x20, true)))]
#[case::late(&[(1, 0x11, 0x30)], Err((0x10, true)))]
#[case::short(&[(1, 0x10, 0x2F)], Err((0x2F, false)))]
#[case::of_another_timeline(&[(2, 0x10, 0x30)], Err((0x10, false)))]
fn a_cover_has_no_hole(
    #[case] names: &[(u32, u64, u64)],
    #[case] expected: Result<usize, (u64, bool)>,
) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join(DIRECTORY);
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("temp.summary"), "").unwrap();
    for (timeline, start, end) in names {
        fs::write(
            place.join(format!("{timeline:08X}{start:016X}{end:016X}.summary")),
            "",
        )
        .unwrap();
    }
    let found = cover(directory.path(), TimelineId(1), Lsn(0x10), Lsn(0x30)).unwrap();
    assert_eq!(
        found
            .map(|cover| cover.0.len())
            .map_err(|short| (short.reached.0, short.hole)),
        expected
    );
}
