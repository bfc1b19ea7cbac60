//! A backup that has been opened: its manifest has been read and checked.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::manifest::{Header, Manifest};
use crate::{Error, Label, Repository, Result, manifest, store};

/// A complete backup, opened for reading.
#[derive(Clone, Debug)]
pub struct BackupReader {
    pub(crate) repository: Repository,
    pub(crate) manifest: Arc<Manifest>,
    /// The manifest as stored, which a copy must equal.
    pub(crate) bytes: Bytes,
}

impl BackupReader {
    pub(crate) async fn open(repository: Repository, label: &Label) -> Result<Self> {
        let bytes = repository.manifest_bytes(label).await?;
        let object = store::name(&**repository.store(), &repository.manifest_key(label));
        let read = {
            let (bytes, object) = (bytes.clone(), object.clone());
            move || manifest::decode(&object, &bytes)
        };
        let manifest = spawn_blocking(read).await.map_err(Error::Worker)??;
        if manifest.header.label != *label {
            let what = format!("it is the manifest of `{}`", manifest.header.label);
            return Err(Error::damaged(object, what));
        }
        Ok(Self {
            repository,
            manifest: Arc::new(manifest),
            bytes,
        })
    }

    /// Returns the label.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.manifest.header.label
    }

    /// Returns the header, with what the source wrote for itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.manifest.header
    }

    /// Returns the whole manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
}
