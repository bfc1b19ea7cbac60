//! A backup that has been opened: its manifest has been read and checked.
//!
//! Its tree is read as it is needed, a part at a time, so that a backup of any number of files takes little memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dr_encryption::ObjectCipher;
use dr_provider::ErrorKind;
use futures::{Stream, StreamExt as _, stream};
use tokio::task::spawn_blocking;

use crate::encryption::SaltText;
use crate::manifest::{self, Entry, Header, Pack, Part, StoredFile, Tables};
use crate::tree::{self, Order};
use crate::{Error, Label, Repository, Result, store};

/// Parts read ahead.
const PARTS_IN_FLIGHT: usize = 3;
/// Parts kept for look-ups.
const PARTS_KEPT: usize = 4;

/// A complete backup, opened for reading. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct BackupReader {
    pub(crate) repository: Repository,
    opened: Arc<Opened>,
}

#[derive(Debug)]
struct Opened {
    header: Header,
    /// The manifest as stored, which a copy must equal.
    bytes: Bytes,
    packs: Arc<[Pack]>,
    parts: Vec<Part>,
    /// The whole tree, in format 1.
    entries: Option<Arc<Vec<Entry>>>,
    looked_up: Mutex<LookedUp>,
}

/// What look-ups have found out.
#[derive(Debug, Default)]
struct LookedUp {
    /// The first path of each part that has been read.
    firsts: Vec<Option<String>>,
    /// The last parts used, newest first.
    kept: VecDeque<(usize, Arc<Vec<Entry>>)>,
}

impl BackupReader {
    pub(crate) async fn open(repository: Repository, label: &Label) -> Result<Self> {
        let bytes = repository.manifest_bytes(label).await?;
        let object = store::name(&**repository.store(), &repository.manifest_key(label));
        let read = {
            let (bytes, object) = (bytes.clone(), object.clone());
            move || manifest::decode(&object, &bytes)
        };
        let (header, tables) = spawn_blocking(read).await.map_err(Error::Worker)??;
        // Whoever copies has no key and needs none.
        if let Some(encryption) = &header.encryption
            && let Ok(Some(key)) = repository.unlock(&object, &header)
        {
            let name = repository.manifest_key(label);
            let cipher = key.cipher(&encryption.salt, name.as_str());
            manifest::authenticate(&object, &bytes, &cipher)?;
        }
        if header.label != *label {
            let what = format!("it is the manifest of `{}`", header.label);
            return Err(Error::damaged(object, what));
        }
        let Tables {
            packs,
            parts,
            entries,
        } = tables;
        Ok(Self {
            repository,
            opened: Arc::new(Opened {
                header,
                bytes,
                packs: packs.into(),
                looked_up: Mutex::new(LookedUp {
                    firsts: vec![None; parts.len()],
                    kept: VecDeque::new(),
                }),
                parts,
                entries: entries.map(Arc::new),
            }),
        })
    }

    /// Returns the label.
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.opened.header.label
    }

    /// Returns the header, with what the source wrote for itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.opened.header
    }

    /// Fails with [`Error::Locked`] if it is encrypted and its key is not at hand.
    pub fn check_key(&self) -> Result<()> {
        let manifest = self.repository.manifest_key(self.label());
        let object = store::name(&**self.repository.store(), &manifest);
        self.repository.unlock(&object, self.header()).map(drop)
    }

    /// Returns the packs that hold its content, those of older backups among them.
    #[must_use]
    pub fn packs(&self) -> &[Pack] {
        &self.opened.packs
    }

    pub(crate) fn shared_packs(&self) -> Arc<[Pack]> {
        Arc::clone(&self.opened.packs)
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.opened.parts
    }

    pub(crate) fn manifest_bytes(&self) -> &Bytes {
        &self.opened.bytes
    }

    /// Finds a file by its path. Quick if paths are asked for about in the order of the tree.
    ///
    /// What comes back can be what a later backup refers to: [`BackupWriter::patch_file`](crate::BackupWriter::patch_file).
    pub async fn file(&self, path: &str) -> Result<Option<StoredFile>> {
        let found = |entries: &[Entry]| {
            let place = entries.binary_search_by(|entry| tree::compare(entry.path(), path));
            match entries.get(place.ok()?)? {
                Entry::File(entry) => Some(StoredFile {
                    entry: entry.clone(),
                    packs: self.shared_packs(),
                    key: self.header().encryption.as_ref().map(|by| by.key.clone()),
                }),
                _ => None,
            }
        };
        if let Some(entries) = &self.opened.entries {
            return Ok(found(entries));
        }
        if let Some(entries) = self.kept_around(path) {
            return Ok(found(&entries));
        }
        // The last part that does not begin behind the path.
        let (mut low, mut high) = (0, self.opened.parts.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let first = self.first_of(middle).await?;
            if tree::compare(&first, path).is_le() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        match low.checked_sub(1) {
            None => Ok(None),
            Some(number) => Ok(found(&self.kept_part(number).await?)),
        }
    }

    fn looked_up(&self) -> MutexGuard<'_, LookedUp> {
        let looked_up = self.opened.looked_up.lock();
        looked_up.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a part at hand between whose first and last entry the path is.
    fn kept_around(&self, path: &str) -> Option<Arc<Vec<Entry>>> {
        let looked_up = self.looked_up();
        let mut kept = looked_up.kept.iter().map(|(_, entries)| entries);
        let around = kept.find(|entries| {
            let (first, last) = (entries.first(), entries.last());
            first.is_some_and(|entry| tree::compare(entry.path(), path).is_le())
                && last.is_some_and(|entry| tree::compare(entry.path(), path).is_ge())
        });
        around.map(Arc::clone)
    }

    async fn first_of(&self, number: usize) -> Result<String> {
        if let Some(first) = &self.looked_up().firsts[number] {
            return Ok(first.clone());
        }
        let entries = self.kept_part(number).await?;
        Ok(entries
            .first()
            .map_or_else(String::new, |entry| entry.path().to_owned()))
    }

    async fn kept_part(&self, number: usize) -> Result<Arc<Vec<Entry>>> {
        let kept = |looked_up: &LookedUp| {
            let mut kept = looked_up.kept.iter();
            kept.find(|(kept, _)| *kept == number)
                .map(|(_, entries)| Arc::clone(entries))
        };
        if let Some(entries) = kept(&self.looked_up()) {
            return Ok(entries);
        }
        let entries = Arc::new(self.read_part(number).await?);
        let mut looked_up = self.looked_up();
        looked_up.firsts[number] = entries.first().map(|entry| entry.path().to_owned());
        looked_up.kept.push_front((number, Arc::clone(&entries)));
        looked_up.kept.truncate(PARTS_KEPT);
        Ok(entries)
    }

    async fn read_part(&self, number: usize) -> Result<Vec<Entry>> {
        let (object, bytes) = self.part_bytes(number).await?;
        let part = self.opened.parts[number];
        let packs = self.shared_packs();
        let name = self.repository.part_key(self.label(), number);
        let cipher = self.cipher(part.salt.as_ref(), name.as_str())?;
        spawn_blocking(move || tree::decode_part(&object, &bytes, &part, &packs, cipher.as_ref()))
            .await
            .map_err(Error::Worker)?
    }

    /// Returns what opens an object of this backup; nothing if it is not encrypted.
    pub(crate) fn cipher(
        &self,
        salt: Option<&SaltText>,
        name: &str,
    ) -> Result<Option<ObjectCipher>> {
        let manifest = self.repository.manifest_key(self.label());
        let object = store::name(&**self.repository.store(), &manifest);
        let Some(key) = self.repository.unlock(&object, self.header())? else {
            return Ok(None);
        };
        match salt {
            Some(salt) => Ok(Some(key.cipher(salt, name))),
            None => Err(Error::damaged(
                object,
                format!("it is encrypted and `{name}` is said not to be"),
            )),
        }
    }

    /// Reads a part's object; returns it with its name.
    pub(crate) async fn part_bytes(&self, number: usize) -> Result<(String, Bytes)> {
        let key = self.repository.part_key(self.label(), number);
        let object = store::name(&**self.repository.store(), &key);
        match self.repository.store().get(&key).await {
            Ok(bytes) => Ok((object, bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::damaged(
                object,
                "it does not exist, and a part of the list of files is in it",
            )),
            Err(error) => Err(store::failed(format!("read `{key}`"))(error)),
        }
    }

    /// Reads the tree, a part after the other, in its order, which is checked.
    pub(crate) fn tree(&self) -> impl Stream<Item = Result<Arc<Vec<Entry>>>> + '_ {
        let mut order = Order::default();
        let whole = self.opened.entries.iter().map(Arc::clone);
        let parts = stream::iter(0..self.opened.parts.len())
            .map(async |number| Ok(Arc::new(self.read_part(number).await?)))
            .buffered(PARTS_IN_FLIGHT);
        stream::iter(whole.map(Ok))
            .chain(parts)
            .map(move |entries: Result<Arc<Vec<Entry>>>| {
                let entries = entries?;
                for entry in entries.iter() {
                    order.check(entry.path(), entry)?;
                }
                Ok(entries)
            })
    }
}
