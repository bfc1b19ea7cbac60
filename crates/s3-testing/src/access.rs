//! Who may do what.

use std::collections::BTreeSet;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// A pair of keys and what its holder may not do.
#[derive(Clone, Debug)]
pub struct Account {
    pub(crate) access_key_id: String,
    secret: String,
    denied: BTreeSet<&'static str>,
    expired: bool,
}

impl Account {
    /// Makes an account that may do everything.
    pub fn new(access_key_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret: secret.into(),
            denied: BTreeSet::new(),
            expired: false,
        }
    }

    /// Takes away an operation by its name in the protocol, such as `DeleteObject`.
    #[must_use]
    pub fn denied(mut self, operation: &'static str) -> Self {
        self.denied.insert(operation);
        self
    }

    /// Makes it one whose time is over.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expired = true;
        self
    }
}

/// All accounts of a server.
#[derive(Clone, Debug)]
pub(crate) struct Accounts(pub(crate) Vec<Account>);

impl Accounts {
    fn find(&self, id: &str) -> Option<&Account> {
        self.0.iter().find(|account| account.access_key_id == id)
    }
}

#[async_trait::async_trait]
impl S3Auth for Accounts {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.find(access_key) {
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist in our records."
            )),
            Some(account) if account.expired => {
                Err(s3_error!(ExpiredToken, "The provided token has expired."))
            }
            Some(account) => Ok(SecretKey::from(account.secret.as_str())),
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Accounts {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let account = context
            .credentials()
            .and_then(|credentials| self.find(&credentials.access_key));
        match account {
            Some(account) if !account.denied.contains(context.s3_op().name()) => Ok(()),
            _ => Err(s3_error!(AccessDenied, "Access Denied")),
        }
    }
}
