//! What all parts need of a store beyond its own operations.

use bytes::Bytes;
use dr_provider::{ErrorKind, Key, ObjectStore};

use crate::{Error, Result};

/// Names an object for messages.
pub(crate) fn name(store: &dyn ObjectStore, key: &Key) -> String {
    format!("{}/{key}", store.location())
}

/// Adds what was being done to a store's error.
pub(crate) fn failed(operation: impl Into<String>) -> impl FnOnce(dr_provider::Error) -> Error {
    let operation = operation.into();
    move |source| Error::Store {
        operation,
        source: Box::new(source),
    }
}

/// Creates an object; finding it there with the same content is success, so that interrupted work can be repeated.
pub(crate) async fn create(store: &dyn ObjectStore, key: &Key, body: Bytes) -> Result<()> {
    match store.create(key, body.clone()).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let there = store.get(key).await;
            if there.map_err(failed(format!("compare `{key}`")))? == body {
                Ok(())
            } else {
                Err(Error::Different {
                    object: name(store, key),
                })
            }
        }
        Err(error) => Err(failed(format!("write `{key}`"))(error)),
    }
}
