//! A request that is being made, for the errors about it.

use std::fmt;

use dr_provider::{Error, ErrorKind};

/// An operation of S3: its name there, the permission it needs, and whether it changes what others
/// see, so that its outcome can be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) name: &'static str,
    pub(crate) permission: &'static str,
    pub(crate) is_change: bool,
}

const fn action(name: &'static str, permission: &'static str, is_change: bool) -> Action {
    Action {
        name,
        permission,
        is_change,
    }
}

impl Action {
    pub(crate) const PUT: Self = action("PutObject", "s3:PutObject", true);
    pub(crate) const GET: Self = action("GetObject", "s3:GetObject", false);
    pub(crate) const HEAD: Self = action("HeadObject", "s3:GetObject", false);
    pub(crate) const LIST: Self = action("ListObjectsV2", "s3:ListBucket", false);
    pub(crate) const DELETE: Self = action("DeleteObject", "s3:DeleteObject", true);
    // Of an upload in parts nothing is visible until it is completed.
    pub(crate) const CREATE_UPLOAD: Self = action("CreateMultipartUpload", "s3:PutObject", false);
    pub(crate) const UPLOAD_PART: Self = action("UploadPart", "s3:PutObject", false);
    pub(crate) const COPY_PART: Self = action(
        "UploadPartCopy",
        "s3:PutObject here and s3:GetObject on the source",
        false,
    );
    pub(crate) const COMPLETE_UPLOAD: Self =
        action("CompleteMultipartUpload", "s3:PutObject", true);
}

/// What is being done to what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The verb phrase of the store's operation.
    pub(crate) operation: &'static str,
    /// The store, as a URL.
    pub(crate) location: &'a str,
    /// The key or prefix in the store.
    pub(crate) subject: &'a str,
    /// The server, unless it is AWS.
    pub(crate) endpoint: Option<&'a str>,
}

impl Call<'_> {
    pub(crate) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, self.operation, self.to_string())
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.location, self.subject)
    }
}
