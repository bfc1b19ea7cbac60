//! Keeping a task going.

use std::future::Future;
use std::time::Duration;

use dr_provider::error::chain;
use dr_provider::{ErrorKind, Result};
use tokio::sync::watch;

use super::board::{Board, Condition};

/// The first pause after a failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Runs `work` until `stop` turns true, again after each end: at once after `Superseded` or success, with a pause after a failure, which is
/// written on the board. Pauses grow up to `longest`, and end with `news`: called before each run, it says what is the case then, and what
/// it returns waits for something else.
pub(super) async fn supervise<F, N>(
    (longest, mut news): (Duration, impl FnMut() -> N),
    task: &str,
    board: &Board,
    mut stop: watch::Receiver<bool>,
    mut work: impl FnMut() -> F,
) where
    F: Future<Output = Result<()>>,
    N: Future<Output = ()>,
{
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        // From before the work, so that what happens meanwhile is news too.
        let news = news();
        match work().await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                let superseded = error.kind() == ErrorKind::Superseded;
                match superseded {
                    true => board.set(task, Condition::Unknown(chain(&error))),
                    false => board.fail(task, chain(&error)),
                }
                pause = if superseded {
                    FIRST_PAUSE
                } else {
                    (pause * 2).min(longest)
                };
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = news => pause = FIRST_PAUSE,
            () = stopped(&mut stop) => {}
        }
    }
}

/// Waits until `stop` turns true, or until nobody is left who could turn it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "tells how much of the paused time has passed"
)]
mod tests {
    use std::cell::RefCell;
    use std::future;

    use dr_provider::Error;
    use tokio::time::Instant;

    use super::*;

    /// Runs work that fails as often as said between successes, and returns the pauses in seconds.
    async fn pauses(longest: Duration, fails: impl Fn(usize) -> bool, runs: usize) -> Vec<f64> {
        let (stop, stopped) = watch::channel(false);
        let begun = RefCell::new(Vec::new());
        let work = || {
            begun.borrow_mut().push(Instant::now());
            let count = begun.borrow().len();
            if count == runs {
                stop.send_replace(true);
            }
            let result = match fails(count - 1) {
                true => Err(Error::new(ErrorKind::Full, "write", "it")),
                false => Ok(()),
            };
            future::ready(result)
        };
        let board = Board::default();
        let wait = (longest, future::pending);
        supervise(wait, "task", &board, stopped, work).await;
        let begun = begun.into_inner();
        let pauses = begun.windows(2).map(|two| (two[1] - two[0]).as_secs_f64());
        pauses
            .map(|seconds| (seconds * 10.0).round() / 10.0)
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let longest = Duration::from_secs(5);
        let found = pauses(longest, |run| run != 6, 10).await;
        assert_eq!(found, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 0.3, 0.5, 1.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn news_ends_a_pause() {
        let (stop, stopped) = watch::channel(false);
        let (tell, heard) = watch::channel(0);
        let begun = RefCell::new(Vec::new());
        let work = || {
            begun.borrow_mut().push(Instant::now());
            match begun.borrow().len() {
                3 => drop(tell.send_replace(1)),
                4 => drop(stop.send_replace(true)),
                _ => {}
            }
            future::ready(Err(Error::new(ErrorKind::Full, "write", "it")))
        };
        // Known by its value, as an epoch is: whoever asks for it only after the work takes the new one for the old.
        let news = || {
            let mut heard = heard.clone();
            let before = *heard.borrow();
            async move {
                if heard.wait_for(|now| *now != before).await.is_err() {
                    future::pending::<()>().await;
                }
            }
        };
        let board = Board::default();
        supervise(
            (Duration::from_secs(30), news),
            "task",
            &board,
            stopped,
            work,
        )
        .await;
        let begun = begun.into_inner();
        let pauses = begun.windows(2).map(|two| (two[1] - two[0]).as_millis());
        assert_eq!(pauses.collect::<Vec<_>>(), [500, 1000, 0]);
    }
}
