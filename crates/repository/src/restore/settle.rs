//! What comes after the content: attributes, links, durability, and the names that come last.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::blocking;
use super::place::{File, Plan};
use crate::manifest::Metadata;
use crate::{Error, Result};

/// Groups of files made durable at a time: file systems join concurrent syncs into one.
const GROUPS_IN_FLIGHT: usize = 16;
const FILES_IN_GROUP: usize = 32;

/// Makes everything durable in the order that counts: contents, directories, then the last names.
pub(super) async fn settle(plan: Arc<Plan>, owner: Option<(u32, u32)>) -> Result<()> {
    let groups = (0..plan.files.len()).step_by(FILES_IN_GROUP);
    stream::iter(groups)
        .map(|first| {
            let plan = Arc::clone(&plan);
            blocking(move || {
                let end = plan.files.len().min(first + FILES_IN_GROUP);
                plan.files[first..end]
                    .iter()
                    .try_for_each(|file| settle_file(file, owner))
            })
        })
        .buffer_unordered(GROUPS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    blocking(move || {
        for (at, target) in &plan.symlinks {
            symlink(target, at).map_err(Error::io("make symbolic link", at))?;
            if let Some((user, group)) = owner {
                lchown(at, Some(user), Some(group)).map_err(Error::io("change owner of", at))?;
            }
        }
        // Children before parents: a directory may lose the right to be entered.
        for (at, metadata) in plan.directories.iter().rev() {
            settle_directory(at, Some(*metadata), owner)?;
        }
        settle_directory(&plan.root, None, owner)?;
        if let Some(parent) = plan
            .root
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            sync(parent)?;
        }
        for file in &plan.files {
            if let Some(name) = &file.rename_to {
                fs::rename(&file.at, name).map_err(Error::io("give its name to", name))?;
                if let Some(directory) = name.parent() {
                    sync(directory)?;
                }
            }
        }
        Ok(())
    })
    .await
}

fn settle_file(file: &File, owner: Option<(u32, u32)>) -> Result<()> {
    let at = &file.at;
    // Empty files have no frames and do not exist yet.
    let handle = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(at)
        .map_err(Error::io("open", at))?;
    let length = handle.metadata().map_err(Error::io("look at", at))?.len();
    if length != file.size {
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
