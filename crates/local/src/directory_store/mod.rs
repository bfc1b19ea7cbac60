//! An object store on a directory (PROTOCOL 4).
//!
//! Layout: the object `a/b/c` is the file `a/b/c` below the store's directory, `identity.json`
//! among them; `.tmp` holds files that are being written and is no part of the store's content.
//! Hence two limits that S3 does not have: no key begins with `.tmp/`, and no object's key is the
//! beginning of another's (`a` and `a/b`).
//!
//! # An object appears whole, once, and durable
//!
//! Its bytes are written to a file in `.tmp` and synchronised; `link` gives it its name, which
//! fails if the name is taken; then the directory is synchronised. Who loses the race synchronises
//! the directory too before saying `AlreadyExists`, because it may go on to rely on the winner's
//! object. Between `link` and the synchronisation a reader may see an object that a power failure
//! would take away again: whoever must rely on an object that it did not create creates it again.
//!
//! # A directory that has gone is not an empty one
//!
//! An open store holds the directory and its identity object open. Before each operation one `stat`
//! checks that the path still leads to that very identity object; an inode that is held open is not
//! given to another file, so the numbers cannot lie. If it does not (renamed, unmounted, replaced),
//! the path is opened anew and accepted only with an identity object of the same content, else the
//! answer is `Unavailable`. All steps of one operation go through one handle. A rename between the
//! check and the `link` goes unnoticed; the object is then safe in the renamed directory.

mod anchor;
mod errno;
mod initialise;
mod list;
mod names;
mod read;
mod remembered;
mod store;
mod temporary;
mod tree;
mod write;

pub use store::DirectoryStore;

#[cfg(test)]
mod tests;
