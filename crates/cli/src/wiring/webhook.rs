//! A webhook whose address is resolved when there is something to send: an address that cannot be
//! read must not keep a workload from being moved.

use std::time::Duration;

use async_trait::async_trait;
use dr_local::{Authorities, LocalSecrets, Webhook};
use dr_model::document::Template;
use dr_provider::notifier::Message;
use dr_provider::{Notifier, Result, SecretSource};

/// How long a message may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A webhook as the configuration has it.
#[derive(Debug)]
pub(super) struct LateWebhook {
    address: Template,
    authorities: Authorities,
    secrets: LocalSecrets,
}

impl LateWebhook {
    pub(super) fn new(address: Template, authorities: Authorities, secrets: LocalSecrets) -> Self {
        Self {
            address,
            authorities,
            secrets,
        }
    }

    fn webhook(&self) -> Result<Webhook> {
        let address = self.secrets.resolve(self.address.text())?;
        Ok(Webhook::new(&address, LIMIT)?.trusting(self.authorities.clone()))
    }
}

#[async_trait]
impl Notifier for LateWebhook {
    fn describe(&self) -> String {
        match self.webhook() {
            Ok(webhook) => webhook.describe(),
            Err(_) => format!("webhook of {}", self.address.span()),
        }
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        self.webhook()?.notify(message).await
    }
}
