//! Latency histogram: log-linear buckets, fixed size, constant-time recording.
//!
//! Values are kept to within 1/32 (3.1 %): 32 buckets for each power of two of microseconds, up to
//! about an hour; longer ones count in the last bucket. The largest value is kept exactly.

use wire::Nanos;

const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = SUB * 28;

/// See the module's documentation.
#[derive(Clone)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
            max_us: 0,
        }
    }
}

impl Histogram {
    /// Counts one latency.
    #[inline]
    pub fn record(&mut self, latency: Nanos) {
        self.record_many(latency, 1);
    }

    /// Counts the same latency `n` times.
    #[inline]
    pub fn record_many(&mut self, latency: Nanos, n: u64) {
        let us = latency / 1_000;
        self.buckets[bucket(us)] += n;
        self.count += n;
        self.max_us = self.max_us.max(us);
    }

    /// Adds another histogram's counts to this one.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.buckets.iter_mut().zip(&other.buckets) {
            *a += b;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Takes over what `later` has, which is the same histogram at a later time: nothing, if it has
    /// not counted since.
    pub fn follow(&mut self, later: &Self) {
        if self.count != later.count {
            self.clone_from(later);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest, in µs.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The smallest value, in µs, that at least `fraction` (0 to 1) of all are not above; rounded
    /// up to its bucket's end. 0 if there are none.
    pub fn quantile_us(&self, fraction: f64) -> u64 {
        quantile_of(self.counts(), fraction).min(self.max_us)
    }

    /// The end of each bucket that is not empty, in µs, and how many are in it.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + Clone {
        let buckets = self.buckets.iter().enumerate();
        buckets
            .filter(|(_, n)| **n > 0)
            .map(|(i, n)| (upper(i), *n))
    }
}

/// [`Histogram::quantile_us`] of buckets as [`Histogram::counts`] gives them, in their order: the
/// end of a bucket, which may lie above the largest value.
pub fn quantile_of(counts: impl Iterator<Item = (u64, u64)> + Clone, fraction: f64) -> u64 {
    let count: u64 = counts.clone().map(|(_, n)| n).sum();
    let rank = ((count as f64 * fraction).ceil() as u64).clamp(1, count.max(1));
    let mut seen = 0;
    for (upper, n) in counts {
        seen += n;
        if seen >= rank {
            return upper;
        }
    }
    0
}

fn bucket(us: u64) -> usize {
    if us < SUB as u64 {
        return us as usize;
    }
    let exponent = 63 - us.leading_zeros();
    let sub = (us >> (exponent - SUB_BITS)) as usize & (SUB - 1);
    (((exponent - SUB_BITS + 1) as usize) * SUB + sub).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let shift = (bucket / SUB - 1) as u32;
    (((SUB + bucket % SUB + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "it takes Miri minutes")]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut last = 0;
        for us in (0..200_000u64).chain([1 << 30, (1 << 31) + 12_345]) {
            let b = bucket(us);
            assert!(b >= last, "buckets go down at {us}");
            last = b;
            assert!(
                upper(b) >= us && upper(b) - us <= us / 32,
                "{us} in a bucket that ends at {}",
                upper(b)
            );
        }
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut h = Histogram::default();
        assert_eq!(h.quantile_us(0.5), 0);
        for us in 1..=1_000u64 {
            h.record(us * 1_000);
        }
        let mut doubled = h.clone();
        doubled.add(&h);
        assert_eq!(doubled.count(), 2_000);
        for h in [&h, &doubled] {
            for (fraction, exact) in [(0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1_000)] {
                let q = h.quantile_us(fraction);
                assert!(q >= exact && q <= exact + exact / 16, "p{fraction}: {q}");
            }
        }
        assert_eq!(h.max_us(), 1_000);
    }
}
