//! Uploads in parts that are not complete yet.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use s3s::dto::CompletedPart;
use s3s::{S3Result, s3_error};

use crate::bucket::{Stored, crc32c};

/// No part but the last may be smaller, as on S3.
const SMALLEST_PART: usize = 5 << 20;

#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) key: String,
    /// The object without its bytes.
    pub(crate) shape: Stored,
    /// Whether the checksum is one of the whole object.
    pub(crate) whole_checksum: bool,
    pub(crate) parts: BTreeMap<i32, Bytes>,
}

impl Upload {
    /// Puts the parts together that the client names.
    pub(crate) fn complete(&self, named: &[CompletedPart]) -> S3Result<Stored> {
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "no parts are named"));
        }
        let mut parts = Vec::new();
        let mut last = 0;
        for part in named {
            let number = part.part_number.unwrap_or_default();
            if number <= last {
                return Err(s3_error!(InvalidPartOrder, "parts must be ascending"));
            }
            last = number;
            let Some(body) = self.parts.get(&number) else {
                return Err(s3_error!(InvalidPart, "part {number} was not uploaded"));
            };
            if part.e_tag.as_ref().map(|tag| tag.value()) != Some(etag(body).as_str()) {
                return Err(s3_error!(InvalidPart, "part {number} has another ETag"));
            }
            if part
                .checksum_crc32c
                .as_ref()
                .is_some_and(|sent| *sent != crc32c(body))
            {
                return Err(s3_error!(InvalidPart, "part {number} has another checksum"));
            }
            parts.push(body);
        }
        if let Some((_, all_but_last)) = parts.split_last()
            && all_but_last.iter().any(|body| body.len() < SMALLEST_PART)
        {
            return Err(s3_error!(EntityTooSmall, "a part is smaller than 5 MiB"));
        }
        let size = parts.iter().map(|part| part.len()).sum();
        let mut body = BytesMut::with_capacity(size);
        for part in &parts {
            body.extend_from_slice(part);
        }
        let checksum = if self.whole_checksum {
            crc32c(&body)
        } else {
            let sums: Vec<u8> = parts
                .iter()
                .flat_map(|part| crc32c::crc32c(part).to_be_bytes())
                .collect();
            format!(
                "{}-{}",
                STANDARD.encode(crc32c::crc32c(&sums).to_be_bytes()),
                parts.len()
            )
        };
        Ok(Stored {
            body: body.freeze(),
            crc32c: self.shape.crc32c.is_some().then_some(checksum),
            ..self.shape.clone()
        })
    }
}

/// A name for bytes; clients must not read more into it.
pub(crate) fn etag(body: &[u8]) -> String {
    format!("{:08x}{:08x}", body.len(), crc32c::crc32c(body))
}
