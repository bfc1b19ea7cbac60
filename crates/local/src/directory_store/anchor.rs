//! Keeps hold of the directory, and notices when the path no longer leads to it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dr_provider::store::IDENTITY_KEY;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::tree::Tree;

/// The largest identity object that is accepted, in bytes.
const IDENTITY_LIMIT: u64 = 64 << 10;

/// The directory is not the store that it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Away {
    /// There is no directory, or none with an identity object.
    #[error(
        "the store at `{0}` has no identity object: not initialised, or not mounted",
        .path.display()
    )]
    NoIdentity { path: PathBuf },
    /// What stands there is no directory.
    #[error("the store at `{0}` is a file, and has to be a directory", .path.display())]
    NoDirectory { path: PathBuf },
    /// It is there and cannot be read.
    #[error("the identity object of the store at `{0}` is not readable", .path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is that of another store.
    #[error(
        "another store stands at `{0}`: its identity object is not the one seen before",
        .path.display()
    )]
    Replaced { path: PathBuf },
}

/// An open store directory, with its identity object held open so that its inode number stays its
/// own.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) tree: Tree,
    identity_file: File,
    identity: Arc<[u8]>,
    device: u64,
    inode: u64,
}

/// The path of a store and what it led to when last looked at.
#[derive(Debug)]
pub(super) struct Anchor {
    path: PathBuf,
    identity_path: PathBuf,
    root: Mutex<Option<Arc<Root>>>,
}

impl Anchor {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            identity_path: path.join(IDENTITY_KEY),
            path,
            root: Mutex::default(),
        }
    }

    /// Returns the directory that the path leads to now, if it is the store that was seen first.
    pub(super) fn root(&self) -> Result<Arc<Root>, Away> {
        let seen = self.held().clone();
        let stat = rustix::fs::stat(&self.identity_path).map_err(|errno| self.away(errno))?;
        if let Some(root) = &seen
            && (root.device, root.inode) == (stat.st_dev, stat.st_ino)
        {
            return Ok(Arc::clone(root));
        }
        let root = Arc::new(self.open().map_err(|errno| self.away(errno))?);
        let mut held = self.held();
        match &*held {
            Some(before) if before.identity != root.identity => Err(Away::Replaced {
                path: self.path.clone(),
            }),
            _ => {
                *held = Some(Arc::clone(&root));
                Ok(root)
            }
        }
    }

    /// Makes sure that the store is there and its identity object readable, so that *not found* may
    /// be answered.
    pub(super) fn prove(&self, root: &Root) -> Result<(), Away> {
        let now = self.root()?;
        let mut content = vec![0; root.identity.len()];
        now.identity_file
            .read_exact_at(&mut content, 0)
            .map_err(|source| Away::Unreadable {
                path: self.path.clone(),
                source,
            })?;
        if now.tree.is_same(&root.tree) && *content == *root.identity {
            Ok(())
        } else {
            Err(Away::Replaced {
                path: self.path.clone(),
            })
        }
    }

    fn open(&self) -> Result<Root, Errno> {
        let tree = Tree::open(&self.path)?;
        let identity_file =
            File::from(tree.open_at(IDENTITY_KEY, OFlags::RDONLY, Mode::empty())?);
        let stat = rustix::fs::fstat(&identity_file)?;
        let mut identity = Vec::new();
        Read::take(&identity_file, IDENTITY_LIMIT)
            .read_to_end(&mut identity)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if identity.is_empty() {
            return Err(Errno::NOENT);
        }
        Ok(Root {
            tree,
            identity_file,
            identity: identity.into(),
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    fn away(&self, errno: Errno) -> Away {
        let path = Path::to_owned(&self.path);
        match errno {
            Errno::NOTDIR if path.is_file() => Away::NoDirectory { path },
            Errno::NOENT | Errno::NOTDIR => Away::NoIdentity { path },
            errno => Away::Unreadable {
                path,
                source: errno.into(),
            },
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Root>>> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
