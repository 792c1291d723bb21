//! The hash of the packet path's tables. Peers choose what is hashed, so where an entry goes must
//! not be known beforehand: everything depends on a seed, which is an argument.

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use std::sync::OnceLock;

/// Builds a table's hashers.
pub type Seeded = SeedableRandomState;

/// The hash for one table. The seed of the first table makes the part that all tables share.
pub fn seeded(seed: u64) -> Seeded {
    static SHARED: OnceLock<SharedSeed> = OnceLock::new();
    SeedableRandomState::with_seed(seed, SHARED.get_or_init(|| SharedSeed::from_u64(seed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;
    use wire::{Addr, Endpoint};

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let key = Endpoint::new(Addr::v4([10, 0, 0, 1]), 80);
        let hash = |seed| seeded(seed).hash_one(key);
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }
}
