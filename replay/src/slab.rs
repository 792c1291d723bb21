//! A slab: fixed-capacity storage that hands out 32-bit ids.
//!
//! Ids stay valid until freed, and a freed id is handed out again. Storage is reserved once; pages
//! are touched as ids are first used, so a large limit costs address space, not memory. A freed
//! value stays in place until its id is reused: whatever it owns must be taken out by the caller
//! before [`Slab::free`].

use std::ops::{Index, IndexMut, Range};

/// "No id": the end of every list.
pub const NIL: u32 = u32::MAX;

/// See the module's documentation.
pub struct Slab<T> {
    items: Vec<T>,
    next_free: Vec<u32>,
    free: u32,
    used: usize,
    capacity: usize,
}

impl<T> Slab<T> {
    /// A slab for at most `capacity` values (less than 2^32 - 1).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(NIL as usize - 1);
        Self {
            items: Vec::with_capacity(capacity),
            next_free: Vec::with_capacity(capacity),
            free: NIL,
            used: 0,
            capacity,
        }
    }

    /// Stores `value` and returns its id, or gives it back when the slab is full.
    #[inline]
    pub fn alloc(&mut self, value: T) -> Result<u32, T> {
        let id = self.free;
        if id != NIL {
            self.free = self.next_free[id as usize];
            self.items[id as usize] = value;
        } else if self.items.len() < self.capacity {
            self.items.push(value);
            self.next_free.push(NIL);
            self.used += 1;
            return Ok(self.items.len() as u32 - 1);
        } else {
            return Err(value);
        }
        self.used += 1;
        Ok(id)
    }

    /// Gives an id back. The caller has no other use of it.
    #[inline]
    pub fn free(&mut self, id: u32) {
        self.next_free[id as usize] = self.free;
        self.free = id;
        self.used -= 1;
    }

    /// What [`Slab::free`] touches beside the value.
    #[inline]
    pub fn link(&self, id: u32) -> &u32 {
        &self.next_free[id as usize]
    }

    /// All ids that were ever handed out, free ones among them.
    pub fn ids(&self) -> Range<u32> {
        0..self.items.len() as u32
    }

    /// How many ids are in use.
    pub fn len(&self) -> usize {
        self.used
    }

    /// How many ids there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    #[inline]
    fn index(&self, id: u32) -> &T {
        &self.items[id as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.items[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_reused_and_the_capacity_holds() {
        let mut s = Slab::new(2);
        let a = s.alloc("a").unwrap();
        let b = s.alloc("b").unwrap();
        assert_eq!(s.alloc("c"), Err("c"));
        s.free(a);
        assert_eq!(s.len(), 1);
        assert_eq!(s.alloc("d"), Ok(a));
        assert_eq!((s[a], s[b]), ("d", "b"));
        assert_eq!(s.capacity(), 2);
    }
}
