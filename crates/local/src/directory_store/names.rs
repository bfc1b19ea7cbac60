//! The names in one directory, sorted.
//!
//! A chain of log puts hundreds of thousands of names into one directory, so they are kept in one piece of text, and sorted
//! by their first sixteen bytes as numbers: that is the whole name of a chunk.

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::tree::Tree;

const COMPARED_BYTES: usize = 16;

/// Sorted names; those of directories with a final `/`, as they sort.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    text: String,
    /// Where each name ends in the text.
    ends: Vec<usize>,
}

impl Names {
    /// Reads the names in a directory, given with its final `/`; what is neither file nor directory, or has a name that is
    /// no text, is no part of a store.
    pub(super) fn read(tree: &Tree, path: &str, directory: &mut Dir) -> Result<Self, Errno> {
        let mut unsorted = Unsorted::default();
        for entry in directory {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown | FileType::Symlink => {
                    let path = format!("{path}{name}");
                    let stat = rustix::fs::statat(&tree.directory, &path, AtFlags::empty());
                    let Ok(stat) = stat else { continue };
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            match kind {
                FileType::RegularFile => unsorted.add(name, ""),
                FileType::Directory => unsorted.add(name, "/"),
                _ => {}
            }
        }
        Ok(unsorted.sort())
    }

    /// Returns the number of names.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns a name by its place in the order.
    pub(super) fn get(&self, index: usize) -> &str {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[index]]
    }

    /// Returns the place of the first name for which `is_before` does not hold; it must hold for all names before that one
    /// and for none after it.
    pub(super) fn partition_point(&self, is_before: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(self.get(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Returns the memory that the names take, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// Names in the order in which the file system gives them.
#[derive(Default)]
struct Unsorted {
    text: String,
    /// The first bytes of each name as a number, and where it is.
    names: Vec<(u128, usize, usize)>,
}

impl Unsorted {
    fn add(&mut self, name: &str, ending: &str) {
        let begin = self.text.len();
        self.text.push_str(name);
        self.text.push_str(ending);
        let name = &self.text.as_bytes()[begin..];
        // A name holds no zero byte, so that one padded with them still sorts before what continues it.
        let mut first = [0; COMPARED_BYTES];
        let compared = name.len().min(COMPARED_BYTES);
        first[..compared].copy_from_slice(&name[..compared]);
        let number = u128::from_be_bytes(first);
        self.names.push((number, begin, self.text.len()));
    }

    fn sort(mut self) -> Names {
        let text = &self.text;
        let name = |begin: usize, end: usize| &text[begin..end];
        self.names.sort_unstable_by(|one, other| {
            let by_number = one.0.cmp(&other.0);
            by_number.then_with(|| name(one.1, one.2).cmp(name(other.1, other.2)))
        });
        let mut sorted = Names {
            text: String::with_capacity(text.len()),
            ends: Vec::with_capacity(self.names.len()),
        };
        for (_, begin, end) in &self.names {
            sorted.text.push_str(name(*begin, *end));
            sorted.ends.push(sorted.text.len());
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_their_bytes() {
        let long = "0000000000000001";
        let texts = [
            "b".to_owned(),
            format!("{long}-z"),
            format!("{long}/"),
            long.to_owned(),
            format!("{long}0"),
            "a0".to_owned(),
            "a/".to_owned(),
            "a-b".to_owned(),
            "é".to_owned(),
        ];
        let mut unsorted = Unsorted::default();
        for text in &texts {
            unsorted.add(text, "");
        }
        let names = unsorted.sort();
        let mut expected = texts.to_vec();
        expected.sort_unstable();
        let sorted: Vec<&str> = (0..names.len()).map(|index| names.get(index)).collect();
        assert_eq!(sorted, expected);
        for (index, text) in expected.iter().enumerate() {
            assert_eq!(names.partition_point(|name| name < text.as_str()), index);
        }
        assert_eq!(names.partition_point(|_| true), names.len());
    }
}
