//! What must hold after every operation.

use std::sync::Arc;
use std::time::Duration;

use dr_coordination::chain::{ChainReader, Error, Span, available, find_tail, open_gaps_of, prove};
use dr_model::TimelineId;

use crate::spans::Spans;
use crate::world::{CLUSTER, World};

/// How much is read back after an operation.
const SAMPLE_BYTES: u64 = 300 << 10;

impl World {
    pub(crate) async fn check(&mut self) {
        for place in 0..self.places.len() {
            let timelines: Vec<TimelineId> = self.places[place].known.keys().copied().collect();
            for timeline in timelines {
                let there = self.check_names(place, timeline).await;
                let parts: Vec<Span> = there.iter().collect();
                if let Some(part) = self.dice.one_of(&parts) {
                    let from = part.from.advance(self.dice.below(part.log_bytes()));
                    let to = part.to.min(from.advance(1 + self.dice.below(SAMPLE_BYTES)));
                    self.read(place, timeline, Span { from, to }).await;
                }
            }
            // Nothing acknowledged lies behind the tail of the chain that is written.
            let chain = self.chain();
            let known = self.places[place].known.get(&chain.timeline);
            let tail = find_tail(&*self.places[place].inner, &chain, Self::patience()).await;
            if let (Some(tail), Some(known)) = (tail.unwrap(), known) {
                assert!(known.acknowledged <= tail.end, "{known:?} {tail:?}");
            }
        }
    }

    /// Checks that what was promised is there, and that what is not is known to be missing; returns what is there.
    async fn check_names(&self, place: usize, timeline: TimelineId) -> Spans {
        let (at, known) = (&self.places[place], &self.places[place].known[&timeline]);
        let (begin, end) = (known.begin, known.acknowledged);
        let whole = Self::section(timeline, begin, end);
        let parts = available(&*at.inner, whole, Self::patience()).await;
        let mut there = Spans::default();
        for part in parts.unwrap() {
            there.add(part.from.max(begin), part.to.min(end));
        }
        let missing = Spans::of(begin, end).without(&there);
        let unexplained = missing.without(&known.lost).without(&known.given_up);
        assert!(
            unexplained.is_empty(),
            "{}: {unexplained:?} {known:?}",
            at.name
        );
        for span in known.promised().iter() {
            let section = Self::section(timeline, span.from, span.to);
            prove(&*at.inner, section, Self::patience()).await.unwrap();
        }
        // Whoever would read across a hole is told where it is.
        if let Some(hole) = missing.iter().next() {
            match prove(&*at.inner, whole, Self::patience()).await {
                Err(Error::Hole { from, .. }) => assert_eq!(from, hole.from),
                other => panic!("{other:?} for {hole:?}"),
            }
        }
        let gaps = open_gaps_of(&*at.inner, CLUSTER, timeline, Self::patience()).await;
        let gaps = gaps.unwrap();
        let lost = missing.without(&known.given_up);
        assert!(
            lost.is_empty() || !gaps.is_empty(),
            "{lost:?} is in no record"
        );
        for gap in gaps.iter().filter(|gap| gap.from < end) {
            let to = gap.to.unwrap_or(end).min(end);
            let really = Spans::of(gap.from.max(begin), to).without(&there);
            assert!(
                gap.from < begin || !really.is_empty(),
                "{gap:?} is not missing"
            );
        }
        there
    }

    /// Reads back; it has to be what was written.
    async fn read(&self, place: usize, timeline: TimelineId, span: Span) {
        let section = Self::section(timeline, span.from, span.to);
        let store = Arc::clone(&self.places[place].inner);
        let reader = ChainReader::open(store, section, Self::patience()).await;
        let mut reader = reader.unwrap().with_keys(&self.keys);
        let found = reader.read_to_end().await.unwrap();
        assert!(found == self.log(timeline, span.from, span.to), "{span:?}");
    }

    /// In the end everything is compacted, and all of what was promised is read.
    pub(crate) async fn settle(&mut self) {
        for place in 0..self.places.len() {
            for _ in 0..3 {
                self.compact_all(place, false).await;
                *self.boot.lock().unwrap() += Duration::from_secs(3700);
            }
            let timelines: Vec<TimelineId> = self.places[place].known.keys().copied().collect();
            for timeline in timelines {
                self.check_names(place, timeline).await;
                for span in self.places[place].known[&timeline].promised().iter() {
                    self.read(place, timeline, span).await;
                }
            }
        }
    }
}
