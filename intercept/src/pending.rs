//! Responses that nobody has claimed yet: the claim may be on its way, so they wait briefly.
//!
//! A ring of slots in the order of arrival, and an index by flow. Everything is allocated at the
//! start; what waits too long, and what finds the ring full, is the caller's to count.

use crate::hash::{Seeded, seeded};
use hashbrown::HashMap;
use link::Claim;
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Seq};

struct Slot {
    /// False once it was taken: the slot is free when the ring's front passes it.
    waits: bool,
    head: Head,
    received_at: Nanos,
    prefix_len: u16,
    /// The next younger one of the same flow.
    next: Option<u32>,
}

/// The waiting responses of one receive core.
pub struct Pending {
    slots: Box<[Slot]>,
    /// `payload_prefix` bytes for each slot.
    prefixes: Box<[u8]>,
    prefix_room: usize,
    /// Of each waiting flow its oldest and its youngest slot.
    flows: HashMap<Flow, (u32, u32), Seeded>,
    front: usize,
    used: usize,
    waiting: usize,
    wait: Nanos,
}

impl Pending {
    /// Room for `capacity` responses (at least 1) with `payload_prefix` bytes of payload each, that
    /// wait for `wait`. `seed` makes the places of entries unpredictable.
    pub fn new(capacity: u32, payload_prefix: u16, wait: Nanos, seed: u64) -> Self {
        let capacity = capacity.max(1) as usize;
        let prefix_room = usize::from(payload_prefix);
        let nobody = Endpoint::new(Addr::v4([0; 4]), 0);
        let empty = || Slot {
            waits: false,
            head: Head {
                flow: Flow {
                    src: nobody,
                    dst: nobody,
                },
                seq: Seq(0),
                ack: Seq(0),
                flags: Flags(0),
                window: 0,
                urgent: 0,
                options: Options::default(),
                payload_len: 0,
            },
            received_at: 0,
            prefix_len: 0,
            next: None,
        };
        Self {
            slots: (0..capacity).map(|_| empty()).collect(),
            prefixes: vec![0; capacity * prefix_room].into(),
            prefix_room,
            flows: HashMap::with_capacity_and_hasher(capacity * 2, seeded(seed)),
            front: 0,
            used: 0,
            waiting: 0,
            wait,
        }
    }

    /// How many responses wait.
    pub const fn len(&self) -> usize {
        self.waiting
    }

    /// True if none waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Lets a response wait. False if there is no room.
    pub fn push(&mut self, head: &Head, received_at: Nanos, prefix: &[u8]) -> bool {
        if self.used == self.slots.len() {
            return false;
        }
        let at = (self.front + self.used) % self.slots.len();
        let Some(slot) = self.slots.get_mut(at) else {
            return false;
        };
        let len = prefix.len().min(self.prefix_room);
        let start = at * self.prefix_room;
        if let (Some(to), Some(from)) =
            (self.prefixes.get_mut(start..start + len), prefix.get(..len))
        {
            to.copy_from_slice(from);
        }
        *slot = Slot {
            waits: true,
            head: *head,
            received_at,
            prefix_len: len as u16,
            next: None,
        };
        let index = at as u32;
        let ends = self.flows.entry(head.flow).or_insert((index, index));
        let youngest = std::mem::replace(&mut ends.1, index);
        if youngest != index
            && let Some(slot) = self.slots.get_mut(youngest as usize)
        {
            slot.next = Some(index);
        }
        self.used += 1;
        self.waiting += 1;
        true
    }

    /// Hands out what has waited for this claim, in the order of arrival within each flow.
    pub fn take(&mut self, claim: &Claim, mut each: impl FnMut(&Head, Nanos, &[u8])) {
        if self.waiting == 0 {
            return;
        }
        if let Some(flow) = claim.response_flow() {
            self.take_flow(&flow, &mut each);
            return;
        }
        for n in 0..self.used {
            let at = (self.front + n) % self.slots.len();
            let found = self
                .slots
                .get(at)
                .filter(|s| s.waits && claim.covers(&s.head.flow));
            if let Some(flow) = found.map(|s| s.head.flow) {
                self.take_flow(&flow, &mut each);
            }
        }
    }

    fn take_flow(&mut self, flow: &Flow, each: &mut impl FnMut(&Head, Nanos, &[u8])) {
        let mut next = self.flows.remove(flow).map(|(oldest, _)| oldest);
        while let Some(at) = next {
            let at = at as usize;
            let Some(slot) = self.slots.get_mut(at) else {
                return;
            };
            slot.waits = false;
            self.waiting -= 1;
            let start = at * self.prefix_room;
            let prefix = self
                .prefixes
                .get(start..start + usize::from(slot.prefix_len));
            each(&slot.head, slot.received_at, prefix.unwrap_or_default());
            next = slot.next;
        }
    }

    /// Drops what has waited too long at `now`. Returns how many that were.
    pub fn expire(&mut self, now: Nanos) -> u64 {
        let mut dropped = 0;
        while self.used > 0 {
            let Some(slot) = self.slots.get_mut(self.front) else {
                break;
            };
            if slot.waits {
                if now.saturating_sub(slot.received_at) < self.wait {
                    break;
                }
                slot.waits = false;
                self.waiting -= 1;
                dropped += 1;
                // The oldest slot of all is the oldest of its flow.
                match slot.next {
                    Some(next) => {
                        if let Some(ends) = self.flows.get_mut(&slot.head.flow) {
                            ends.0 = next;
                        }
                    }
                    None => {
                        self.flows.remove(&slot.head.flow);
                    }
                }
            }
            self.front = (self.front + 1) % self.slots.len();
            self.used -= 1;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 0, 0, 200]), 80);

    fn client(n: u16) -> Endpoint {
        Endpoint::new(Addr::v4([10, 0, 0, 1]), n)
    }

    fn head(port: u16, seq: u32) -> Head {
        Head {
            flow: Flow {
                src: TARGET,
                dst: client(port),
            },
            seq: Seq(seq),
            ack: Seq(0),
            flags: Flags::ACK,
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload_len: 0,
        }
    }

    fn taken(p: &mut Pending, claim: &Claim) -> Vec<(u16, u32, Vec<u8>)> {
        let mut out = vec![];
        p.take(claim, |h, _, prefix| {
            out.push((h.flow.dst.port, h.seq.0, prefix.to_vec()))
        });
        out
    }

    #[test]
    fn a_claim_gets_what_waited_for_it_in_order() {
        let mut p = Pending::new(8, 4, 50, 1);
        for (port, seq) in [(1, 10), (2, 20), (1, 11), (3, 30), (1, 12)] {
            assert!(p.push(&head(port, seq), 0, &[seq as u8; 9]));
        }
        let got = taken(&mut p, &Claim::exact(client(1), TARGET, 0));
        assert_eq!(
            got,
            [
                (1, 10, vec![10; 4]),
                (1, 11, vec![11; 4]),
                (1, 12, vec![12; 4])
            ]
        );
        assert_eq!(taken(&mut p, &Claim::exact(client(1), TARGET, 0)), []);
        let range = Claim {
            ports: 1..=3,
            ..Claim::exact(client(1), TARGET, 0)
        };
        assert_eq!(
            taken(&mut p, &range),
            [(2, 20, vec![20; 4]), (3, 30, vec![30; 4])]
        );
        assert!(p.is_empty());
        assert_eq!(p.expire(1000), 0);
    }

    #[test]
    fn what_nobody_claims_in_time_is_dropped_and_its_room_comes_back() {
        let mut p = Pending::new(3, 0, 50, 1);
        for round in 0..10u64 {
            let now = round * 100;
            assert!(
                p.push(&head(1, 1), now, b"x")
                    && p.push(&head(1, 2), now + 10, b"")
                    && p.push(&head(2, 3), now + 10, b"")
            );
            assert!(!p.push(&head(4, 4), now + 10, b""), "full");
            assert_eq!(p.expire(now + 49), 0);
            assert_eq!(p.expire(now + 50), 1);
            assert_eq!(
                taken(&mut p, &Claim::exact(client(1), TARGET, 0)),
                [(1, 2, vec![])]
            );
            assert_eq!(p.expire(now + 60), 1);
            assert!(p.is_empty() && p.flows.is_empty() && p.used == 0);
        }
    }

    #[test]
    fn the_index_never_grows() {
        let mut p = Pending::new(64, 0, 1, 1);
        let capacity = p.flows.capacity();
        for n in 0..10_000u64 {
            p.push(&head(n as u16, n as u32), n, b"");
            if n % 3 == 0 {
                taken(&mut p, &Claim::exact(client(n as u16), TARGET, 0));
            }
            if n % 7 == 0 {
                p.expire(n);
            }
        }
        assert_eq!(p.flows.capacity(), capacity);
    }
}
