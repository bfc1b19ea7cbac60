//! Saying in the store that a recovery point is being used, so that retention leaves it and its log alone meanwhile.
//!
//! A server that was restored replays the log for as long again, when nobody is left to say anything: a lease outlasts the
//! work by hours. Where none can be written, with credentials that only read, the work goes on: recovery must not depend on it,
//! and what is given up stays for a day anyway.

use std::time::Duration;

use dr_model::Clock;
use dr_provider::Result;
use dr_provider::error::chain;
use dr_repository::{Label, Repository};
use jiff::SignedDuration;

/// How long a lease lasts.
const LASTS: SignedDuration = SignedDuration::from_hours(24);

/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(6 * 3600);

/// Does some work with a recovery point under a lease.
pub(crate) async fn leased<T>(
    repository: &Repository,
    label: &Label,
    clock: &dyn Clock,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let keep = async {
        loop {
            tokio::time::sleep(RENEWED).await;
            take(repository, label, clock).await;
        }
    };
    // The first lease stands before the work begins.
    take(repository, label, clock).await;
    tokio::select! {
        done = work => done,
        never = keep => never,
    }
}

async fn take(repository: &Repository, label: &Label, clock: &dyn Clock) {
    let now = clock.now();
    let until = now.saturating_add(LASTS).unwrap_or(jiff::Timestamp::MAX);
    let name = format!("{}-{}", std::process::id(), now.as_nanosecond());
    if let Err(error) = repository.lease(label, &name, until).await {
        let why = chain(&error);
        tracing::warn!(%label, "it cannot be said in the store that this recovery point is in use: {why}");
    }
}
