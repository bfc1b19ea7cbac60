//! The end of a backup: the tree, a last look at what it refers to, and the manifest.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::shared::{Shared, Tree};
use crate::error::KEEP_LIST;
use crate::manifest::{self, Part};
use crate::spill::Sorted;
use crate::tree::{Order, PartBuilder};
use crate::{EncryptionKey, Entry, Error, Header, Label, Repository, Result, references, store};

/// Parts of the tree that are being written or wait for it.
const PARTS_IN_FLIGHT: usize = 4;

/// Writes tree and manifest; all packs are there.
pub(super) async fn finish(shared: &Arc<Shared>, source: Value) -> Result<Header> {
    let (repository, label) = (&shared.repository, &shared.label);
    let packs = std::mem::take(&mut *shared.packs());
    let packs = packs.finish().ok_or(Error::OutOfTurn {
        operation: "finish a backup",
        why: "a pack is missing",
    })?;
    let tree = shared
        .tree
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    let Tree {
        sorter,
        stats,
        directory,
    } = tree.ok_or(Error::OutOfTurn {
        operation: "finish a backup",
        why: "it has been finished",
    })?;
    let failed = move |error| Error::io(KEEP_LIST, &directory)(error);
    let (sender, parts) = mpsc::channel(PARTS_IN_FLIGHT);
    let cut = {
        let shared = Arc::clone(shared);
        spawn_blocking(move || {
            let sorted = sorter.finish().map_err(&failed)?;
            cut_parts(&shared, &sorted, &sender, &failed)
        })
    };
    let written = write_parts(repository, label, parts).await;
    cut.await.map_err(Error::Worker)??;
    let parts = written?;
    // R37: what was there when this backup began may have been given up since.
    references::check(repository, label, &packs).await?;
    let key = repository.manifest_key(label);
    let encode = {
        let (shared, key) = (Arc::clone(shared), key.clone());
        move || {
            let seal = shared.seal(&key)?;
            let id = shared.repository.keys().writing().map(EncryptionKey::id);
            let seal = seal.as_ref().zip(id);
            let seal = seal.map(|((salt, cipher), id)| (id, *salt, cipher));
            manifest::encode(&shared.label, source, stats, &packs, &parts, seal)
                .map_err(Error::io("encode", std::path::Path::new(key.as_str())))
        }
    };
    let (bytes, header) = spawn_blocking(encode).await.map_err(Error::Worker)??;
    shared.offer();
    store::create(&**repository.store(), &key, bytes).await?;
    Ok(header)
}

/// Makes parts of the sorted entries, checking them once more as a tree.
fn cut_parts(
    shared: &Shared,
    sorted: &Sorted,
    sender: &mpsc::Sender<(Bytes, Part)>,
    failed: &impl Fn(std::io::Error) -> Error,
) -> Result<()> {
    let mut order = Order::default();
    let mut builder = PartBuilder::default();
    let mut number = 0;
    let mut finish = |builder: PartBuilder| {
        let seal = shared.seal(&shared.repository.part_key(&shared.label, number))?;
        number += 1;
        builder.finish(seal).map_err(failed)
    };
    let mut walk = sorted.walk().map_err(failed)?;
    while let Some((_, line)) = walk.next().map_err(failed)? {
        let entry: Entry =
            serde_json::from_slice(line).map_err(|error| failed(std::io::Error::other(error)))?;
        order.check(entry.path(), &entry)?;
        builder.push(line);
        if builder.is_full() {
            let part = finish(std::mem::take(&mut builder))?;
            if sender.blocking_send(part).is_err() {
                return Ok(());
            }
        }
    }
    if !builder.is_empty() {
        let part = finish(builder)?;
        // Who does not take it has an error of its own to tell.
        drop(sender.blocking_send(part));
    }
    Ok(())
}

async fn write_parts(
    repository: &Repository,
    label: &Label,
    parts: mpsc::Receiver<(Bytes, Part)>,
) -> Result<Vec<Part>> {
    let parts = stream::unfold((parts, 0_usize), async |(mut parts, number)| {
        let (bytes, part) = parts.recv().await?;
        Some(((number, bytes, part), (parts, number + 1)))
    });
    parts
        .map(|(number, bytes, part)| {
            let key = repository.part_key(label, number);
            let store = Arc::clone(repository.store());
            async move {
                store::create(&*store, &key, bytes).await?;
                Ok(part)
            }
        })
        .buffered(PARTS_IN_FLIGHT)
        .try_collect()
        .await
}
