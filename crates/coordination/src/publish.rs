//! Creates one object and finds out for certain who created it.
//!
//! The heart of register, journal, history files and seals: of several who want a key, each learns whether the object
//! there is its own. A lost answer is resolved by creating again: a create-only write can be repeated, and if the first
//! try did land, the second is told that the key is taken and reads back its own bytes. The bytes must therefore be such
//! that nobody else would write the same ones and mean another thing.

use std::time::Duration;

use bytes::Bytes;
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};

use crate::operation::{Answer, Operation, Patience, back_off, carry_out};

/// Whose object is at the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Published {
    /// Ours, now or from an earlier try.
    Ours,
    /// Another's; these are its bytes.
    Theirs(Bytes),
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Publish {
    key: Key,
    body: Bytes,
    reading: bool,
    ambiguous: bool,
}

impl Publish {
    /// Starts to publish `body` under `key`.
    pub(crate) fn new(key: Key, body: Bytes) -> Self {
        Self {
            key,
            body,
            reading: false,
            ambiguous: false,
        }
    }

    /// Returns what to ask the store next.
    pub(crate) fn next(&self) -> Operation {
        if self.reading {
            Operation::Get(self.key.clone())
        } else {
            Operation::Create(self.key.clone(), self.body.clone())
        }
    }

    /// Takes the answer; returns the outcome once it is certain. A failed operation is asked for again.
    pub(crate) fn feed(&mut self, answer: Answer) -> Option<Published> {
        match answer {
            Answer::Created => return Some(Published::Ours),
            Answer::Exists => self.reading = true,
            Answer::Found(bytes) if bytes == self.body => return Some(Published::Ours),
            Answer::Found(bytes) => return Some(Published::Theirs(bytes)),
            // Taken, and then gone: somebody prunes. The key is free again, so it is asked for again.
            Answer::Missing => self.reading = false,
            Answer::Failed(kind) => self.ambiguous |= !self.reading && kind == ErrorKind::Unknown,
        }
        None
    }

    /// Tells whether giving up now would leave it unknown whether the object was created.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous || self.reading
    }
}

/// Publishes `body` under `key`, trying again while the store cannot answer.
///
/// An error is definite (`Error::is_definite`) only if no try can have created the object.
pub(crate) async fn publish(
    store: &dyn ObjectStore,
    key: Key,
    body: Bytes,
    patience: Patience,
) -> Result<Published> {
    let mut machine = Publish::new(key, body);
    let mut attempt = 0;
    loop {
        back_off(attempt).await;
        let (answer, error) = carry_out(store, machine.next(), patience.timeout).await;
        if let Some(published) = machine.feed(answer) {
            return Ok(published);
        }
        let Some(error) = error else { continue };
        attempt += 1;
        if error.is_permanent() || attempt >= patience.attempts {
            return Err(give_up(&machine, store, error, attempt, patience.timeout));
        }
    }
}

fn give_up(
    machine: &Publish,
    store: &dyn ObjectStore,
    error: Error,
    attempts: u32,
    limit: Duration,
) -> Error {
    if !machine.is_ambiguous() || error.kind() == ErrorKind::Unknown {
        return error;
    }
    let subject = format!("{}/{}", store.location(), machine.key);
    tracing::debug!(%subject, attempts, ?limit, "gave up with an unknown outcome");
    Error::new(ErrorKind::Unknown, "create object", subject).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Publish {
        Publish::new(Key::new("a/b").unwrap(), Bytes::from_static(b"mine"))
    }

    #[test]
    fn a_lost_answer_is_resolved_by_creating_again() {
        let mut publish = machine();
        assert_eq!(publish.feed(Answer::Failed(ErrorKind::Unknown)), None);
        assert!(publish.is_ambiguous());
        assert!(matches!(publish.next(), Operation::Create(..)));
        assert_eq!(publish.feed(Answer::Exists), None);
        assert!(matches!(publish.next(), Operation::Get(_)));
        let found = Answer::Found(Bytes::from_static(b"mine"));
        assert_eq!(publish.feed(found), Some(Published::Ours));
    }

    #[test]
    fn the_loser_gets_the_winners_bytes() {
        let mut publish = machine();
        publish.feed(Answer::Exists);
        let theirs = Bytes::from_static(b"theirs");
        let outcome = publish.feed(Answer::Found(theirs.clone()));
        assert_eq!(outcome, Some(Published::Theirs(theirs)));
    }

    #[test]
    fn unavailable_leaves_nothing_unknown() {
        let mut publish = machine();
        publish.feed(Answer::Failed(ErrorKind::Unavailable));
        assert!(!publish.is_ambiguous());
    }
}
