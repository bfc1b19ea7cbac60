//! Whether a primary is up, by what several looks in a row have found. Pure: who looks says when.
//!
//! One look that is not answered says little, so a change of state is held down. A look while nothing else answered either says
//! nothing about the primary: it counts neither way.

use std::num::NonZeroU32;

use jiff::Timestamp;

/// What one round of looks has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// The primary answered.
    Answered,
    /// It did not, and something beside it did.
    Missed,
    /// Nothing can be told: nothing else answered either.
    Unclear,
    /// Nobody asked: what that takes was missing on this side. It is no sign of a disruption.
    Unasked,
}

/// How the primary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryState {
    /// It answers, or has missed fewer rounds than it takes.
    Up,
    /// It has not answered for as many rounds as it takes.
    Down,
    /// Nobody can tell.
    Unknown,
}

/// When a disruption began, as far as looks can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disruption {
    /// When the last round that was answered began; `None` if none ever was.
    pub last_answered_at: Option<Timestamp>,
    /// When the first round began that was not.
    pub first_missed_at: Timestamp,
}

/// What a round has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that somebody has to be told.
    None,
    /// The primary is down. Said once, until it has come back.
    WentDown(Disruption),
    /// It answers again, after it was said to be down.
    CameBack,
}

/// Follows one primary.
#[derive(Clone, Debug)]
pub struct Detector {
    down_after: NonZeroU32,
    state: PrimaryState,
    last_answered_at: Option<Timestamp>,
    first_missed_at: Option<Timestamp>,
    missed: u32,
    answered: u32,
    is_out: bool,
}

impl Detector {
    /// Makes one that knows nothing; it takes `down_after` rounds in a row to call the primary down, or back.
    #[must_use]
    pub fn new(down_after: NonZeroU32) -> Self {
        Self {
            down_after,
            state: PrimaryState::Unknown,
            last_answered_at: None,
            first_missed_at: None,
            missed: 0,
            answered: 0,
            is_out: false,
        }
    }

    /// Goes on with an outage that was told before.
    #[must_use]
    pub fn during(down_after: NonZeroU32, disruption: Disruption) -> Self {
        Self {
            last_answered_at: disruption.last_answered_at,
            first_missed_at: Some(disruption.first_missed_at),
            is_out: true,
            ..Self::new(down_after)
        }
    }

    /// Returns how the primary is.
    #[must_use]
    pub fn state(&self) -> PrimaryState {
        self.state
    }

    /// Returns when the round began since which the primary has not been seen; `None` while it answers.
    #[must_use]
    pub fn missed_since(&self) -> Option<Timestamp> {
        self.first_missed_at
    }

    /// Takes what a round has found that began at `at`.
    pub fn take(&mut self, round: Round, at: Timestamp) -> Change {
        match round {
            Round::Answered => self.answered(at),
            Round::Missed => self.missed(at),
            Round::Unclear | Round::Unasked => {
                if round == Round::Unclear {
                    self.first_missed_at.get_or_insert(at);
                }
                self.missed = 0;
                self.answered = 0;
                self.state = PrimaryState::Unknown;
                Change::None
            }
        }
    }

    fn answered(&mut self, at: Timestamp) -> Change {
        self.missed = 0;
        self.answered += 1;
        if !self.is_out {
            self.last_answered_at = Some(at);
            self.first_missed_at = None;
            self.state = PrimaryState::Up;
            return Change::None;
        }
        if self.answered < self.down_after.get() {
            return Change::None;
        }
        self.is_out = false;
        self.last_answered_at = Some(at);
        self.first_missed_at = None;
        self.state = PrimaryState::Up;
        Change::CameBack
    }

    fn missed(&mut self, at: Timestamp) -> Change {
        self.answered = 0;
        self.missed += 1;
        let first_missed_at = *self.first_missed_at.get_or_insert(at);
        if self.missed < self.down_after.get() {
            return Change::None;
        }
        self.state = PrimaryState::Down;
        if self.is_out {
            return Change::None;
        }
        self.is_out = true;
        Change::WentDown(Disruption {
            last_answered_at: self.last_answered_at,
            first_missed_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_426_205 + second).unwrap()
    }

    fn three() -> NonZeroU32 {
        NonZeroU32::new(3).unwrap()
    }

    /// Plays rounds a second apart; returns the changes with the seconds at which they came, and the state at the end.
    fn play(detector: &mut Detector, rounds: &str) -> (Vec<(usize, Change)>, PrimaryState) {
        let mut changes = Vec::new();
        for (second, round) in rounds.chars().enumerate() {
            let round = match round {
                '+' => Round::Answered,
                '-' => Round::Missed,
                '0' => Round::Unasked,
                _ => Round::Unclear,
            };
            let change = detector.take(round, at(second as i64));
            if change != Change::None {
                changes.push((second, change));
            }
        }
        (changes, detector.state())
    }

    fn down(answered: Option<i64>, missed: i64) -> Change {
        Change::WentDown(Disruption {
            last_answered_at: answered.map(at),
            first_missed_at: at(missed),
        })
    }

    #[test]
    fn it_takes_several_rounds_in_a_row_to_be_down() {
        use PrimaryState::{Down, Unknown, Up};
        for (rounds, expected, state) in [
            ("", vec![], Unknown),
            ("++--+--+", vec![], Up),
            ("++---", vec![(4, down(Some(1), 2))], Down),
            ("++------", vec![(4, down(Some(1), 2))], Down),
            // Nobody ever saw it: since when it is down is not known.
            ("---", vec![(2, down(None, 0))], Down),
            // Rounds in which nothing answered count neither way, and a lasting one is no outage.
            ("++-?-?-", vec![], Unknown),
            ("++????????", vec![], Unknown),
            // The disruption may have begun while nothing could be told.
            ("++??---", vec![(6, down(Some(1), 2))], Down),
            ("??++", vec![], Up),
            // It may have lived on while nobody asked: it was missed first when somebody did.
            ("++00---", vec![(6, down(Some(1), 4))], Down),
            ("++-0--", vec![], Unknown),
            ("++0000", vec![], Unknown),
        ] {
            let found = play(&mut Detector::new(three()), rounds);
            assert_eq!(found, (expected, state), "{rounds}");
        }
    }

    #[test]
    fn an_outage_is_told_once_and_ends_when_it_has_ended() {
        let mut detector = Detector::new(three());
        let (changes, state) = play(&mut detector, "+---??---+-++---+++");
        assert_eq!(
            changes,
            [(3, down(Some(0), 1)), (18, Change::CameBack)],
            "{changes:?}"
        );
        assert_eq!(state, PrimaryState::Up);
        let (changes, _) = play(&mut detector, "+---");
        assert_eq!(changes, [(3, down(Some(0), 1))]);
    }

    #[test]
    fn an_outage_that_was_told_before_a_restart_is_not_told_again() {
        let disruption = Disruption {
            last_answered_at: None,
            first_missed_at: at(-60),
        };
        let mut detector = Detector::during(three(), disruption);
        assert_eq!(play(&mut detector, "------").0, []);
        assert_eq!(detector.state(), PrimaryState::Down);
        assert_eq!(detector.missed_since(), Some(at(-60)));
        assert_eq!(play(&mut detector, "+++").0, [(2, Change::CameBack)]);
    }
}
