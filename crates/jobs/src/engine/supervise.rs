//! Keeping a task going.

use std::future::Future;
use std::time::Duration;

use dr_provider::error::chain;
use dr_provider::{ErrorKind, Result};
use tokio::sync::watch;

use super::board::{Board, Condition};

/// The first pause after a failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs `work` until `stop` turns true, again after each end: at once after `Superseded` or success, with a growing pause
/// after a failure, which is written on the board.
pub(super) async fn supervise<F>(
    task: &str,
    board: &Board,
    mut stop: watch::Receiver<bool>,
    mut work: impl FnMut() -> F,
) where
    F: Future<Output = Result<()>>,
{
    let mut pause = FIRST_PAUSE;
    while !*stop.borrow() {
        match work().await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                let superseded = error.kind() == ErrorKind::Superseded;
                let condition = if superseded {
                    Condition::Unknown(chain(&error))
                } else {
                    Condition::Bad(chain(&error))
                };
                board.set(task, condition);
                pause = if superseded {
                    FIRST_PAUSE
                } else {
                    (pause * 2).min(LONGEST_PAUSE)
                };
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stop) => {}
        }
    }
}

/// Waits until `stop` turns true, or until nobody is left who could turn it.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _sender_gone = stop.wait_for(|stop| *stop).await;
}
