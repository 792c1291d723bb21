//! Packet buffers: how many `limits.mbufs` buys, and of which size.

use config::replay::{Replay, Source};
use dpdk::{DATA_ROOM, HEADER_ROOM, MBUF_OVERHEAD, SMALL_ROOM};

/// A page without hugepages. No mbuf crosses one (rte_mempool.c, rte_mempool_get_page_size).
const PAGE: u64 = 4_096;
/// Most and fewest descriptors of a queue.
const DESCRIPTORS: (u32, u32) = (4_096, 256);

/// The devices that frames are received from.
pub fn devices(config: &Replay) -> Vec<&str> {
    let mirrors: &[String] = match &config.mirror.source {
        Source::Ports(ports) => ports,
        Source::Files(_) => &[],
    };
    let wires = config.wires.iter().map(|wire| &wire.port);
    mirrors.iter().chain(wires).map(String::as_str).collect()
}

/// The mbufs that `limits.mbufs` buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Those that frames are received into.
    pub frames: u32,
    /// Their size, headroom included.
    pub room: u16,
    /// Those that short payloads are copied to.
    pub small: u32,
}

impl Buffers {
    /// Those of a configuration: as large as the replay port with the longest frames needs them.
    pub fn of(config: &Replay) -> Self {
        let rooms = config.wires.iter().map(|w| dpdk::data_room(&w.port));
        let room = rooms.max().unwrap_or(DATA_ROOM);
        Self::bought(config.limits.mbufs_bytes, room)
    }

    /// Three quarters of the memory are for frames, the rest is for payloads.
    fn bought(bytes: u64, room: u16) -> Self {
        let buys = |bytes: u64, room| {
            let count = bytes / (u64::from(room) + MBUF_OVERHEAD as u64);
            count.clamp(512, u64::from(u32::MAX / 4)) as u32
        };
        Self {
            frames: buys(bytes / 4 * 3, room),
            room,
            small: buys(bytes / 4, SMALL_ROOM),
        }
    }

    /// Bytes that they and so many mbufs for headers take without hugepages.
    pub fn without_hugepages(&self, headers: u32) -> u64 {
        on_pages(self.frames, self.room)
            + on_pages(self.small, SMALL_ROOM)
            + on_pages(headers, HEADER_ROOM)
    }

    /// Bytes that they and so many mbufs for headers take in hugepages.
    pub fn in_hugepages(&self, headers: u32) -> u64 {
        let of =
            |mbufs: u32, room: u16| u64::from(mbufs) * (u64::from(room) + MBUF_OVERHEAD as u64);
        of(self.frames, self.room) + of(self.small, SMALL_ROOM) + of(headers, HEADER_ROOM)
    }

    /// Descriptors of each of so many queues: a power of two, and so few that the queues hold no
    /// more than a sixteenth of the buffers, unless that is very little.
    pub fn descriptors(&self, queues: usize) -> u16 {
        let (most, least) = DESCRIPTORS;
        let share = self.frames / 16 / (queues.max(1) as u32);
        let power = share.clamp(least, most).ilog2();
        1 << power
    }
}

/// Bytes of the pages that mbufs with so much room lie in without hugepages. What of a page is not
/// used is not touched either.
fn on_pages(mbufs: u32, room: u16) -> u64 {
    let size = u64::from(room) + MBUF_OVERHEAD as u64;
    if size > PAGE {
        return u64::from(mbufs) * size.next_multiple_of(PAGE);
    }
    u64::from(mbufs).div_ceil(PAGE / size) * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_mbufs_is_shared_by_frames_and_short_payloads() {
        let all = Buffers::bought(512 << 20, DATA_ROOM);
        assert_eq!((all.frames, all.small), (170_039, 233_016));
        let least = Buffers::bought(0, DATA_ROOM);
        assert_eq!((least.frames, least.small), (512, 512));
        let long = Buffers::bought(512 << 20, 4_192);
        assert_eq!((long.frames, long.small), (91_846, 233_016));
    }

    #[test]
    fn mbufs_without_hugepages_lie_on_pages_of_their_own() {
        assert_eq!(on_pages(1_000, DATA_ROOM), 1_000 * PAGE);
        assert_eq!(on_pages(1_001, 1_000), 334 * PAGE);
        assert_eq!(on_pages(10, 9_000), 30 * PAGE);
    }

    #[test]
    fn queues_hold_a_small_part_of_the_buffers() {
        let all = Buffers::bought(512 << 20, DATA_ROOM);
        assert_eq!(all.descriptors(2), 4_096);
        assert_eq!(all.descriptors(16), 512);
        assert_eq!(Buffers::bought(0, DATA_ROOM).descriptors(64), 256);
    }
}
