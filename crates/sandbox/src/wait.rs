//! Waiting for a condition, with a deadline and the last thing seen.

use std::time::Duration;

use dr_model::{Clock, SystemClock};

use crate::{Error, Result};

/// How often a condition is looked at: often enough that nobody notices, seldom enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at a condition until it holds.
///
/// `look` answers `Ok` with the value waited for, or `Err` with what it saw instead. Fails with [`Error::Late`] after
/// `limit`.
pub async fn until<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> std::result::Result<T, String>,
{
    let clock = SystemClock::new();
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(last) if clock.elapsed() >= limit => {
                return Err(Error::Late {
                    what: what.to_owned(),
                    limit,
                    last,
                });
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// The same for code that cannot wait asynchronously, such as a destructor; answers whether the condition came about.
pub fn until_blocking(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let clock = SystemClock::new();
    loop {
        if holds() {
            return true;
        }
        if clock.elapsed() >= limit {
            return false;
        }
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a condition, where there is no runtime to wait in"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
