//! CRC-32 of bytes that follow one another, from the CRCs of the parts.
//!
//! `crc32fast` combines, too, but works out for every part anew what its length means. Here that is
//! one multiplication, remembered for as long as lengths repeat: an object may have 100 000 runs.
//!
//! Polynomials over GF(2) modulo that of CRC-32 (IEEE), the lowest power in the highest bit.

const POLYNOMIAL: u32 = 0xedb8_8320;

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// x to the power of 2^n for every n of a `u32`.
const POWERS: [u32; 32] = {
    let mut powers = [1 << 30; 32];
    let mut n = 1;
    while n < 32 {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// What appending so many bytes does to the CRC of what is before them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    bytes: u32,
    factor: u32,
}

impl Shift {
    pub(super) fn by(bytes: u32) -> Self {
        let mut factor = ONE;
        // x^8 for every byte.
        let (mut left, mut power) = (bytes, 3);
        while left != 0 {
            if left & 1 == 1 {
                factor = multiply(POWERS[power % 32], factor);
            }
            left >>= 1;
            power += 1;
        }
        Self { bytes, factor }
    }

    /// The same for another number of bytes; for nothing where it is the same.
    pub(super) fn and_then_by(self, bytes: u32) -> Self {
        if self.bytes == bytes { self } else { Self::by(bytes) }
    }

    /// The CRC of bytes with CRC `before` and, behind them, so many with CRC `behind`.
    pub(super) fn join(self, before: u32, behind: u32) -> u32 {
        multiply(self.factor, before) ^ behind
    }

    /// The CRC of the last so many of bytes with CRC `all`, where those before have CRC `before`.
    pub(super) fn split(self, before: u32, all: u32) -> u32 {
        self.join(before, all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_crc_of_all_bytes_follows_from_the_parts_and_that_of_a_part_from_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..5_000),
            cut in any::<proptest::sample::Index>(),
        ) {
            let (before, behind) = bytes.split_at(cut.index(bytes.len() + 1));
            let [all, first, last] = [&bytes, before, behind].map(crc32fast::hash);
            let shift = Shift::by(0).and_then_by(behind.len() as u32);
            prop_assert_eq!(shift.join(first, last), all);
            prop_assert_eq!(shift.split(first, all), last);
        }

        #[test]
        fn large_parts_are_joined_as_crc32fast_joins_them(a: u32, b: u32, bytes: u32) {
            let mut joined = crc32fast::Hasher::new_with_initial(a);
            joined.combine(&crc32fast::Hasher::new_with_initial_len(b, bytes.into()));
            prop_assert_eq!(Shift::by(bytes).join(a, b), joined.finalize());
        }
    }
}
