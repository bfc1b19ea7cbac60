//! Reads and writes a journal on a real store.

use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Clock, ExecutionId};
use dr_provider::{Key, ObjectStore};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Body, Entry, Error, FORMAT_VERSION};
use crate::Actor;
use crate::operation::{Patience, key, read};
use crate::publish::{Published, publish};

/// The journal of one execution in one store, held by one actor or only read.
#[derive(Debug)]
pub struct Journal<T> {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    execution: ExecutionId,
    entries: Vec<Entry<T>>,
    /// BLAKE3 of the newest entry as it is stored: what the next one names.
    newest_digest: Option<String>,
    actor: Option<Actor>,
    superseded: Option<(Actor, Timestamp)>,
    /// An entry whose writing ended without an answer: it is settled before anything else is written.
    unsettled: Option<Entry<T>>,
}

impl<T: Serialize + DeserializeOwned + Clone> Journal<T> {
    /// Begins the journal of a new execution with its first entry.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] if the journal exists already.
    pub async fn create(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        execution: ExecutionId,
        actor: Actor,
        first: T,
    ) -> Result<Self, Error> {
        let mut journal = Self::empty(store, clock, execution);
        journal.actor = Some(actor);
        journal.append(first).await?;
        Ok(journal)
    }

    /// Reads a journal. What is opened can be read, and written only after [`Journal::take_over`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it is proven that there is none.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        execution: ExecutionId,
    ) -> Result<Self, Error> {
        let mut journal = Self::empty(store, clock, execution);
        journal.read_on().await?;
        if journal.entries.is_empty() {
            return Err(Error::NotFound {
                execution: journal.execution,
                location: journal.store.location().to_owned(),
            });
        }
        Ok(journal)
    }

    fn empty(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, execution: ExecutionId) -> Self {
        Self {
            store,
            clock,
            patience: Patience::default(),
            execution,
            entries: Vec::new(),
            newest_digest: None,
            actor: None,
            superseded: None,
            unsettled: None,
        }
    }

    /// Sets how long the store is waited for.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Returns the execution.
    #[must_use]
    pub fn execution(&self) -> &ExecutionId {
        &self.execution
    }

    /// Returns the entries read and written so far, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry<T>] {
        &self.entries
    }

    /// Returns who runs the execution: the actor of the newest entry.
    #[must_use]
    pub fn holder(&self) -> Option<&Actor> {
        self.entries.last().map(|entry| &entry.actor)
    }

    /// Returns how often the execution was taken over, as far as the journal was read and written.
    #[must_use]
    pub fn takeovers(&self) -> u32 {
        let all = self.entries.iter();
        let takeovers = all.filter(|entry| matches!(entry.body, Body::Takeover { .. }));
        u32::try_from(takeovers.count()).unwrap_or(u32::MAX)
    }

    /// Reads entries written since the last look; returns how many were new.
    pub async fn read_on(&mut self) -> Result<usize, Error> {
        let before = self.entries.len();
        loop {
            let sequence = self.next_sequence();
            let key = Entry::<T>::key(&self.execution, sequence);
            let found = read(&*self.store, &key, self.patience).await;
            let Some(bytes) = found.map_err(|source| self.store_error(sequence, source))? else {
                return Ok(self.entries.len() - before);
            };
            let entry = self.decode(&bytes, sequence)?;
            self.push(entry, &bytes);
        }
    }

    /// Makes sure that the newest entry is the last: one beyond a hole would never be read, and what it says be unknown.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if an entry is missing.
    pub async fn check_end(&mut self) -> Result<(), Error> {
        let prefix = format!("execution/{}/", self.execution);
        loop {
            let newest = self.entries.len() as u64;
            let last = Entry::<T>::key(&self.execution, newest);
            let next = self.store.list(&prefix, Some(&last), 1).await;
            let next = next.map_err(|source| self.store_error(newest + 1, source))?;
            // What else lies beside a journal has no number.
            let number = next.first().and_then(|info| {
                let name = info.key.as_str().strip_prefix(&prefix)?;
                name.parse::<u64>().ok()
            });
            match number {
                Some(number) if number > newest + 1 => {
                    let why = format!("it is missing, and entry {number} is there");
                    return Err(self.damaged(newest + 1, &why));
                }
                // Somebody has written on.
                Some(_) if self.read_on().await? > 0 => {}
                _ => return Ok(()),
            }
        }
    }

    /// Looks whether somebody else has written the next entry; changes nothing, so that it can be called off at any time.
    pub async fn outdone(&self) -> Result<Option<Error>, Error> {
        let sequence = self.next_sequence();
        let key = Entry::<T>::key(&self.execution, sequence);
        let found = read(&*self.store, &key, self.patience).await;
        let Some(bytes) = found.map_err(|source| self.store_error(sequence, source))? else {
            return Ok(None);
        };
        let theirs = self.decode(&bytes, sequence)?;
        Ok(Some(Error::TakenOver {
            execution: self.execution.clone(),
            by: Box::new(theirs.actor),
            at: theirs.at,
        }))
    }

    /// Takes the execution over: from now on `actor` writes it, and every earlier writer meets this entry.
    ///
    /// An earlier writer that still appends is let past; another takeover is not.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] if somebody else takes it over at the same time.
    pub async fn take_over(&mut self, actor: Actor, reason: &str) -> Result<(), Error> {
        let reason = reason.to_owned();
        self.seize(actor, Body::Takeover { reason }).await
    }

    /// Takes the execution over with a record: every earlier writer meets it and stops there. The journal is then written
    /// by `actor`.
    ///
    /// # Errors
    ///
    /// As [`Journal::take_over`].
    pub async fn interpose(&mut self, actor: Actor, record: T) -> Result<(), Error> {
        self.seize(actor, Body::Record(record)).await
    }

    async fn seize(&mut self, actor: Actor, body: Body<T>) -> Result<(), Error> {
        self.check_end().await?;
        loop {
            self.read_on().await?;
            let entry = self.entry(actor.clone(), body.clone());
            match self.write(&entry).await? {
                (Published::Ours, bytes) => {
                    self.push(entry, &bytes);
                    self.actor = Some(actor);
                    self.superseded = None;
                    self.unsettled = None;
                    return Ok(());
                }
                (Published::Theirs(bytes), _) => {
                    let theirs: Entry<T> = self.decode(&bytes, entry.sequence)?;
                    // Our own takeover, whose answer was lost, is read on like any entry.
                    if matches!(theirs.body, Body::Takeover { .. }) && theirs.actor != actor {
                        return Err(self.taken_over(&theirs));
                    }
                }
            }
        }
    }

    /// Appends an entry. When this returns, nobody else had written since the entry before.
    ///
    /// After an error that is not definite, call it again with the same record: the entry whose fate is unknown is settled
    /// first, and if it turns out to have been this record it is not written twice.
    ///
    /// # Errors
    ///
    /// [`Error::TakenOver`] if somebody else has written the next entry, now or at any time before: stop at once. Also if
    /// the journal was only opened and never taken over.
    pub async fn append(&mut self, record: T) -> Result<&Entry<T>, Error> {
        if let Some((by, at)) = &self.superseded {
            return Err(Error::TakenOver {
                execution: self.execution.clone(),
                by: Box::new(by.clone()),
                at: *at,
            });
        }
        let Some(actor) = self.actor.clone() else {
            let newest = self.entries.last().cloned();
            return Err(match newest {
                Some(newest) => self.taken_over(&newest),
                None => self.damaged(1, "a journal without entries cannot be continued"),
            });
        };
        if let Some(earlier) = self.unsettled.take() {
            let same = self.same_body(&earlier, &record)?;
            self.settle(earlier).await?;
            if same {
                return Ok(self.newest());
            }
        }
        let entry = self.entry(actor, Body::Record(record));
        self.settle(entry).await?;
        Ok(self.newest())
    }

    async fn settle(&mut self, entry: Entry<T>) -> Result<(), Error> {
        match self.write(&entry).await {
            Ok((Published::Ours, bytes)) => {
                self.push(entry, &bytes);
                Ok(())
            }
            Ok((Published::Theirs(bytes), _)) => {
                let theirs: Entry<T> = self.decode(&bytes, entry.sequence)?;
                Err(self.taken_over(&theirs))
            }
            Err(error) => {
                self.unsettled = Some(entry);
                Err(error)
            }
        }
    }

    fn push(&mut self, entry: Entry<T>, bytes: &[u8]) {
        self.newest_digest = Some(blake3::hash(bytes).to_hex().to_string());
        self.entries.push(entry);
    }

    /// Writes an entry; returns what came of it, and the bytes that were written.
    async fn write(&self, entry: &Entry<T>) -> Result<(Published, Bytes), Error> {
        let bytes = entry
            .to_bytes()
            .map_err(|error| self.damaged(entry.sequence, &error.to_string()))?;
        let key = Entry::<T>::key(&self.execution, entry.sequence);
        let published = publish(&*self.store, key, bytes.clone(), self.patience).await;
        let published = published.map_err(|source| self.store_error(entry.sequence, source))?;
        Ok((published, bytes))
    }

    fn newest(&self) -> &Entry<T> {
        self.entries
            .last()
            .expect("called only after an entry was pushed")
    }

    fn same_body(&self, earlier: &Entry<T>, record: &T) -> Result<bool, Error> {
        let json = |value: &T| {
            serde_json::to_vec(value)
                .map_err(|error| self.damaged(earlier.sequence, &error.to_string()))
        };
        match earlier.record() {
            Some(old) => Ok(json(old)? == json(record)?),
            None => Ok(false),
        }
    }

    fn entry(&self, actor: Actor, body: Body<T>) -> Entry<T> {
        Entry {
            version: FORMAT_VERSION,
            sequence: self.next_sequence(),
            at: self.clock.now(),
            previous: self.newest_digest.clone(),
            actor,
            body,
        }
    }

    fn next_sequence(&self) -> u64 {
        self.entries.len() as u64 + 1
    }

    fn decode(&self, bytes: &[u8], sequence: u64) -> Result<Entry<T>, Error> {
        let entry = Entry::from_bytes(bytes, sequence);
        let entry: Entry<T> = entry.map_err(|why| self.damaged(sequence, &why))?;
        let before = self.entries.last().map(|before| before.version);
        let follows = match before {
            None => entry.previous.is_none(),
            Some(1) if entry.version == 1 => entry.previous.is_none(),
            // Nobody who knows a version goes on in an earlier one.
            Some(before) => {
                entry.version >= before
                    && entry.previous.is_some()
                    && entry.previous == self.newest_digest
            }
        };
        if !follows {
            let why = "it was not written after the entry before it as that is now: one of the two was changed or exchanged";
            return Err(self.damaged(sequence, why));
        }
        Ok(entry)
    }

    fn taken_over(&mut self, winner: &Entry<T>) -> Error {
        self.superseded = Some((winner.actor.clone(), winner.at));
        Error::TakenOver {
            execution: self.execution.clone(),
            by: Box::new(winner.actor.clone()),
            at: winner.at,
        }
    }

    fn damaged(&self, sequence: u64, why: &str) -> Error {
        Error::Damaged {
            execution: self.execution.clone(),
            sequence,
            why: why.to_owned(),
        }
    }

    fn store_error(&self, sequence: u64, source: dr_provider::Error) -> Error {
        Error::Store {
            execution: self.execution.clone(),
            sequence,
            source: Box::new(source),
        }
    }
}

/// Lists the executions that have a journal in a store, oldest first (ids begin with the time).
pub async fn list(store: &dyn ObjectStore) -> dr_provider::Result<Vec<ExecutionId>> {
    let mut found: Vec<ExecutionId> = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = store.list("execution/", after.as_ref(), 1).await?;
        let Some(info) = page.first() else {
            return Ok(found);
        };
        let id = info.key.as_str().split('/').nth(1).unwrap_or_default();
        if let Ok(id) = id.parse() {
            found.push(id);
        }
        // Skips the rest of this journal: sequence numbers are digits, which sort before `z`.
        after = Some(key(format!("execution/{id}/z")));
    }
}
