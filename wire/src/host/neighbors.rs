//! The neighbour table: which Ethernet address an IP address on the wire has, and when to ask
//! again.
//!
//! It never grows beyond [`MAX_NEIGHBORS`] and allocates nothing after it was made.

use crate::hash::KeyedHash;
use crate::{Addr, Nanos};
use hashbrown::HashTable;

/// Entries that the table holds.
pub const MAX_NEIGHBORS: usize = 1024;
/// Time between two questions about one address.
pub const RETRY: Nanos = 1_000_000_000;
/// How long an answer is believed.
pub const LIFETIME: Nanos = 30_000_000_000;
/// Age at which an answer is asked for again.
pub const REFRESH: Nanos = 25_000_000_000;
/// Questions without an answer after which an address counts as unresolved. It is asked for further
/// on, once each [`RETRY`].
pub const ATTEMPTS: u32 = 3;

struct Entry {
    addr: Addr,
    mac: Option<[u8; 6]>,
    /// When the address was last confirmed.
    confirmed: Nanos,
    /// When something is to be done next: ask, ask again, or forget.
    due: Nanos,
    /// Questions since it was last confirmed.
    asked: u32,
    /// We send to it, so it is kept fresh. Others are forgotten when they are old.
    wanted: bool,
}

/// The table.
pub struct Neighbors {
    map: HashTable<Entry>,
    hash: KeyedHash,
    /// No entry is due before this.
    next_due: Nanos,
}

/// A question to be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address to ask for.
    pub addr: Addr,
    /// Whom to ask; `None` for everyone.
    pub mac: Option<[u8; 6]>,
}

impl Neighbors {
    /// An empty table. `seed` makes the places of entries unpredictable.
    pub fn new(seed: u64) -> Self {
        // Twice the room, so that slots left by removed entries are reclaimed in place instead of
        // by growing.
        Self {
            map: HashTable::with_capacity(2 * MAX_NEIGHBORS),
            hash: KeyedHash::new(seed),
            next_due: Nanos::MAX,
        }
    }

    #[inline]
    fn find(&self, addr: &Addr) -> Option<&Entry> {
        self.map.find(self.hash.addr(addr), |e| e.addr == *addr)
    }

    #[inline]
    fn find_mut(&mut self, addr: &Addr) -> Option<&mut Entry> {
        let hash = self.hash.addr(addr);
        self.map.find_mut(hash, |e| e.addr == *addr)
    }

    /// Adds an entry for an address that has none.
    fn insert(&mut self, entry: Entry) {
        let hash = &self.hash;
        let of = |e: &Entry| hash.addr(&e.addr);
        self.map.insert_unique(of(&entry), entry, of);
    }

    /// The Ethernet address to send to. An unknown one becomes due to be asked for.
    #[inline]
    pub fn resolve(&mut self, addr: &Addr) -> Option<[u8; 6]> {
        if let Some(e) = self.find_mut(addr) {
            let mac = e.mac;
            if !e.wanted {
                e.wanted = true;
                e.due = e.confirmed.saturating_add(REFRESH);
                let due = e.due;
                self.next_due = self.next_due.min(due);
            }
            return mac;
        }
        self.want(addr);
        None
    }

    #[cold]
    fn want(&mut self, addr: &Addr) {
        if self.make_room() {
            self.insert(Entry {
                addr: *addr,
                mac: None,
                confirmed: 0,
                due: 0,
                asked: 0,
                wanted: true,
            });
            self.next_due = 0;
        }
    }

    /// Makes sure that one more entry fits, at the cost of the oldest that we do not send to.
    fn make_room(&mut self) -> bool {
        if self.map.len() < MAX_NEIGHBORS {
            return true;
        }
        let oldest = self
            .map
            .iter()
            .filter(|e| !e.wanted)
            .min_by_key(|e| (e.confirmed, e.addr))
            .map(|e| e.addr);
        let Some(addr) = oldest else {
            return false;
        };
        let hash = self.hash.addr(&addr);
        let found = self.map.find_entry(hash, |e| e.addr == addr);
        found.map(|entry| entry.remove()).is_ok()
    }

    /// What is known of an address, without asking.
    pub fn get(&self, addr: &Addr) -> Option<[u8; 6]> {
        self.find(addr).and_then(|e| e.mac)
    }

    /// True if the address is known or being asked for.
    pub fn has(&self, addr: &Addr) -> bool {
        self.find(addr).is_some()
    }

    /// Takes note of a neighbour's address. Returns true if that is news.
    pub fn confirm(&mut self, addr: Addr, mac: [u8; 6], now: Nanos) -> bool {
        let due = |wanted| now.saturating_add(if wanted { REFRESH } else { LIFETIME });
        if let Some(e) = self.find_mut(&addr) {
            let news = e.mac != Some(mac);
            *e = Entry {
                addr,
                mac: Some(mac),
                confirmed: now,
                due: due(e.wanted),
                asked: 0,
                wanted: e.wanted,
            };
            let due = e.due;
            self.next_due = self.next_due.min(due);
            return news;
        }
        if !self.make_room() {
            return false;
        }
        let e = Entry {
            addr,
            mac: Some(mac),
            confirmed: now,
            due: due(false),
            asked: 0,
            wanted: false,
        };
        self.next_due = self.next_due.min(e.due);
        self.insert(e);
        true
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The next question that is due, if any.
    #[inline]
    pub fn due(&mut self, now: Nanos) -> Option<Question> {
        if now < self.next_due {
            None
        } else {
            self.scan(now)
        }
    }

    #[cold]
    fn scan(&mut self, now: Nanos) -> Option<Question> {
        self.map.retain(|e| e.wanted || now < e.due);
        let mut question = None;
        let mut next = Nanos::MAX;
        // The lowest address of those due longest: an order that does not depend on the table's.
        let first = self
            .map
            .iter()
            .filter(|e| e.due <= now)
            .min_by_key(|e| (e.due, e.addr))
            .map(|e| e.addr);
        for e in &mut self.map {
            if first == Some(e.addr) {
                if now >= e.confirmed.saturating_add(LIFETIME) {
                    e.mac = None;
                }
                e.asked = e.asked.saturating_add(1);
                e.due = now.saturating_add(RETRY);
                question = Some(Question {
                    addr: e.addr,
                    mac: e.mac,
                });
            }
            next = next.min(e.due);
        }
        self.next_due = next;
        question
    }

    /// The addresses that we want to send to and that did not answer [`ATTEMPTS`] questions.
    pub fn unresolved(&self) -> impl Iterator<Item = Addr> + '_ {
        self.map
            .iter()
            .filter(|e| e.mac.is_none() && e.asked >= ATTEMPTS)
            .map(|e| e.addr)
    }
}
