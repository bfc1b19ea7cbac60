//! Looking again and again until something is so, with a deadline.

use std::time::Duration;

use crate::waits::Waits;

/// What one look found.
pub(crate) enum Look<T> {
    /// It is so.
    Over(T),
    /// It is not, or that cannot be told; what was seen.
    Again(String),
}

/// Looks every `interval` until it is so; the error is what the last look saw before `limit` ran out. What each saw goes to `waits`.
pub(crate) async fn until<T, F>(
    waits: &Waits,
    limit: Duration,
    interval: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T, String>
where
    F: Future<Output = Look<T>>,
{
    let mut last = "nothing was seen in time".to_owned();
    let looks = async {
        loop {
            match look().await {
                Look::Over(value) => return value,
                Look::Again(seen) => {
                    waits.saw(&seen);
                    last = seen;
                }
            }
            tokio::time::sleep(interval).await;
        }
    };
    let outcome = tokio::time::timeout(limit, looks).await;
    outcome.map_err(|_| last)
}
