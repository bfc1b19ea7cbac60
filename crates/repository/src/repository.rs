//! The backups of one source in one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use dr_encryption::Keys;
use dr_provider::{ErrorKind, Key, ObjectStore};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    BackupReader, BackupWriter, Error, Header, Label, Result, WriterOptions, manifest, store,
};

/// Headers read at a time.
const HEADERS_IN_FLIGHT: usize = 8;

/// The backups of one source, such as `postgres/7312…`, in one store. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    source: String,
    keys: Keys,
}

/// What a listing found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The complete backups, newest first.
    pub backups: Vec<Header>,
    /// Complete backups that are going to be deleted: nothing should begin with them any more.
    pub given_up: Vec<Label>,
    /// Backups whose manifest stands there but cannot be used, newest first: damaged, or of an unknown format.
    pub unusable: Vec<(Label, Error)>,
}

impl Repository {
    /// Looks at the backups of `source`, a prefix of object keys, in `store`.
    pub fn new(store: Arc<dyn ObjectStore>, source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        // The longest key below it must be a key as well.
        match Key::new(format!(
            "{source}/backup/20261121T093005Z-7f3a/packs/000000"
        )) {
            Ok(_) => Ok(Self {
                store,
                source,
                keys: Keys::default(),
            }),
            Err(_) => Err(Error::Source(source)),
        }
    }

    /// Takes the keys that backups are encrypted with; without, they are not, and encrypted ones cannot be read. Listing,
    /// copying and pruning need none.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) fn prefix(&self) -> String {
        format!("{}/backup/", self.source)
    }

    fn key(&self, label: &Label, rest: &str) -> Key {
        let key = Key::new(format!("{}{label}/{rest}", self.prefix()));
        key.expect("the source was checked, labels and the rest are of the alphabet of keys")
    }

    pub(crate) fn manifest_key(&self, label: &Label) -> Key {
        self.key(label, "manifest")
    }

    pub(crate) fn pack_key(&self, label: &Label, number: u32) -> Key {
        self.key(label, &format!("packs/{number:06}"))
    }

    /// Returns what the keys of a backup's packs begin with.
    pub(crate) fn pack_prefix(&self, label: &Label) -> String {
        format!("{}{label}/packs/", self.prefix())
    }

    /// Returns what the keys of the parts of a backup's tree begin with.
    pub(crate) fn part_prefix(&self, label: &Label) -> String {
        format!("{}{label}/tree/", self.prefix())
    }

    pub(crate) fn part_key(&self, label: &Label, number: usize) -> Key {
        self.key(label, &format!("tree/{number:06}"))
    }

    /// Returns where it is said that a backup is being given up.
    pub(crate) fn tombstone_key(&self, label: &Label) -> Key {
        self.mark_key("tomb", label)
    }

    /// Returns where it is said that a backup must be kept.
    pub(crate) fn hold_key(&self, label: &Label) -> Key {
        self.mark_key("hold", label)
    }

    /// Returns what the keys of those who read a backup begin with.
    pub(crate) fn lease_prefix(&self, label: &Label) -> String {
        format!("{}{label}/", self.mark_prefix("lease"))
    }

    /// Returns what the keys of small objects about backups begin with.
    pub(crate) fn mark_prefix(&self, kind: &str) -> String {
        format!("{}/{kind}/", self.source)
    }

    fn mark_key(&self, kind: &str, label: &Label) -> Key {
        let key = Key::new(format!("{}{label}", self.mark_prefix(kind)));
        key.expect("it is shorter than the other keys of a source that was checked")
    }

    /// Begins a backup. Nothing is visible of it before [`BackupWriter::finish`]. Must be called within a tokio runtime.
    #[must_use]
    pub fn begin(&self, label: Label, options: WriterOptions) -> BackupWriter {
        BackupWriter::new(self.clone(), label, &options)
    }

    /// Lists the complete backups, reading of each no more than its manifest's header.
    ///
    /// A backup whose manifest cannot be used is listed apart: it must neither be restored from nor hide the others.
    pub async fn list(&self) -> Result<Listing> {
        let (labels, given_up) = self.kept_and_given_up().await?;
        let read = |label: Label| async {
            match self.header(&label).await {
                Ok(header) => Ok(Some((label, Ok(header)))),
                // Deleted since.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error @ (Error::Damaged { .. } | Error::Unsupported { .. })) => {
                    Ok(Some((label, Err(error))))
                }
                // The others were listed with the same rights.
                Err(error) if error.kind() == ErrorKind::Denied => Ok(Some((label, Err(error)))),
                Err(error) => Err(error),
            }
        };
        let found: Vec<Option<(Label, Result<Header>)>> = stream::iter(labels.into_iter().rev())
            .map(read)
            .buffered(HEADERS_IN_FLIGHT)
            .try_collect()
            .await?;
        let mut listing = Listing {
            given_up,
            ..Listing::default()
        };
        for (label, header) in found.into_iter().flatten() {
            match header {
                Ok(header) => listing.backups.push(header),
                Err(error) => listing.unusable.push((label, error)),
            }
        }
        Ok(listing)
    }

    /// Returns the complete backups that are going to be deleted, oldest first, without reading them.
    pub async fn given_up(&self) -> Result<Vec<Label>> {
        Ok(self.kept_and_given_up().await?.1)
    }

    async fn kept_and_given_up(&self) -> Result<(Vec<Label>, Vec<Label>)> {
        let labels = self.labels().await?;
        // After the labels: one that is marked meanwhile is not taken for one that is kept.
        let marked = self.marks("tomb").await?;
        let marked: BTreeSet<Label> = marked.into_iter().map(|(label, _)| label).collect();
        Ok(labels
            .into_iter()
            .partition(|label| !marked.contains(label)))
    }

    /// Says which key a backup is encrypted with if it is not at hand.
    #[must_use]
    pub fn missing_key(&self, header: &Header) -> Option<String> {
        let object = store::name(&*self.store, &self.manifest_key(&header.label));
        self.unlock(&object, header)
            .err()
            .map(|error| error.to_string())
    }

    /// Opens a backup, reading and checking its manifest. Fails with [`Error::Missing`] if it has none.
    pub async fn open(&self, label: &Label) -> Result<BackupReader> {
        BackupReader::open(self.clone(), label).await
    }

    /// Finds the labels of backups that have a manifest, oldest first, without listing their packs: `manifest` sorts
    /// before `packs` and `tree`, so the first key of each label decides, and the next look begins behind its last possible key.
    async fn labels(&self) -> Result<Vec<Label>> {
        let prefix = self.prefix();
        let mut labels = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.list(&prefix, after.as_ref(), 1).await;
            let page = page.map_err(store::failed(format!("list `{prefix}`")))?;
            let Some(object) = page.into_iter().next() else {
                return Ok(labels);
            };
            let rest = &object.key.as_str()[prefix.len()..];
            let (label, name) = rest.split_once('/').unwrap_or((rest, ""));
            match label.parse::<Label>() {
                Ok(label) => {
                    if name == "manifest" {
                        labels.push(label.clone());
                    }
                    after = Some(self.key(&label, "zzzzzz"));
                }
                // Not one of ours; it is passed over key by key.
                Err(_) => after = Some(object.key),
            }
        }
    }

    /// Reads no more of a backup than its manifest's header.
    pub async fn header(&self, label: &Label) -> Result<Header> {
        let key = self.manifest_key(label);
        let object = store::name(&*self.store, &key);
        let read = async |length| {
            let bytes = self.store.get_range(&key, 0, length).await;
            bytes.map_err(store::failed(format!("read the header of `{key}`")))
        };
        let mut head = read(manifest::HEADER_GUESS_BYTES).await?;
        let end = manifest::header_end(&object, &head)?;
        if end > head.len() {
            head = read(end as u64).await?;
        }
        let header = manifest::decode_header(&object, &head)?;
        if header.label == *label {
            Ok(header)
        } else {
            Err(Error::damaged(
                object,
                format!("it is the manifest of `{}`", header.label),
            ))
        }
    }

    /// Reads a whole manifest object.
    pub(crate) async fn manifest_bytes(&self, label: &Label) -> Result<bytes::Bytes> {
        let key = self.manifest_key(label);
        self.store.get(&key).await.map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                Error::Missing {
                    label: label.clone(),
                    location: self.store.location().to_owned(),
                }
            } else {
                store::failed(format!("read `{key}`"))(error)
            }
        })
    }
}
