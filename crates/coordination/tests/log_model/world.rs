//! The primary, the two stores, the time, and trouble.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dr_coordination::Patience;
use dr_coordination::chain::{ChainId, CompactOptions, Error, Options, Section};
use dr_encryption::{Key, Keys};
use dr_model::{Epoch, Lsn, ManualClock, SegmentSize, SystemIdentifier, TimelineId};
use dr_provider::ErrorKind;
use dr_provider::decorate::{Fault, Rule};
use jiff::Timestamp;

use crate::dice::Dice;
use crate::place::Place;

pub(crate) const CLUSTER: SystemIdentifier = SystemIdentifier(7_300_000_000_000_000_001);

/// The shortest segments that PostgreSQL has.
const SEGMENT_BYTES: u32 = 1 << 20;

pub(crate) fn size() -> SegmentSize {
    SegmentSize::try_from(SEGMENT_BYTES).unwrap()
}

/// Where a timeline left the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fork {
    pub(crate) timeline: TimelineId,
    pub(crate) at: Lsn,
}

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) keys: Keys,
    pub(crate) boot: Arc<Mutex<Duration>>,
    pub(crate) places: [Place; 2],
    /// Where each timeline but the first began, oldest first.
    pub(crate) forks: Vec<Fork>,
    pub(crate) epoch: Epoch,
    /// Where the primary's log ends.
    pub(crate) end: Lsn,
    /// What is before this the primary does not have any more; archived segments are elsewhere.
    pub(crate) kept_from: Lsn,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let keys = match seed % 2 {
            0 => Keys::default(),
            _ => {
                let text = format!("dr-key1 {}", "7".repeat(64));
                Keys::new(vec![Key::parse(&text).unwrap()])
            }
        };
        let begin = Lsn(0x300_0000);
        Self {
            dice: Dice(seed),
            keys,
            boot: Arc::default(),
            places: [Place::new("here"), Place::new("there")],
            forks: Vec::new(),
            epoch: Epoch(1),
            end: begin.advance(1000),
            kept_from: begin,
        }
    }

    pub(crate) fn timeline(&self) -> TimelineId {
        let newest = self.forks.last().map(|fork| fork.timeline);
        newest.unwrap_or(TimelineId(1))
    }

    pub(crate) fn chain(&self) -> ChainId {
        ChainId {
            system_identifier: CLUSTER,
            timeline: self.timeline(),
            epoch: self.epoch,
        }
    }

    /// Returns what the primary wrote: every position of every timeline has its own byte.
    pub(crate) fn log(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> Bytes {
        let byte = |lsn: u64| {
            // Before its fork a timeline is the one that it left.
            let forks = self.forks.iter().filter(|fork| fork.timeline <= timeline);
            let passed = forks.filter(|fork| fork.at.0 <= lsn).count() as u64;
            let mixed = (lsn ^ (lsn >> 8).wrapping_mul(31)).wrapping_add(passed * 101);
            u8::try_from(mixed & 0xFF).unwrap()
        };
        (from.0..to.0).map(byte).collect()
    }

    pub(crate) fn section(timeline: TimelineId, from: Lsn, to: Lsn) -> Section {
        Section::new(CLUSTER, timeline, from, to)
    }

    pub(crate) fn patience() -> Patience {
        Patience {
            attempts: 2,
            timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::from_second(1_795_426_205).unwrap()
    }

    pub(crate) fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(Self::now()))
    }

    fn boot_time(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        let boot = Arc::clone(&self.boot);
        Arc::new(move || *boot.lock().unwrap())
    }

    pub(crate) fn writing(&self, name: &str) -> Options {
        Options {
            patience: Self::patience(),
            give_up_after: Some(2),
            keys: self.keys.clone(),
            boot_time: self.boot_time(),
            ..Options::new(name, Self::clock())
        }
    }

    pub(crate) fn compacting(&self) -> CompactOptions {
        CompactOptions {
            patience: Self::patience(),
            keys: self.keys.clone(),
            boot_time: self.boot_time(),
            ..CompactOptions::new("compact", Self::clock())
        }
    }

    /// Lets some time pass: now and then more than chunks are kept beside pieces.
    pub(crate) fn pass(&mut self) {
        let minutes = self.dice.below(40);
        *self.boot.lock().unwrap() += Duration::from_secs(minutes * 60);
    }

    /// Lets a store fail at some call, perhaps: once, or from there on, as after a crash. Tells whether it may.
    pub(crate) fn trouble(&mut self, place: usize) -> bool {
        if self.dice.once_in(2) {
            return false;
        }
        let fault = match self.dice.below(3) {
            0 => Fault::Before(ErrorKind::Unavailable),
            1 => Fault::Before(ErrorKind::Unknown),
            _ => Fault::After,
        };
        let skip = u32::try_from(self.dice.below(40)).unwrap();
        let mut rules = vec![Rule::all("*", fault).skip(skip).times(1)];
        if self.dice.once_in(2) {
            rules.push(Rule::all("*", Fault::Before(ErrorKind::Unavailable)).skip(skip));
        }
        self.places[place].faults.set_rules(rules);
        true
    }

    pub(crate) fn calm(&self, place: usize) {
        self.places[place].faults.set_rules(Vec::new());
    }
}

/// Whatever a store does wrong, nothing is damaged by it; without trouble there is no error at all.
pub(crate) fn judge<T>(result: Result<T, Error>, troubled: bool) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            assert!(troubled, "{error:?}");
            assert_ne!(error.kind(), ErrorKind::Corrupt, "{error:?}");
            None
        }
    }
}
