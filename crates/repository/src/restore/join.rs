//! Joining what a file takes from one frame.
//!
//! Each incremental backup replaces pages here and there, so that the frame of 1 MiB that the full one stored comes as a dozen
//! stretches with single pages between them, which are in other frames. Writing each stretch by itself takes several times what
//! writing the frame does. So stretches of one frame that are near each other, and as far apart in the frame as in the file, become
//! one piece, with the old pages between them; the new pages are written over these afterwards, when all other pieces are there.

use std::collections::VecDeque;

use super::piece::{Piece, When};

/// Most bytes that are written in vain for the sake of one write.
const HOLE_BYTES: u64 = 64 << 10;

/// The pieces of one file, in order, of which the last may still be joined.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// Pieces that end within reach, in the order of their positions.
    recent: VecDeque<Piece>,
}

impl Joiner {
    /// Takes the next piece of the file; gives out what is decided.
    pub(super) fn push<E>(
        &mut self,
        piece: Piece,
        mut out: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(first) = self.recent.front()
            && first.end() + HOLE_BYTES < piece.position
            && let Some(first) = self.recent.pop_front()
        {
            out(first)?;
        }
        let goes_on = |one: &Piece| one.goes_on_as(&piece);
        // What is written over something must not have something written over itself: there are two turns, not three.
        let at = self.recent.iter().rposition(goes_on).filter(|at| {
            let mut between = self.recent.iter().skip(at + 1);
            between.all(|one| one.when != When::Under)
        });
        let Some(at) = at else {
            self.recent.push_back(piece);
            return Ok(());
        };
        for mut between in self.recent.drain(at + 1..) {
            between.when = When::Over;
            out(between)?;
        }
        if let Some(joined) = self.recent.back_mut() {
            if joined.end() < piece.position {
                joined.when = When::Under;
            }
            joined.bytes = u32::try_from(piece.end() - joined.position)
                .expect("a frame is no longer than that");
        }
        Ok(())
    }

    /// Gives out the rest: what follows is zeros, or there is no more.
    pub(super) fn finish<E>(&mut self, out: impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        self.recent.drain(..).try_for_each(out)
    }
}

impl Piece {
    /// Returns where it ends in the file.
    fn end(&self) -> u64 {
        self.position + u64::from(self.bytes)
    }

    /// Tells whether another is a later part of the same frame, as far behind it there as in the file.
    fn goes_on_as(&self, later: &Self) -> bool {
        (self.frame.pack, self.frame.offset) == (later.frame.pack, later.frame.offset)
            && later.from > self.from
            && u64::from(later.from - self.from) == later.position - self.position
            && later.position.saturating_sub(self.end()) <= HOLE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hash;
    use crate::manifest::Frame;

    use proptest::prelude::*;

    const PAGE: u32 = 8192;

    fn piece(offset: u64, from: u32, pages: u32, position: u64) -> Piece {
        Piece {
            frame: Frame {
                pack: 0,
                offset,
                stored_bytes: 1,
                plain_bytes: 128 * PAGE,
                hash: Hash::of(b""),
            },
            from: from * PAGE,
            bytes: pages * PAGE,
            position: position * u64::from(PAGE),
            when: When::Alone,
            at: "file".to_owned(),
        }
    }

    fn join(pieces: Vec<Piece>) -> Vec<Piece> {
        let mut joiner = Joiner::default();
        let mut out = Vec::new();
        let mut note = |piece| {
            out.push(piece);
            Ok::<_, ()>(())
        };
        for piece in pieces {
            joiner.push(piece, &mut note).unwrap();
        }
        joiner.finish(note).unwrap();
        out
    }

    fn told(pieces: Vec<Piece>) -> Vec<(u64, u64, u32, When)> {
        let said = |piece: Piece| {
            let page = u64::from(PAGE);
            let position = piece.position / page;
            (piece.frame.offset, position, piece.bytes / PAGE, piece.when)
        };
        let mut told: Vec<_> = join(pieces).into_iter().map(said).collect();
        told.sort_by_key(|(offset, position, ..)| (*position, *offset));
        told
    }

    #[test]
    fn stretches_of_a_frame_become_one_and_what_is_between_is_written_over_it() {
        use When::{Alone, Over, Under};
        let pieces = vec![
            piece(1, 0, 10, 0),
            piece(9, 0, 1, 10),
            piece(1, 11, 20, 11),
            piece(9, 1, 2, 31),
            piece(1, 33, 95, 33),
            piece(2, 0, 128, 128),
        ];
        let expected = [
            (1, 0, 128, Under),
            (9, 10, 1, Over),
            (9, 31, 2, Over),
            (2, 128, 128, Alone),
        ];
        assert_eq!(told(pieces), expected);
    }

    #[test]
    fn what_is_far_apart_or_elsewhere_in_the_frame_stays_as_it_is() {
        use When::Alone;
        let pieces = vec![
            piece(1, 0, 10, 0),
            piece(9, 0, 9, 10),
            piece(1, 19, 5, 19),
            piece(1, 30, 5, 24),
        ];
        let expected = [
            (1, 0, 10, Alone),
            (9, 10, 9, Alone),
            (1, 19, 5, Alone),
            (1, 24, 5, Alone),
        ];
        assert_eq!(told(pieces), expected);
    }

    proptest! {
        /// Whatever is joined, every page gets what it would have got, if all that is written over comes second.
        #[test]
        fn every_page_comes_out_the_same(
            frames in prop::collection::vec((0_u64..4, 1_u32..5, any::<bool>()), 1..60),
        ) {
            let mut position = 0_u32;
            let mut pieces = Vec::new();
            for (frame, pages, is_straight) in frames {
                // In step with the file, or somewhere else in the frame.
                let from = if is_straight { position } else { (position * 7) % 100 };
                pieces.push(piece(frame, from, pages, u64::from(position)));
                position += pages;
            }
            let write = |pages: &mut Vec<Option<(u64, u32)>>, piece: &Piece| {
                for page in 0..piece.bytes / PAGE {
                    let at = usize::try_from(piece.position / u64::from(PAGE)).unwrap() + page as usize;
                    pages[at] = Some((piece.frame.offset, piece.from / PAGE + page));
                }
            };
            let mut expected = vec![None; position as usize];
            pieces.iter().for_each(|piece| write(&mut expected, piece));
            let mut found = vec![None; position as usize];
            let joined = join(pieces);
            for is_second in [false, true] {
                // In any order within its turn; what is neither comes in either.
                let is_its_turn = |piece: &&Piece| match piece.when {
                    When::Under => !is_second,
                    When::Alone => is_second == piece.frame.offset.is_multiple_of(2),
                    When::Over => is_second,
                };
                for piece in joined.iter().rev().filter(is_its_turn) {
                    write(&mut found, piece);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
