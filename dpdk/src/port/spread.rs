//! How a NIC spreads flows over its receive queues: hash, key and redirection table (rte_ethdev.h,
//! "RSS").
//!
//! The low bits of the hash name an entry of the table, and the entry a queue. The table is filled
//! so that a flow arrives at the core that [`wire::rss::queue_of`] says, as long as that one has a
//! queue; what belongs to cores without one is spread over all queues.

use dpdk_sys as sys;
use wire::rss::TABLE_ENTRIES;

/// The queue of each of `size` entries, for flows that are dealt out to `cores`.
fn entries(size: u16, queues: u16, cores: u16) -> Vec<u16> {
    let (queues, cores) = (queues.max(1), cores.max(queues).max(1));
    let entry = |i: u16| match i % period(size) % cores {
        core if core < queues => core,
        _ => i % queues,
    };
    (0..size).map(entry).collect()
}

/// After how many entries the table repeats.
fn period(size: u16) -> u16 {
    size.clamp(1, TABLE_ENTRIES as u16)
}

/// Fills the table of a started port. Returns by how many values of the hash's low bits queues are
/// chosen: if the driver fills the table itself, in turn and its own way, by all.
pub(super) fn fill(number: u16, size: u16, queues: u16, cores: u16) -> u16 {
    if !size.is_power_of_two() {
        return TABLE_ENTRIES as u16;
    }
    let group = sys::RTE_ETH_RETA_GROUP_SIZE as usize;
    let entries = entries(size, queues, cores);
    let mut groups: Vec<sys::rte_eth_rss_reta_entry64> = entries
        .chunks(group)
        .map(|chunk| {
            let mut reta = [0; sys::RTE_ETH_RETA_GROUP_SIZE as usize];
            reta[..chunk.len()].copy_from_slice(chunk);
            let mask = u64::MAX >> (group - chunk.len());
            sys::rte_eth_rss_reta_entry64 { mask, reta }
        })
        .collect();
    // SAFETY: the port is started, and the groups hold `size` entries.
    let result = unsafe { sys::rte_eth_dev_rss_reta_update(number, groups.as_mut_ptr(), size) };
    if result == 0 { period(size) } else { size }
}

/// The flow types to hash, of those that the device offers.
pub(super) const fn types(offered: u64) -> u64 {
    offered
        & (sys::SHIM_RSS_IPV4
            | sys::SHIM_RSS_IPV6
            | sys::SHIM_RSS_IPV6_EX
            | sys::SHIM_RSS_TCP_V4
            | sys::SHIM_RSS_TCP_V6
            | sys::SHIM_RSS_TCP_V6_EX)
}

/// The symmetric key, as long as the device takes it.
pub(super) fn key(len: u8) -> Vec<u8> {
    let repeated = wire::rss::KEY_WORD.to_be_bytes().into_iter().cycle();
    repeated.take(len.max(40).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_arrives_at_its_owner_with_any_number_of_workers() {
        for size in [128, 256, 512, 2_048] {
            for cores in 1..=16 {
                let table = entries(size, cores, cores);
                for hash in 0..u32::from(size) * 4 {
                    let queue = table[(hash & (u32::from(size) - 1)) as usize];
                    let owner = wire::rss::queue_of(hash, cores);
                    assert_eq!(queue, owner, "{size} entries, {cores} cores, hash {hash}");
                }
            }
        }
    }

    #[test]
    fn a_small_table_is_filled_in_turn() {
        assert_eq!(entries(8, 3, 3), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(period(64), 64);
    }

    #[test]
    fn what_belongs_to_cores_without_a_queue_comes_to_all_queues() {
        let table = entries(128, 2, 3);
        for (i, queue) in table.iter().enumerate() {
            let owner = i % 3;
            assert!(owner == 2 || usize::from(*queue) == owner, "entry {i}");
        }
        let of_third: Vec<u16> = table.iter().copied().skip(2).step_by(3).collect();
        assert!(of_third.contains(&0) && of_third.contains(&1));
    }

    #[test]
    fn the_key_is_the_one_that_owners_are_computed_by() {
        assert_eq!(key(0), wire::rss::KEY);
        assert_eq!(key(52)[40..42], wire::rss::KEY[..2]);
    }
}
