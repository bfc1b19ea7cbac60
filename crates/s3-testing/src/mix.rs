//! Faults drawn from a seed: everything that goes wrong with a server that does not lie, mixed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Fault, Operation};

/// How many of a thousand requests fail.
const IN_A_THOUSAND: u64 = 60;

/// The longest that an answer is late.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// How many of the newest writes a stale listing hides at most.
const MOST_HIDDEN: u64 = 40;

/// Draws faults. A draw depends on the seed, the operation, the key and how often that was asked, not on what else is under way.
#[derive(Debug)]
pub(crate) struct Mix {
    seed: u64,
    asked: BTreeMap<(Operation, String), u64>,
}

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            asked: BTreeMap::new(),
        }
    }

    pub(crate) fn draw(&mut self, operation: Operation, key: &str) -> Option<Fault> {
        let count = self.asked.entry((operation, key.to_owned())).or_default();
        *count += 1;
        let mut state = spread(self.seed ^ spread(*count));
        for byte in operation.to_string().bytes().chain(key.bytes()) {
            state = spread(state ^ u64::from(byte));
        }
        if state % 1000 >= IN_A_THOUSAND {
            return None;
        }
        let mut faults = possible(operation, spread(state ^ 1));
        let chosen = spread(state ^ 2) % faults.len().max(1) as u64;
        let chosen = usize::try_from(chosen).unwrap_or_default();
        (chosen < faults.len()).then(|| faults.swap_remove(chosen))
    }
}

/// Returns what may go wrong with an operation.
fn possible(operation: Operation, random: u64) -> Vec<Fault> {
    let millis = u64::try_from(LONGEST_DELAY.as_millis()).unwrap_or(u64::MAX);
    let mut faults = vec![
        Fault::refuse(503, "SlowDown"),
        Fault::refuse(500, "InternalError"),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Delay(Duration::from_millis(random % millis)),
    ];
    match operation {
        Operation::GetObject => faults.push(Fault::Truncate),
        Operation::ListObjects => {
            faults.extend([Fault::Truncate, Fault::Stale(1 + random % MOST_HIDDEN)]);
        }
        Operation::PutObject | Operation::CompleteMultipartUpload => {
            faults.push(Fault::refuse(409, "ConditionalRequestConflict"));
        }
        // Nothing is known of what it would be for the client.
        Operation::Other => faults.clear(),
        _ => {}
    }
    faults
}

/// Spreads a change of one bit over all: the finaliser of SplitMix64.
fn spread(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn draws(seed: u64, operation: Operation) -> Vec<Option<Fault>> {
        let mut mix = Mix::new(seed);
        let keys = (0..4000).map(|number| format!("wal/{number}"));
        keys.map(|key| mix.draw(operation, &key)).collect()
    }

    #[test]
    fn a_seed_draws_the_same_again_and_everything_in_time() {
        let drawn = draws(7, Operation::ListObjects);
        assert_eq!(drawn, draws(7, Operation::ListObjects));
        assert_ne!(drawn, draws(8, Operation::ListObjects));
        let faults: Vec<&Fault> = drawn.iter().flatten().collect();
        assert!((160..320).contains(&faults.len()), "{}", faults.len());
        let kinds: BTreeSet<String> = faults
            .iter()
            .map(|fault| match fault {
                Fault::Refuse { status, .. } => status.to_string(),
                Fault::Delay(_) => "delay".to_owned(),
                Fault::Stale(_) => "stale".to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        let all = [
            "500",
            "503",
            "ResetAfter",
            "ResetBefore",
            "Truncate",
            "delay",
            "stale",
        ];
        assert_eq!(
            kinds.iter().collect::<Vec<_>>(),
            all.iter().collect::<Vec<_>>()
        );
        assert_eq!(draws(7, Operation::Other).iter().flatten().count(), 0);
    }

    #[test]
    fn what_failed_once_may_succeed_when_it_is_asked_again() {
        let mut mix = Mix::new(3);
        let drawn: Vec<bool> = (0..1000)
            .map(|_| mix.draw(Operation::PutObject, "a").is_some())
            .collect();
        assert!(drawn.contains(&true) && drawn.contains(&false));
    }
}
