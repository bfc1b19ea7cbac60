//! Stores on S3.

use std::collections::BTreeMap;
use std::sync::Arc;

use dr_config::{Check, Config};
use dr_model::Clock;
use dr_model::document::Node;
use dr_provider::SecretSource;
use dr_s3::{S3Options, S3Store};

use super::kinds::checked;
use crate::error::{CommandError, Result};

/// Returns the schemes of these locations.
pub(super) fn kinds() -> BTreeMap<&'static str, Check> {
    BTreeMap::from([("s3", checked::<S3Options> as Check)])
}

/// Opens the store that an entry describes; looks at nothing.
pub(super) fn open(
    config: &Config,
    node: &Node,
    secrets: &Arc<dyn SecretSource>,
    clock: &Arc<dyn Clock>,
) -> Result<S3Store> {
    let options = config
        .read(node)
        .map_err(|problems| CommandError::from_problems(&problems, &config.directory))?;
    Ok(S3Store::open(options, secrets, clock))
}
