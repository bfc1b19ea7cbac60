//! Creating objects: in one request, or in parts.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
    StorageClass,
};
use bytes::Bytes;
use dr_provider::{Error, ErrorKind, Key, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::answer::Answer;
use crate::call::{Action, Call};
use crate::read::crc32c;
use crate::{Encryption, S3Store};

/// A body that is longer goes in parts, and a part is this long (reference: single PUT up to 16 MiB,
/// else parts of 16 MiB, eight at a time).
const PART: usize = 16 << 20;
/// Parts on their way at a time.
const IN_FLIGHT: usize = 8;
/// What S3 takes at most.
const MOST_PARTS: usize = 10_000;
/// How often a request is repeated that S3 asks to repeat, because another write was in the way.
const CONFLICTS: u32 = 5;
/// How long cleaning up after a failure may take.
const CLEAN_UP: Duration = Duration::from_secs(5);

impl S3Store {
    /// Creates an object, or fails with `AlreadyExists` without changing anything.
    pub(crate) async fn upload(&self, call: &Call<'_>, key: &Key, body: Bytes) -> Result<()> {
        if body.len() > PART {
            return self.upload_parts(call, key, body).await;
        }
        let mut tried = 0;
        loop {
            tried += 1;
            let answer = match self.put(key, body.clone()).await? {
                Ok(()) => return Ok(()),
                Err(answer) => answer,
            };
            if !answer.is_conflict() || tried > CONFLICTS {
                return Err(answer.error(call, Action::PUT));
            }
            wait(tried).await;
        }
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<std::result::Result<(), Answer>> {
        let (encryption, key_id) = self.encryption();
        let request = self
            .client()
            .await?
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.bucket_key(key.as_str()))
            .if_none_match("*")
            .checksum_crc32_c(crc32c(&body))
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key_id)
            .body(ByteStream::from(body))
            .customize();
        let request = if self.is_encrypted() {
            request.disable_payload_signing()
        } else {
            request
        };
        let sent = request.send().await;
        Ok(sent.map(|_| ()).map_err(|error| Answer::of(&error)))
    }

    async fn upload_parts(&self, call: &Call<'_>, key: &Key, body: Bytes) -> Result<()> {
        let size = body.len();
        let upload = self.begin(call, key).await?;
        let length = PART.max(size.div_ceil(MOST_PARTS));
        let parts = (0..size.div_ceil(length)).map(|index| {
            let start = index * length;
            let part = body.slice(start..size.min(start + length));
            let number = i32::try_from(index + 1).expect("at most ten thousand parts");
            self.upload_part(call, &upload, number, part)
        });
        // Not `buffer_unordered`: the parts are named in their order.
        let sent = stream::iter(parts).buffered(IN_FLIGHT).try_collect().await;
        match sent {
            Ok(parts) => self.complete(call, upload, parts, Some(size)).await,
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// Begins an upload in parts, of which nothing is visible until it is complete.
    pub(crate) async fn begin(&self, call: &Call<'_>, key: &Key) -> Result<Upload> {
        let (encryption, key_id) = self.encryption();
        let key = self.bucket_key(key.as_str());
        let client = self.client().await?;
        let request = client
            .create_multipart_upload()
            .bucket(&self.options.bucket)
            .key(&key)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            // Of all bytes, so that a reader of the whole object can compare it.
            .checksum_type(ChecksumType::FullObject)
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key_id);
        let begun = match request.send().await {
            Ok(begun) => begun,
            Err(error) => return Err(Answer::of(&error).error(call, Action::CREATE_UPLOAD)),
        };
        let id = begun.upload_id.ok_or_else(|| {
            let error = call.error(ErrorKind::Failed);
            error.because("CreateMultipartUpload: the answer names no upload")
        })?;
        Ok(Upload {
            client: client.clone(),
            bucket: self.options.bucket.clone(),
            key,
            id,
            open: true,
        })
    }

    async fn upload_part(
        &self,
        call: &Call<'_>,
        upload: &Upload,
        number: i32,
        part: Bytes,
    ) -> Result<CompletedPart> {
        let sum = crc32c(&part);
        let request = self
            .client()
            .await?
            .upload_part()
            .bucket(&self.options.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number)
            .checksum_crc32_c(&sum)
            .body(ByteStream::from(part))
            .customize();
        let request = if self.is_encrypted() {
            request.disable_payload_signing()
        } else {
            request
        };
        match request.send().await {
            Ok(sent) => Ok(CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag)
                .checksum_crc32_c(sum)
                .build()),
            Err(error) => Err(Answer::of(&error).error(call, Action::UPLOAD_PART)),
        }
    }

    /// Makes the object of the parts, if there is none yet.
    pub(crate) async fn complete(
        &self,
        call: &Call<'_>,
        upload: Upload,
        parts: Vec<CompletedPart>,
        size: Option<usize>,
    ) -> Result<()> {
        let size = size.and_then(|size| i64::try_from(size).ok());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let request = self
            .client()
            .await?
            .complete_multipart_upload()
            .bucket(&self.options.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .if_none_match("*")
            .checksum_type(ChecksumType::FullObject)
            .set_mpu_object_size(size)
            .multipart_upload(parts.build());
        let answer = match request.send().await {
            Ok(_) => {
                upload.close();
                return Ok(());
            }
            Err(error) => Answer::of(&error),
        };
        // Also where the outcome is unknown: it cannot take away what is complete.
        upload.abort().await;
        if answer.is_conflict() {
            return Err(self.conflict(call).await);
        }
        Err(answer.error(call, Action::COMPLETE_UPLOAD))
    }

    /// Says what a conflict at completion means. The parts are spent: whoever repeats it begins anew.
    async fn conflict(&self, call: &Call<'_>) -> Error {
        let key = Key::new(call.subject);
        match key {
            Ok(key) if self.look(call, &key).await.is_ok() => call.error(ErrorKind::AlreadyExists),
            _ => call
                .error(ErrorKind::Unavailable)
                .because("CompleteMultipartUpload: another write was in the way"),
        }
    }

    /// Tells whether bodies go over TLS, which keeps them whole; signing them as well would cost a
    /// SHA-256 of each.
    fn is_encrypted(&self) -> bool {
        let endpoint = self.options.endpoint.as_deref();
        !endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    fn storage_class(&self) -> Option<StorageClass> {
        let class = self.options.storage_class?;
        Some(StorageClass::from(class.as_str()))
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.options.encryption {
            None => (None, None),
            Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }
}

/// An upload that has begun, and whose parts cost money until it is completed or aborted.
#[derive(Debug)]
pub(crate) struct Upload {
    client: Client,
    bucket: String,
    pub(crate) key: String,
    pub(crate) id: String,
    open: bool,
}

impl Upload {
    fn close(mut self) {
        self.open = false;
    }

    /// Takes the parts away, as well as it can: what stays is for the bucket's lifecycle rule.
    pub(crate) async fn abort(mut self) {
        self.open = false;
        drop(tokio::time::timeout(CLEAN_UP, self.request()).await);
    }

    fn request(&self) -> impl Future<Output = ()> + Send + use<> {
        let request = self.client.abort_multipart_upload();
        let request = request
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id);
        async move { drop(request.send().await) }
    }
}

/// Whoever gave up waiting, at a time limit, still leaves no parts.
impl Drop for Upload {
    fn drop(&mut self) {
        if self.open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(CLEAN_UP, self.request()));
        }
    }
}

/// Waits a random part of a growing time.
async fn wait(tried: u32) {
    let longest = Duration::from_millis(25).saturating_mul(2_u32.saturating_pow(tried));
    tokio::time::sleep(longest.mul_f64(rand::random())).await;
}
