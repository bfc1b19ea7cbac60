//! Random operations on the log of one cluster in two stores, with what must hold checked after each.
//!
//! A primary writes; each store is streamed into and pushed into, by several writers at once, compacted, given up from its
//! beginning, sealed when the epoch ends, and gets from the other what it lacks. Any of it is stopped at any call to the store, with the
//! call done or not; processes forget what they knew; the primary drops log that a store does not have yet. After each: what was
//! acknowledged is there and byte for byte what was written, and where log is missing it was given up on purpose or stands in a record
//! of a gap; what was sealed acknowledges nothing more. `DR_SEED=7` plays one seed again, `DR_MODEL=long` plays many more. Of calls that are
//! under way at once it is the machine that says which one meets the trouble.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod dice;
mod operations;
mod place;
mod spans;
mod world;

use world::World;

const STEPS: usize = 120;

async fn play(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        let place = usize::from(world.dice.once_in(2));
        match world.dice.below(40) {
            0..=4 => world.write(),
            5..=14 => world.stream(place).await,
            15..=18 => world.push(place).await,
            19..=27 => world.compact(place).await,
            28..=30 => world.expire(place).await,
            31 | 32 => world.drop_log(place).await,
            33 | 34 => world.carry(place).await,
            35 => world.end_epoch().await,
            36..=38 => world.wake(place).await,
            _ => world.restart(place),
        }
        world.pass();
        world.check().await;
    }
    world.settle().await;
}

#[tokio::test(start_paused = true)]
async fn random_operations_keep_what_was_acknowledged() {
    let long = std::env::var("DR_MODEL").is_ok_and(|value| value == "long");
    let seeds = match std::env::var("DR_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("DR_SEED is a number");
            seed..seed + 1
        }
        Err(_) if long => 0..500,
        Err(_) => 0..25,
    };
    for seed in seeds {
        println!("DR_SEED={seed}");
        play(seed).await;
    }
}
