//! Reading a whole backup to see whether it could be restored.

use bytes::Bytes;
use dr_provider::ErrorKind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use crate::manifest::{Frame, PackInfo};
use crate::{BackupReader, Error, Hash, Result, frame, pack, store};

/// Packs read at a time.
const PACKS_IN_FLIGHT: usize = 3;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyStats {
    /// Packs whose hash is right.
    pub packs: u64,
    /// Frames whose content has the right hash.
    pub frames: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
}

impl BackupReader {
    /// Reads every pack and checks every frame. Fails with the first object that is missing or damaged, by number of the
    /// pack, naming the file that it spoils.
    pub async fn verify(&self) -> Result<VerifyStats> {
        let mut frames = vec![Vec::new(); self.manifest.packs.len()];
        for file in self.manifest.files() {
            for frame in &file.frames {
                frames[frame.pack as usize].push((*frame, file.path.clone()));
            }
        }
        let checks = frames.into_iter().zip(self.manifest.packs.iter().copied());
        stream::iter(checks.enumerate())
            .map(|(number, (frames, info))| self.verify_pack(number, info, frames))
            .buffered(PACKS_IN_FLIGHT)
            .try_fold(VerifyStats::default(), async |sum, one| {
                Ok(VerifyStats {
                    packs: sum.packs + one.packs,
                    frames: sum.frames + one.frames,
                    read_bytes: sum.read_bytes + one.read_bytes,
                })
            })
            .await
    }

    async fn verify_pack(
        &self,
        number: usize,
        info: PackInfo,
        frames: Vec<(Frame, String)>,
    ) -> Result<VerifyStats> {
        let (object, bytes) = self
            .pack(number, frames.first().map(|(_, path)| path))
            .await?;
        let check = move || {
            check_frames(&bytes, &frames).map_err(|what| Error::damaged(object.clone(), what))?;
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
                frames: frames.len() as u64,
                read_bytes: info.bytes,
            })
        };
        spawn_blocking(check).await.map_err(Error::Worker)?
    }

    /// Reads a whole pack; returns it with its name.
    pub(crate) async fn pack(
        &self,
        number: usize,
        file: Option<&String>,
    ) -> Result<(String, Bytes)> {
        let key = self.repository.pack_key(self.label(), number);
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
pub(crate) fn missing(file: Option<&String>) -> String {
    match file {
        Some(path) => format!("it does not exist, and `{path}` is in it"),
        None => "it does not exist".to_owned(),
    }
}

fn check_frames(bytes: &[u8], frames: &[(Frame, String)]) -> std::result::Result<(), String> {
    for (frame, path) in frames {
        let stored = usize::try_from(frame.offset)
            .ok()
            .and_then(|from| bytes.get(from..from + frame.stored_bytes as usize))
            .ok_or_else(|| format!("it ends inside `{path}`"))?;
        frame::decode(stored, frame).map_err(|error| format!("`{path}`: {error}"))?;
    }
    Ok(())
}
