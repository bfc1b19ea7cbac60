//! With which keys what is stored is encrypted.

use std::path::PathBuf;

use dr_model::document::{Context, FromNode, Node, Reader, list};

/// Key files, by absolute path. They are read when they are needed, not when the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// The one to write with.
    pub key_file: PathBuf,
    /// Those that older backups were written with.
    pub old_key_files: Vec<PathBuf>,
}

impl FromNode for Encryption {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let key_file = reader.required("key_file");
        let old_key_files = reader.optional_with("old_key_files", list(PathBuf::from_node));
        reader.finish();
        Some(Self {
            key_file: key_file?,
            old_key_files: old_key_files.unwrap_or_default(),
        })
    }
}
