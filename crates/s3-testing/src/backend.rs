//! The operations of the protocol on the buckets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use dr_model::{Clock as _, SystemClock};
use futures::TryStreamExt as _;
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use crate::Conditions;
use crate::bucket::{Bucket, Stored, check_crc32c, crc32c};
use crate::faulty::Hidden;
use crate::listing::Page;
use crate::multipart::{Upload, etag};

/// How long a server that checks first takes to write then.
const RACE: Duration = Duration::from_millis(20);

/// All buckets of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) conditions: Conditions,
    uploads: u64,
}

impl Backend {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an object in place, if the conditions allow it.
    async fn put(&self, bucket: &str, key: &str, only_new: bool, object: Stored) -> S3Result<()> {
        let conditions = self.lock().conditions;
        if conditions == Conditions::CheckedFirst {
            self.lock().bucket(bucket)?.check(key, only_new)?;
            tokio::time::sleep(RACE).await;
        }
        let mut state = self.lock();
        let bucket = state.bucket(bucket)?;
        bucket.check(key, only_new && conditions == Conditions::Atomic)?;
        bucket.put(key, Some(object))
    }
}

impl State {
    pub(crate) fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn object(&mut self, bucket: &str, key: &str) -> S3Result<Stored> {
        let found = self.bucket(bucket)?.get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    fn upload(&mut self, bucket: &str, id: &str) -> S3Result<&mut Upload> {
        let upload = self.bucket(bucket)?.uploads.get_mut(id);
        upload.ok_or_else(|| s3_error!(NoSuchUpload, "The specified upload does not exist."))
    }
}

pub(crate) fn now() -> SystemTime {
    SystemTime::from(SystemClock::new().now())
}

fn length(body: &Bytes) -> i64 {
    i64::try_from(body.len()).expect("a body in memory is shorter than 2^63 bytes")
}

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else {
        return Ok(Bytes::new());
    };
    let gathered = body
        .try_fold(BytesMut::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await;
    // The client has gone, or what it sent is not what it signed.
    gathered
        .map(BytesMut::freeze)
        .map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))
}

fn only_new(condition: Option<&ETagCondition>) -> bool {
    condition.is_some_and(ETagCondition::is_any)
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let mut state = self.lock();
        state.buckets.entry(request.input.bucket).or_default();
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.lock().bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let body = collect(input.body).await?;
        check_crc32c(&body, input.checksum_crc32c.as_deref())?;
        let tag = etag(&body);
        let object = Stored {
            etag: tag.clone(),
            body,
            crc32c: input.checksum_crc32c.clone(),
            storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
            encryption: input
                .server_side_encryption
                .map(|it| it.as_str().to_owned()),
            encryption_key: input.ssekms_key_id,
            modified: now(),
        };
        let only_new = only_new(input.if_none_match.as_ref());
        self.put(&input.bucket, &input.key, only_new, object)
            .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(tag)),
            checksum_crc32c: input.checksum_crc32c,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.lock().object(&input.bucket, &input.key)?;
        let whole = length(&object.body);
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            storage_class: object.storage_class.map(StorageClass::from),
            ..GetObjectOutput::default()
        };
        let body = match input.range {
            None => {
                if input.checksum_mode.is_some() {
                    output.checksum_crc32c = object.crc32c;
                }
                object.body
            }
            Some(range) => {
                let size = object.body.len() as u64;
                let range = range.check(size).map_err(|_| {
                    s3_error!(InvalidRange, "The requested range is not satisfiable")
                })?;
                output.content_range =
                    Some(format!("bytes {}-{}/{whole}", range.start, range.end - 1));
                let index = |at: u64| usize::try_from(at).expect("checked against the body");
                object.body.slice(index(range.start)..index(range.end))
            }
        };
        output.content_length = Some(length(&body));
        output.body = Some(StreamingBlob::wrap(futures::stream::once(async move {
            Ok::<_, std::convert::Infallible>(body)
        })));
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = self.lock().object(&input.bucket, &input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(length(&object.body)),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            storage_class: object.storage_class.map(StorageClass::from),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let mut state = self.lock();
        state.bucket(&input.bucket)?.put(&input.key, None)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let limit = usize::try_from(input.max_keys.unwrap_or(1000).clamp(0, 1000))
            .expect("clamped to what fits");
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone();
        let after = after.or(input.start_after.clone()).unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let hidden = request.extensions.get::<Hidden>().copied();
        let mut state = self.lock();
        let bucket = state.bucket(&input.bucket)?;
        let until = bucket.shown_until(hidden.unwrap_or_default().0);
        let page = Page::of((bucket, until), &prefix, &delimiter, &after, limit);
        let contents = page.objects.into_iter().map(|(key, object)| Object {
            key: Some(key.to_owned()),
            size: Some(length(&object.body)),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Object::default()
        });
        let contents: Vec<Object> = contents.collect();
        let groups = page.groups.into_iter().map(|group| CommonPrefix {
            prefix: Some(group.to_owned()),
        });
        let groups: Vec<CommonPrefix> = groups.collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            max_keys: input.max_keys,
            key_count: i32::try_from(contents.len() + groups.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(str::to_owned),
            contents: Some(contents),
            common_prefixes: Some(groups),
            delimiter: input.delimiter,
            ..ListObjectsV2Output::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let upload = Upload {
            key: input.key.clone(),
            shape: Stored {
                body: Bytes::new(),
                crc32c: input.checksum_algorithm.map(|_| String::new()),
                storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
                encryption: input
                    .server_side_encryption
                    .map(|it| it.as_str().to_owned()),
                encryption_key: input.ssekms_key_id,
                etag: String::new(),
                modified: now(),
            },
            whole_checksum: input
                .checksum_type
                .is_some_and(|wanted| wanted.as_str() == ChecksumType::FULL_OBJECT),
            parts: BTreeMap::new(),
        };
        let mut state = self.lock();
        state.uploads += 1;
        let id = format!("upload-{}", state.uploads);
        let uploads = &mut state.bucket(&input.bucket)?.uploads;
        uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let body = collect(input.body).await?;
        check_crc32c(&body, input.checksum_crc32c.as_deref())?;
        let tag = etag(&body);
        let mut state = self.lock();
        let upload = state.upload(&input.bucket, &input.upload_id)?;
        upload.parts.insert(input.part_number, body);
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(tag)),
            checksum_crc32c: input.checksum_crc32c,
            ..UploadPartOutput::default()
        }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "only buckets are copied from"));
        };
        let mut state = self.lock();
        let source = state.object(bucket, key)?;
        let body = match &input.copy_source_range {
            None => source.body,
            Some(range) => {
                let invalid = || s3_error!(InvalidRange, "The requested range is not satisfiable");
                let range = Range::parse(range).map_err(|_| invalid())?;
                let range = range
                    .check(source.body.len() as u64)
                    .map_err(|_| invalid())?;
                let index = |at: u64| usize::try_from(at).expect("checked against the body");
                source.body.slice(index(range.start)..index(range.end))
            }
        };
        let tag = etag(&body);
        let upload = state.upload(&input.bucket, &input.upload_id)?;
        let checksum = upload.shape.crc32c.is_some().then(|| crc32c(&body));
        upload.parts.insert(input.part_number, body);
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(tag)),
                checksum_crc32c: checksum,
                ..CopyPartResult::default()
            }),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts);
        let mut object = {
            let mut state = self.lock();
            let upload = state.upload(&input.bucket, &input.upload_id)?;
            if upload.key != input.key {
                return Err(s3_error!(NoSuchUpload, "The upload is of another key."));
            }
            upload.complete(&parts.unwrap_or_default())?
        };
        if input
            .mpu_object_size
            .is_some_and(|said| said != length(&object.body))
        {
            return Err(s3_error!(InvalidRequest, "the object has another size"));
        }
        let tag = format!("{}-m", etag(&object.body));
        object.etag.clone_from(&tag);
        let only_new = only_new(input.if_none_match.as_ref());
        self.put(&input.bucket, &input.key, only_new, object)
            .await?;
        let mut state = self.lock();
        state
            .bucket(&input.bucket)?
            .uploads
            .remove(&input.upload_id);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(tag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.lock();
        state.upload(&input.bucket, &input.upload_id)?;
        state
            .bucket(&input.bucket)?
            .uploads
            .remove(&input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
