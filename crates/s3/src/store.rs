//! The seam: each operation, and who carries it out.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use bytes::Bytes;
use dr_model::Clock;
use dr_provider::store::{CopySource, ObjectInfo};
use dr_provider::{ErrorKind, Key, ObjectStore, Result, SecretSource};

use crate::S3Options;
use crate::answer::Answer;
use crate::call::{Action, Call};
use crate::client::LateClient;
use crate::identity::Seen;

/// An [`ObjectStore`] in a bucket, or under a prefix of one.
#[derive(Debug)]
pub struct S3Store {
    pub(crate) options: Arc<S3Options>,
    pub(crate) location: String,
    pub(crate) seen: Seen,
    client: LateClient,
    pruner: Option<LateClient>,
}

impl S3Store {
    /// Makes a handle of the store at a location; looks at nothing and resolves no secret.
    #[must_use]
    pub fn open(
        options: S3Options,
        secrets: &Arc<dyn SecretSource>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let options = Arc::new(options);
        let prefix = options.prefix.trim_end_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        let location = format!("s3://{}{slash}{prefix}", options.bucket);
        let client = |keys| {
            let (options, secrets) = (Arc::clone(&options), Arc::clone(secrets));
            LateClient::new(options, keys, secrets, Arc::clone(clock))
        };
        Self {
            client: client(options.credentials.clone()),
            pruner: options.prune_credentials.clone().map(Some).map(client),
            seen: Seen::default(),
            location,
            options,
        }
    }

    pub(crate) async fn client(&self) -> Result<&Client> {
        self.client.get(&self.location).await
    }

    pub(crate) fn call<'a>(&'a self, operation: &'static str, subject: &'a str) -> Call<'a> {
        Call {
            operation,
            location: &self.location,
            subject,
            endpoint: self.options.endpoint.as_deref(),
        }
    }

    /// Returns the key of an object in its bucket.
    pub(crate) fn bucket_key(&self, key: &str) -> String {
        format!("{}{key}", self.options.prefix)
    }

    async fn prune(&self, call: &Call<'_>, key: &Key) -> Result<()> {
        let Some(pruner) = &self.pruner else {
            return Err(call
                .error(ErrorKind::Denied)
                .because("the store has no credentials for deleting")
                .with_hint(
                    "name keys under `prune_credentials` of the store; those for writing are never used to delete",
                ));
        };
        let request = pruner.get(&self.location).await?.delete_object();
        let request = request
            .bucket(&self.options.bucket)
            .key(self.bucket_key(key.as_str()));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let answer = Answer::of(&error);
                if answer.is_missing() {
                    return Ok(());
                }
                Err(answer.error(call, Action::DELETE))
            }
        }
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn location(&self) -> &str {
        &self.location
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        let call = self.call("create object", key.as_str());
        self.upload(&call, key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let call = self.call("read object", key.as_str());
        self.read(&call, key, None).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        let call = self.call("read object", key.as_str());
        self.read(&call, key, Some((offset, length))).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let call = self.call("look at object", key.as_str());
        self.look(&call, key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let call = self.call("list objects", prefix);
        self.find(&call, prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let call = self.call("delete object", key.as_str());
        self.prune(&call, key).await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        Some(self.source(key))
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let call = self.call("copy object to", key.as_str());
        Box::pin(self.copy(&call, source, key)).await
    }
}
