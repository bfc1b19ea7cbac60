//! Measures how fast page checksums are computed: `bench/page-checksum` runs it.

use std::hint::black_box;

use dr_model::{Clock as _, SystemClock};
use dr_postgres::page::{self, PAGE_BYTES};

/// More than the caches of one core hold, so that memory counts as well.
const PAGES: usize = 16_384;

const ROUNDS: usize = 40;

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() {
    let clock = SystemClock::new();
    let mut pages = vec![0u8; PAGES * PAGE_BYTES];
    let mut state = 1u64;
    for byte in &mut pages {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        *byte = state.to_be_bytes()[0];
    }
    for (what, pages) in [
        ("in memory", &pages[..]),
        ("in cache", &pages[..PAGE_BYTES * 16]),
    ] {
        let rounds = ROUNDS * PAGES * PAGE_BYTES / pages.len();
        let begun = clock.elapsed();
        for round in 0..rounds {
            for (block, page) in (0u32..).zip(pages.chunks_exact(PAGE_BYTES)) {
                black_box(page::checksum::of(
                    black_box(page),
                    block ^ u32::try_from(round % 7).unwrap_or(0),
                ));
            }
        }
        let seconds = (clock.elapsed() - begun).as_secs_f64();
        let bytes = (rounds * pages.len()) as f64;
        println!(
            "page checksums {what}: {:.2} GB/s on one core",
            bytes / seconds / 1e9
        );
    }
}
