//! Sets of positions.

use dr_coordination::chain::Span;
use dr_model::Lsn;

/// Positions, as spans in order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    pub(crate) fn of(from: Lsn, to: Lsn) -> Self {
        let mut spans = Self::default();
        spans.add(from, to);
        spans
    }

    pub(crate) fn add(&mut self, from: Lsn, to: Lsn) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        self.0.retain(|span| {
            let touches = span.from <= to && from <= span.to;
            if touches {
                from = from.min(span.from);
                to = to.max(span.to);
            }
            !touches
        });
        self.0.push(Span { from, to });
        self.0.sort_unstable();
    }

    pub(crate) fn remove(&mut self, from: Lsn, to: Lsn) {
        let parts = std::mem::take(&mut self.0).into_iter().flat_map(|span| {
            let before = Span {
                from: span.from,
                to: span.to.min(from),
            };
            let behind = Span {
                from: span.from.max(to),
                to: span.to,
            };
            [before, behind]
        });
        self.0 = parts.filter(|span| span.from < span.to).collect();
    }

    /// Returns what is in this set and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for span in &other.0 {
            left.remove(span.from, span.to);
        }
        left
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Span> {
        self.0.iter().copied()
    }
}

#[test]
fn what_is_taken_away_leaves_what_is_beside_it() {
    let mut spans = Spans::of(Lsn(10), Lsn(20));
    spans.add(Lsn(30), Lsn(40));
    spans.add(Lsn(20), Lsn(25));
    spans.remove(Lsn(12), Lsn(14));
    let found: Vec<(u64, u64)> = spans.iter().map(|it| (it.from.0, it.to.0)).collect();
    assert_eq!(found, [(10, 12), (14, 25), (30, 40)]);
    let left = spans.without(&Spans::of(Lsn(11), Lsn(35)));
    let found: Vec<(u64, u64)> = left.iter().map(|it| (it.from.0, it.to.0)).collect();
    assert_eq!(found, [(10, 11), (35, 40)]);
}
