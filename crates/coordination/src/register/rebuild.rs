//! Putting a register's records back into a store that was begun anew, because the one before it is gone for good.
//!
//! A register walks along from store to store as its workload moves, so that a lost store takes records with it that nothing else depends
//! on any more, and whose copies the others keep. Without them the walk ends where the first of them was, which is damage like any other
//! for whoever reads it. What tells the two apart is the age of the store: one that was begun after a record was made has never held it,
//! and nobody has taken it away from there.

use dr_model::{Epoch, RegionName};
use jiff::Timestamp;

use super::{EpochRecord, Error, Register};
use crate::operation::read;

impl Register {
    /// Puts those records whose place is the store of `region`, begun at `begun_at`, back from their copies in the other stores, as far as
    /// they are older than it; returns their epochs.
    ///
    /// Safe to be done by anybody at any time: records are create-only, and a copy is only ever made of one that was created.
    ///
    /// # Errors
    ///
    /// Those of [`Register::read`] if the register cannot be read all the same: a record that the store ought to hold, or of which no other
    /// store has a copy, is damage.
    pub async fn rebuild(
        &self,
        region: &RegionName,
        begun_at: Timestamp,
    ) -> Result<Vec<Epoch>, Error> {
        let mut put_back = Vec::new();
        loop {
            let damaged = match self.read_all().await {
                Ok(_) => return Ok(put_back),
                Err(error) => error,
            };
            let Error::Damaged {
                region: at, epoch, ..
            } = &damaged
            else {
                return Err(damaged);
            };
            let epoch = *epoch;
            // Without the first nobody knows of any place but where that has to be.
            let at = match epoch == Epoch::FIRST {
                true => &self.initial,
                false => at,
            };
            if at != region || put_back.last() == Some(&epoch) {
                return Err(damaged);
            }
            let copy = self.copy_of(epoch, region).await;
            let Some(copy) = copy.filter(|copy| copy.created_at < begun_at) else {
                return Err(damaged);
            };
            let key = EpochRecord::key(&self.workload, epoch);
            self.put(region, &key, &copy).await?;
            put_back.push(epoch);
        }
    }

    /// Returns what the other stores' copies of a record say; `None` if there is none, or if two of them differ.
    async fn copy_of(&self, epoch: Epoch, region: &RegionName) -> Option<EpochRecord> {
        let key = EpochRecord::copy_key(&self.workload, epoch);
        let mut copies = Vec::new();
        for (_, store) in self.stores.iter().filter(|(other, _)| *other != region) {
            if let Ok(Some(bytes)) = read(&**store, &key, self.patience).await {
                copies.push(EpochRecord::from_bytes(&bytes, &self.workload, epoch).ok()?);
            }
        }
        let copy = copies.pop()?;
        copies.iter().all(|other| *other == copy).then_some(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use dr_provider::ObjectStore;
    use rstest::rstest;

    use super::super::tests::{record, region, workload};
    use super::*;
    use crate::testing::{IMPATIENT, Scripted, at};

    fn register(east: &Arc<Scripted>, west: &Arc<Scripted>) -> Register {
        let stores: BTreeMap<RegionName, Arc<dyn ObjectStore>> = BTreeMap::from([
            (region("east"), east.clone() as Arc<dyn ObjectStore>),
            (region("west"), west.clone() as Arc<dyn ObjectStore>),
        ]);
        Register::new(workload(), stores, region("west")).with_patience(IMPATIENT)
    }

    /// A workload that has moved there and back: records 3 and 5 were placed in the east, and every store has all copies.
    async fn walked() -> (Arc<Scripted>, Arc<Scripted>) {
        let (east, west) = (Scripted::new("east"), Scripted::new("west"));
        let register = register(&east, &west);
        for epoch in 1..=6 {
            let primary = if epoch % 2 == 1 { "east" } else { "west" };
            let next = if primary == "east" { "west" } else { "east" };
            let record = EpochRecord {
                register: region(next),
                ..record(epoch, primary, u32::try_from(epoch).unwrap(), None)
            };
            register.create(&record).await.unwrap();
            register.copy_to(&region("east")).await.unwrap();
            register.copy_to(&region("west")).await.unwrap();
        }
        (east, west)
    }

    #[rstest]
    #[case::east("east", &[3, 5])]
    #[case::west_where_it_began("west", &[1, 2, 4, 6])]
    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_begun_anew_gets_its_records_back(
        #[case] lost: &str,
        #[case] expected: &[u64],
    ) {
        let (east, west) = walked().await;
        let before = register(&east, &west).read_all().await.unwrap();
        let new = Scripted::new(lost);
        let (east, west) = match lost {
            "east" => (new, west),
            _ => (east, new),
        };
        let error = register(&east, &west).read().await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        // What was there before the store's first day cannot have been taken from it, and what came after can.
        let early = register(&east, &west).rebuild(&region(lost), at(1)).await;
        assert!(matches!(early, Err(Error::Damaged { .. })), "{early:?}");

        let other = if lost == "east" { "west" } else { "east" };
        let others = register(&east, &west)
            .rebuild(&region(other), at(100))
            .await;
        assert!(matches!(others, Err(Error::Damaged { .. })), "{others:?}");

        let put_back = register(&east, &west).rebuild(&region(lost), at(100)).await;
        let expected: Vec<_> = expected.iter().copied().map(Epoch).collect();
        assert_eq!(put_back.unwrap(), expected);
        assert_eq!(register(&east, &west).read_all().await.unwrap(), before);
        let again = register(&east, &west).rebuild(&region(lost), at(100)).await;
        assert_eq!(again.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_a_copy_of_stays_damage() {
        let (_, west) = walked().await;
        let east = Scripted::new("east");
        let copy = EpochRecord::copy_key(&workload(), Epoch(5));
        west.delete(&copy).await.unwrap();
        let rebuilt = register(&east, &west)
            .rebuild(&region("east"), at(100))
            .await;
        let Err(Error::Damaged { epoch, .. }) = rebuilt else {
            panic!("{rebuilt:?}");
        };
        assert_eq!(epoch, Epoch(5));
    }
}
