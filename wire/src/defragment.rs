//! What becomes of fragments: the trait of reassemblers, what they count, and a memory of the parts
//! that have come.
//!
//! Every part that is handed to a [`Defragment`] ends in exactly one of four places: it is held, it
//! was dropped for a reason that has a counter, it is the one part that stands for a whole
//! datagram, or it was merged into one. So always `received = datagrams + merged + held + Σ
//! dropped` ([`FragmentCounters`]).
//!
//! A mirror often shows a frame twice. Reassemblers take a second copy of a part for an overlap and
//! give up the datagram (RFC 5722), so copies are recognised beforehand, by the [`Ledger`].

use crate::decode::Fragment;
use crate::io::Frame;
use crate::rss::mix;
use crate::{Addr, Nanos};

/// Parts of one datagram that are taken: as many as DPDK holds of one
/// (`RTE_LIBRTE_IP_FRAG_MAX_FRAG`).
pub const MAX_PARTS: usize = 8;

/// Bytes of the longest IPv4 datagram, and of the longest payload of an IPv6 packet that is no
/// jumbogram.
pub const MAX_DATAGRAM: usize = u16::MAX as usize;

/// How long copies of the parts of a datagram that is whole are recognised, in ns. Far longer than
/// a mirror takes to deliver both copies, far shorter than a sender takes to use all 65536
/// identifications (RFC 6864 section 3.2).
const ECHO: Nanos = 100_000_000;

crate::reasons! {
    /// Why a fragment was dropped.
    pub enum FragmentDrop {
        /// The rest of its datagram did not come in time.
        Expired = "fragment_expired",
        /// The parts of its datagram overlap, leave a hole, are too many, or make it too long; or
        /// it is of no or of an odd length itself.
        Invalid = "fragment_invalid",
        /// The capture cut it off: its datagram cannot be whole.
        Truncated = "fragment_truncated",
        /// As many datagrams as there is room for are waiting for their rest.
        TableFull = "fragment_table_full",
        /// The very part came before.
        Duplicate = "fragment_duplicate",
    }
}

/// What a reassembler has counted since its start. Counters only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FragmentCounters {
    /// Parts handed in.
    pub received: u64,
    /// Datagrams that became whole and were given out.
    pub datagrams: u64,
    /// Parts in those datagrams beyond the first of each: frames that go on as part of another
    /// one.
    pub merged: u64,
    /// Parts dropped, by [`FragmentDrop`].
    pub dropped: [u64; FragmentDrop::COUNT],
}

impl FragmentCounters {
    /// Parts that wait for the rest of their datagram.
    #[inline]
    pub fn held(&self) -> u64 {
        let gone = self.datagrams + self.merged + self.dropped.iter().sum::<u64>();
        self.received.saturating_sub(gone)
    }
}

/// What a reassembler did with a fragment.
#[derive(Debug)]
pub enum Insert<F> {
    /// It was the last one that was missing. The datagram begins with its IP header, whatever stood
    /// before that: it is decoded as [`LinkType::RawIp`](crate::decode::LinkType::RawIp).
    Whole(F),
    /// It is held, or was dropped and counted.
    Taken,
    /// Fragments are not reassembled here. The frame is dropped and counted nowhere yet.
    Refused,
}

/// Puts the parts of fragmented datagrams together again.
pub trait Defragment<F: Frame> {
    /// Takes the frame that `part` was found in by [`fragment_on`](crate::decode::fragment_on).
    /// `now` never runs back.
    fn insert(&mut self, now: Nanos, frame: F, part: &Fragment) -> Insert<F>;

    /// Gives up the datagrams whose rest has not come in time. Returns how many parts that were. To
    /// be called on every turn of a loop.
    fn expire(&mut self, now: Nanos) -> usize;

    /// Gives up all parts that are held, in time or not. Returns how many there were.
    fn clear(&mut self) -> usize;

    /// What was counted so far.
    fn counters(&self) -> FragmentCounters;
}

/// Reassembles nothing: fragments are refused.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoDefragment;

impl<F: Frame> Defragment<F> for NoDefragment {
    #[inline]
    fn insert(&mut self, _: Nanos, _: F, _: &Fragment) -> Insert<F> {
        Insert::Refused
    }

    #[inline]
    fn expire(&mut self, _: Nanos) -> usize {
        0
    }

    fn clear(&mut self) -> usize {
        0
    }

    fn counters(&self) -> FragmentCounters {
        FragmentCounters::default()
    }
}

/// Whether a part can belong to a datagram at all, whatever the others are: all of it was captured,
/// and its place and length are such as RFC 791 section 3.2 and RFC 8200 section 4.5 allow.
#[inline]
pub fn plausible(part: &Fragment) -> Result<(), FragmentDrop> {
    if part.captured < part.len {
        return Err(FragmentDrop::Truncated);
    }
    let fits = part.offset + part.len <= MAX_DATAGRAM;
    if part.len == 0 || !fits || (part.more && !part.len.is_multiple_of(8)) {
        return Err(FragmentDrop::Invalid);
    }
    Ok(())
}

/// A well-mixed hash of what the parts of one datagram have in common: source, destination,
/// protocol and identification (RFC 791 section 3.2), and the VLANs and virtual networks around
/// them. All parts of a datagram have the same; ports do not count, as only one part has them.
#[inline]
pub fn datagram_hash(part: &Fragment) -> u32 {
    let fold = |a: &Addr| {
        let w = a.number();
        mix((w >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15) ^ w as u64
    };
    // One after the other, so that the two directions differ.
    let h = mix(mix(fold(&part.src)) ^ fold(&part.dst));
    let h = mix(h ^ (u64::from(part.ident) << 8 | u64::from(protocol_of(part))));
    let h = mix(h ^ u64::from(part.scope));
    (h >> 32) as u32
}

/// The protocol as far as it identifies a datagram: for IPv6 it does not (RFC 8200 section 4.5).
#[inline]
fn protocol_of(part: &Fragment) -> u8 {
    if part.src.is_v4() { part.protocol } else { 0 }
}

/// What the [`Ledger`] says of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartStatus {
    /// It has not come before, as far as is known.
    New,
    /// The very part came before.
    Duplicate,
    /// Its datagram was given up for this reason, and so is all that still comes of it.
    Refused(FragmentDrop),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Open,
    Whole,
    Refused(FragmentDrop),
}

#[derive(Clone, Copy)]
struct Entry {
    src: Addr,
    dst: Addr,
    ident: u32,
    scope: u32,
    protocol: u8,
    count: u8,
    state: State,
    /// When the first part came; when the datagram became whole or was refused.
    since: Nanos,
    /// Offset and length.
    parts: [(u16, u16); MAX_PARTS],
}

impl Entry {
    const FREE: Self = Self {
        src: Addr::v4([0; 4]),
        dst: Addr::v4([0; 4]),
        ident: 0,
        scope: 0,
        protocol: 0,
        count: 0,
        state: State::Free,
        since: 0,
        parts: [(0, 0); MAX_PARTS],
    };

    #[inline]
    fn is_of(&self, part: &Fragment) -> bool {
        self.state != State::Free
            && self.ident == part.ident
            && self.scope == part.scope
            && self.src == part.src
            && self.dst == part.dst
            && self.protocol == protocol_of(part)
    }

    #[inline]
    fn has(&self, range: (u16, u16)) -> bool {
        self.parts[..usize::from(self.count).min(MAX_PARTS)].contains(&range)
    }

    #[inline]
    fn note(&mut self, range: (u16, u16)) {
        // A part too many is the reassembler's to refuse.
        if let Some(place) = self.parts.get_mut(usize::from(self.count)) {
            *place = range;
            self.count += 1;
        }
    }
}

/// Remembers which parts of which datagrams have come. It holds no frames.
///
/// A fixed number of entries, each datagram having one place: where two meet, the later one takes
/// it. What is forgotten that way costs no more than that copies of the earlier one's parts are not
/// recognised.
pub struct Ledger {
    entries: Box<[Entry]>,
    timeout: Nanos,
    /// Something was noted since all was forgotten.
    used: bool,
}

impl Ledger {
    /// A ledger for at least `datagrams` at a time, each of which may take `timeout` to become
    /// whole.
    pub fn new(datagrams: usize, timeout: Nanos) -> Self {
        let n = datagrams.clamp(1, 1 << 20).next_power_of_two();
        Self {
            entries: vec![Entry::FREE; n].into_boxed_slice(),
            timeout,
            used: false,
        }
    }

    #[inline]
    fn entry(&mut self, part: &Fragment) -> Option<&mut Entry> {
        // The low bits may have chosen a core already.
        let at = datagram_hash(part).rotate_left(16) as usize & (self.entries.len() - 1);
        self.entries.get_mut(at)
    }

    /// Notes a part that is [`plausible`], and says whether it came before.
    #[inline]
    pub fn check(&mut self, now: Nanos, part: &Fragment) -> PartStatus {
        let timeout = self.timeout;
        self.used = true;
        let range = (part.offset as u16, part.len as u16);
        let Some(e) = self.entry(part) else {
            return PartStatus::New;
        };
        let age = now.saturating_sub(e.since);
        if e.is_of(part) {
            match e.state {
                State::Open if age <= timeout => {
                    if e.has(range) {
                        return PartStatus::Duplicate;
                    }
                    e.note(range);
                    return PartStatus::New;
                }
                State::Whole if age <= ECHO && e.has(range) => return PartStatus::Duplicate,
                State::Refused(reason) if age <= timeout => return PartStatus::Refused(reason),
                // Out of date, or the identification is used again.
                _ => {}
            }
        }
        *e = Entry {
            src: part.src,
            dst: part.dst,
            ident: part.ident,
            scope: part.scope,
            protocol: protocol_of(part),
            state: State::Open,
            since: now,
            ..Entry::FREE
        };
        e.note(range);
        PartStatus::New
    }

    /// The datagram of `part` is whole.
    #[inline]
    pub fn complete(&mut self, now: Nanos, part: &Fragment) {
        self.close(now, part, State::Whole);
    }

    /// The datagram of `part` was given up: what still comes of it is to be dropped for the same
    /// reason (RFC 8200 section 4.5).
    #[inline]
    pub fn refuse(&mut self, now: Nanos, part: &Fragment, reason: FragmentDrop) {
        self.close(now, part, State::Refused(reason));
    }

    #[inline]
    fn close(&mut self, now: Nanos, part: &Fragment, state: State) {
        if let Some(e) = self.entry(part)
            && e.is_of(part)
        {
            e.state = state;
            e.since = now;
        }
    }

    /// Forgets everything. Costs nothing if there is nothing to forget.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.used) {
            self.entries.fill(Entry::FREE);
        }
    }
}

#[cfg(test)]
mod tests;
