//! Compresses a file frame by frame at several of zstd's levels, with a kept context, and prints speed and ratio:
//! `bench/levels` runs it. The last line is the hash, which every frame pays too.
#![expect(clippy::print_stdout, reason = "figures are its product")]
#![expect(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::time::Duration;

use dr_model::{Clock, SystemClock};
use dr_repository::{COLLECTED_BYTES, FRAME_BYTES};
use zstd::bulk::Compressor;

const LEVELS: [i32; 8] = [-5, -3, -1, 1, 2, 3, 4, 6];
const REPEATS: usize = 5;

fn main() {
    let clock = SystemClock::new();
    let mut content = Vec::new();
    for path in std::env::args().skip(1) {
        content.extend(std::fs::read(path).unwrap());
    }
    content.truncate(512 << 20);
    println!(
        "{} MiB; best of {REPEATS} on one thread, plain MB/s",
        content.len() >> 20
    );
    println!("| level | frame | MB/s | ratio |");
    println!("|---|---|---|---|");
    for frame_bytes in [FRAME_BYTES, COLLECTED_BYTES] {
        for level in LEVELS {
            let mut compressor = Compressor::new(level).unwrap();
            let mut stored = Vec::with_capacity(2 * frame_bytes);
            let mut stored_bytes = 0;
            let took = best(&clock, || {
                stored_bytes = 0;
                for frame in content.chunks(frame_bytes) {
                    stored.clear();
                    compressor.compress_to_buffer(frame, &mut stored).unwrap();
                    stored_bytes += stored.len();
                }
            });
            println!(
                "| {level} | {} KiB | {:.0} | {:.3} |",
                frame_bytes >> 10,
                rate(content.len(), took),
                content.len() as f64 / stored_bytes as f64
            );
        }
    }
    let took = best(&clock, || {
        for frame in content.chunks(FRAME_BYTES) {
            std::hint::black_box(blake3::hash(frame));
        }
    });
    println!("| BLAKE3 | 1024 KiB | {:.0} | |", rate(content.len(), took));
}

fn best(clock: &SystemClock, mut run: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..REPEATS {
        let before = clock.elapsed();
        run();
        best = best.min(clock.elapsed() - before);
    }
    best
}

fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}
