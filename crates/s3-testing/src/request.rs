//! Which operation a request is.

use std::fmt;

use hyper::{HeaderMap, Method, Uri};

/// An operation of the protocol, as far as `dr` uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `PutObject`.
    PutObject,
    /// `GetObject`.
    GetObject,
    /// `HeadObject`.
    HeadObject,
    /// `DeleteObject`.
    DeleteObject,
    /// `ListObjectsV2`.
    ListObjects,
    /// `CreateMultipartUpload`.
    CreateMultipartUpload,
    /// `UploadPart`.
    UploadPart,
    /// `UploadPartCopy`.
    UploadPartCopy,
    /// `CompleteMultipartUpload`.
    CompleteMultipartUpload,
    /// `AbortMultipartUpload`.
    AbortMultipartUpload,
    /// Anything else.
    Other,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Returns the operation and the key of a request in path style.
pub(crate) fn classify(method: &Method, uri: &Uri, headers: &HeaderMap) -> (Operation, String) {
    let path = uri.path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key).to_owned();
    let query = uri.query().unwrap_or_default();
    let names: Vec<&str> = query
        .split('&')
        .map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name))
        .collect();
    let upload = names.contains(&"uploadId");
    let operation = match *method {
        _ if key.is_empty() && names.contains(&"list-type") => Operation::ListObjects,
        _ if key.is_empty() => Operation::Other,
        Method::PUT if upload && headers.contains_key("x-amz-copy-source") => {
            Operation::UploadPartCopy
        }
        Method::PUT if upload => Operation::UploadPart,
        Method::PUT => Operation::PutObject,
        Method::GET => Operation::GetObject,
        Method::HEAD => Operation::HeadObject,
        Method::DELETE if upload => Operation::AbortMultipartUpload,
        Method::DELETE => Operation::DeleteObject,
        Method::POST if names.contains(&"uploads") => Operation::CreateMultipartUpload,
        Method::POST if upload => Operation::CompleteMultipartUpload,
        _ => Operation::Other,
    };
    (operation, key)
}
