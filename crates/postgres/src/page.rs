//! Data pages: what a backup reads of them without knowing what they hold.
//!
//! Every relation file consists of pages whose header (`src/include/storage/bufpage.h`) begins with the position of the
//! last logged change and, where checksums are on, with a checksum. Both are stored in the byte order of the server's
//! machine: the high half of the position first, each half in that order. Servers here are little-endian, as this is.

pub mod checksum;

use dr_model::Lsn;

/// Bytes of a page on every server that is built as usual.
pub const PAGE_BYTES: usize = 8192;

/// Returns the position behind the last logged change of a page; zero where none was logged.
///
/// # Panics
///
/// On fewer than 8 bytes.
#[must_use]
pub fn lsn(page: &[u8]) -> Lsn {
    let half = |at: usize| {
        let bytes: [u8; 4] = page[at..at + 4].try_into().expect("four bytes were cut");
        u64::from(u32::from_le_bytes(bytes))
    };
    Lsn(half(0) << 32 | half(4))
}

/// Tells whether a page is all zeros: added to a file and not yet used. It is valid, and carries no checksum.
#[must_use]
pub fn is_zero(page: &[u8]) -> bool {
    // Whole words first: this is run over every page whose header is zero, which in a grown file are many.
    let (words, rest) = page.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0)
}

/// Tells whether a page can be told to be unfit without another look: used, and not carrying the checksum that it should.
///
/// `block` is its number in the relation, over all the files of it (R7).
#[must_use]
pub fn is_unfit(page: &[u8], block: u32) -> bool {
    checksum::stored(page) != checksum::of(page, block) && !is_zero(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_stands_in_two_halves() {
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(&[0x16, 0, 0, 0, 0x48, 0xD8, 0x74, 0xB3]);
        assert_eq!(lsn(&page).to_string(), "16/B374D848");
    }

    #[test]
    fn a_page_of_zeros_is_fit_and_one_byte_more_is_not() {
        let mut page = vec![0; PAGE_BYTES];
        assert!(is_zero(&page) && !is_unfit(&page, 7));
        page[PAGE_BYTES - 1] = 1;
        assert!(!is_zero(&page) && is_unfit(&page, 7));
    }
}
