//! Reading objects, whole and in part.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use dr_provider::store::ObjectInfo;
use dr_provider::{Error, ErrorKind, Key, Result};

use crate::S3Store;
use crate::answer::Answer;
use crate::call::{Action, Call};

/// No object is longer, by far: 2^53 bytes.
const FARTHEST: u64 = 1 << 53;

impl S3Store {
    /// Reads an object or `(offset, length)` of it.
    pub(crate) async fn read(
        &self,
        call: &Call<'_>,
        key: &Key,
        range: Option<(u64, u64)>,
    ) -> Result<Bytes> {
        // A range that holds nothing cannot be asked for; that the object is there can.
        if let Some((offset, length)) = range
            && (length == 0 || offset >= FARTHEST)
        {
            self.look(call, key).await?;
            return Ok(Bytes::new());
        }
        match self.fetch_for(call, key, range).await? {
            Ok(body) => Ok(body),
            Err(answer) if answer.is_past_the_end() => Ok(Bytes::new()),
            Err(answer) => Err(self.absent(call, answer, Action::GET).await),
        }
    }

    /// Asks for an object; the inner error is an answer yet to be judged.
    pub(crate) async fn fetch(
        &self,
        key: &Key,
        range: Option<(u64, u64)>,
    ) -> Result<std::result::Result<Bytes, Answer>> {
        let call = self.call("read object", key.as_str());
        self.fetch_for(&call, key, range).await
    }

    async fn fetch_for(
        &self,
        call: &Call<'_>,
        key: &Key,
        range: Option<(u64, u64)>,
    ) -> Result<std::result::Result<Bytes, Answer>> {
        let mut request = self
            .client()
            .await?
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.bucket_key(key.as_str()));
        if let Some((offset, length)) = range {
            let last = offset.saturating_add(length).min(FARTHEST) - 1;
            request = request.range(format!("bytes={offset}-{last}"));
        }
        // Asked for by hand: the SDK would compare it a second time.
        let request = request.customize().mutate_request(|request| {
            request
                .headers_mut()
                .insert("x-amz-checksum-mode", "ENABLED");
        });
        match request.send().await {
            Ok(answer) => receive(call, answer, range).await.map(Ok),
            Err(error) => Ok(Err(Answer::of(&error))),
        }
    }

    /// Reads an object's length.
    pub(crate) async fn look(&self, call: &Call<'_>, key: &Key) -> Result<ObjectInfo> {
        let request = self.client().await?.head_object();
        let request = request
            .bucket(&self.options.bucket)
            .key(self.bucket_key(key.as_str()));
        match request.send().await {
            Ok(answer) => Ok(ObjectInfo {
                key: key.clone(),
                size_bytes: answer
                    .content_length()
                    .and_then(|length| u64::try_from(length).ok())
                    .ok_or_else(|| {
                        let error = call.error(ErrorKind::Failed);
                        error.because("HeadObject: the answer says no length")
                    })?,
            }),
            Err(error) => {
                let answer = Answer::of(&error);
                Err(self.absent(call, answer, Action::HEAD).await)
            }
        }
    }

    /// Judges an answer to a read: missing only while the store is proven to be there.
    async fn absent(&self, call: &Call<'_>, answer: Answer, action: Action) -> Error {
        // Reading the identity also brings the reason that an answer to HEAD cannot hold.
        if (answer.is_missing() || answer.is_unexplained())
            && let Err(error) = self.prove(call).await
        {
            return error;
        }
        answer.error(call, action)
    }
}

/// Takes the body in, and compares its length and its checksum where the answer has one.
async fn receive(
    call: &Call<'_>,
    mut answer: GetObjectOutput,
    range: Option<(u64, u64)>,
) -> Result<Bytes> {
    let said = answer
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    let mut body = BytesMut::with_capacity(said.unwrap_or_default());
    while let Some(piece) = answer.body.next().await {
        let piece = piece.map_err(|error| {
            let error = format!("GetObject: the answer broke off: {error}");
            call.error(ErrorKind::Unavailable).because(error)
        })?;
        body.extend_from_slice(&piece);
    }
    let body = body.freeze();
    if said.is_some_and(|said| said != body.len()) {
        let why = format!("GetObject: {} bytes came of {said:?}", body.len());
        return Err(call.error(ErrorKind::Unavailable).because(why));
    }
    let whole = range.is_none() || answer.content_range().is_none();
    if let Some(sum) = answer.checksum_crc32_c()
        // One of the parts' checksums instead of the bytes has their number behind a `-`.
        && whole && !sum.contains('-') && sum != crc32c(&body)
    {
        let why = format!("GetObject: its CRC-32C is {}, not {sum}", crc32c(&body));
        return Err(call.error(ErrorKind::Corrupt).because(why));
    }
    match range {
        // The server knows no ranges and sent everything.
        Some((offset, length)) if whole => {
            let size = body.len() as u64;
            let index = |at: u64| usize::try_from(at.min(size)).expect("at most a body's length");
            Ok(body.slice(index(offset)..index(offset.saturating_add(length))))
        }
        _ => Ok(body),
    }
}

/// Returns the checksum as it stands in headers.
pub(crate) fn crc32c(body: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(body).to_be_bytes())
}
