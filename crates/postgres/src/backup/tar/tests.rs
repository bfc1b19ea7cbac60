use proptest::prelude::*;

use super::*;

fn header(name: &str, kind: u8, size: u64, target: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000600");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
    } else {
        block[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
    }
    block[136..148].copy_from_slice(b"14751052412 ");
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
    block[148..156].copy_from_slice(format!("{sum:06o} \0").as_bytes());
    block
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, b'0', content.len() as u64, "");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// Reads an archive given in pieces; contents are joined.
fn read(archive: &[u8], piece: usize) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    let mut reader = Reader::new();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    for piece in archive.chunks(piece) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = reader.next(&mut input)? {
            match event {
                Event::Entry(entry) => entries.push((entry, Vec::new())),
                Event::Data(data) => entries.last_mut().unwrap().1.extend_from_slice(&data),
                Event::FileEnd => assert_eq!(entries.last().unwrap().0.kind, Kind::File),
            }
        }
        assert!(input.is_empty());
    }
    reader.finish()?;
    Ok(entries)
}

fn archive(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = header("base/", b'5', 0, "");
    for (number, content) in contents.iter().enumerate() {
        bytes.extend(file(&format!("base/{number}"), content));
    }
    bytes.extend(header("pg_tblspc/16384", b'2', 0, "/else/where"));
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

proptest! {
    #[test]
    fn reads_the_same_in_pieces_of_any_size(
        lengths in proptest::collection::vec(0_usize..1500, 0..6),
        piece in 1_usize..1200,
    ) {
        let contents: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let entries = read(&archive(&contents), piece).unwrap();
        prop_assert_eq!(entries.len(), contents.len() + 2);
        prop_assert_eq!(entries[0].0.path.as_str(), "base");
        prop_assert_eq!(&entries[0].0.kind, &Kind::Directory);
        for ((_, found), content) in entries[1..].iter().zip(&contents) {
            prop_assert_eq!(found, content);
        }
        let link = &entries.last().unwrap().0;
        prop_assert_eq!(&link.kind, &Kind::Symlink("/else/where".to_owned()));
    }
}

#[test]
fn reads_sizes_beyond_eight_gibibytes() {
    let size = 10 << 33;
    let (entry, found) = parse(&header("base/1/2", b'0', size, "")).unwrap();
    assert_eq!(
        (entry.mode, entry.mtime, found),
        (0o600, 1_738_822_922, size)
    );
}

#[test]
fn refuses_what_is_damaged_or_cut_off() {
    let whole = archive(&[vec![1; 700]]);
    let mut damaged = whole.clone();
    damaged[BLOCK_BYTES + 3] ^= 1;
    assert_eq!(read(&damaged, 64), Err(Error::Checksum));
    assert_eq!(
        read(&whole[..BLOCK_BYTES * 2 + 9], 64),
        Err(Error::Unfinished)
    );
    assert_eq!(read(&whole[..BLOCK_BYTES + 9], 64), Err(Error::Unfinished));
    let device = header("null", b'3', 0, "");
    let kind = Error::Kind {
        path: "null".to_owned(),
        kind: '3',
    };
    assert_eq!(read(&device, 512), Err(kind));
}
