//! Copying a backup into another store: data before the manifest, everything compared by hash (R38).
//!
//! Where both stores are of one service, it copies the packs by itself. Its word for that is no hash: the copy is read
//! back from the target and compared like any other, before the manifest is written.

use dr_provider::ErrorKind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use crate::manifest::{Pack, PackInfo};
use crate::{BackupReader, Error, Hash, Header, Label, Repository, Result, references, store};

/// How a backup is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Packs in memory at a time.
    pub packs_in_flight: usize,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { packs_in_flight: 4 }
    }
}

/// What copying did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStats {
    /// The backup's header.
    pub header: Header,
    /// Whether the backup was complete at the target before.
    pub was_present: bool,
    /// Packs written.
    pub copied_packs: u64,
    /// Bytes written, without the manifest.
    pub copied_bytes: u64,
}

/// Copies the backup `label`. May be repeated after any failure: packs that arrived before are read there, compared and
/// kept. A backup that is at the target already is left alone if its manifest is the same one.
///
/// Fails with [`Error::Damaged`] if a pack, here or there, is not the one that the manifest names; nothing visible has
/// been made then.
pub async fn copy(
    from: &Repository,
    to: &Repository,
    label: &Label,
    options: CopyOptions,
) -> Result<CopyStats> {
    let source = from.open(label).await?;
    let header = source.header().clone();
    match to.manifest_bytes(label).await {
        Ok(there) if there == *source.manifest_bytes() => {
            return Ok(CopyStats {
                header,
                was_present: true,
                copied_packs: 0,
                copied_bytes: 0,
            });
        }
        Ok(_) => {
            return Err(Error::Different {
                object: store::name(&**to.store(), &to.manifest_key(label)),
            });
        }
        Err(Error::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    let copied: Vec<u64> = stream::iter(0..source.packs().len())
        .map(|number| copy_pack(&source, to, &source.packs()[number]))
        .buffer_unordered(options.packs_in_flight.max(1))
        .try_collect()
        .await?;
    stream::iter(0..source.parts().len())
        .map(|number| copy_part(&source, to, number))
        .buffer_unordered(options.packs_in_flight.max(1))
        .try_collect::<()>()
        .await?;
    references::check(to, label, source.packs()).await?;
    let manifest = source.manifest_bytes().clone();
    store::create(&**to.store(), &to.manifest_key(label), manifest).await?;
    Ok(CopyStats {
        header,
        was_present: false,
        copied_packs: copied.iter().filter(|bytes| **bytes > 0).count() as u64,
        copied_bytes: copied.iter().sum(),
    })
}

/// Returns the bytes written: none if the pack is there already.
async fn copy_pack(source: &BackupReader, to: &Repository, pack: &Pack) -> Result<u64> {
    let key = to.pack_key(&pack.label, pack.number);
    match to.store().get(&key).await {
        Ok(bytes) => {
            let object = store::name(&**to.store(), &key);
            compare(object, bytes, pack.info).await?;
            return Ok(0);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(store::failed(format!("look for `{key}`"))(error)),
    }
    if copied_by_service(source, to, pack).await? {
        let bytes = to.store().get(&key).await;
        let bytes = bytes.map_err(store::failed(format!("read back `{key}`")))?;
        compare(store::name(&**to.store(), &key), bytes, pack.info).await?;
        return Ok(pack.info.bytes);
    }
    let (object, bytes) = source.pack(pack, None).await?;
    let bytes = compare(object, bytes, pack.info).await?;
    store::create(&**to.store(), &key, bytes).await?;
    Ok(pack.info.bytes)
}

/// Has the service copy a pack, if there is one that both stores are of; whatever definitely did not work is done by
/// moving the bytes, which may be allowed where that is not.
async fn copied_by_service(source: &BackupReader, to: &Repository, pack: &Pack) -> Result<bool> {
    let from = source.repository.pack_key(&pack.label, pack.number);
    let Some(from) = source.repository.store().copy_source(&from) else {
        return Ok(false);
    };
    let key = to.pack_key(&pack.label, pack.number);
    match to.store().copy_from(&from, &key).await {
        Ok(()) => Ok(true),
        // Somebody else's copy is compared like our own.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(true),
        Err(error) if error.is_definite() => Ok(false),
        Err(error) => Err(store::failed(format!("copy `{key}`"))(error)),
    }
}

async fn copy_part(source: &BackupReader, to: &Repository, number: usize) -> Result<()> {
    let part = source.parts()[number];
    let (object, bytes) = source.part_bytes(number).await?;
    let info = PackInfo {
        bytes: part.bytes,
        hash: part.hash,
    };
    let bytes = compare(object, bytes, info).await?;
    store::create(&**to.store(), &to.part_key(source.label(), number), bytes).await
}

/// Passes an object on if it is the one that the manifest names.
async fn compare(object: String, bytes: bytes::Bytes, info: PackInfo) -> Result<bytes::Bytes> {
    let hash = {
        let bytes = bytes.clone();
        spawn_blocking(move || Hash::of(&bytes))
            .await
            .map_err(Error::Worker)?
    };
    if hash == info.hash {
        Ok(bytes)
    } else {
        Err(Error::damaged(object, "it is not what the manifest names"))
    }
}
