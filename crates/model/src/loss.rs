//! What a failover would lose, as two numbers (PROTOCOL section 8).
//!
//! The *estimate* is the shipping delay at last contact, and for how long the primary is known to have lived after that. The *bound* is what cannot be exceeded; without proof that the
//! old primary has stopped there is none, and it is said so.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was being lost when the recovery region last heard from the primary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Time between the newest commit that is safe and the newest the primary had reported, and [`Self::lived_on_seconds`].
    pub delay_seconds: f64,
    /// Bytes of WAL that the primary had reported and the recovery region does not hold.
    pub missing_bytes: u64,
    /// Commits in those bytes, from the recent rate of commits; `None` if no rate is known.
    pub commits: Option<u64>,
    /// When the recovery region last heard from the primary.
    pub last_contact: Timestamp,
    /// For how long after that the primary is known to have lived, whoever saw it: nothing of that time has reached the region.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lived_on_seconds: f64,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

impl Estimate {
    /// Adds for how long the primary lived after the last contact, if somebody saw it at `life`. How much it committed by then is
    /// known only by the `rate` before, in commits a second.
    #[must_use]
    pub fn lived_until(mut self, life: Option<Timestamp>, rate: Option<f64>) -> Self {
        let on = life.map_or(0.0, |life| {
            life.duration_since(self.last_contact).as_secs_f64()
        });
        let more = on - self.lived_on_seconds;
        if more <= 0.0 {
            return self;
        }
        self.lived_on_seconds = on;
        self.delay_seconds += more;
        self.commits = self.commits.zip(rate).map(|(commits, rate)| {
            let rounded_up = (rate * more).ceil().clamp(0.0, 1e15) as u64;
            commits.saturating_add(rounded_up)
        });
        self
    }
}

/// How much can be lost at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Bound {
    /// No commit whose client waited for the acknowledgement is lost: sealed in synchronous mode with proof, or moved by plan with
    /// the end of the log proven equal.
    Zero,
    /// Commits since `since` and up to the moment at which the old primary was fenced.
    Seconds {
        /// The newest instant up to which the recovery region holds everything.
        since: Timestamp,
        /// Length of the window that can be lost.
        seconds: f64,
    },
    /// The old primary may still be accepting commits: the loss grows until it is fenced.
    Growing {
        /// The newest instant up to which the recovery region holds everything; `None` if nothing is known.
        since: Option<Timestamp>,
    },
}

impl Bound {
    /// Computes the bound from what is known.
    ///
    /// `covered` is the newest instant at which the recovery region held all that the primary had reported.
    /// `fenced_at` is when the old primary was proven stopped. The clocks of both may differ; a negative window is
    /// reported as zero seconds, which is not [`Bound::Zero`].
    #[must_use]
    pub fn new(
        proven_zero: bool,
        covered: Option<Timestamp>,
        fenced_at: Option<Timestamp>,
    ) -> Self {
        match (proven_zero, covered, fenced_at) {
            (true, _, _) => Self::Zero,
            (false, Some(since), Some(end)) => Self::Seconds {
                since,
                seconds: end.duration_since(since).as_secs_f64().max(0.0),
            },
            (false, since, _) => Self::Growing { since },
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("0 s (nothing that was acknowledged is missing)"),
            Self::Seconds { since, seconds } => write!(f, "{seconds:.1} s (since {since:.3})"),
            Self::Growing { since: Some(since) } => write!(f, "still growing since {since:.3}"),
            Self::Growing { since: None } => f.write_str("unknown, still growing"),
        }
    }
}

/// What the budget says of an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The estimate is within the budget.
    Within,
    /// The estimate exceeds the budget.
    Exceeds,
    /// There is no estimate, which is never within any budget (principle 6).
    Unknown,
    /// Whoever named the moment that is gone back to has chosen what is lost: no budget judges it.
    Chosen,
}

/// Compares an estimate with the largest loss that is accepted.
#[must_use]
pub fn judge(estimate: Option<&Estimate>, budget: Duration) -> Verdict {
    match estimate {
        None => Verdict::Unknown,
        Some(e) if e.delay_seconds <= budget.as_secs_f64() => Verdict::Within,
        Some(_) => Verdict::Exceeds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_a_proof_gives_zero() {
        assert_eq!(Bound::new(true, None, None), Bound::Zero);
        let same = Bound::new(false, Some(at(10)), Some(at(10)));
        assert_eq!(
            same,
            Bound::Seconds {
                since: at(10),
                seconds: 0.0
            }
        );
        assert_ne!(same, Bound::Zero);
    }

    #[test]
    fn no_fence_means_growing() {
        assert_eq!(
            Bound::new(false, Some(at(10)), None),
            Bound::Growing {
                since: Some(at(10))
            }
        );
        assert_eq!(
            Bound::new(false, None, Some(at(10))),
            Bound::Growing { since: None }
        );
    }

    #[test]
    fn what_lived_on_is_lost() {
        let estimate = Estimate {
            delay_seconds: 0.5,
            missing_bytes: 0,
            commits: Some(5),
            last_contact: at(100),
            lived_on_seconds: 0.0,
        };
        let same = |life| estimate.clone().lived_until(life, Some(10.0)) == estimate;
        assert!(same(None) && same(Some(at(100))) && same(Some(at(90))));
        let lived = estimate.clone().lived_until(Some(at(180)), Some(10.0));
        assert_eq!((lived.delay_seconds, lived.commits), (80.5, Some(805)));
        assert_eq!(
            judge(Some(&lived), Duration::from_secs(15)),
            Verdict::Exceeds
        );
        // Seen by two is not lost twice; without a rate nobody knows how many.
        let again = lived.lived_until(Some(at(181)), None);
        assert_eq!((again.delay_seconds, again.commits), (81.5, None));
    }

    #[test]
    fn unknown_is_never_within() {
        assert_eq!(judge(None, Duration::MAX), Verdict::Unknown);
    }
}
