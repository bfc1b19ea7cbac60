//! What one answer to a listing shows: keys, and with a delimiter what keys have in common up to it.

use crate::bucket::{Bucket, Stored};

/// A page of a listing.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) objects: Vec<(&'a str, &'a Stored)>,
    /// What keys that go on behind a delimiter have in common, once for all of them.
    pub(crate) groups: Vec<&'a str>,
    /// What the next page begins behind, if there is one.
    pub(crate) next: Option<&'a str>,
}

impl<'a> Page<'a> {
    /// Lists what begins with `prefix` and lies behind `after`, at most `limit` of it; groups nothing without a delimiter. What is newer
    /// than the write of that number is not shown.
    pub(crate) fn of(
        (bucket, until): (&'a Bucket, u64),
        prefix: &'a str,
        delimiter: &str,
        after: &'a str,
        limit: usize,
    ) -> Self {
        let (mut objects, mut groups) = (Vec::new(), Vec::new());
        let mut last = None;
        for (key, object) in bucket.listed(until, prefix, after) {
            let group = group(key, prefix, delimiter);
            // Those of a group stand together: it is the last one, or was at the end of the page before.
            if group.is_some_and(|it| it == after || groups.last() == Some(&it)) {
                continue;
            }
            if objects.len() + groups.len() == limit {
                return Self {
                    objects,
                    groups,
                    next: last,
                };
            }
            match group {
                Some(group) => groups.push(group),
                None => objects.push((key.as_str(), object)),
            }
            last = Some(group.unwrap_or(key));
        }
        Self {
            objects,
            groups,
            next: None,
        }
    }
}

/// Returns what a listing shows instead of a key that goes on behind a delimiter.
fn group<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix).filter(|_| !delimiter.is_empty())?;
    let at = rest.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::now;

    fn bucket() -> Bucket {
        let mut bucket = Bucket::default();
        for key in ["a", "b/1", "b/2", "b/c/3", "b0", "d/4", "e"] {
            let object = Stored {
                body: bytes::Bytes::new(),
                crc32c: None,
                storage_class: None,
                encryption: None,
                encryption_key: None,
                etag: String::new(),
                modified: now(),
            };
            bucket.put(key, Some(object)).unwrap();
        }
        bucket
    }

    /// Lists all of it, in pages of `limit`; groups end in a delimiter.
    fn all(prefix: &str, delimiter: &str, limit: usize) -> Vec<String> {
        let bucket = bucket();
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = Page::of((&bucket, u64::MAX), prefix, delimiter, &after, limit);
            let objects = page.objects.iter().map(|(key, _)| *key);
            let mut names: Vec<&str> = objects.chain(page.groups.iter().copied()).collect();
            assert!(names.len() <= limit);
            names.sort_unstable();
            found.extend(names.iter().map(ToString::to_string));
            match page.next {
                Some(next) => after = next.to_owned(),
                None => return found,
            }
        }
    }

    #[test]
    fn a_delimiter_groups_whatever_the_length_of_a_page() {
        for limit in 1..9 {
            assert_eq!(all("", "/", limit), ["a", "b/", "b0", "d/", "e"], "{limit}");
            assert_eq!(all("b/", "/", limit), ["b/1", "b/2", "b/c/"], "{limit}");
            assert_eq!(
                all("b", "", limit),
                ["b/1", "b/2", "b/c/3", "b0"],
                "{limit}"
            );
        }
    }
}
