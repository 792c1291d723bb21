//! Whether a port's link is up, and how often that has changed.

use std::time::{Duration, Instant};

/// How often a link is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// The state of a link that is looked at from time to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    up: bool,
    changes: u64,
}

impl LinkState {
    /// A link that is looked at for the first time.
    pub const fn new(up: bool) -> Self {
        Self { up, changes: 0 }
    }

    /// What it is now. True if it was otherwise before.
    pub const fn look(&mut self, up: bool) -> bool {
        let changed = self.up != up;
        self.up = up;
        self.changes += changed as u64;
        changed
    }

    /// `up` or `down`.
    pub const fn name(&self) -> &'static str {
        if self.up { "up" } else { "down" }
    }

    /// True if it was up when it was looked at last.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Times that it was found otherwise than before.
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}

/// Waits until a link is up, no longer than `limit`. NICs take some seconds for that after their
/// start. Returns whether it is.
pub fn wait_for_link(limit: Duration, is_up: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_up() {
            return true;
        }
        if began.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_counts_once() {
        let mut link = LinkState::new(true);
        let seen = [true, false, false, true, true].map(|up| link.look(up));
        assert_eq!(seen, [false, true, false, true, false]);
        assert_eq!((link.name(), link.changes()), ("up", 2));
        assert!(!wait_for_link(Duration::ZERO, || false));
        assert!(wait_for_link(Duration::ZERO, || true));
    }
}
