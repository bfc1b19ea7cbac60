//! The conformance suite of stores, against a server of our own.

use std::sync::Arc;

use dr_provider::conformance::object_store::Subject;

use crate::support;

async fn subject() -> Subject {
    let (server, store) = support::started().await;
    let server = Arc::new(server);
    let kept = Arc::clone(&server);
    Subject::new(store, move || server.remove_bucket("store")).keeping(kept)
}

dr_provider::object_store_conformance!(subject);

/// The suite again in a bucket that keeps earlier versions.
mod versioned {
    use super::{Arc, Subject, support};

    async fn subject() -> Subject {
        let (server, store) = support::started().await;
        server.set_versioned("store", true);
        let server = Arc::new(server);
        let kept = Arc::clone(&server);
        Subject::new(store, move || server.remove_bucket("store")).keeping(kept)
    }

    dr_provider::object_store_conformance!(subject);
}
