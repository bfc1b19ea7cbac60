//! Keys that stand in the configuration, resolved when they are used.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, future};
use dr_model::Clock;
use dr_provider::SecretSource;
use dr_provider::error::chain;

use crate::Keys;

/// After this time they are resolved again: a rotated secret is picked up without a restart.
const KEPT: Duration = Duration::from_secs(300);

/// Hands out the keys of the configuration.
pub(crate) struct ConfiguredKeys {
    pub(crate) keys: Keys,
    pub(crate) secrets: Arc<dyn SecretSource>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl fmt::Debug for ConfiguredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredKeys").finish_non_exhaustive()
    }
}

impl ConfiguredKeys {
    fn resolve(&self) -> Result {
        let resolve = |text: &str| {
            self.secrets
                .resolve(text)
                .map_err(|error| CredentialsError::not_loaded(chain(&error)))
        };
        let id = resolve(self.keys.access_key_id.text())?;
        let secret = resolve(self.keys.secret_access_key.text())?;
        let token = self.keys.session_token.as_ref();
        let token = token.map(|token| resolve(token.text())).transpose()?;
        Ok(Credentials::new(
            id.expose(),
            secret.expose(),
            token.map(|token| token.expose().to_owned()),
            Some(SystemTime::from(self.clock.now()) + KEPT),
            "configuration",
        ))
    }
}

impl ProvideCredentials for ConfiguredKeys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.resolve())
    }
}
