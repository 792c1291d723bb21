//! A hierarchical timer wheel with intrusive links: arm, re-arm and cancel in constant time, no
//! allocation.
//!
//! A timer is a small integer id, armed at most once at a time. Four levels of 256 slots; the
//! finest slot is [`TICK`] long, the wheel spans about 78 hours, later deadlines are clamped to
//! that. A timer never fires early, and at most one tick late by the wheel's own doing.

use crate::slab::NIL;
use wire::Nanos;

const TICK_SHIFT: u32 = 16;
/// Resolution in nanoseconds: 65.5 µs.
pub const TICK: Nanos = 1 << TICK_SHIFT;
const LEVELS: usize = 4;
const SLOTS: usize = 256;
const MAX_DELTA: u64 = (1 << 32) - 1;
const UNARMED: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    prev: u32,
    /// The low half of the tick it fires at: the wheel spans no more than that.
    tick: u32,
    /// Which list it is on (level x 256 + slot), or `UNARMED`.
    list: u16,
}

/// See the module's documentation.
pub struct Wheel {
    nodes: Vec<Node>,
    heads: Vec<u32>,
    /// Which finest slots hold a timer.
    occupied: [u64; SLOTS / 64],
    current: u64,
    armed: usize,
    capacity: usize,
}

impl Wheel {
    /// What a timer costs.
    pub const BYTES_PER_TIMER: usize = size_of::<Node>();

    /// A wheel for ids below `capacity`, whose time begins at `now`.
    pub fn new(capacity: usize, now: Nanos) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity),
            heads: vec![NIL; LEVELS * SLOTS],
            occupied: [0; SLOTS / 64],
            current: now >> TICK_SHIFT,
            armed: 0,
            capacity,
        }
    }

    /// How many timers are armed.
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// Makes timer `id` fire at `deadline`, wherever it was armed before.
    #[inline]
    pub fn arm(&mut self, id: u32, deadline: Nanos) {
        debug_assert!((id as usize) < self.capacity);
        while self.nodes.len() <= id as usize {
            self.nodes.push(Node {
                next: NIL,
                prev: NIL,
                tick: 0,
                list: UNARMED,
            });
        }
        let tick = (deadline.saturating_add(TICK - 1) >> TICK_SHIFT)
            .clamp(self.current + 1, self.current + MAX_DELTA);
        let node = &self.nodes[id as usize];
        if node.list != UNARMED {
            if node.tick == tick as u32 {
                return;
            }
            self.unlink(id);
        }
        self.nodes[id as usize].tick = tick as u32;
        self.link(id);
    }

    /// Where timer `id` is kept, if it was ever armed: what is touched by the calls for it.
    #[inline]
    pub fn place(&self, id: u32) -> Option<&impl Sized> {
        self.nodes.get(id as usize)
    }

    /// When timer `id` fires (rounded up to a tick), if it is armed.
    #[inline]
    pub fn deadline(&self, id: u32) -> Option<Nanos> {
        let n = self.nodes.get(id as usize)?;
        (n.list != UNARMED).then(|| (self.current + self.distance(n)) << TICK_SHIFT)
    }

    /// Disarms timer `id`; nothing happens if it was not armed.
    #[inline]
    pub fn cancel(&mut self, id: u32) {
        if self
            .nodes
            .get(id as usize)
            .is_some_and(|n| n.list != UNARMED)
        {
            self.unlink(id);
        }
    }

    /// No timer fires before this time, `Nanos::MAX` if none is armed. It looks at the finest slots
    /// alone, so at most 256 ticks ahead.
    pub fn quiet_until(&self) -> Nanos {
        if self.armed == 0 {
            return Nanos::MAX;
        }
        let at = (self.current % SLOTS as u64) as usize;
        let turn = self.current - at as u64;
        let next = self.next_occupied(at).unwrap_or(SLOTS);
        (turn + next as u64) << TICK_SHIFT
    }

    /// The next timer that is due at `now`, disarmed. Call until `None`.
    #[inline]
    pub fn pop(&mut self, now: Nanos) -> Option<u32> {
        let now = now >> TICK_SHIFT;
        loop {
            let head = self.heads[(self.current % SLOTS as u64) as usize];
            if head != NIL {
                self.unlink(head);
                return Some(head);
            }
            if self.current >= now {
                return None;
            }
            if self.armed == 0 {
                self.current = now;
                return None;
            }
            self.step(now);
        }
    }

    /// Moves to the next finest slot that holds a timer, to the next turn of a coarser level, or to
    /// `now`.
    fn step(&mut self, now: u64) {
        let from = (self.current % SLOTS as u64) as usize + 1;
        let turn = (self.current | (SLOTS as u64 - 1)) + 1;
        let next = self
            .next_occupied(from)
            .map_or(turn, |slot| turn - SLOTS as u64 + slot as u64);
        self.current = next.min(now);
        if self.current == turn {
            self.cascade();
        }
    }

    fn next_occupied(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        if word >= self.occupied.len() {
            return None;
        }
        let mut bits = self.occupied[word] & (u64::MAX << (from % 64));
        loop {
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            word += 1;
            if word == self.occupied.len() {
                return None;
            }
            bits = self.occupied[word];
        }
    }

    /// At each turn of a level, the timers of the next coarser slot are dealt out again.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let slot = ((self.current >> (8 * level)) % SLOTS as u64) as usize;
            let mut id = self.heads[level * SLOTS + slot];
            self.heads[level * SLOTS + slot] = NIL;
            while id != NIL {
                let next = self.nodes[id as usize].next;
                self.armed -= 1;
                self.link(id);
                id = next;
            }
            if slot != 0 {
                break;
            }
        }
    }

    /// Ticks from now until the timer fires.
    fn distance(&self, n: &Node) -> u64 {
        u64::from(n.tick.wrapping_sub(self.current as u32))
    }

    fn link(&mut self, id: u32) {
        let delta = self.distance(&self.nodes[id as usize]);
        let tick = self.current + delta;
        let level = match delta {
            0..=0xff => 0,
            0x100..=0xffff => 1,
            0x1_0000..=0xff_ffff => 2,
            _ => 3,
        };
        let slot = ((tick >> (8 * level)) % SLOTS as u64) as usize;
        let list = level * SLOTS + slot;
        let head = self.heads[list];
        if head != NIL {
            self.nodes[head as usize].prev = id;
        }
        let node = &mut self.nodes[id as usize];
        node.next = head;
        node.prev = NIL;
        node.list = list as u16;
        self.heads[list] = id;
        if level == 0 {
            self.occupied[slot / 64] |= 1 << (slot % 64);
        }
        self.armed += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Node {
            next, prev, list, ..
        } = self.nodes[id as usize];
        if prev != NIL {
            self.nodes[prev as usize].next = next;
        } else {
            self.heads[list as usize] = next;
            if next == NIL && (list as usize) < SLOTS {
                self.occupied[list as usize / 64] &= !(1 << (list % 64));
            }
        }
        if next != NIL {
            self.nodes[next as usize].prev = prev;
        }
        self.nodes[id as usize].list = UNARMED;
        self.armed -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(w: &mut Wheel, now: Nanos) -> Vec<u32> {
        std::iter::from_fn(|| w.pop(now)).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes Miri minutes")]
    fn fires_in_its_tick_and_never_early_at_every_distance() {
        for start in [0, 12_345 * TICK, (1 << 24) * TICK - 3] {
            for distance in [
                1, 200, 255, 256, 257, 65_535, 65_536, 70_000, 16_777_216, 20_000_000,
            ] {
                let mut w = Wheel::new(1, start);
                let deadline = start + distance * TICK;
                w.arm(0, deadline);
                assert_eq!(
                    drain(&mut w, deadline - 1),
                    [0; 0],
                    "early at {start} + {distance}"
                );
                assert_eq!(
                    drain(&mut w, deadline + TICK),
                    [0],
                    "missing at {start} + {distance}"
                );
                assert_eq!(w.armed(), 0);
            }
        }
    }

    #[test]
    fn rearming_moves_and_cancelling_removes() {
        let mut w = Wheel::new(3, 0);
        w.arm(0, 10 * TICK);
        w.arm(1, 10 * TICK);
        w.arm(2, 10 * TICK);
        w.arm(0, 5_000 * TICK);
        w.cancel(1);
        w.cancel(1);
        assert_eq!(w.deadline(1), None);
        assert_eq!(w.deadline(0), Some(5_000 * TICK));
        assert_eq!(w.quiet_until(), 10 * TICK);
        assert_eq!(drain(&mut w, 100 * TICK), [2]);
        assert_eq!(w.quiet_until(), 256 * TICK, "a turn of the finest slots");
        assert_eq!(drain(&mut w, 5_000 * TICK), [0]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes Miri minutes")]
    fn agrees_with_a_sorted_list_over_a_long_random_run() {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let mut w = Wheel::new(64, 0);
        let mut model = vec![None::<Nanos>; 64];
        let mut now = 0;
        for _ in 0..20_000 {
            let id = (random() % 64) as usize;
            match random() % 4 {
                0 => {
                    w.cancel(id as u32);
                    model[id] = None;
                }
                1 | 2 => {
                    let deadline = now + random() % (1 << (17 + random() % 24));
                    w.arm(id as u32, deadline);
                    model[id] = Some(deadline);
                }
                _ => {
                    now += random() % (1 << (16 + random() % 16));
                    for id in drain(&mut w, now) {
                        let deadline = model[id as usize].take().expect("an unarmed timer fired");
                        assert!(deadline <= now, "early");
                    }
                    assert!(model.iter().flatten().all(|d| d + 2 * TICK > now), "late");
                }
            }
            assert_eq!(w.armed(), model.iter().flatten().count());
            let first = model.iter().flatten().min();
            assert!(first.is_none_or(|d| d.next_multiple_of(TICK) >= w.quiet_until()));
            assert!(w.quiet_until() + TICK > now);
        }
    }
}
