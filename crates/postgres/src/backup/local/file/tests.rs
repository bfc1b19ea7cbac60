//! Pages that are right, wrong, cut off, and being written.

use std::fs;

use rstest::rstest;

use super::*;
use crate::page::{PAGE_BYTES, checksum};

const FIRST_BLOCK: u32 = 131_072;

/// Makes a page that carries its checksum.
fn good(block: u32, filler: u8) -> Vec<u8> {
    let mut page = vec![filler; PAGE_BYTES];
    let sum = checksum::of(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

struct Case {
    _directory: tempfile::TempDir,
    place: PathBuf,
    inspection: Arc<Inspection>,
}

impl Case {
    fn new(content: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("16384.1");
        fs::write(&place, content).unwrap();
        Self {
            _directory: directory,
            place,
            inspection: Inspection::new(PAGE_BYTES, true),
        }
    }

    fn file(&self) -> Arc<DataFile> {
        let path = "base/5/16384.1".to_owned();
        DataFile::new(
            path,
            self.place.clone(),
            Some(FIRST_BLOCK),
            &self.inspection,
        )
    }

    fn damaged(&self) -> Vec<u32> {
        let (damaged, more) = self.inspection.damaged().unwrap();
        assert_eq!(more, 0);
        damaged
            .into_iter()
            .map(|page| page.block - FIRST_BLOCK)
            .collect()
    }
}

#[test]
fn a_wrong_page_is_reported_once_with_its_place() {
    let mut content = [
        good(FIRST_BLOCK, 1),
        good(FIRST_BLOCK + 1, 2),
        vec![0; PAGE_BYTES],
    ]
    .concat();
    content[PAGE_BYTES + 4000] ^= 1;
    let case = Case::new(&content);
    let mut buffer = vec![0; content.len()];
    for _ in 0..2 {
        assert_eq!(case.file().read(0, &mut buffer).unwrap(), content.len());
    }
    assert_eq!(buffer, content);
    assert_eq!(case.inspection.read_bytes(), 2 * content.len() as u64);
    let (damaged, _) = case.inspection.damaged().unwrap();
    let [page] = damaged.as_slice() else {
        panic!("{damaged:?}")
    };
    assert_eq!(
        (page.file.as_str(), page.block),
        ("base/5/16384.1", FIRST_BLOCK + 1)
    );
    assert_eq!(page.lsn, Some(Lsn(0x0202_0202_0202_0202)));
}

#[test]
fn a_page_in_the_wrong_place_is_reported() {
    let case = Case::new(&[good(FIRST_BLOCK + 1, 1), good(FIRST_BLOCK + 1, 2)].concat());
    let mut buffer = vec![0; 2 * PAGE_BYTES];
    case.file().read(0, &mut buffer).unwrap();
    assert_eq!(case.damaged(), [0]);
}

/// A page that changes is being written (R7).
#[rstest]
#[case::repaired(true)]
#[case::replaced_by_something_else(false)]
fn what_changes_until_the_end_was_being_written(#[case] repaired: bool) {
    let mut content = good(FIRST_BLOCK, 1);
    content[5000] ^= 1;
    let case = Case::new(&content);
    let mut buffer = vec![0; PAGE_BYTES];
    case.file().read(0, &mut buffer).unwrap();
    content[if repaired { 5000 } else { 6000 }] ^= 1;
    fs::write(&case.place, &content).unwrap();
    assert_eq!(case.damaged(), Vec::<u32>::new());
}

/// Files change while they are read, and replay puts them right (R6).
#[test]
fn what_vanishes_or_is_cut_off_until_the_end_is_of_no_account() {
    let mut content = good(FIRST_BLOCK, 1);
    content[5000] ^= 1;
    for cut in [true, false] {
        let case = Case::new(&content);
        let mut buffer = vec![0; PAGE_BYTES];
        case.file().read(0, &mut buffer).unwrap();
        if cut {
            fs::write(&case.place, &content[..100]).unwrap();
        } else {
            fs::remove_file(&case.place).unwrap();
        }
        assert_eq!(case.damaged(), Vec::<u32>::new());
    }
}

#[rstest]
#[case(1)]
#[case(512)]
#[case(8191)]
fn the_unfinished_page_at_the_end_is_read_and_not_judged(#[case] rest: usize) {
    let content = [good(FIRST_BLOCK, 1), vec![9; rest]].concat();
    let case = Case::new(&content);
    let mut buffer = vec![0; 3 * PAGE_BYTES];
    assert_eq!(case.file().read(0, &mut buffer).unwrap(), content.len());
    assert_eq!(&buffer[..content.len()], content);
    assert_eq!(case.damaged(), Vec::<u32>::new());
}

#[test]
fn without_checksums_nothing_is_judged_and_what_is_gone_says_so() {
    let case = Case::new(&[7; PAGE_BYTES]);
    let inspection = Inspection::new(PAGE_BYTES, false);
    let file = DataFile::new("16384".to_owned(), case.place.clone(), Some(0), &inspection);
    file.read(0, &mut [0; PAGE_BYTES]).unwrap();
    assert_eq!(inspection.damaged().unwrap().0, []);
    fs::remove_file(&case.place).unwrap();
    let error = case.file().read(0, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_outstanding_ends_with_the_last_byte_asked_for() {
    let case = Case::new(&[good(FIRST_BLOCK, 1), good(FIRST_BLOCK + 1, 2)].concat());
    let (outstanding, mut ended) = tokio::sync::mpsc::channel(1);
    let file = case.file();
    file.expect(3 * PAGE_BYTES as u64, outstanding);
    file.pad().unwrap();
    fs::remove_file(&case.place).unwrap();
    let mut page = vec![0; PAGE_BYTES];
    for block in 0..3 {
        assert!(ended.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Empty));
        page.fill(0xAA);
        assert_eq!(
            file.read(block * PAGE_BYTES as u64, &mut page).unwrap(),
            PAGE_BYTES
        );
    }
    // It was cut off before its third page.
    assert!(page::is_zero(&page));
    assert_eq!(ended.recv().await, None);
}
