//! Reading a whole backup to see whether it could be restored.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use dr_encryption::ObjectCipher;
use dr_provider::ErrorKind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::manifest::{Entry, Extent, Frame, Pack};
use crate::spill::{Sorted, Sorter};
use crate::{BackupReader, Error, Hash, Label, Result, frame, pack, store};

/// Packs read at a time.
const PACKS_IN_FLIGHT: usize = 3;

/// Which packs of a backup are read back; the manifest and the tree always are.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Left out, by label and number: somebody has read them lately.
    pub known: BTreeSet<(Label, u32)>,
    /// Reads only a part of the others.
    pub sample: Option<Sample>,
}

/// A part of the packs, chosen by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How much of them, from 0 to 1; at least one pack is read.
    pub share: f64,
    /// What the choice is made from: the same seed chooses the same packs.
    pub seed: u64,
}

impl Sample {
    /// Returns a number from 0 to 1 for a pack.
    fn lot(&self, pack: &Pack) -> f64 {
        let text = format!("{}/{}/{}", self.seed, pack.label, pack.number);
        let hash = Hash::of(text.as_bytes());
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk::<4>()
            .expect("a hash has 32 bytes");
        f64::from(u32::from_le_bytes(*first)) / f64::from(u32::MAX)
    }
}

impl VerifyOptions {
    /// Decides of each of a backup's packs whether it is read.
    #[must_use]
    pub fn choose(&self, packs: &[Pack]) -> Vec<bool> {
        let unknown = |pack: &Pack| !self.known.contains(&(pack.label.clone(), pack.number));
        let mut chosen: Vec<bool> = packs.iter().map(unknown).collect();
        let Some(sample) = self.sample else {
            return chosen;
        };
        let lots = packs.iter().map(|pack| sample.lot(pack));
        let lots: Vec<f64> = lots.collect();
        let candidates = (0..packs.len()).filter(|number| chosen[*number]);
        let least = candidates.min_by(|a, b| lots[*a].total_cmp(&lots[*b]));
        for (number, chosen) in chosen.iter_mut().enumerate() {
            *chosen = *chosen && (lots[number] < sample.share || least == Some(number));
        }
        chosen
    }
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyStats {
    /// Packs whose hash is right.
    pub packs: u64,
    /// Frames whose content has the right hash.
    pub frames: u64,
    /// Bytes read from the store, manifest and tree aside.
    pub read_bytes: u64,
    /// Packs that were left out.
    pub passed_over: u64,
}

/// A frame and one of the files that have content in it.
#[derive(Debug, Serialize, Deserialize)]
struct Check {
    pack: u32,
    offset: u64,
    stored_bytes: u32,
    plain_bytes: u32,
    hash: Hash,
    path: String,
}

impl Check {
    fn frame(&self) -> Frame {
        Frame {
            pack: self.pack,
            offset: self.offset,
            stored_bytes: self.stored_bytes,
            plain_bytes: self.plain_bytes,
            hash: self.hash,
        }
    }
}

impl BackupReader {
    /// Reads packs and checks every frame in them. Fails with all packs that are missing or damaged, naming a file that the
    /// first of them spoils.
    pub async fn verify(&self, options: &VerifyOptions) -> Result<VerifyStats> {
        let scratch = std::env::temp_dir();
        let mut sorter = Sorter::new(scratch.clone());
        let mut parts = std::pin::pin!(self.tree());
        while let Some(entries) = parts.try_next().await? {
            let scratch = scratch.clone();
            sorter = spawn_blocking(move || {
                for entry in entries.iter() {
                    list(entry, &mut sorter).map_err(Error::io("keep a list in", &scratch))?;
                }
                Ok::<Sorter, Error>(sorter)
            })
            .await
            .map_err(Error::Worker)??;
        }
        let chosen = options.choose(self.packs());
        let passed_over = chosen.iter().filter(|chosen| !**chosen).count() as u64;
        let (sender, mut checks) = mpsc::channel(1);
        let grouping = spawn_blocking(move || {
            let failed = |error| Error::io("keep a list in", &scratch)(error);
            let sorted = sorter.finish().map_err(failed)?;
            group(&sorted, &chosen, &sender, &scratch)
        });
        let checks = stream::poll_fn(move |context| checks.poll_recv(context));
        let looks = checks.map(async |(number, checks): (usize, Vec<Check>)| {
            (number, self.verify_pack(number, checks).await)
        });
        let mut looks = std::pin::pin!(looks.buffered(PACKS_IN_FLIGHT));
        let mut stats = VerifyStats {
            passed_over,
            ..VerifyStats::default()
        };
        let mut damaged = Vec::new();
        let mut first = None;
        while let Some((number, found)) = looks.next().await {
            match found {
                Ok(one) => {
                    stats.packs += one.packs;
                    stats.frames += one.frames;
                    stats.read_bytes += one.read_bytes;
                }
                Err(error @ Error::Damaged { .. }) => {
                    let pack = &self.packs()[number];
                    damaged.push((pack.label.clone(), pack.number));
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        grouping.await.map_err(Error::Worker)??;
        match first {
            None => Ok(stats),
            Some(first) => Err(Error::DamagedPacks {
                packs: damaged,
                first: Box::new(first),
            }),
        }
    }

    async fn verify_pack(&self, number: usize, checks: Vec<Check>) -> Result<VerifyStats> {
        let pack = &self.packs()[number];
        let info = pack.info;
        let file = checks.first().map(|check| check.path.as_str());
        let key = self.repository.pack_key(&pack.label, pack.number);
        let cipher = self.cipher(pack.salt.as_ref(), key.as_str())?;
        let (object, bytes) = self.pack(pack, file).await?;
        let check = move || {
            check_frames(&bytes, &checks, cipher.as_ref())
                .map_err(|what| Error::damaged(object.clone(), what))?;
            let whole = bytes.len() as u64 == info.bytes && Hash::of(&bytes) == info.hash;
            if !whole {
                return Err(Error::damaged(
                    object,
                    "it is not the pack that the manifest names",
                ));
            }
            pack::check(&bytes).map_err(|what| Error::damaged(object, what))?;
            Ok(VerifyStats {
                packs: 1,
                frames: checks.len() as u64,
                read_bytes: info.bytes,
                passed_over: 0,
            })
        };
        spawn_blocking(check).await.map_err(Error::Worker)?
    }

    /// Reads a whole pack; returns it with its name.
    pub(crate) async fn pack(&self, pack: &Pack, file: Option<&str>) -> Result<(String, Bytes)> {
        let key = self.repository.pack_key(&pack.label, pack.number);
        let object = store::name(&**self.repository.store(), &key);
        match self.repository.store().get(&key).await {
            Ok(bytes) => Ok((object, bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::damaged(object, missing(file)))
            }
            Err(error) => Err(store::failed(format!("read `{key}`"))(error)),
        }
    }
}

/// Says of a pack that it is gone.
pub(crate) fn missing(file: Option<&str>) -> String {
    match file {
        Some(path) => format!("it does not exist, and `{path}` is in it"),
        None => "it does not exist".to_owned(),
    }
}

/// Adds the frames of an entry, to be sorted by their places.
fn list(entry: &Entry, sorter: &mut Sorter) -> std::io::Result<()> {
    let Entry::File(file) = entry else {
        return Ok(());
    };
    for extent in &file.extents {
        let Extent::Stored { frame, .. } = extent else {
            continue;
        };
        let mut key = frame.pack.to_be_bytes().to_vec();
        key.extend(frame.offset.to_be_bytes());
        let value = serde_json::to_vec(&Check {
            pack: frame.pack,
            offset: frame.offset,
            stored_bytes: frame.stored_bytes,
            plain_bytes: frame.plain_bytes,
            hash: frame.hash,
            path: file.path.clone(),
        })?;
        sorter.push(&key, &value)?;
    }
    Ok(())
}

/// Sends each chosen pack with its frames, each once; packs without any as well.
fn group(
    sorted: &Sorted,
    chosen: &[bool],
    sender: &mpsc::Sender<(usize, Vec<Check>)>,
    scratch: &Path,
) -> Result<()> {
    let failed = |error| Error::io("keep a list in", scratch)(error);
    let mut walk = sorted.walk().map_err(failed)?;
    let mut next = || -> Result<Option<Check>> {
        let Some((_, value)) = walk.next().map_err(failed)? else {
            return Ok(None);
        };
        let check = serde_json::from_slice(value);
        Ok(Some(
            check.map_err(|error| failed(std::io::Error::other(error)))?,
        ))
    };
    let mut ahead = next()?;
    for (number, chosen) in chosen.iter().enumerate() {
        let mut checks: Vec<Check> = Vec::new();
        while let Some(check) = ahead.take_if(|check| check.pack as usize == number) {
            if checks
                .last()
                .is_none_or(|last| last.frame() != check.frame())
            {
                checks.push(check);
            }
            ahead = next()?;
        }
        if *chosen && sender.blocking_send((number, checks)).is_err() {
            break;
        }
    }
    Ok(())
}

fn check_frames(
    bytes: &[u8],
    checks: &[Check],
    cipher: Option<&ObjectCipher>,
) -> std::result::Result<(), String> {
    for check in checks {
        let stored = usize::try_from(check.offset)
            .ok()
            .and_then(|from| bytes.get(from..from + check.stored_bytes as usize))
            .ok_or_else(|| format!("it ends inside `{}`", check.path))?;
        frame::decode(stored, &check.frame(), cipher, |_| ())
            .map_err(|error| format!("`{}`: {error}", check.path))?;
    }
    Ok(())
}
