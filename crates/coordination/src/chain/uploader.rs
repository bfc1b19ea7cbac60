//! Writes a chain into a real store while the caller goes on receiving.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dr_encryption::Keys;
use dr_model::{Clock, Lsn};
use dr_provider::{ErrorKind, ObjectStore};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::link::{Link, Reply, link_with_log};
use super::tail::{Tail, find_tail_to_write};
use super::writer::{Failure, Order, Task, Writer};
use super::{ChainId, Chunk, Cipher, Error, FORMAT_VERSION, MAX_LOG_BYTES, Origin, encode};
use crate::operation::{Answer, Operation, Patience, back_off, carry_out};
use crate::publish::publish;

/// A clock that goes on while the machine is suspended.
pub type BootTime = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Returns the machine's CLOCK_BOOTTIME.
#[must_use]
pub fn boot_time() -> BootTime {
    Arc::new(|| {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanoseconds)
    })
}

/// How a chain is written.
#[derive(Clone)]
pub struct Options {
    /// Chunks that may be under way at once.
    pub in_flight: usize,
    /// How long chunks stay before they are compacted away; half of it is how old knowledge of the tail may become.
    pub grace: Duration,
    /// How long the store is waited for: all of it when opening, only the limit of one try afterwards.
    pub patience: Patience,
    /// Tries of one call after which the writer stops with what the store said; a store that is full or forbids it is not
    /// asked a second time. `None` for a writer that nobody waits for: it asks without end.
    pub give_up_after: Option<u32>,
    /// What chunks are encrypted with, and those of others are read with.
    pub keys: Keys,
    /// Who writes, for people.
    pub writer: String,
    /// The clock for what is written down.
    pub clock: Arc<dyn Clock>,
    /// The clock for how old knowledge is.
    pub boot_time: BootTime,
}

impl Options {
    /// Returns eight in flight, a grace of an hour, no giving up, no keys, and the machine's boot time.
    #[must_use]
    pub fn new(writer: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            in_flight: 8,
            grace: Duration::from_secs(3600),
            patience: Patience::default(),
            give_up_after: None,
            keys: Keys::default(),
            writer: writer.into(),
            clock,
            boot_time: boot_time(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("in_flight", &self.in_flight)
            .field("grace", &self.grace)
            .field("patience", &self.patience)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

/// How far a writer has got.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Stored, and hanging together from the origin: the only position that may be acknowledged.
    pub durable: Lsn,
    /// Chunks created by this writer.
    pub chunks: u64,
    /// Bytes of log in them.
    pub log_bytes: u64,
    /// Bytes that they take in the store.
    pub stored_bytes: u64,
    /// What the store said last, while it is being asked again.
    pub problem: Option<String>,
    /// Why the writer has stopped for ever.
    pub failure: Option<Arc<Error>>,
}

/// Writes one chain: several chunks under way at once, only the contiguous part acknowledged.
///
/// While the store does not answer, the same is asked again without end, unless the options say otherwise, and nothing is
/// acknowledged. Dropping the writer
/// abandons what is under way, which may or may not be stored then.
#[derive(Debug)]
pub struct ChainWriter {
    chain: ChainId,
    end: Lsn,
    chunks: Option<mpsc::Sender<Chunk>>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

/// Where a chain ends, for who is going to write there: what is known of it grows old.
#[derive(Debug)]
pub struct WritableTail {
    tail: Tail,
    /// When it was asked for.
    asked_at: Duration,
}

impl WritableTail {
    /// Looks for the tail of a chain; `None` if this store has no such chain.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] if it is sealed, [`Error::Corrupt`], [`Error::Store`].
    pub async fn find(
        store: &dyn ObjectStore,
        chain: &ChainId,
        options: &Options,
    ) -> Result<Option<Self>, Error> {
        let asked_at = (options.boot_time)();
        let found = find_tail_to_write(store, chain, options.patience).await?;
        match found {
            None => Ok(None),
            Some((
                Tail {
                    seal: Some(seal), ..
                },
                _,
            )) => Err(Error::Superseded {
                chain: *chain,
                seal,
            }),
            Some((tail, _)) => Ok(Some(Self { tail, asked_at })),
        }
    }

    /// Returns where the chain ends.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.tail.end
    }
}

impl ChainWriter {
    /// Opens a chain at its tail, and begins it at `origin` if this store has none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] if it is sealed, [`Error::Corrupt`], [`Error::Store`].
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        chain: ChainId,
        origin: Lsn,
        options: Options,
    ) -> Result<Self, Error> {
        let tail = loop {
            if let Some(tail) = WritableTail::find(&*store, &chain, &options).await? {
                break tail;
            }
            let origin = Origin {
                version: FORMAT_VERSION,
                system_identifier: chain.system_identifier,
                timeline: chain.timeline,
                epoch: chain.epoch,
                start_lsn: origin,
                created_at: options.clock.now(),
                writer: options.writer.clone(),
            };
            // Whoever wins, the origin is read afterwards.
            publish(
                &*store,
                chain.origin_key(),
                origin.to_bytes(),
                options.patience,
            )
            .await
            .map_err(|error| Error::store(chain, error))?;
        };
        Ok(Self::at(store, chain, &tail, options))
    }

    /// Opens a chain at a tail that was found.
    #[must_use]
    pub fn at(
        store: Arc<dyn ObjectStore>,
        chain: ChainId,
        found: &WritableTail,
        options: Options,
    ) -> Self {
        let WritableTail { tail, asked_at } = found;
        let core = Writer::new(tail.end, *asked_at, options.grace / 2);
        let (chunks, incoming) = mpsc::channel(1);
        let (sender, progress) = watch::channel(Progress {
            durable: tail.end,
            chunks: 0,
            log_bytes: 0,
            stored_bytes: 0,
            problem: None,
            failure: None,
        });
        let upload = Upload {
            core,
            uploader: Arc::new(Uploader {
                store,
                chain,
                options,
            }),
            progress: sender,
        };
        Self {
            chain,
            end: tail.end,
            chunks: Some(chunks),
            progress,
            task: tokio::spawn(upload.run(incoming)),
        }
    }

    /// Returns the chain.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// Returns where the next chunk has to start: the chain's tail at first, then the end of the last chunk pushed.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Returns a view of the progress that can be awaited.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Returns the position that may be acknowledged now.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.progress.borrow().durable
    }

    /// Hands over the next chunk; waits only while as many as allowed are under way. Cancelling loses the chunk.
    ///
    /// # Errors
    ///
    /// Why the writer has stopped, now and ever after; [`Error::Misplaced`] if the chunk does not continue the last one,
    /// after which the writer can still be used.
    pub async fn push(&mut self, chunk: Chunk) -> Result<(), Error> {
        let (start, end) = (chunk.start, chunk.end());
        let length = chunk.log.len() as u64;
        if start != self.end || length == 0 || length > MAX_LOG_BYTES {
            return Err(Error::Misplaced {
                chain: self.chain,
                start,
                end,
                expected: self.end,
            });
        }
        let sent = match &self.chunks {
            Some(chunks) => chunks.send(chunk).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.stopped());
        }
        self.end = end;
        Ok(())
    }

    /// Waits until everything pushed is durable; returns that position.
    ///
    /// # Errors
    ///
    /// Why the writer has stopped.
    pub async fn flush(&mut self) -> Result<Lsn, Error> {
        let end = self.end;
        let done = |progress: &Progress| progress.durable >= end || progress.failure.is_some();
        let durable = match self.progress.wait_for(done).await {
            Ok(progress) if progress.durable >= end => Some(progress.durable),
            _ => None,
        };
        durable.ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> Error {
        let failure = self.progress.borrow().failure.clone();
        match failure.as_deref() {
            Some(error) => restate(error),
            None => Error::store(
                self.chain,
                dr_provider::Error::new(
                    ErrorKind::Cancelled,
                    "write the log of",
                    self.chain.to_string(),
                ),
            ),
        }
    }
}

impl Drop for ChainWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Repeats a lasting failure to another caller.
fn restate(error: &Error) -> Error {
    match error {
        Error::Superseded { chain, seal } => Error::Superseded {
            chain: *chain,
            seal: seal.clone(),
        },
        Error::Corrupt {
            chain,
            at,
            location,
            why,
        } => Error::Corrupt {
            chain: *chain,
            at: *at,
            location: location.clone(),
            why: why.clone(),
        },
        Error::Misplaced {
            chain,
            start,
            end,
            expected,
        } => Error::Misplaced {
            chain: *chain,
            start: *start,
            end: *end,
            expected: *expected,
        },
        Error::Away { chain } => Error::Away { chain: *chain },
        Error::Store { subject, source } => {
            let again = dr_provider::Error::new(source.kind(), "write the log of", subject)
                .because(dr_provider::error::chain(&**source));
            let hint = source.hint().map(str::to_owned);
            Error::store(
                subject,
                hint.into_iter().fold(again, |e, hint| e.with_hint(hint)),
            )
        }
        other => Error::store(
            "a chain",
            dr_provider::Error::new(other.kind(), "write", "a chain").because(other.to_string()),
        ),
    }
}

struct Uploader {
    store: Arc<dyn ObjectStore>,
    chain: ChainId,
    options: Options,
}

/// What one order came to.
struct Done {
    id: u64,
    /// How often it was tried before.
    attempt: u32,
    reply: Reply<Bytes>,
    error: Option<dr_provider::Error>,
    /// Lengths of the log and of the object, if one was created.
    created: Option<(u64, u64)>,
}

struct Upload {
    core: Writer,
    uploader: Arc<Uploader>,
    progress: watch::Sender<Progress>,
}

impl Upload {
    async fn run(mut self, mut incoming: mpsc::Receiver<Chunk>) {
        let limit = self.uploader.options.in_flight.max(1);
        let mut calls = JoinSet::new();
        loop {
            for order in self.core.orders(self.now()) {
                calls.spawn(self.uploader.clone().carry_out(order));
            }
            self.publish();
            if self.core.failure().is_some() {
                return;
            }
            tokio::select! {
                Some(done) = calls.join_next(), if !calls.is_empty() => match done {
                    Ok(done) => {
                        if let Some(error) = self.take(done) {
                            let error = Arc::new(Error::store(self.uploader.chain, error));
                            self.progress.send_modify(|progress| progress.failure = Some(error));
                            return;
                        }
                    }
                    // A call that panicked has an unknown outcome; its chunk cannot be told apart any more.
                    Err(error) => {
                        tracing::error!(chain = %self.uploader.chain, %error, "a call of the chain writer died");
                        return;
                    }
                },
                chunk = incoming.recv(), if self.core.in_flight() < limit => match chunk {
                    Some(chunk) => self.core.submit(chunk),
                    None => return,
                },
            }
        }
    }

    fn now(&self) -> Duration {
        (self.uploader.options.boot_time)()
    }

    /// Takes an answer; returns why there is no use in asking again, if there is none.
    fn take(&mut self, done: Done) -> Option<dr_provider::Error> {
        self.progress.send_modify(|progress| {
            progress.problem = match (&done.reply, &done.error) {
                (Reply::Failed, Some(error)) => Some(dr_provider::error::chain(error)),
                (Reply::Failed, None) => progress.problem.take(),
                _ => None,
            };
            if let Some((log_bytes, stored_bytes)) = done.created {
                progress.chunks += 1;
                progress.log_bytes += log_bytes;
                progress.stored_bytes += stored_bytes;
            }
        });
        let now = self.now();
        self.core.feed(done.id, now, done.reply);
        let error = done.error?;
        let tries = self.uploader.options.give_up_after?;
        if !error.is_permanent() && done.attempt + 1 < tries {
            return None;
        }
        Some(match (error.kind(), error.hint()) {
            (ErrorKind::Full, None) => error.with_hint("make room in that store, and go on"),
            _ => error,
        })
    }

    fn publish(&self) {
        let durable = self.core.acknowledged();
        let failure = self.core.failure().map(|failure| self.describe(failure));
        self.progress.send_if_modified(|progress| {
            let changed = progress.durable != durable || failure.is_some();
            progress.durable = durable;
            progress.failure = failure.map(Arc::new);
            changed
        });
    }

    fn describe(&self, failure: &Failure) -> Error {
        let chain = self.uploader.chain;
        match failure {
            Failure::Superseded(seal) => Error::Superseded {
                chain,
                seal: seal.clone(),
            },
            Failure::Corrupt { at, why } => Error::Corrupt {
                chain,
                at: *at,
                location: self.uploader.store.location().to_owned(),
                why: why.clone(),
            },
            Failure::Away => Error::Away { chain },
            Failure::Misplaced { start, end } => Error::Misplaced {
                chain,
                start: *start,
                end: *end,
                expected: self.core.submitted(),
            },
        }
    }
}

impl Uploader {
    async fn carry_out(self: Arc<Self>, order: Order) -> Done {
        back_off(order.attempt).await;
        let mut done = Done {
            id: order.id,
            attempt: order.attempt,
            reply: Reply::Failed,
            error: None,
            created: None,
        };
        // After a long pause nothing may be written before the tail has been read again.
        let age = (self.options.boot_time)().saturating_sub(order.given_at);
        if age > self.options.grace / 2 {
            return done;
        }
        let limit = self.options.patience.timeout;
        match order.task {
            Task::Create(chunk) => {
                let at = chunk.start;
                let log_bytes = chunk.log.len() as u64;
                let Some(body) = self.clone().encode(chunk, order.durable_through).await else {
                    return done;
                };
                let stored_bytes = body.len() as u64;
                let operation = Operation::Create(self.chain.link_key(at), body);
                let (answer, error) = carry_out(&*self.store, operation, limit).await;
                done.error = error;
                done.reply = match answer {
                    Answer::Created => {
                        done.created = Some((log_bytes, stored_bytes));
                        Reply::Created
                    }
                    Answer::Exists => Reply::Exists,
                    Answer::Found(_) | Answer::Missing | Answer::Failed(_) => Reply::Failed,
                };
            }
            Task::Read(at) => {
                let operation = Operation::Get(self.chain.link_key(at));
                let (answer, error) = carry_out(&*self.store, operation, limit).await;
                done.error = error;
                done.reply = match answer {
                    Answer::Found(bytes) => {
                        match link_with_log(&bytes, &self.chain, at, &self.options.keys) {
                            Ok(Link::Chunk((_, log))) => Reply::Found(Link::Chunk(log)),
                            Ok(Link::Seal(seal)) => Reply::Found(Link::Seal(seal)),
                            Err(why) => Reply::Damaged(why.to_string()),
                        }
                    }
                    Answer::Missing => Reply::Missing,
                    Answer::Created | Answer::Exists | Answer::Failed(_) => Reply::Failed,
                };
            }
        }
        done
    }

    /// Compresses on a thread for blocking work: a chunk of 4 MiB takes 10 to 20 ms.
    async fn encode(self: Arc<Self>, chunk: Chunk, durable_through: Lsn) -> Option<Bytes> {
        let work = move || {
            // Each attempt has a salt of its own.
            let cipher = Cipher::draw(&self.options.keys).ok()?;
            let writer = &self.options.writer;
            Some(encode(
                &self.chain,
                &chunk,
                durable_through,
                writer,
                cipher.as_ref(),
            ))
        };
        tokio::task::spawn_blocking(work).await.ok().flatten()
    }
}
