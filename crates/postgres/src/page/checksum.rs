//! The checksum of a page, as PostgreSQL computes it (`src/include/storage/checksum_impl.h`).
//!
//! 32 sums run beside each other, each over every 32nd word, by a variant of FNV-1a; that shape is made for vector units.
//! The code here is plain and laid out so that the compiler uses them. What a build for any x86-64 may not assume is
//! a 32-bit vector multiplication, so the same code is compiled a second time for AVX2 and chosen at run time.

/// Sums that run beside each other.
const LANES: usize = 32;

/// Bytes that one round of all sums takes.
const ROUND_BYTES: usize = LANES * 4;

/// Where in a page its checksum stands; it counts as zero while it is computed.
const AT: usize = 8;

const FNV_PRIME: u32 = 16_777_619;

/// The first value of each sum.
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Returns the checksum that a page carries.
///
/// # Panics
///
/// On fewer than 10 bytes.
#[must_use]
pub fn stored(page: &[u8]) -> u16 {
    u16::from_le_bytes([page[AT], page[AT + 1]])
}

/// Computes the checksum that a page has to carry as block `block` of its relation.
///
/// # Panics
///
/// If the page is not a multiple of 128 bytes: every size that a server can be built for is.
#[must_use]
pub fn of(page: &[u8], block: u32) -> u16 {
    let (rounds, rest) = page.as_chunks::<ROUND_BYTES>();
    assert!(
        !rounds.is_empty() && rest.is_empty(),
        "a page has a multiple of 128 bytes"
    );
    let sum = sum(rounds) ^ block;
    u16::try_from(sum % 65_535 + 1).expect("a remainder of 65535, and one, fit")
}

fn sum(rounds: &[[u8; ROUND_BYTES]]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "that the processor has AVX2 was seen one line above"
        )]
        // SAFETY: the only requirement of the function is that feature.
        return unsafe { sum_avx2(rounds) };
    }
    sum_of(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(rounds: &[[u8; ROUND_BYTES]]) -> u32 {
    sum_of(rounds)
}

/// Computes the sum; inlined into every function above, to be compiled for what that one may use.
#[inline(always)]
fn sum_of(rounds: &[[u8; ROUND_BYTES]]) -> u32 {
    let mut sums = OFFSETS;
    let Some((first, others)) = rounds.split_first() else {
        return 0;
    };
    let mut first = *first;
    first[AT..AT + 2].fill(0);
    mix(&mut sums, &first);
    for round in others {
        mix(&mut sums, round);
    }
    // Two rounds of zeros let the last words reach all bits.
    mix(&mut sums, &[0; ROUND_BYTES]);
    mix(&mut sums, &[0; ROUND_BYTES]);
    sums.iter().fold(0, |all, sum| all ^ sum)
}

#[inline(always)]
fn mix(sums: &mut [u32; LANES], round: &[u8; ROUND_BYTES]) {
    let (words, _) = round.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page::PAGE_BYTES;

    /// The definition, one word after the other.
    fn slowly(page: &[u8], block: u32) -> u16 {
        let mut sums = OFFSETS;
        let mut take = |lane: usize, word: u32| {
            let mixed = sums[lane] ^ word;
            sums[lane] = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
        };
        for (at, word) in page.chunks_exact(4).enumerate() {
            let mut word = u32::from_le_bytes(word.try_into().unwrap());
            if at == 2 {
                word &= 0xFFFF_0000;
            }
            take(at % LANES, word);
        }
        for lane in 0..LANES {
            take(lane, 0);
            take(lane, 0);
        }
        let all = sums.iter().fold(block, |all, sum| all ^ sum);
        u16::try_from(all % 65_535 + 1).unwrap()
    }

    proptest! {
        #[test]
        fn all_ways_of_computing_agree(page in proptest::collection::vec(any::<u8>(), PAGE_BYTES), block: u32) {
            let (rounds, _) = page.as_chunks::<ROUND_BYTES>();
            prop_assert_eq!(sum(rounds), sum_of(rounds));
            prop_assert_eq!(of(&page, block), slowly(&page, block));
        }
    }

    #[test]
    fn the_stored_checksum_is_no_part_of_itself() {
        let mut page = vec![7; PAGE_BYTES];
        let before = of(&page, 3);
        page[AT..AT + 2].copy_from_slice(&before.to_le_bytes());
        assert_eq!((of(&page, 3), stored(&page)), (before, before));
        assert_ne!(of(&page, 4), before);
    }
}
