//! When the next chunk is cut.
//!
//! Several chunks are under way at once, and what arrives meanwhile waits to be part of the next: the slower the store, the
//! longer the chunks, and the fewer. While commits wait, or once a chunk is long enough to be worth its request, the next one goes
//! as soon as a place is free and the share of one place in the time that a chunk takes has passed. Without the latter all places
//! were taken by the first few commits, and everybody else waited for a whole answer of the store; and a store that answers at once
//! would get a chunk for each commit.

use std::collections::VecDeque;
use std::time::Duration;

use dr_model::Lsn;

use super::cutter::FULL_BYTES;

/// Chunks under way at once; what the chain's writer takes too.
pub(super) const UNDER_WAY: usize = 8;

/// A chunk is cut when its first byte is this old, whoever waits.
pub(super) const OLD: Duration = Duration::from_millis(250);

/// A chunk of so much log goes as if commits waited for it.
const WORTH_BYTES: usize = 1 << 20;

/// How much a single answer changes what is thought of the store: one part in so many.
const MEMORY: u32 = 8;

/// What waits to be cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Monotonic time at which its first byte arrived.
    pub(super) since: Duration,
    /// How much it is.
    pub(super) bytes: usize,
}

/// Follows what is under way, and how long that takes.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Ends of the chunks that are not durable yet, and when they were cut.
    under_way: VecDeque<(Lsn, Duration)>,
    /// How long a chunk is usually under way.
    took: Option<Duration>,
    cut_at: Option<Duration>,
}

impl Pace {
    /// Notes that a chunk that ends at `end` was cut.
    pub(super) fn cut(&mut self, end: Lsn, now: Duration) {
        self.under_way.push_back((end, now));
        self.cut_at = Some(now);
    }

    /// Notes that everything before `durable` is.
    pub(super) fn durable(&mut self, durable: Lsn, now: Duration) {
        while let Some(&(end, cut_at)) = self.under_way.front() {
            if end > durable {
                break;
            }
            self.under_way.pop_front();
            let took = now.saturating_sub(cut_at);
            self.took = Some(match self.took {
                None => took,
                Some(before) => before - before / MEMORY + took / MEMORY,
            });
        }
    }

    /// Returns how long `waiting` has to wait still, given whether commits wait for it; `None` while no place is free.
    pub(super) fn due_in(
        &self,
        waiting: Waiting,
        commits_wait: bool,
        now: Duration,
    ) -> Option<Duration> {
        if self.under_way.len() >= UNDER_WAY {
            return None;
        }
        if waiting.bytes >= FULL_BYTES {
            return Some(Duration::ZERO);
        }
        let by_age = waiting.since + OLD;
        let due = if commits_wait || waiting.bytes >= WORTH_BYTES {
            by_age.min(self.next_turn())
        } else {
            by_age
        };
        Some(due.saturating_sub(now))
    }

    /// Returns when the next chunk may be cut while commits wait.
    fn next_turn(&self) -> Duration {
        match (self.cut_at, self.took) {
            (Some(cut_at), Some(took)) if !self.under_way.is_empty() => {
                cut_at + took / u32::try_from(UNDER_WAY).unwrap_or(u32::MAX)
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn waiting(since: u64) -> Waiting {
        Waiting {
            since: milliseconds(since),
            bytes: 100,
        }
    }

    /// A store whose last answers all took 80 ms, and nothing under way at 1,000 ms.
    fn settled() -> Pace {
        let mut pace = Pace::default();
        for at in [100, 200, 300] {
            pace.cut(Lsn(at), milliseconds(at));
            pace.durable(Lsn(at), milliseconds(at + 80));
        }
        assert_eq!(pace.took, Some(milliseconds(80)));
        pace
    }

    #[test]
    fn nobody_waits_and_a_chunk_gathers() {
        let pace = settled();
        let due = |now| pace.due_in(waiting(1000), false, milliseconds(now));
        assert_eq!(due(1000), Some(OLD));
        assert_eq!(due(1100), Some(milliseconds(150)));
        assert_eq!(due(1300), Some(Duration::ZERO));
    }

    #[test]
    fn what_fills_a_chunk_goes_at_once() {
        let full = Waiting {
            since: milliseconds(1000),
            bytes: FULL_BYTES,
        };
        assert_eq!(
            settled().due_in(full, false, milliseconds(1000)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn what_is_worth_it_goes_in_even_steps_too() {
        let mut pace = settled();
        let worth = Waiting {
            since: milliseconds(1000),
            bytes: WORTH_BYTES,
        };
        let due = |pace: &Pace| pace.due_in(worth, false, milliseconds(1000));
        assert_eq!(due(&pace), Some(Duration::ZERO));
        pace.cut(Lsn(1000), milliseconds(998));
        assert_eq!(due(&pace), Some(milliseconds(8)));
    }

    #[test]
    fn the_first_commit_goes_at_once_and_the_next_ones_in_even_steps() {
        let mut pace = settled();
        let at_once = Some(Duration::ZERO);
        assert_eq!(
            pace.due_in(waiting(1000), true, milliseconds(1000)),
            at_once
        );
        pace.cut(Lsn(1000), milliseconds(1000));
        let due = |pace: &Pace, now| pace.due_in(waiting(1001), true, milliseconds(now));
        assert_eq!(due(&pace, 1001), Some(milliseconds(9)));
        assert_eq!(due(&pace, 1010), at_once);
        // Its answer came: nobody has to wait for a turn.
        pace.durable(Lsn(1000), milliseconds(1002));
        assert_eq!(due(&pace, 1002), at_once);
    }

    #[test]
    fn without_a_free_place_everything_waits() {
        let mut pace = settled();
        for at in 1000..1008 {
            pace.cut(Lsn(at), milliseconds(at));
        }
        let full = Waiting {
            since: milliseconds(1000),
            bytes: FULL_BYTES,
        };
        assert_eq!(pace.due_in(full, true, milliseconds(5000)), None);
        // Only the contiguous part counts, in order.
        pace.durable(Lsn(1000), milliseconds(5000));
        assert_eq!(
            pace.due_in(full, true, milliseconds(5000)),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_slow_store_gets_longer_chunks_up_to_an_age() {
        let mut pace = settled();
        pace.cut(Lsn(1000), milliseconds(1000));
        pace.durable(Lsn(1000), milliseconds(60_000));
        pace.cut(Lsn(2000), milliseconds(60_000));
        let due = pace.due_in(waiting(60_001), true, milliseconds(60_001));
        assert_eq!(due, Some(OLD));
    }
}
