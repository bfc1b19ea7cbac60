//! Copies that the service of both stores makes by itself: no pack goes through us, and none is believed unread (R38).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dr_provider::decorate::{Operation, Recording};
use dr_provider::store::{CopySource, MemoryStore, ObjectInfo};
use dr_provider::{Error as ProviderError, ErrorKind, Key, ObjectStore, Result};
use dr_repository::{CopyOptions, Error, copy};
use support::{assert_usable, label, on, write};

/// What the service does when it is asked for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Copies,
    CopiesWrong,
    Refuses,
    LosesTheAnswer,
}

/// The stores of one service, by name.
type Stores = Arc<Mutex<BTreeMap<String, Arc<MemoryStore>>>>;

#[derive(Debug)]
struct Bucket {
    inner: Arc<MemoryStore>,
    name: String,
    stores: Stores,
    service: Service,
}

impl Bucket {
    fn recorded(name: &str, stores: &Stores, service: Service) -> Arc<Recording> {
        let inner = Arc::new(MemoryStore::new(name));
        let mut all = stores.lock().unwrap();
        all.insert(name.to_owned(), Arc::clone(&inner));
        Arc::new(Recording::new(Arc::new(Self {
            inner,
            name: name.to_owned(),
            stores: Arc::clone(stores),
            service,
        })))
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    fn location(&self) -> &str {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<()> {
        self.inner.create(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: u64) -> Result<Bytes> {
        self.inner.get_range(key, offset, length).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }

    fn copy_source(&self, key: &Key) -> Option<CopySource> {
        Some(CopySource {
            service: "memory".to_owned(),
            object: format!("{}:{key}", self.name),
        })
    }

    async fn copy_from(&self, source: &CopySource, key: &Key) -> Result<()> {
        let error = |kind| ProviderError::new(kind, "copy object to", key.as_str());
        if self.service == Service::Refuses {
            return Err(error(ErrorKind::Denied));
        }
        let (name, from) = source.object.split_once(':').unwrap();
        let store = Arc::clone(&self.stores.lock().unwrap()[name]);
        let mut body = store.get(&Key::new(from).unwrap()).await?.to_vec();
        if self.service == Service::CopiesWrong {
            body[3] ^= 1;
        }
        self.inner.create(key, body.into()).await?;
        match self.service {
            Service::LosesTheAnswer => Err(error(ErrorKind::Unknown)),
            _ => Ok(()),
        }
    }
}

fn packs_read(store: &Recording) -> usize {
    let calls = store.calls();
    let read = |operation| matches!(operation, Operation::Get | Operation::GetRange);
    calls
        .iter()
        .filter(|call| read(call.operation) && call.subject.contains("/packs/"))
        .count()
}

#[tokio::test]
async fn the_service_moves_the_packs() {
    let stores = Stores::default();
    let here = Bucket::recorded("here", &stores, Service::Copies);
    let there = Bucket::recorded("there", &stores, Service::Copies);
    let (from, to) = (
        on(&(Arc::clone(&here) as Arc<dyn ObjectStore>)),
        on(&(Arc::clone(&there) as Arc<dyn ObjectStore>)),
    );
    write(&from, label(1)).await.unwrap();
    let _written = (here.take(), there.take());
    let stats = copy(&from, &to, &label(1), CopyOptions::default())
        .await
        .unwrap();
    assert!(stats.copied_packs >= 4, "{stats:?}");
    assert_eq!(packs_read(&here), 0, "a pack went through us");
    // Looked for, and read back once it is there.
    assert!(packs_read(&there) as u64 >= stats.copied_packs);
    assert_usable(&to, &label(1)).await;
}

#[tokio::test]
async fn what_the_service_says_is_not_believed_unread() {
    let stores = Stores::default();
    let here = Bucket::recorded("here", &stores, Service::Copies);
    let there = Bucket::recorded("there", &stores, Service::CopiesWrong);
    let (from, to) = (
        on(&(here as Arc<dyn ObjectStore>)),
        on(&(there as Arc<dyn ObjectStore>)),
    );
    write(&from, label(1)).await.unwrap();
    let copied = copy(&from, &to, &label(1), CopyOptions::default()).await;
    assert!(matches!(copied, Err(Error::Damaged { .. })), "{copied:?}");
    assert!(to.list().await.unwrap().backups.is_empty());
}

#[tokio::test]
async fn where_the_service_may_not_the_bytes_are_moved() {
    for service in [Service::Refuses, Service::LosesTheAnswer] {
        let stores = Stores::default();
        let here = Bucket::recorded("here", &stores, Service::Copies);
        let there = Bucket::recorded("there", &stores, service);
        let (from, to) = (
            on(&(here as Arc<dyn ObjectStore>)),
            on(&(there as Arc<dyn ObjectStore>)),
        );
        write(&from, label(1)).await.unwrap();
        // An answer that was lost fails the copy; each time it is repeated finds more packs there.
        let mut copied = copy(&from, &to, &label(1), CopyOptions::default()).await;
        let mut tried = 1;
        while service == Service::LosesTheAnswer && copied.is_err() && tried < 50 {
            tried += 1;
            copied = copy(&from, &to, &label(1), CopyOptions::default()).await;
        }
        copied.unwrap();
        assert_usable(&to, &label(1)).await;
    }
}
