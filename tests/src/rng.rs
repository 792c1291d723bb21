//! SplitMix64: a small generator whose whole state is the seed, so that a seed names a run.

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The run that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.bits() % (high - low + 1)
    }

    /// A number from `low` to `high` whose order of magnitude is equally likely.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let bits = (high / low.max(1)).ilog2().into();
        let top = (low.max(1) << self.range(0, bits)).min(high);
        self.range(low, top.max(low))
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.bits() % 100 < percent
    }

    /// True `n` times in a thousand.
    pub fn per_mille(&mut self, n: u64) -> bool {
        self.bits() % 1_000 < n
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.bits() as usize % from.len()]
    }
}
