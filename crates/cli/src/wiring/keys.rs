//! The keys that backups are encrypted with.

use std::path::Path;

use dr_config::Config;
use dr_postgres::{EncryptionKey, Keys};

use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::kit;

/// Reads the key files that the configuration names. One that cannot be read is refused: what would be written without it
/// would not be what was asked for.
pub(super) fn keys(config: &Config) -> Result<Keys> {
    let Some(encryption) = &config.encryption else {
        return Ok(Keys::default());
    };
    let files = [&encryption.key_file].into_iter();
    let files = files.chain(&encryption.old_key_files);
    let files = files.map(|file| kit::file(config, file));
    Ok(Keys::new(
        files.map(|file| read(&file)).collect::<Result<_>>()?,
    ))
}

fn read(file: &Path) -> Result<EncryptionKey> {
    let refuse = |why: String| {
        CommandError::new(
            Exit::Configuration,
            format!("the key file `{}` cannot be used: {why}", file.display()),
        )
        .hint("`encryption` in dr.yaml names it; every region needs a copy of the same file")
    };
    let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    EncryptionKey::parse(&text).map_err(|error| refuse(error.to_string()))
}
