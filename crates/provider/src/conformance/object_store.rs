//! The suite of [`ObjectStore`](crate::ObjectStore).
//!
//! The functions panic where the store breaks the contract. They rest on nothing but the trait,
//! except that losing the store's identity has to be arranged by whoever knows how.

// Tests by nature, though they are compiled for other crates.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod create;
mod find;
mod list;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use create::{
    an_existing_object_is_never_changed, an_object_is_readable_at_once, big_and_empty_objects_keep,
    no_reader_sees_part_of_an_object, one_of_sixteen_creates_wins,
};
pub use find::{
    a_deleted_object_is_gone, a_range_ends_with_the_object, without_identity_nothing_is_not_found,
};
pub use list::{
    a_listing_is_in_byte_order, a_listing_of_many_keys_pages, a_prefix_need_not_end_at_a_slash,
};

use crate::{ErrorKind, Key, ObjectStore, Result};

/// A store under test: initialised, and empty apart from its identity object.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    lose_identity: Box<dyn FnOnce() + Send>,
    kept: Option<Box<dyn Any + Send>>,
}

impl Subject {
    /// Takes a store and what makes its identity object unreadable, as an unmounted volume would.
    pub fn new(store: Arc<dyn ObjectStore>, lose_identity: impl FnOnce() + Send + 'static) -> Self {
        Self {
            store,
            lose_identity: Box::new(lose_identity),
            kept: None,
        }
    }

    /// Keeps something alive for as long as the store is used, such as its directory.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send) -> Self {
        self.kept = Some(Box::new(kept));
        self
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// Makes one `#[tokio::test]` of each function of the suite; the argument is an `async fn() ->
/// Subject`.
#[macro_export]
macro_rules! object_store_conformance {
    ($subject:path) => {
        $crate::object_store_conformance! { @tests $subject:
            an_existing_object_is_never_changed
            an_object_is_readable_at_once
            big_and_empty_objects_keep
            no_reader_sees_part_of_an_object
            one_of_sixteen_creates_wins
            a_deleted_object_is_gone
            a_range_ends_with_the_object
            without_identity_nothing_is_not_found
            a_listing_is_in_byte_order
            a_listing_of_many_keys_pages
            a_prefix_need_not_end_at_a_slash
        }
    };
    (@tests $subject:path: $($name:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::conformance::object_store::$name($subject().await).await;
            }
        )*
    };
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[track_caller]
fn assert_kind<T: fmt::Debug>(result: Result<T>, kind: ErrorKind) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{}", crate::error::chain(&error));
}

/// Lists keys as text, leaving out the identity object.
async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let listed = crate::store::list_all(store, prefix).await.unwrap();
    let keys = listed.into_iter().map(|info| info.key.to_string());
    keys.filter(|key| key != crate::store::IDENTITY_KEY)
        .collect()
}
