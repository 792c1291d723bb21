//! How the mirror's frames come to the core that owns their session, and whether that is so.
//!
//! A NIC's word that it spreads flows is not always kept. Nothing is lost then, as cores hand over
//! what is not theirs, but it costs; so it is measured when the first frames have come.

use config::replay::Source;
use dpdk::{MirrorPort, PortInfo};
use replay::{HashBy, Ownership};

/// Frames after which it is judged.
const JUDGED: u64 = 1_000;
/// One frame of so many may arrive elsewhere: fragments and tunnels do.
const ONE_OF: u64 = 10;

/// By which way frames come to their owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// There is one core.
    Alone,
    /// The thread that reads capture files gives them out.
    Reader,
    /// The NIC's symmetric RSS.
    Rss,
    /// The core that receives them hands them over.
    HandOver,
}

/// How frames come to their owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    way: Way,
    /// Each core has a queue of each port.
    all_have_queues: bool,
    judged: bool,
}

impl Spread {
    /// The way of these sources.
    pub fn of(source: &Source, ownership: Ownership, mirrors: &[MirrorPort]) -> Self {
        let way = match (ownership.cores, ownership.by) {
            (1, _) => Way::Alone,
            _ if matches!(source, Source::Files(_)) => Way::Reader,
            (_, HashBy::Flow { .. }) => Way::Rss,
            (_, HashBy::Client) => Way::HandOver,
        };
        let has_all = |info: &PortInfo| info.rx_queues >= ownership.cores;
        Self {
            way,
            all_have_queues: mirrors.iter().map(MirrorPort::info).all(has_all),
            judged: false,
        }
    }

    /// Its name in the report.
    pub const fn name(&self) -> &'static str {
        match self.way {
            Way::Alone => "alone",
            Way::Reader => "reader",
            Way::Rss => "rss",
            Way::HandOver => "hand_over",
        }
    }

    /// The same for the log.
    pub const fn words(&self) -> &'static str {
        match self.way {
            Way::Alone => "being the only one there",
            Way::Reader => "the thread that reads the capture files",
            Way::Rss => "the NIC's symmetric RSS",
            Way::HandOver => "ring hand-over between the cores",
        }
    }

    /// Judges, once, by the frames received and those among them that were handed over. A sentence
    /// if the NIC does not do what was asked.
    pub fn judge(&mut self, received: u64, handed_over: u64) -> Option<String> {
        if self.judged || self.way != Way::Rss || received < JUDGED {
            return None;
        }
        self.judged = true;
        (self.all_have_queues && handed_over > received / ONE_OF).then(|| {
            format!(
                "the NIC does not spread flows as asked: {handed_over} of the first {received} frames arrived at another core than their owner's, and are handed over; nothing is lost by it, but fewer CPUs in eal.lcores may do as much"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSS: Spread = Spread {
        way: Way::Rss,
        all_have_queues: true,
        judged: false,
    };

    #[test]
    fn a_nic_that_does_not_keep_its_word_is_told_once() {
        let mut spread = RSS;
        assert_eq!(spread.judge(999, 999), None, "too early");
        let said = spread.judge(2_000, 201).unwrap();
        assert!(said.contains("201 of the first 2000"), "{said}");
        assert_eq!(spread.judge(4_000, 4_000), None, "once");
    }

    #[test]
    fn what_is_expected_is_not_told() {
        for (mut spread, handed_over) in [
            (RSS, 200),
            (
                Spread {
                    way: Way::HandOver,
                    ..RSS
                },
                1_500,
            ),
            (
                Spread {
                    all_have_queues: false,
                    ..RSS
                },
                1_000,
            ),
        ] {
            assert_eq!(spread.judge(2_000, handed_over), None, "{spread:?}");
        }
    }
}
