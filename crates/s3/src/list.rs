//! Listings.

use dr_provider::store::ObjectInfo;
use dr_provider::{Key, Result};

use crate::S3Store;
use crate::answer::Answer;
use crate::call::{Action, Call};

/// What S3 gives at most at a time.
const PAGE: usize = 1000;

impl S3Store {
    /// Lists objects; empty only while the store is proven to be there.
    ///
    /// Keys that are none of ours are passed over, so that a page may need several requests.
    pub(crate) async fn find(
        &self,
        call: &Call<'_>,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectInfo>> {
        let mut found: Vec<ObjectInfo> = Vec::new();
        let mut after = after.map(|key| self.bucket_key(key.as_str()));
        while found.len() < limit {
            let wanted = (limit - found.len()).min(PAGE);
            let request = self
                .client()
                .await?
                .list_objects_v2()
                .bucket(&self.options.bucket)
                .prefix(self.bucket_key(prefix))
                .set_start_after(after.clone())
                .max_keys(i32::try_from(wanted).expect("at most a page"));
            let page = match request.send().await {
                Ok(page) => page,
                Err(error) => return Err(Answer::of(&error).error(call, Action::LIST)),
            };
            found.extend(page.contents().iter().filter_map(|object| {
                let key = object.key()?.strip_prefix(&self.options.prefix)?;
                Some(ObjectInfo {
                    key: Key::new(key).ok()?,
                    size_bytes: u64::try_from(object.size()?).ok()?,
                })
            }));
            let last = page.contents().last().and_then(|object| object.key());
            match last {
                Some(last) if page.is_truncated() == Some(true) => after = Some(last.to_owned()),
                _ => break,
            }
        }
        if found.is_empty() && limit > 0 {
            self.prove(call).await?;
        }
        Ok(found)
    }
}
