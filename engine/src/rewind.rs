//! Between two passes of a capture file: every worker ends its sessions before the first frame of
//! the next pass is read, which would else look like more of the same.

use crate::lcore::Orders;
use crate::worker::NESTED;
use std::sync::Arc;

/// The way to the next pass.
///
/// Frames may still be on their way between workers, and a reassembled datagram goes on to a
/// further one. So workers first take over what there is, one hand-over after the other.
pub struct Rewind {
    /// How many times workers are still to take over what others have left them.
    rounds: usize,
    asked: bool,
}

impl Rewind {
    /// The file is at its end, and its last frames have been taken or handed over.
    pub const fn new(workers: usize) -> Self {
        Self {
            rounds: if workers > 1 { NESTED + 1 } else { 0 },
            asked: false,
        }
    }

    /// Asks workers for what is next. True when all of them have ended their sessions. Returns at
    /// once, and is to be called until then.
    pub fn step(&mut self, orders: &[Arc<Orders>]) -> bool {
        loop {
            let mut requests = orders.iter().map(|o| match self.rounds {
                0 => &o.end_sessions,
                _ => &o.take_over,
            });
            if !self.asked {
                requests.clone().for_each(|r| r.ask());
                self.asked = true;
            }
            if !requests.all(|r| r.is_done()) {
                return false;
            }
            if self.rounds == 0 {
                return true;
            }
            self.rounds -= 1;
            self.asked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mine = Arc<Orders>;

    fn answer(orders: &Mine) -> Option<&'static str> {
        let requests = [
            ("take over", &orders.take_over),
            ("end", &orders.end_sessions),
        ];
        let (what, request) = requests.into_iter().find(|(_, r)| !r.is_done())?;
        request.finish(request.open()?);
        Some(what)
    }

    #[test]
    fn every_worker_takes_over_and_then_ends_its_sessions() {
        let orders: [Mine; 2] = [Orders::new(), Orders::new()];
        for _ in 0..2 {
            let mut rewind = Rewind::new(orders.len());
            for _ in 0..=NESTED {
                assert!(!rewind.step(&orders));
                assert_eq!(answer(&orders[0]), Some("take over"));
                assert!(!rewind.step(&orders), "one has not answered");
                assert_eq!(answer(&orders[0]), None);
                assert_eq!(answer(&orders[1]), Some("take over"));
            }
            assert!(!rewind.step(&orders));
            assert_eq!(answer(&orders[1]), Some("end"));
            assert!(!rewind.step(&orders), "one has not answered");
            assert_eq!(answer(&orders[0]), Some("end"));
            assert!(rewind.step(&orders));
        }
    }

    #[test]
    fn a_worker_alone_has_nothing_to_take_over() {
        let orders: [Mine; 1] = [Orders::new()];
        let mut rewind = Rewind::new(1);
        assert!(!rewind.step(&orders));
        assert_eq!(answer(&orders[0]), Some("end"));
        assert!(rewind.step(&orders));
    }
}
