//! Copies of a register's records in the stores that do not decide by them.

use dr_model::{Epoch, RegionName};
use dr_provider::Key;

use super::{EpochRecord, Error, Register};
use crate::operation::read;
use crate::publish::{Published, publish};

impl Register {
    /// Puts copies of all records into the store of `region`; returns how many were new there.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if a copy is there and differs; [`Error::Write`]; and the errors of [`Register::read`].
    pub async fn copy_to(&self, region: &RegionName) -> Result<usize, Error> {
        let records = self.read_all().await?;
        let Some(store) = self.stores.get(region) else {
            return Err(Error::Unreachable {
                workload: self.workload.clone(),
                region: region.clone(),
                epoch: Epoch::FIRST,
                source: None,
            });
        };
        let mut copied = 0;
        // Oldest first, so that a walk over copies has no hole. What is there already is found from the newest back.
        let mut missing = records.len();
        while missing > 0 {
            let record = &records[missing - 1];
            let key = EpochRecord::copy_key(&self.workload, record.epoch);
            let present = read(&**store, &key, self.patience)
                .await
                .map_err(|source| self.write_error(region, record.epoch, source))?;
            match present {
                Some(bytes) if self.is_copy(&bytes, record) => break,
                Some(_) => return Err(self.damaged(region, record.epoch, "its copy differs")),
                None => missing -= 1,
            }
        }
        for record in &records[missing..] {
            let key = EpochRecord::copy_key(&self.workload, record.epoch);
            self.put(region, &key, record).await?;
            copied += 1;
        }
        Ok(copied)
    }

    /// Creates an object that says what `record` does, or finds that it is there.
    pub(super) async fn put(
        &self,
        region: &RegionName,
        key: &Key,
        record: &EpochRecord,
    ) -> Result<(), Error> {
        let store = &self.stores[region];
        let published = publish(&**store, key.clone(), record.to_bytes(), self.patience).await;
        match published.map_err(|source| self.write_error(region, record.epoch, source))? {
            Published::Ours => Ok(()),
            Published::Theirs(bytes) if self.is_copy(&bytes, record) => Ok(()),
            Published::Theirs(_) => Err(self.damaged(region, record.epoch, "its copy differs")),
        }
    }

    /// Tells whether a copy says what a record does: another version of the program may have written it otherwise.
    fn is_copy(&self, bytes: &[u8], record: &EpochRecord) -> bool {
        EpochRecord::from_bytes(bytes, &self.workload, record.epoch)
            .is_ok_and(|copy| copy == *record)
    }
}
