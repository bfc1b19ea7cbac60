//! A store that is used for nothing before it has said whose it is.
//!
//! What is found in another region's store, and what is not found there, says nothing: the register read from it would be "damaged", and
//! the log of its own epochs "missing" (PROTOCOL 4). So the identity comes before anything else, once a process.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dr_model::RegionName;
use dr_provider::decorate::Operation;
use dr_provider::store::{CopySource, IDENTITY_KEY, ObjectInfo};
use dr_provider::{Error, ErrorKind, Key, ObjectStore, Result};
use tokio::sync::OnceCell;

use crate::identity::read_identity_within;
use crate::operation::Patience;

/// Lets no call through before the identity object has been read and names the region. Until then every call but those about that object
/// is `Unavailable`: what the store holds is not known.
#[derive(Debug)]
pub struct OfRegion {
    inner: Arc<dyn ObjectStore>,
    region: RegionName,
    known: OnceCell<()>,
}

impl OfRegion {
    /// Guards `inner`, which has to be the store of `region`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, region: RegionName) -> Self {
        Self {
            inner,
            region,
            known: OnceCell::new(),
        }
    }

    /// Returns the store for an operation on `subject`, once it is known to be the region's.
    async fn identified(&self, operation: Operation, subject: &str) -> Result<&dyn ObjectStore> {
        // Whoever asks has patience of its own.
        let once = Patience {
            attempts: 1,
            ..Patience::default()
        };
        let identify = async || {
            let read = read_identity_within(&*self.inner, &self.region, once).await;
            read.map(drop)
                .map_err(|error| self.unknown(operation, subject, &error))
        };
        self.known.get_or_try_init(identify).await?;
        Ok(&*self.inner)
    }

    async fn of(&self, operation: Operation, key: &Key) -> Result<&dyn ObjectStore> {
        match key.as_str() == IDENTITY_KEY {
            true => Ok(&*self.inner),
            false => self.identified(operation, key.as_str()).await,
        }
    }

    /// Makes an error about the identity one about what was asked for: whatever is wrong with it, nothing else is known. It says what an
    /// operation on a store says that has been identified before and does not answer any more.
    fn unknown(&self, operation: Operation, subject: &str, error: &Error) -> Error {
        let subject = format!("{}/{subject}", self.inner.location());
        let unknown = Error::new(ErrorKind::Unavailable, operation.phrase(), subject);
        let unknown = match error.hint() {
            Some(hint) => unknown.with_hint(hint.to_owned()),
            None => unknown,
        };
        // Of another kind, its own words would say the opposite; its cause says why.
        let why = std::error::Error::source(error).map(ToString::to_string);
        unknown.because(why.unwrap_or_else(|| error.to_string()))
    }
}

#[async_trait]
impl ObjectStore for OfRegion {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.of(Operation::Create, key)
            .await?
            .create(key, body)
            .await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.of(Operation::Get, key).await?.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.of(Operation::GetRange, key)
            .await?
            .get_range(key, offset, length)
            .await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.of(Operation::Head, key).await?.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.identified(Operation::List, prefix)
            .await?
            .list(prefix, after, limit)
            .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.identified(Operation::Delete, key.as_str())
            .await?
            .delete(key)
            .await
    }

    async fn free_bytes(&self) -> Option<u64> {
        self.identified(Operation::Head, IDENTITY_KEY)
            .await
            .ok()?
            .free_bytes()
            .await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        self.inner.copy_source(key)
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        self.identified(Operation::CopyFrom, key.as_str())
            .await?
            .copy_from(source, key)
            .await
    }
}

#[cfg(test)]
mod tests {
    use dr_provider::store::MemoryStore;
    use rstest::rstest;

    use super::*;
    use crate::identity::Identity;
    use crate::testing::at;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    #[rstest]
    #[case::its_own("west", None)]
    #[case::another_regions("east", Some("of region `east`, not of `west`"))]
    #[case::nobodys("", Some("never initialised"))]
    #[tokio::test]
    async fn what_a_store_holds_counts_once_it_has_said_whose_it_is(
        #[case] named: &str,
        #[case] refused: Option<&str>,
    ) {
        let inner = Arc::new(MemoryStore::new("west"));
        let (held, whose) = (key("register/a"), key(IDENTITY_KEY));
        inner.create(&held, Bytes::from("1")).await.unwrap();
        if let Ok(region) = named.parse() {
            let identity = Identity::new(region, 7, at(0));
            inner.create(&whose, identity.to_bytes()).await.unwrap();
        }
        let store = OfRegion::new(inner.clone(), "west".parse().unwrap());
        // The one thing that may be asked of any store.
        let _whose = store.get(&whose).await;
        let calls = [
            store.get(&held).await.map(drop),
            store.get(&key("register/b")).await.map(drop),
            store.list("register/", None, 10).await.map(drop),
            store.create(&key("register/c"), Bytes::from("1")).await,
        ];
        let kinds: Vec<_> = calls
            .iter()
            .map(|call| call.as_ref().err().map(Error::kind))
            .collect();
        let Some(why) = refused else {
            let expected = [None, Some(ErrorKind::NotFound), None, None];
            assert_eq!(kinds, expected);
            return;
        };
        assert_eq!(kinds, [Some(ErrorKind::Unavailable); 4]);
        for call in calls {
            let error = dr_provider::error::chain(&call.unwrap_err());
            assert!(error.contains(why), "{error}");
        }
        assert!(inner.get(&key("register/c")).await.is_err());
    }
}
