//! What is done at random.

use std::sync::Arc;

use bytes::Bytes;
use dr_coordination::Actor;
use dr_coordination::chain::{
    ChainReader, ChainWriter, Chunk, Error, Facts, GapRecord, LogExpiry, Needed, PieceFacts,
    SealRequest, Span, available, bounds, expire_log, fill, find_tail, pass_over, plan_log_expiry,
    read_history, record_gap, seal, write_history,
};
use dr_model::{Epoch, Lsn, TimelineId};
use dr_provider::ErrorKind;

use crate::spans::Spans;
use crate::world::{CLUSTER, Fork, World, judge, size};

/// How long chunks are at most: of few clients, and of many. Of short ones there are soon more than compaction leaves.
const CHUNK_BYTES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];

/// The most that a receiver sends before it goes.
const CHUNKS: u64 = 400;

impl World {
    /// The primary writes.
    pub(crate) fn write(&mut self) {
        self.end = self.end.advance(1 + self.dice.below(2 << 20));
    }

    /// A receiver connects, and stores what the primary has, perhaps not all of it.
    pub(crate) async fn stream(&mut self, place: usize) {
        let troubled = self.trouble(place);
        let opened = self.open(place, "stream").await;
        if let Some(mut writer) = judge(opened, troubled) {
            let chunks = 1 + self.dice.below(CHUNKS);
            self.send(place, &mut writer, (chunks, self.end), troubled)
                .await;
            if self.dice.once_in(4) {
                self.places[place].sleeper = Some(writer);
            }
        }
        self.calm(place);
    }

    /// A receiver that slept sends what it had in mind.
    pub(crate) async fn wake(&mut self, place: usize) {
        let Some(mut writer) = self.places[place].sleeper.take() else {
            return;
        };
        self.trouble(place);
        let chain = writer.chain();
        if chain == self.chain() {
            let chunks = 1 + self.dice.below(4);
            // What it knew may have grown too old, and somebody else may have cut the log in another way.
            self.send(place, &mut writer, (chunks, self.end), true)
                .await;
        } else {
            let more = writer.end().advance(100);
            let chunk = self.chunk(chain.timeline, writer.end(), more);
            if writer.push(chunk).await.is_ok() {
                assert!(writer.flush().await.is_err(), "{chain} is sealed");
            }
            let sealed = self.places[place].sealed[&chain];
            assert!(writer.durable() <= sealed, "{chain} {sealed}");
        }
        self.calm(place);
    }

    /// The server archives a segment.
    pub(crate) async fn push(&mut self, place: usize) {
        let timeline = self.timeline();
        let first = size().start_of(self.first(timeline));
        let whole = self.end.bytes_since(first) / size().bytes();
        if whole == 0 {
            return;
        }
        let start = first.advance(self.dice.below(whole) * size().bytes());
        let end = start.advance(size().bytes());
        let troubled = self.trouble(place);
        let pushed = self.push_segment(place, (start, end)).await;
        self.calm(place);
        if judge(pushed, troubled) == Some(true)
            && let Some(known) = self.places[place].known.get_mut(&timeline)
        {
            known.lost.remove(start, end);
            known.given_up.remove(start, end);
            known.acknowledged = known.acknowledged.max(end);
        }
    }

    /// As `wal push` does it: compares what is there, fills holes, appends the rest. False if the segment has no place in the log.
    async fn push_segment(
        &mut self,
        place: usize,
        (start, end): (Lsn, Lsn),
    ) -> Result<bool, Error> {
        let (store, timeline) = (Arc::clone(&self.places[place].store), self.timeline());
        let Some(outer) = bounds(&*store, CLUSTER, timeline, Self::patience()).await? else {
            let options = self.writing("push");
            let writer = ChainWriter::open(store, self.chain(), start, options).await?;
            return self.append(place, writer, (start, end)).await;
        };
        if start < outer.from || outer.to < start {
            return Ok(false);
        }
        let known = outer.to.min(end);
        self.fill_holes(place, timeline, (start, known)).await?;
        if known < end {
            let options = self.writing("push");
            let writer = ChainWriter::open(store, self.chain(), known, options).await?;
            return self.append(place, writer, (known, end)).await;
        }
        Ok(true)
    }

    async fn append(
        &mut self,
        place: usize,
        mut writer: ChainWriter,
        (from, to): (Lsn, Lsn),
    ) -> Result<bool, Error> {
        if writer.end() != from {
            return Ok(false);
        }
        self.places[place].acknowledge(self.timeline(), from, from);
        while writer.end() < to {
            let next = to.min(writer.end().advance(CHUNK_BYTES[2]));
            let chunk = self.chunk(self.timeline(), writer.end(), next);
            writer.push(chunk).await?;
        }
        writer.flush().await?;
        Ok(true)
    }

    /// Puts what is missing between two positions into a store as pieces.
    async fn fill_holes(
        &mut self,
        place: usize,
        timeline: TimelineId,
        (from, to): (Lsn, Lsn),
    ) -> Result<(), Error> {
        let store = Arc::clone(&self.places[place].store);
        let section = Self::section(timeline, from, to);
        let mut missing = Spans::of(from, to);
        for part in available(&*store, section, Self::patience()).await? {
            missing.remove(part.from, part.to);
        }
        for hole in missing.iter() {
            let log = self.log(timeline, hole.from, hole.to);
            self.fill(place, timeline, hole, &log).await?;
        }
        Ok(())
    }

    async fn fill(
        &self,
        place: usize,
        timeline: TimelineId,
        hole: Span,
        log: &Bytes,
    ) -> Result<(), Error> {
        let facts = PieceFacts {
            epochs: vec![self.epoch],
            commits: 1,
            last_commit_at: None,
            received_at: Self::now(),
        };
        fill(
            &*self.places[place].store,
            (CLUSTER, timeline),
            hole.from,
            log,
            &facts,
            ("fill", &self.keys),
            Self::patience(),
        )
        .await
    }

    /// Compacts every timeline.
    pub(crate) async fn compact(&mut self, place: usize) {
        let troubled = self.trouble(place);
        self.compact_all(place, troubled).await;
        self.calm(place);
    }

    pub(crate) async fn compact_all(&mut self, place: usize, troubled: bool) {
        let options = self.compacting();
        let at = &mut self.places[place];
        let timelines: Vec<TimelineId> = at.known.keys().copied().collect();
        for timeline in timelines {
            let run = at
                .compactor
                .run(&at.store, CLUSTER, timeline, size(), &options);
            judge(run.await, troubled);
        }
    }

    /// The process that compacts starts anew, and forgets since when it has seen what.
    pub(crate) fn restart(&mut self, place: usize) {
        self.places[place].compactor = dr_coordination::chain::Compactor::default();
    }

    /// Gives up the beginning of a timeline's log, but for a part that is needed.
    pub(crate) async fn expire(&mut self, place: usize) {
        let timelines: Vec<TimelineId> = self.places[place].known.keys().copied().collect();
        let Some(timeline) = self.dice.one_of(&timelines) else {
            return;
        };
        let known = self.places[place].known[&timeline].clone();
        let length = known.acknowledged.bytes_since(known.begin);
        let mut position = || known.begin.advance(self.dice.below(length));
        let (from, to) = (position(), position());
        let spans = match from < to {
            true => vec![Span { from, to }],
            false => Vec::new(),
        };
        // Mostly of what is newest, and now and then nothing but the part.
        let from = match self.dice.below(3) {
            0 => None,
            1 => Some(known.acknowledged),
            _ => Some(known.begin.advance(self.dice.below(length))),
        };
        let needed = Needed { from, spans };
        let troubled = self.trouble(place);
        let store = Arc::clone(&self.places[place].store);
        let planned = plan_log_expiry(
            &*store,
            CLUSTER,
            timeline,
            size(),
            &needed,
            Self::patience(),
        );
        if let Some(plan) = judge(planned.await, troubled) {
            self.note_given_up(place, timeline, &plan, &needed);
            let clock: Arc<dyn dr_model::Clock> = Self::clock();
            let done = expire_log(&*store, &plan, &clock, "expire", Self::patience()).await;
            judge(done, troubled);
        }
        self.calm(place);
    }

    fn note_given_up(
        &mut self,
        place: usize,
        timeline: TimelineId,
        plan: &LogExpiry,
        needed: &Needed,
    ) {
        let known = self.places[place].known.get_mut(&timeline).unwrap();
        for piece in &plan.pieces {
            let is_older = needed.from.is_none_or(|from| piece.to <= from);
            assert!(is_older, "{plan:?} {needed:?}");
            for span in &needed.spans {
                assert!(piece.to <= span.from || span.to <= piece.from, "{plan:?}");
            }
            known.given_up.add(piece.from, piece.to);
        }
    }

    /// The primary drops log that a store does not have yet: that is recorded, and the chain goes on behind it.
    pub(crate) async fn drop_log(&mut self, place: usize) {
        let (chain, timeline) = (self.chain(), self.timeline());
        self.kept_from = self.kept_from.max(size().start_of(self.end));
        let to = self.kept_from;
        let inner = Arc::clone(&self.places[place].inner);
        let tail = async || {
            let found = find_tail(&*inner, &chain, Self::patience()).await;
            found.unwrap()
        };
        let Some(before) = tail().await.filter(|tail| tail.end < to) else {
            return;
        };
        // What is under way by who slept would land in between.
        self.places[place].sleeper = None;
        let gap = GapRecord {
            version: dr_coordination::chain::FORMAT_VERSION,
            system_identifier: CLUSTER,
            timeline,
            from: before.end,
            to: Some(to),
            found_at: Self::now(),
            by: "drop".to_owned(),
            why: "a test".to_owned(),
        };
        let troubled = self.trouble(place);
        let store = Arc::clone(&self.places[place].store);
        let passed = async {
            record_gap(&*store, &gap, Self::patience()).await?;
            let by = (Self::now(), "drop");
            pass_over(&*store, &chain, before.end, to, by, Self::patience()).await
        };
        judge(passed.await, troubled);
        self.calm(place);
        // Whoever did not hear the answer looks.
        if tail().await.is_some_and(|after| after.end == to) {
            self.places[place].acknowledge(timeline, before.origin.start_lsn, to);
            let known = self.places[place].known.get_mut(&timeline).unwrap();
            known.lost.add(before.end, to);
        }
    }

    /// A store gets from the other what it lacks and that has.
    pub(crate) async fn carry(&mut self, place: usize) {
        let timelines: Vec<TimelineId> = self.places[place].known.keys().copied().collect();
        let Some(timeline) = self.dice.one_of(&timelines) else {
            return;
        };
        let lacking: Vec<Span> = self.places[place].known[&timeline].lost.iter().collect();
        let Some(hole) = self.dice.one_of(&lacking) else {
            return;
        };
        let troubled = [self.trouble(0), self.trouble(1)].contains(&true);
        let other = Arc::clone(&self.places[1 - place].store);
        let section = Self::section(timeline, hole.from, hole.to);
        let there = available(&*other, section, Self::patience()).await;
        for part in judge(there, troubled).unwrap_or_default() {
            let (from, to) = (part.from.max(hole.from), part.to.min(hole.to));
            let section = Self::section(timeline, from, to);
            let carried = async {
                let reader = ChainReader::open(Arc::clone(&other), section, Self::patience());
                let log = reader.await?.with_keys(&self.keys).read_to_end().await?;
                let span = Span { from, to };
                self.fill(place, timeline, span, &Bytes::from(log)).await
            };
            if judge(carried.await, troubled).is_some() {
                let known = self.places[place].known.get_mut(&timeline).unwrap();
                known.lost.remove(from, to);
            }
        }
        self.calm(0);
        self.calm(1);
    }

    /// The epoch ends: its chains are sealed, and the next goes on with the timeline or leaves it.
    pub(crate) async fn end_epoch(&mut self) {
        let (chain, timeline) = (self.chain(), self.timeline());
        let successor = Epoch(self.epoch.0 + 1);
        let mut ends = [Lsn::INVALID; 2];
        for (place, end) in ends.iter_mut().enumerate() {
            let known = self.places[place].known.get(&timeline);
            let acknowledged = known.map(|known| known.acknowledged);
            let request = SealRequest {
                successor,
                execution: None,
                actor: Actor::new("test", "localhost", 1),
                at: Self::now(),
                origin_if_empty: acknowledged.unwrap_or(self.first(timeline)),
            };
            let troubled = self.trouble(place);
            let store = Arc::clone(&self.places[place].store);
            let mut sealed = seal(&*store, &chain, &request, Self::patience()).await;
            if let Err(error) = &sealed {
                assert!(troubled && error.kind() != ErrorKind::Corrupt, "{error:?}");
            }
            self.calm(place);
            if sealed.is_err() {
                sealed = seal(&*store, &chain, &request, Self::patience()).await;
            }
            *end = sealed.unwrap().lsn;
            assert!(Some(*end) >= acknowledged, "{end} {acknowledged:?}");
            self.places[place].sealed.insert(chain, *end);
            // What was durable and not acknowledged is promised by the seal.
            if let Some(known) = self.places[place].known.get_mut(&timeline) {
                known.acknowledged = known.acknowledged.max(*end);
            }
        }
        self.epoch = successor;
        if self.dice.once_in(2) {
            return;
        }
        // The one that comes up was promoted at the end of one of the stores.
        let at = self.dice.one_of(&ends).unwrap();
        let next = TimelineId(timeline.0 + 1);
        self.forks.push(Fork { timeline: next, at });
        self.end = at.advance(1 + self.dice.below(1000));
        self.kept_from = size().start_of(at);
        let history: String = self
            .forks
            .iter()
            .map(|fork| format!("{}\t{}\ttest\n", fork.timeline.0 - 1, fork.at))
            .collect();
        for place in &self.places {
            let content = Bytes::from(history.clone());
            let written = write_history(&*place.inner, CLUSTER, next, content.clone()).await;
            written.unwrap();
            let read = read_history(&*place.inner, CLUSTER, next).await.unwrap();
            assert_eq!(read, Some(content));
        }
    }

    /// Returns the first position of a timeline's log: that of the segment in which it left the one before.
    fn first(&self, timeline: TimelineId) -> Lsn {
        let fork = self.forks.iter().find(|fork| fork.timeline == timeline);
        fork.map_or(Lsn(0x300_0000), |fork| size().start_of(fork.at))
    }

    async fn open(&self, place: usize, name: &str) -> Result<ChainWriter, Error> {
        let (store, timeline) = (Arc::clone(&self.places[place].store), self.timeline());
        let outer = bounds(&*store, CLUSTER, timeline, Self::patience()).await?;
        let origin = outer.map_or(self.first(timeline).max(self.kept_from), |outer| outer.to);
        ChainWriter::open(store, self.chain(), origin, self.writing(name)).await
    }

    /// Sends chunks from where a writer stands, and notes what is durable of them, whether or not the writer goes on.
    async fn send(
        &mut self,
        place: usize,
        writer: &mut ChainWriter,
        (chunks, until): (u64, Lsn),
        troubled: bool,
    ) {
        let timeline = writer.chain().timeline;
        let begin = writer.end();
        let longest = self.dice.one_of(&CHUNK_BYTES).unwrap();
        let sent = async {
            for _ in 0..chunks {
                // The primary sends what it still has.
                if writer.end() >= until || writer.end() < self.kept_from {
                    break;
                }
                let length = 1 + self.dice.below(longest);
                let to = until.min(writer.end().advance(length));
                let chunk = self.chunk(timeline, writer.end(), to);
                writer.push(chunk).await?;
            }
            writer.flush().await
        };
        judge(sent.await, troubled);
        if writer.durable() > begin {
            self.places[place].acknowledge(timeline, begin, writer.durable());
        }
    }

    fn chunk(&self, timeline: TimelineId, from: Lsn, to: Lsn) -> Chunk {
        Chunk {
            start: from,
            log: self.log(timeline, from, to),
            facts: Facts {
                commits: 1,
                last_commit_at: Some(Self::now()),
                received_at: Self::now(),
                primary_end: self.end,
                promise: None,
            },
        }
    }
}
