//! The alphabet in which the state machines of this crate talk with an object store.
//!
//! Each algorithm is a state machine that says which operation it wants next and is told the answer; it does no I/O.
//! Here stands what carries an operation to a real store. The model checker carries the same operations to a modelled one.

use std::time::Duration;

use bytes::Bytes;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

/// What a state machine wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Create the object unless the key is taken.
    Create(Key, Bytes),
    /// Read the object.
    Get(Key),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// The object was created by this operation.
    Created,
    /// The key was taken.
    Exists,
    /// The object's bytes.
    Found(Bytes),
    /// Proven not to exist.
    Missing,
    /// No useful answer; an effect is possible only if the kind is `Unknown`.
    Failed(ErrorKind),
}

/// How long and how often a store is asked before an error is returned to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Tries of one operation before giving up.
    pub attempts: u32,
    /// Limit of one try.
    pub timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Waits before try number `attempt`, where 0 is the first: not at all, 50 ms, 100 ms … 3.2 s.
pub(crate) async fn back_off(attempt: u32) {
    // The runtime rounds a wait of no time up to a millisecond, which would be most of a read or write.
    if let Some(failures) = attempt.checked_sub(1) {
        tokio::time::sleep(Duration::from_millis(50 << failures.min(6))).await;
    }
}

/// Awaits an operation for at most `limit`; after that its effect is unknown.
pub(crate) async fn limited<T>(
    limit: Duration,
    verb: &str,
    subject: impl FnOnce() -> String,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Unknown, verb, subject())
            .because(format!("no answer within {limit:?}"))),
    }
}

/// Carries an operation to a store once. The second value is the error behind `Answer::Failed`.
pub(crate) async fn carry_out(
    store: &dyn ObjectStore,
    operation: Operation,
    limit: Duration,
) -> (Answer, Option<Error>) {
    let name = |key: &Key| format!("{}/{key}", store.location());
    let result = match operation {
        Operation::Create(key, body) => {
            let subject = || name(&key);
            limited(limit, "create object", subject, store.create(&key, body))
                .await
                .map(|()| Answer::Created)
        }
        Operation::Get(key) => {
            let subject = || name(&key);
            limited(limit, "read object", subject, store.get(&key))
                .await
                .map(Answer::Found)
        }
    };
    match result {
        Ok(answer) => (answer, None),
        Err(error) => match error.kind() {
            ErrorKind::AlreadyExists => (Answer::Exists, None),
            ErrorKind::NotFound => (Answer::Missing, None),
            kind => (Answer::Failed(kind), Some(error)),
        },
    }
}

/// Reads an object, trying again while the store cannot answer; `None` if it is proven not to exist.
pub(crate) async fn read(
    store: &dyn ObjectStore,
    key: &Key,
    patience: Patience,
) -> Result<Option<Bytes>> {
    let mut attempt = 0;
    loop {
        back_off(attempt).await;
        let operation = Operation::Get(key.clone());
        match carry_out(store, operation, patience.timeout).await {
            (Answer::Found(bytes), _) => return Ok(Some(bytes)),
            (Answer::Missing, _) => return Ok(None),
            (_, Some(error)) => {
                attempt += 1;
                if error.is_permanent() || attempt >= patience.attempts {
                    return Err(error);
                }
            }
            (answer, None) => {
                let subject = format!("{}/{key}", store.location());
                return Err(Error::new(ErrorKind::Failed, "read object", subject)
                    .because(format!("the store answered {answer:?}")));
            }
        }
    }
}

/// Makes a key from parts that this crate composed itself.
pub(crate) fn key(text: String) -> Key {
    Key::new(text)
        .expect("composed of names, numbers and fixed words, which are all within the alphabet")
}
