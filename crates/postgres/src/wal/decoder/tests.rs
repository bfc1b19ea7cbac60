use proptest::prelude::*;

use super::*;

/// Writes WAL as a server does, for properties over shapes that a server rarely produces.
struct Writer {
    bytes: Vec<u8>,
    segment_size: SegmentSize,
    start: Lsn,
    previous: Lsn,
    records: Vec<(Lsn, Lsn)>,
}

impl Writer {
    fn new(start: Lsn) -> Self {
        Self {
            bytes: Vec::new(),
            segment_size: SegmentSize::try_from(1 << 20).unwrap(),
            start,
            previous: Lsn(8),
            records: Vec::new(),
        }
    }

    fn position(&self) -> Lsn {
        self.start.advance(self.bytes.len() as u64)
    }

    fn page(&mut self, flags: u16, remaining: u32) {
        let at = self.position();
        let long = self.segment_size.offset_of(at) == 0;
        self.bytes.extend(0xD110_u16.to_le_bytes());
        self.bytes
            .extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(77_u64.to_le_bytes());
            self.bytes.extend((1_u32 << 20).to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
    }

    fn at_boundary(&self) -> bool {
        self.position().0.is_multiple_of(PAGE_BYTES)
    }

    fn record(&mut self, manager: u8, info: u8, data: &[u8]) {
        if self.at_boundary() {
            self.page(0, 0);
        }
        let start = self.position();
        let mut record = Vec::new();
        record.extend(
            u32::try_from(HEADER_BYTES + data.len())
                .unwrap()
                .to_le_bytes(),
        );
        record.extend(5_u32.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(data), &record);
        record.extend(checksum.to_le_bytes());
        record.extend(data);
        for (index, byte) in record.iter().enumerate() {
            if self.at_boundary() {
                self.page(1, u32::try_from(record.len() - index).unwrap());
            }
            self.bytes.push(*byte);
        }
        while !self.position().0.is_multiple_of(8) {
            self.bytes.push(0);
        }
        self.previous = start;
        self.records.push((start, self.position()));
    }

    fn decode(&self, from: usize, cuts: &[usize]) -> (Vec<(Lsn, Lsn)>, Decoder) {
        let expected = Expected {
            system_identifier: SystemIdentifier(77),
            timeline: TimelineId(1),
        };
        let start = self.start.advance(from as u64);
        let mut decoder = Decoder::new(start, self.segment_size, Some(expected));
        let mut found = Vec::new();
        let mut at = from;
        for cut in cuts.iter().chain([&self.bytes.len()]) {
            let cut = (*cut).clamp(at, self.bytes.len());
            let fed = decoder.feed(&self.bytes[at..cut], |r| found.push((r.start, r.end)));
            if fed.is_err() {
                break;
            }
            at = cut;
        }
        (found, decoder)
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![4 => 0_usize..200, 2 => 8100_usize..8300, 1 => 0_usize..40_000];
    prop::collection::vec(size, 1..40)
}

fn written(sizes: &[usize]) -> Writer {
    let mut writer = Writer::new(Lsn(0x3F_FFFE_0000));
    for (index, size) in sizes.iter().enumerate() {
        let data: Vec<u8> = (0..*size)
            .map(|i| u8::try_from((i * 7 + index) % 251 + 1).unwrap())
            .collect();
        writer.record(10, 0, &data);
    }
    writer
}

proptest! {
    #[test]
    fn pieces_do_not_matter(sizes in sizes(), mut cuts in prop::collection::vec(0_usize..400_000, 0..60)) {
        let writer = written(&sizes);
        cuts.sort_unstable();
        let (found, decoder) = writer.decode(0, &cuts);
        prop_assert_eq!(&found, &writer.records);
        prop_assert_eq!(decoder.position(), writer.position());
        prop_assert_eq!(decoder.stop, None);
    }

    #[test]
    fn any_page_is_a_start(sizes in sizes(), page in any::<prop::sample::Index>()) {
        let writer = written(&sizes);
        let from = page.index(writer.bytes.len()) / 8192 * 8192;
        let (found, decoder) = writer.decode(from, &[]);
        let first = writer.start.advance(from as u64);
        let after: Vec<_> = writer.records.iter().copied().filter(|r| r.0 >= first).collect();
        prop_assert_eq!(found, after);
        prop_assert_eq!(decoder.stop, None);
    }

    #[test]
    fn a_flipped_bit_ends_the_records_before_it(sizes in sizes(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut writer = written(&sizes);
        let at = at.index(writer.bytes.len());
        writer.bytes[at] ^= 1 << bit;
        let place = writer.start.advance(at as u64);
        let (found, _) = writer.decode(0, &[]);
        prop_assert!(writer.records.starts_with(&found));
        let complete = writer.records.iter().filter(|r| r.1 <= place).count();
        prop_assert!(found.len() >= complete);
        let hit = writer.records.iter().position(|r| r.0 <= place && place < r.1);
        if let Some(hit) = hit && found.len() > hit {
            // Padding, flags and lengths that mean nothing there, and an older timeline at the start.
            let in_page = place.0 % PAGE_BYTES;
            let harmless = writer.records[hit].1.0 - place.0 <= 7
                || (in_page == 2 && (2..=3).contains(&bit))
                || (16..24).contains(&in_page)
                || (at == 4 && bit == 0);
            prop_assert!(harmless, "{place} bit {bit}");
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..20_000), start in 0_u64..100_000) {
        let mut decoder = Decoder::new(Lsn(start), SegmentSize::DEFAULT, None);
        drop(decoder.feed(&noise, |_| ()));
    }
}

#[test]
fn a_switch_reaches_to_the_end_of_the_segment() {
    let mut writer = Writer::new(Lsn(0x10_0000));
    writer.record(10, 0, b"before");
    writer.record(0, 0x40, b"");
    let at_switch = writer.bytes.len();
    let (found, decoder) = writer.decode(0, &[]);
    assert_eq!(found[1].1, Lsn(0x20_0000));
    assert_eq!(decoder.last_end(), Some(Lsn(0x20_0000)));
    writer.bytes.resize(1 << 20, 0);
    writer.record(10, 0, b"after");
    let cuts: Vec<usize> = (at_switch..writer.bytes.len()).step_by(1009).collect();
    let (found, decoder) = writer.decode(0, &cuts);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2], writer.records[2]);
    assert_eq!(decoder.stop, None);
}

#[test]
fn a_record_given_up_is_passed_over() {
    let mut writer = Writer::new(Lsn(0x10_0000));
    writer.record(10, 0, b"before");
    let kept = writer.records.clone();
    let previous = writer.previous;
    writer.record(10, 0, &[1; 20_000]);
    writer.bytes.truncate(8192);
    writer.page(8, 0);
    writer.previous = previous;
    writer.record(0, 0xD0, b"overwrite");
    for cut in 8000..8300 {
        let (found, decoder) = writer.decode(0, &[cut]);
        assert_eq!(found, [kept[0], writer.records[2]]);
        assert_eq!(decoder.stop, None);
    }
    let (found, decoder) = writer.decode(8192, &[]);
    assert_eq!(found, [writer.records[2]]);
    assert_eq!(decoder.stop, None);
}

#[test]
fn a_left_over_of_a_recycled_segment_is_not_a_record() {
    let mut writer = Writer::new(Lsn(0x10_0000));
    writer.record(10, 0, b"new");
    writer.previous = Lsn(0x8_0000);
    writer.record(10, 0, b"old");
    let (found, decoder) = writer.decode(0, &[]);
    assert_eq!(found, writer.records[..1]);
    let said = Lsn(0x8_0000);
    let stop = decoder.stop.unwrap();
    assert_eq!(stop.at, writer.records[1].0);
    assert_eq!(stop.reason, StopReason::PreviousRecord { said });
}

#[test]
fn foreign_wal_is_refused() {
    let mut writer = Writer::new(Lsn(0x10_0000));
    writer.record(10, 0, b"x");
    let decode = |cluster, timeline| {
        let expected = Expected {
            system_identifier: SystemIdentifier(cluster),
            timeline: TimelineId(timeline),
        };
        let mut decoder = Decoder::new(writer.start, writer.segment_size, Some(expected));
        decoder
            .feed(&writer.bytes, |_| ())
            .map_err(|stop| stop.reason)
    };
    assert_eq!(decode(77, 1), Ok(()));
    assert_eq!(decode(77, 2), Ok(()));
    assert_eq!(
        decode(78, 1),
        Err(StopReason::SystemIdentifier(SystemIdentifier(77)))
    );
    assert_eq!(decode(77, 0), Err(StopReason::PageTimeline(TimelineId(1))));
    let mut other_size = Decoder::new(writer.start, SegmentSize::DEFAULT, None);
    let stop = other_size.feed(&writer.bytes, |_| ()).unwrap_err();
    // At another size this is not even the start of a segment; the header still gives it away.
    assert!(matches!(stop.reason, StopReason::Geometry { .. }));
}

/// A path may be longer than what is kept of every record.
#[test]
fn a_tablespace_that_is_made_is_read_with_its_place() {
    let place = format!("/srv/{}", "x".repeat(700));
    let mut writer = Writer::new(Lsn(0x3F_FFFE_0000));
    for path in ["/srv/fast", "", &place] {
        let mut content = 16407_u32.to_le_bytes().to_vec();
        content.extend(path.as_bytes());
        content.push(0);
        let length = u32::try_from(content.len()).unwrap();
        let mut data = match u8::try_from(length) {
            Ok(short) => vec![255, short],
            Err(_) => [&[254][..], &length.to_le_bytes()].concat(),
        };
        data.extend(content);
        writer.record(5, 0, &data);
        // One that is dropped.
        writer.record(5, 0x10, &[255, 4, 23, 64, 0, 0]);
    }
    for cut in [1, 700] {
        let mut decoder = Decoder::new(writer.start, writer.segment_size, None);
        let mut made = Vec::new();
        for piece in writer.bytes.chunks(cut) {
            let fed = decoder.feed(piece, |record| made.extend(record.created_tablespace));
            fed.unwrap();
        }
        let made: Vec<_> = made
            .iter()
            .map(|made| (made.number, made.location.to_str().unwrap()))
            .collect();
        assert_eq!(made, [(16407, "/srv/fast"), (16407, ""), (16407, &*place)]);
    }
}
