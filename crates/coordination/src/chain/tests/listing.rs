//! Finding the newest links among many by few listings.

use std::sync::Arc;

use bytes::Bytes;
use dr_model::Lsn;
use dr_provider::ObjectStore;
use dr_provider::decorate::{Operation, Recording};
use dr_provider::store::MemoryStore;
use proptest::prelude::*;

use super::{ORIGIN, chain};
use crate::chain::catalogue::newest_links;
use crate::testing::IMPATIENT;

/// A chain's stretches: how many links, how far apart.
fn stretches() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let apart = prop_oneof![1..4_u64, 100..9000_u64, 1_000_000..5_000_000_u64];
    prop::collection::vec((1..1500_u64, apart), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_newest_links_are_found_by_few_listings(
        stretches in stretches(),
        wanted in prop_oneof![Just(1_usize), Just(16), Just(256)],
        // Of the chain's length, in thousandths, and beyond it.
        at_most in prop::option::of(0..1100_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(MemoryStore::new("west"));
            let mut all = Vec::new();
            let mut at = ORIGIN;
            for (count, apart) in stretches {
                for _ in 0..count {
                    store.create(&chain(1).link_key(at), Bytes::from("link")).await.unwrap();
                    all.push(at);
                    at = at.advance(apart);
                }
            }
            store.create(&chain(1).origin_key(), Bytes::from("origin")).await.unwrap();
            let at_most = at_most.map(|part| Lsn(ORIGIN.0 + (at.0 - ORIGIN.0) / 1000 * part));
            all.retain(|lsn| at_most.is_none_or(|at_most| *lsn <= at_most));

            let store = Recording::new(store);
            let found = newest_links(&store, &chain(1), at_most, wanted, IMPATIENT).await.unwrap();
            prop_assert!(all.ends_with(&found));
            prop_assert!(found.len() >= wanted.min(all.len()));
            let listings = store.count(Operation::List);
            prop_assert!(listings <= 64, "{listings} listings");
            Ok(())
        })?;
    }
}
