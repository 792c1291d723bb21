//! What a core may take of memory, before it is made.
//!
//! All of it is reserved at the start and touched as sessions, segments and turns come, so this is
//! the most a full core takes, not what it takes at the start. Tables of flows alone are touched at
//! once.

use super::Core;
use crate::capture::session::{Session, Waiting};
use crate::fan::Fans;
use crate::params::Params;
use crate::replica::data::{Feed, Replica, Seg, Turn};
use crate::replica::max_replicas;
use crate::table::FlowTable;
use crate::wheel::Wheel;
use wire::io::Payload;

impl<P: Payload> Core<P> {
    /// Bytes that a core with these parameters takes when it holds as much as it may. Packet buffers
    /// are not in it. Left out is what takes less than a hundredth: handshakes under way,
    /// scoreboards.
    pub fn most_bytes(params: &Params) -> u64 {
        const FLOW: usize = FlowTable::BYTES_PER_FLOW + Wheel::BYTES_PER_TIMER;
        /// A slab's link to the next free entry.
        const LINK: usize = 4;
        /// Places in the lists of replicas that are refused or wait for a first answer.
        const LISTS: usize = 17;
        let of = |count: usize, each: usize| count as u64 * each as u64;
        let (sessions, segments) = (params.max_sessions, params.max_segments);
        let fans = Fans::new(params);
        let feeds = sessions.saturating_mul(fans.width());
        let session = size_of::<Session>() + LINK + FLOW;
        let replica = size_of::<Replica>() + LINK + LISTS + FLOW;
        let segment = size_of::<Seg<P>>() + size_of::<Waiting<P>>() + 2 * LINK;
        of(sessions, session)
            + of(feeds, size_of::<Feed>())
            + of(max_replicas(params, &fans), replica)
            + of(segments, segment)
            + of(segments.saturating_add(feeds), size_of::<Turn>() + LINK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Transfer;
    use ::tests::memory::MemoryPayload;
    use wire::{Addr, Endpoint};

    #[test]
    fn a_session_more_takes_what_a_session_takes() {
        let end = |port| Endpoint::new(Addr::v4([10, 0, 0, 1]), port);
        let most = |sessions, segments| {
            let transfer = Transfer::new(end(80), end(81));
            Core::<MemoryPayload>::most_bytes(&Params::new(vec![transfer], sessions, segments))
        };
        let idle = Core::<MemoryPayload>::bytes_per_session() as u64;
        let session = most(1_001, 64) - most(1_000, 64);
        // The turn that is being said, and places in lists.
        assert!((idle..idle + 96).contains(&session), "{session} for {idle}");
        let segment = most(1_000, 65) - most(1_000, 64);
        assert!((64..256).contains(&segment), "{segment} bytes a segment");
    }
}
