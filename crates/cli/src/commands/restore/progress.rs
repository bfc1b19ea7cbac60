//! How far a restore has got: one line that is written over on a terminal, a plain line now and then elsewhere.

use std::time::Duration;

use dr_model::Clock;
use dr_provider::driver::RestoreProgress;
use tokio::sync::watch;

use crate::output::{Output, amount, seconds};

/// Time between two lines.
const PLAIN: Duration = Duration::from_secs(10);
const TERMINAL: Duration = Duration::from_millis(250);

/// Shows the progress of `work` until it ends; nothing with `--json`.
pub(super) async fn show<T>(
    work: impl Future<Output = T>,
    progress: &watch::Receiver<RestoreProgress>,
    clock: &dyn Clock,
    output: &Output,
) -> T {
    let began = clock.elapsed();
    let terminal = output.is_terminal();
    let interval = if terminal { TERMINAL } else { PLAIN };
    let mut work = std::pin::pin!(work);
    let mut shown = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if shown {
                    output.ask("\r\u{1b}[K");
                }
                return done;
            }
            () = tokio::time::sleep(interval), if !output.json => {
                let line = line(*progress.borrow(), clock.elapsed().saturating_sub(began));
                if terminal {
                    output.ask(&format!("\r{line}\u{1b}[K"));
                    shown = true;
                } else {
                    output.say(&line);
                }
            }
        }
    }
}

/// Says how much is there, how fast it comes and how long it will take.
fn line(progress: RestoreProgress, took: Duration) -> String {
    let RestoreProgress {
        written_bytes,
        total_bytes,
    } = progress;
    if total_bytes == 0 {
        return format!(
            "… looking at what is there, {}",
            seconds(took.as_secs_f64())
        );
    }
    let rate = written_bytes as f64 / took.as_secs_f64().max(0.001);
    let share = 100.0 * written_bytes as f64 / total_bytes as f64;
    let left = total_bytes.saturating_sub(written_bytes) as f64;
    let rest = if written_bytes == total_bytes {
        "making it durable".to_owned()
    } else if rate > 0.0 {
        format!("{} to go", seconds(left / rate))
    } else {
        "nothing written yet".to_owned()
    };
    format!(
        "… {} of {}, {share:.0} %, {}/s, {rest}",
        amount(written_bytes),
        amount(total_bytes),
        amount(rate as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_long_it_will_take() {
        let line = |written_bytes, total_bytes, took| {
            let progress = RestoreProgress {
                written_bytes,
                total_bytes,
            };
            line(progress, Duration::from_secs(took))
        };
        assert_eq!(line(0, 0, 2), "… looking at what is there, 2.0 s");
        assert_eq!(
            line(1 << 30, 4 << 30, 10),
            "… 1.0 GiB of 4.0 GiB, 25 %, 102 MiB/s, 30 s to go"
        );
        assert!(line(4 << 30, 4 << 30, 40).ends_with("100 %, 102 MiB/s, making it durable"));
    }
}
