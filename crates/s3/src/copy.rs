//! Copies that the service makes by itself, from bucket to bucket.
//!
//! They go through an upload in parts with one part, `UploadPartCopy`: its completion carries the
//! condition that nothing is there yet, which servers honour more often than `CopyObject` does.

use aws_sdk_s3::types::CompletedPart;
use dr_provider::store::CopySource;
use dr_provider::{ErrorKind, Key, Result};

use crate::S3Store;
use crate::answer::Answer;
use crate::call::{Action, Call};

impl S3Store {
    /// Returns where an object lies for other buckets of the same service.
    pub(crate) fn source(&self, key: &Key) -> CopySource {
        CopySource {
            service: self.service().to_owned(),
            object: format!("{}/{}", self.options.bucket, self.bucket_key(key.as_str())),
        }
    }

    /// Creates an object as a copy of another one of the same service.
    pub(crate) async fn copy(&self, call: &Call<'_>, source: &CopySource, key: &Key) -> Result<()> {
        if source.service != self.service() {
            let why = format!("its source is in {}", source.service);
            return Err(call.error(ErrorKind::Unsupported).because(why));
        }
        let upload = self.begin(call, key).await?;
        let request = self
            .client()
            .await?
            .upload_part_copy()
            .bucket(&self.options.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(1)
            // Keys need no escaping: see `Key`.
            .copy_source(&source.object);
        let copied = match request.send().await {
            Ok(copied) => copied
                .copy_part_result
                .unwrap_or_else(|| aws_sdk_s3::types::CopyPartResult::builder().build()),
            Err(error) => {
                upload.abort().await;
                return Err(Answer::of(&error).error(call, Action::COPY_PART));
            }
        };
        let part = CompletedPart::builder()
            .part_number(1)
            .set_e_tag(copied.e_tag)
            .set_checksum_crc32_c(copied.checksum_crc32_c);
        self.complete(call, upload, vec![part.build()], None).await
    }

    fn service(&self) -> &str {
        self.options.endpoint.as_deref().unwrap_or("s3")
    }
}
