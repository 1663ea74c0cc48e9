//! Chance as an argument: one seeded generator per component.
//!
//! The product seeds one from the operating system at start and hands each component a generator
//! forked by name; a simulation seeds it from its seed, so that the same seed draws the same.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A seeded random generator (ChaCha8).
#[derive(Debug, Clone)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    pub fn from_seed(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Seeded by the operating system. Panics when it has no entropy to give: nothing that needs
    /// unique ids may run then.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks for entropy")]
    pub fn from_entropy() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system gives entropy");
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// An independent generator for the component `name`: drawing from one does not move others.
    pub fn fork(&mut self, name: &str) -> Self {
        let seed = self.u64();
        Self::from_seed(xxh3_64_with_seed(name.as_bytes(), seed))
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Whether a chance of `numerator` in `denominator` came true.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_forks_are_independent() {
        let (mut a, mut b) = (Rng::from_seed(7), Rng::from_seed(7));
        assert_eq!(a.u64(), b.u64());
        let (mut disk_a, mut disk_b) = (a.fork("disk"), b.fork("disk"));
        disk_a.u64();
        assert_eq!(a.u64(), b.u64());
        disk_b.u64();
        assert_eq!(disk_a.u64(), disk_b.u64());
        assert_ne!(Rng::from_seed(7).fork("x").u64(), Rng::from_seed(7).fork("y").u64());
    }

    #[test]
    fn numbers_stay_in_their_bounds() {
        let mut rng = Rng::from_seed(1);
        assert_eq!(rng.below(0), 0);
        assert!((0..1_000).all(|_| (3..=5).contains(&rng.between(3, 5))));
    }
}
