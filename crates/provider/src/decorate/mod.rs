//! Decorators of [`ObjectStore`](crate::ObjectStore): each adds one thing to any store.
