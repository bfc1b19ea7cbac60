//! Writing packs to the store, several at a time, and giving their memory back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::shared::Shared;
use super::worker::Full;
use crate::{Error, Result, store};

/// Writes what comes until nothing comes any more.
pub(super) async fn upload(
    shared: Arc<Shared>,
    mut full: mpsc::Receiver<Full>,
    free: mpsc::Sender<BytesMut>,
    at_a_time: usize,
) {
    let mut writing: JoinSet<(Bytes, Result<()>)> = JoinSet::new();
    loop {
        tokio::select! {
            pack = full.recv(), if writing.len() < at_a_time => match pack {
                Some(Full { number, bytes }) if !shared.has_failed() => {
                    let key = shared.repository.pack_key(&shared.label, number);
                    let store = Arc::clone(shared.repository.store());
                    writing.spawn(async move {
                        let done = store::create(&*store, &key, bytes.clone()).await;
                        (bytes, done)
                    });
                }
                Some(Full { bytes, .. }) => give_back(&free, bytes).await,
                None => break,
            },
            Some(done) = writing.join_next() => settle(&shared, &free, done).await,
        }
    }
    while let Some(done) = writing.join_next().await {
        settle(&shared, &free, done).await;
    }
}

async fn settle(
    shared: &Shared,
    free: &mpsc::Sender<BytesMut>,
    done: std::result::Result<(Bytes, Result<()>), tokio::task::JoinError>,
) {
    match done {
        Ok((bytes, done)) => {
            if let Err(error) = done {
                shared.fail(error);
            }
            give_back(free, bytes).await;
        }
        Err(error) => {
            shared.fail(Error::Worker(error));
            give_back(free, Bytes::new()).await;
        }
    }
}

/// Makes the memory of a pack usable again; a store that kept it for itself gets it, and there is new one.
async fn give_back(free: &mpsc::Sender<BytesMut>, bytes: Bytes) {
    let memory = bytes.try_into_mut().unwrap_or_default();
    // Nobody waits for it once the workers have gone.
    drop(free.send(memory).await);
}
