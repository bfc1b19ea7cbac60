//! Finds records in a stream of WAL bytes.
//!
//! Bytes come in pieces of any size, as the network delivers them; nothing is copied but each record's first bytes, and
//! all of the few whose content is of any length, and the checksum is computed as the pieces come, so that the cost is that of CRC-32C. A decoder stops for good at the
//! first byte that PostgreSQL's reader would not accept: everything it has handed out is before that.

use std::borrow::Cow;

use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

use super::ending::REST_BYTES;
use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, PageHeader, major_version};
use super::record::{CHECKSUM_OFFSET, HEAD_BYTES, HEADER_BYTES, Record, RecordHeader};

mod stop;
#[cfg(test)]
mod tests;

pub use stop::{Stop, StopReason};

/// Records begin at multiples of this (`MAXIMUM_ALIGNOF`).
const ALIGNMENT: u64 = 8;

/// Whose WAL it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline being read. Pages of its ancestors are accepted too: the segment in which a timeline begins starts
    /// with a copy of its parent's pages.
    pub timeline: TimelineId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing read yet, at a page boundary: the page may begin in the middle of a record.
    Start,
    /// In a record that began before the start; this many bytes of it are still to come.
    Before(u32),
    /// After a record, or in the padding behind it.
    Between,
    /// In the record that `Decoder::record` holds.
    Record,
    /// In the unused rest of a segment after a switch.
    Unused { until: Lsn },
}

/// A record that has begun and not yet ended.
#[derive(Clone, Debug)]
struct Open {
    start: Lsn,
    /// Known after four bytes; 0 before.
    total_bytes: u32,
    seen_bytes: u32,
    /// Over the bytes after the header.
    checksum: u32,
    head: [u8; HEAD_BYTES],
}

impl Open {
    fn at(start: Lsn) -> Self {
        Self {
            start,
            total_bytes: 0,
            seen_bytes: 0,
            checksum: 0,
            head: [0; HEAD_BYTES],
        }
    }

    fn seen(&self) -> usize {
        self.seen_bytes as usize
    }
}

/// Reads records out of a stream of WAL bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    segment_size: SegmentSize,
    expected: Option<Expected>,
    /// Position of the next byte.
    position: Lsn,
    state: State,
    record: Open,
    /// What of that record is kept behind its head.
    rest: Vec<u8>,
    /// The header of the current page while it is incomplete.
    header: [u8; LONG_HEADER_BYTES],
    header_bytes: usize,
    /// Whether the header of the page that holds `position` has been read.
    in_page: bool,
    magic: Option<u16>,
    timeline: Option<TimelineId>,
    /// Start and end of the last complete record.
    last: Option<(Lsn, Lsn)>,
    stop: Option<Stop>,
}

impl Decoder {
    /// Makes a decoder for the bytes from `start` on: the start of a page (best of a segment), where the rest of a record
    /// begun before is passed over, or the known start of a record.
    ///
    /// With `expected`, WAL of another cluster or of a later timeline ends the stream.
    #[must_use]
    pub fn new(start: Lsn, segment_size: SegmentSize, expected: Option<Expected>) -> Self {
        let on_page_boundary = start.0.is_multiple_of(PAGE_BYTES);
        Self {
            segment_size,
            expected,
            position: start,
            state: if on_page_boundary {
                State::Start
            } else {
                State::Between
            },
            record: Open::at(start),
            rest: Vec::new(),
            header: [0; LONG_HEADER_BYTES],
            header_bytes: 0,
            in_page: !on_page_boundary,
            magic: None,
            timeline: None,
            last: None,
            stop: None,
        }
    }

    /// Returns the position of the next byte to be fed; means nothing once the decoder has stopped.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Returns the end of the last complete record with a right checksum; `None` if there has been none yet.
    ///
    /// May be up to 7 bytes after [`position`](Self::position), and after a segment switch as much as a segment:
    /// PostgreSQL's replay position does not wait for padding.
    #[must_use]
    pub fn last_end(&self) -> Option<Lsn> {
        self.last.map(|(_, end)| end)
    }

    /// Returns the start of the record that has begun and not ended, if there is one.
    #[must_use]
    pub fn open_record(&self) -> Option<Lsn> {
        (self.state == State::Record).then_some(self.record.start)
    }

    /// Returns the major version of the server that wrote the pages seen; `None` before the first page header.
    #[must_use]
    pub fn major_version(&self) -> Option<u16> {
        self.magic.and_then(major_version)
    }

    /// Takes the next bytes and hands each record that they complete to `sink`, in order.
    ///
    /// Fails where WAL ends; every later call then fails in the same way.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(Record)) -> Result<(), Stop> {
        if let Some(stop) = &self.stop {
            return Err(stop.clone());
        }
        let result = self.advance(bytes, &mut sink);
        if let Err(stop) = &result {
            self.stop = Some(stop.clone());
        }
        result
    }

    fn advance(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let used = if let State::Unused { until } = self.state {
                let used = clamp(until.bytes_since(self.position), bytes.len());
                if self.position.advance(used as u64) == until {
                    self.state = State::Between;
                }
                used
            } else if !self.in_page {
                let used = self.take_header(bytes)?;
                bytes = &bytes[used..];
                continue;
            } else {
                let room = PAGE_BYTES - self.position.0 % PAGE_BYTES;
                let piece = &bytes[..clamp(room, bytes.len())];
                self.take_body(piece, sink)?
            };
            self.position = self.position.advance(used as u64);
            if self.position.0.is_multiple_of(PAGE_BYTES) {
                self.in_page = false;
            }
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Takes bytes of a page header and returns how many.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let mut used = 0;
        loop {
            let length = PageHeader::length(&self.header[..self.header_bytes]).unwrap_or(4);
            let missing = length - self.header_bytes;
            if missing == 0 {
                break;
            }
            let take = missing.min(bytes.len() - used);
            if take == 0 {
                self.position = self.position.advance(used as u64);
                return Ok(used);
            }
            self.header[self.header_bytes..self.header_bytes + take]
                .copy_from_slice(&bytes[used..used + take]);
            self.header_bytes += take;
            used += take;
        }
        let page = Lsn(self.position.0 - self.position.0 % PAGE_BYTES);
        let header = PageHeader::parse(&self.header[..self.header_bytes]);
        let entered = self.enter_page(page, &header);
        entered.map_err(|reason| Stop { at: page, reason })?;
        self.position = page.advance(self.header_bytes as u64);
        self.header_bytes = 0;
        self.in_page = true;
        Ok(used)
    }

    fn enter_page(&mut self, page: Lsn, header: &PageHeader) -> Result<(), StopReason> {
        if major_version(header.magic).is_none() || self.magic.is_some_and(|m| m != header.magic) {
            return Err(StopReason::PageMagic(header.magic));
        }
        let first = self.segment_size.offset_of(page) == 0;
        if !header.flags_known() || (first && header.identity.is_none()) {
            return Err(StopReason::PageFlags);
        }
        if let Some(identity) = header.identity {
            let cluster = identity.system_identifier;
            if self
                .expected
                .is_some_and(|e| e.system_identifier != cluster)
            {
                return Err(StopReason::SystemIdentifier(cluster));
            }
            let (segment_bytes, page_bytes) = (identity.segment_bytes, identity.page_bytes);
            if segment_bytes != u32::from(self.segment_size) || u64::from(page_bytes) != PAGE_BYTES
            {
                return Err(StopReason::Geometry {
                    segment_bytes,
                    page_bytes,
                });
            }
        }
        if header.address != page {
            return Err(StopReason::PageAddress {
                said: header.address,
            });
        }
        let timeline = header.timeline;
        if self.timeline.is_some_and(|before| timeline < before)
            || self.expected.is_some_and(|e| timeline > e.timeline)
        {
            return Err(StopReason::PageTimeline(timeline));
        }
        self.state = self.follow(header)?;
        self.magic = Some(header.magic);
        self.timeline = Some(timeline);
        Ok(())
    }

    /// Returns the state in which the body of a page begins.
    fn follow(&self, header: &PageHeader) -> Result<State, StopReason> {
        let expected_bytes = match self.state {
            State::Start if header.continues() => header.remaining_bytes,
            State::Before(remaining) => remaining,
            State::Record => self.record.total_bytes - self.record.seen_bytes,
            _ if header.continues() => return Err(StopReason::Continuation),
            _ => return Ok(State::Between),
        };
        // A server that crashed in the middle of a record gives it up and says so where the rest would have stood.
        if header.overwrites() {
            return Ok(State::Between);
        }
        if !header.continues() || expected_bytes == 0 || header.remaining_bytes != expected_bytes {
            return Err(StopReason::Continuation);
        }
        Ok(match self.state {
            State::Record => State::Record,
            _ => State::Before(expected_bytes),
        })
    }

    /// Takes bytes from within one page and returns how many.
    fn take_body(&mut self, piece: &[u8], sink: &mut impl FnMut(Record)) -> Result<usize, Stop> {
        match self.state {
            State::Before(remaining) => {
                let used = clamp(u64::from(remaining), piece.len());
                self.state = match remaining - bounded(used) {
                    0 => State::Between,
                    left => State::Before(left),
                };
                Ok(used)
            }
            State::Record => self.take_record(piece, sink),
            _ => {
                let padding = self.position.0.next_multiple_of(ALIGNMENT) - self.position.0;
                if padding > 0 {
                    return Ok(clamp(padding, piece.len()));
                }
                self.record = Open::at(self.position);
                self.rest.clear();
                self.state = State::Record;
                self.take_record(piece, sink)
            }
        }
    }

    fn take_record(&mut self, piece: &[u8], sink: &mut impl FnMut(Record)) -> Result<usize, Stop> {
        let at = self.record.start;
        let stop = |reason| Stop { at, reason };
        let mut used = 0;
        if self.record.seen() < HEADER_BYTES {
            used = self.keep_head(piece, HEADER_BYTES);
            if self.record.total_bytes == 0 && self.record.seen() >= 4 {
                let total_bytes = RecordHeader::parse(&self.record.head).total_bytes;
                match total_bytes {
                    0 => return Err(stop(StopReason::Unwritten)),
                    short if (short as usize) < HEADER_BYTES => {
                        return Err(stop(StopReason::RecordLength(short)));
                    }
                    _ => self.record.total_bytes = total_bytes,
                }
            }
            if self.record.seen() < HEADER_BYTES {
                return Ok(used);
            }
            self.check_header().map_err(stop)?;
        }
        let missing = self.record.total_bytes - self.record.seen_bytes;
        let data = &piece[used..used + clamp(u64::from(missing), piece.len() - used)];
        self.record.checksum = crc32c::crc32c_append(self.record.checksum, data);
        let kept = self.keep_head(data, HEAD_BYTES);
        self.record.seen_bytes += bounded(data.len() - kept);
        self.keep_rest(&data[kept..]);
        used += data.len();
        if self.record.seen_bytes == self.record.total_bytes {
            let record = self
                .finish(self.position.advance(used as u64))
                .map_err(stop)?;
            sink(record);
        }
        Ok(used)
    }

    /// Copies bytes to the kept head up to `limit` and counts them as seen; returns how many.
    fn keep_head(&mut self, bytes: &[u8], limit: usize) -> usize {
        let seen = self.record.seen();
        let take = limit.saturating_sub(seen).min(bytes.len());
        self.record.head[seen.min(limit)..seen.min(limit) + take].copy_from_slice(&bytes[..take]);
        self.record.seen_bytes += bounded(take);
        take
    }

    /// Keeps what stands behind the head of a record that is kept whole.
    fn keep_rest(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && RecordHeader::parse(&self.record.head).is_kept_whole() {
            let room = REST_BYTES.saturating_sub(self.rest.len());
            self.rest.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }

    fn check_header(&self) -> Result<(), StopReason> {
        let header = RecordHeader::parse(&self.record.head);
        if !header.manager_known() {
            return Err(StopReason::ResourceManager(header.resource_manager));
        }
        let follows = match self.last {
            Some((start, _)) => header.previous == start,
            None => header.previous < self.record.start,
        };
        if follows {
            Ok(())
        } else {
            Err(StopReason::PreviousRecord {
                said: header.previous,
            })
        }
    }

    /// Ends the open record, whose last byte is before `data_end`.
    fn finish(&mut self, data_end: Lsn) -> Result<Record, StopReason> {
        let head = &self.record.head;
        let header = RecordHeader::parse(head);
        let checksum = crc32c::crc32c_append(self.record.checksum, &head[..CHECKSUM_OFFSET]);
        if checksum != header.checksum {
            return Err(StopReason::Checksum);
        }
        let mut end = Lsn(data_end.0.next_multiple_of(ALIGNMENT));
        self.state = State::Between;
        if header.is_switch() {
            end = Lsn(end.0.next_multiple_of(self.segment_size.bytes()));
            if end != data_end {
                self.state = State::Unused { until: end };
            }
        }
        self.last = Some((self.record.start, end));
        let known = &head[..self.record.seen().min(HEAD_BYTES)];
        // Read in the middle of a page, the version shows at the next: until then no ending is read.
        let kept = match self.rest.as_slice() {
            [] => Cow::Borrowed(known),
            rest => Cow::Owned([known, rest].concat()),
        };
        let ending = self
            .major_version()
            .and_then(|version| header.ending(&kept, version));
        Ok(Record {
            start: self.record.start,
            end,
            resource_manager: header.resource_manager,
            info: header.info,
            transaction: header.transaction,
            committed_at: header.committed_at(known),
            ending,
            next_transaction: header.next_transaction(known),
            restore_point: header.restore_point(known),
            wal_level: header.wal_level(known),
            relation: header.relation(known),
            created_tablespace: header.created_tablespace(&kept),
        })
    }
}

/// Returns the smaller of a number of bytes wanted and a number there.
fn clamp(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).map_or(there, |wanted| wanted.min(there))
}

/// Narrows a number of bytes within one page.
fn bounded(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a page has 8192 bytes")
}
