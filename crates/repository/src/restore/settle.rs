//! What comes after the content: attributes, links, durability, and the names that come last.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::place::{Plan, list_failed};
use super::{blocking, produce};
use crate::manifest::{Entry, Metadata};
use crate::{Error, Result};

/// Groups of files made durable at a time: file systems join concurrent syncs into one.
const GROUPS_IN_FLIGHT: usize = 16;
const FILES_IN_GROUP: usize = 32;

/// A file whose content is there.
struct File {
    at: PathBuf,
    metadata: Metadata,
    size: u64,
}

/// Makes everything durable in the order that counts: contents, directories, then the last names.
pub(super) async fn settle(plan: Arc<Plan>, owner: Option<(u32, u32)>) -> Result<()> {
    let (groups, listing) = {
        let plan = Arc::clone(&plan);
        produce(GROUPS_IN_FLIGHT, move |sender| group(&plan, sender))
    };
    groups
        .map(|group| blocking(move || group.iter().try_for_each(|file| settle_file(file, owner))))
        .buffer_unordered(GROUPS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    listing.await.map_err(Error::Worker)??;
    blocking(move || finish(&plan, owner)).await
}

fn group(plan: &Plan, sender: &mpsc::Sender<Vec<File>>) -> Result<()> {
    let mut group = Vec::new();
    let mut wanted = true;
    plan.each(|placed| {
        if let Entry::File(file) = &placed.entry {
            group.push(File {
                at: plan.root.join(placed.at()),
                metadata: file.metadata,
                size: file.size,
            });
            if group.len() == FILES_IN_GROUP && wanted {
                wanted = sender.blocking_send(std::mem::take(&mut group)).is_ok();
            }
        }
        Ok(())
    })?;
    // Who does not take it has an error of its own to tell.
    drop(sender.blocking_send(group));
    Ok(())
}

fn finish(plan: &Plan, owner: Option<(u32, u32)>) -> Result<()> {
    let root = &plan.root;
    let mut directories = plan.sorter();
    let mut last: Vec<(usize, PathBuf, PathBuf)> = Vec::new();
    let failed = |error| list_failed(root)(error);
    plan.each(|placed| {
        let at = root.join(&placed.path);
        match &placed.entry {
            Entry::Symlink { target, .. } => {
                symlink(target, &at).map_err(Error::io("make symbolic link", &at))?;
                if let Some((user, group)) = owner {
                    lchown(&at, Some(user), Some(group))
                        .map_err(Error::io("change owner of", &at))?;
                }
            }
            Entry::Directory { metadata, .. } => {
                // Children before parents: a directory may lose the right to be entered.
                let depth = placed.path.matches('/').count() as u64;
                let value = serde_json::to_vec(&(&placed.path, metadata)).map_err(io::Error::other);
                let value = value.map_err(failed)?;
                directories
                    .push(&(u64::MAX - depth).to_be_bytes(), &value)
                    .map_err(failed)?;
            }
            Entry::File(_) => {
                if let Some(turn) = placed.turn {
                    last.push((turn, root.join(placed.at()), at));
                }
            }
        }
        Ok(())
    })?;
    let directories = directories.finish().map_err(failed)?;
    let mut walk = directories.walk().map_err(failed)?;
    while let Some((_, value)) = walk.next().map_err(failed)? {
        let (path, metadata): (String, Metadata) =
            serde_json::from_slice(value).map_err(|error| failed(io::Error::other(error)))?;
        settle_directory(&root.join(path), Some(metadata), owner)?;
    }
    for (path, place) in &plan.elsewhere {
        if let Some((user, group)) = owner {
            let link = root.join(path);
            lchown(&link, Some(user), Some(group)).map_err(Error::io("change owner of", &link))?;
        }
        settle_directory(place, None, owner)?;
        if let Some(parent) = place.parent() {
            sync(parent)?;
        }
    }
    settle_directory(root, None, owner)?;
    if let Some(parent) = root
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        sync(parent)?;
    }
    last.sort_unstable();
    for (_, at, name) in last {
        fs::rename(&at, &name).map_err(Error::io("give its name to", &name))?;
        if let Some(directory) = name.parent() {
            sync(directory)?;
        }
    }
    Ok(())
}

fn settle_file(file: &File, owner: Option<(u32, u32)>) -> Result<()> {
    let at = &file.at;
    // Files without any content but zeros do not exist yet.
    let handle = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(at)
        .map_err(Error::io("open", at))?;
    let length = handle.metadata().map_err(Error::io("look at", at))?.len();
    // Zeros at the end are not written.
    if length < file.size {
        handle
            .set_len(file.size)
            .map_err(Error::io("lengthen", at))?;
    } else if length > file.size {
        return Err(Error::damaged(
            at.display().to_string(),
            format!("it has {length} bytes instead of {}", file.size),
        ));
    }
    if let Some((user, group)) = owner {
        std::os::unix::fs::fchown(&handle, Some(user), Some(group))
            .map_err(Error::io("change owner of", at))?;
    }
    let permissions = Permissions::from_mode(file.metadata.mode & 0o7777);
    handle
        .set_permissions(permissions)
        .map_err(Error::io("change mode of", at))?;
    handle
        .set_modified(time(file.metadata))
        .map_err(Error::io("change time of", at))?;
    handle.sync_all().map_err(Error::io("sync", at))
}

fn time(metadata: Metadata) -> SystemTime {
    let distance = Duration::from_secs(metadata.mtime.unsigned_abs());
    let time = if metadata.mtime < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn settle_directory(
    at: &Path,
    metadata: Option<Metadata>,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    if let Some((user, group)) = owner {
        chown(at, Some(user), Some(group)).map_err(Error::io("change owner of", at))?;
    }
    sync(at)?;
    if let Some(metadata) = metadata {
        let permissions = Permissions::from_mode(metadata.mode & 0o7777);
        fs::set_permissions(at, permissions).map_err(Error::io("change mode of", at))?;
    }
    Ok(())
}

fn sync(directory: &Path) -> Result<()> {
    fs::File::open(directory)
        .and_then(|handle| handle.sync_all())
        .map_err(Error::io("sync directory", directory))
}
