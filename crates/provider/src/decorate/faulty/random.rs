//! Faults drawn from a seed.

use std::time::Duration;

use super::Fault;
use crate::ErrorKind;
use crate::decorate::Operation;

/// How likely each fault is, in calls of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Odds {
    /// `Unavailable`, not done.
    pub unavailable: u16,
    /// Request lost: `Unknown` and not done. Of a read: `Unavailable`.
    pub request_lost: u16,
    /// Answer lost: `Unknown` and done. Of a read: `Unavailable`.
    pub answer_lost: u16,
    /// Done after up to [`longest_delay`](Self::longest_delay).
    pub delayed: u16,
    /// The longest delay.
    pub longest_delay: Duration,
}

impl Odds {
    pub(super) fn draw(
        &self,
        seed: u64,
        operation: Operation,
        subject: &str,
        count: u64,
    ) -> Option<Fault> {
        let mut state = mix(seed ^ mix(count));
        for byte in operation.phrase().bytes().chain(subject.bytes()) {
            state = mix(state ^ u64::from(byte));
        }
        let faults = [
            (self.unavailable, Fault::Before(ErrorKind::Unavailable)),
            (
                self.request_lost,
                Fault::Before(if operation.is_change() {
                    ErrorKind::Unknown
                } else {
                    ErrorKind::Unavailable
                }),
            ),
            (self.answer_lost, Fault::After),
            (self.delayed, Fault::Delay(self.delay(mix(state)))),
        ];
        let mut drawn = state % 1000;
        for (odds, fault) in faults {
            match drawn.checked_sub(u64::from(odds)) {
                None => return Some(fault),
                Some(left) => drawn = left,
            }
        }
        None
    }

    fn delay(&self, random: u64) -> Duration {
        let thousandths = u32::try_from(random % 1000).unwrap_or_default();
        self.longest_delay * thousandths / 1000
    }
}

/// Spreads a change of one bit over all: the finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
