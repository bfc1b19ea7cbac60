//! The objects of a bucket, in memory, with their versions.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use s3s::{S3Error, S3Result, s3_error};

use crate::backend::now;
use crate::disk::Disk;
use crate::multipart::{Upload, etag};

/// What a server makes of `If-None-Match: *`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Conditions {
    /// It is obeyed, by one step that cannot be divided.
    #[default]
    Atomic,
    /// It is ignored: the later write replaces the earlier one.
    Ignored,
    /// It is checked first and the object written then, some milliseconds later.
    CheckedFirst,
}

/// An object as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes.
    pub body: Bytes,
    /// Its CRC-32C in base64, with `-N` for N parts if it is of the parts' checksums.
    pub crc32c: Option<String>,
    /// The storage class that was asked for.
    pub storage_class: Option<String>,
    /// The encryption that was asked for.
    pub encryption: Option<String>,
    /// The key for it that was asked for.
    pub encryption_key: Option<String>,
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
}

/// One version of a key; no object is a delete marker.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) sequence: u64,
    pub(crate) object: Option<Stored>,
}

#[derive(Debug, Default)]
pub(crate) struct Bucket {
    pub(crate) versioned: bool,
    /// The newest version of each key stands last.
    pub(crate) keys: BTreeMap<String, Vec<Version>>,
    pub(crate) uploads: BTreeMap<String, Upload>,
    /// Listings show nothing that is newer than this.
    pub(crate) listed_until: Option<u64>,
    /// Where the objects are files as well.
    pub(crate) disk: Option<Disk>,
    sequence: u64,
}

impl Bucket {
    /// Takes up the objects that are files in a directory.
    pub(crate) fn on_disk(directory: PathBuf) -> io::Result<Self> {
        let (disk, found) = Disk::open(directory)?;
        let mut bucket = Self::default();
        for (key, body) in found {
            let object = Stored {
                etag: etag(&body),
                crc32c: Some(crc32c(&body)),
                body,
                storage_class: None,
                encryption: None,
                encryption_key: None,
                modified: now(),
            };
            bucket.put(&key, Some(object)).map_err(io::Error::other)?;
        }
        bucket.disk = Some(disk);
        Ok(bucket)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Stored> {
        self.keys.get(key)?.last()?.object.as_ref()
    }

    /// Refuses if the key is taken and must not be.
    pub(crate) fn check(&self, key: &str, only_new: bool) -> S3Result<()> {
        if only_new && self.get(key).is_some() {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, key: &str, object: Option<Stored>) -> S3Result<()> {
        if let Some(disk) = &self.disk {
            let written = match &object {
                Some(object) => disk.write(key, &object.body),
                None => disk.remove(key),
            };
            written.map_err(S3Error::internal_error)?;
        }
        let sequence = self.next();
        let version = Version { sequence, object };
        let versions = self.keys.entry(key.to_owned()).or_default();
        if self.versioned {
            versions.push(version);
        } else if version.object.is_some() {
            *versions = vec![version];
        } else {
            self.keys.remove(key);
        }
        Ok(())
    }

    /// Returns the number of the newest write that a listing shows which is to hide so many.
    pub(crate) fn shown_until(&self, hidden: u64) -> u64 {
        let newest = self.sequence.saturating_sub(hidden);
        self.listed_until.map_or(newest, |until| until.min(newest))
    }

    /// Returns the keys and objects that a listing shows, in byte order.
    pub(crate) fn listed<'a>(
        &'a self,
        until: u64,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Stored)> {
        let from = if after < prefix { prefix } else { after };
        self.keys
            .range(from.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix) || key.as_str() < prefix)
            .filter(move |(key, _)| key.as_str() > after && key.starts_with(prefix))
            .filter_map(move |(key, versions)| {
                let seen = versions
                    .iter()
                    .rev()
                    .find(|version| version.sequence <= until)?;
                Some((key, seen.object.as_ref()?))
            })
    }
}

pub(crate) fn crc32c(body: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(body).to_be_bytes())
}

/// Refuses a body that is not the one whose checksum was sent.
pub(crate) fn check_crc32c(body: &[u8], sent: Option<&str>) -> S3Result<()> {
    match sent {
        Some(sent) if sent != crc32c(body) => Err(s3_error!(
            BadDigest,
            "The CRC32C you specified did not match the calculated checksum."
        )),
        _ => Ok(()),
    }
}
