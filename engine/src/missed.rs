//! What the mirror ports did not take, and how many requests were probably in it.
//!
//! A NIC counts the frames it had no descriptor for, a packet socket those that found its ring
//! full, libpcap those it dropped: [`dpdk::PortStats::rx_missed`] has them. What is under such a
//! socket drops frames too, when a NIC's own ring or the kernel's backlog is full, and only the
//! interface tells. All of it is read by the control core when a report is due.
//!
//! # How many requests were in it
//!
//! Whether a frame is missed hardly depends on what it carries. So among the missed frames there
//! are about as many that begin a turn as among those that were seen at the time, whether whole
//! sessions were missed or a frame here and there, and however many frames a request takes.
//! [`Unseen`] adds them up from one report to the next, as the traffic changes. Part of these turns
//! is known all the same: what came after them showed a hole, and they are in the books as lost.
//! The rest left no trace.
//!
//! It is an estimate. Frames of one kind come in bursts, and where clients, servers and the engine
//! share processors, some kinds meet a full ring more often than others.

use dpdk::{PortInfo, PortStats};
use replay::{Counters, Loss, Unused};

/// What the kernel says of the interfaces of this thread's network namespace (proc_pid_net(5)).
const INTERFACES: &str = "/proc/thread-self/net/dev";

/// What the mirror ports missed since they were opened.
pub struct Missed {
    under: Vec<Option<Interface>>,
    /// What they had missed when the mirror was read for the last time.
    last: Option<Vec<Option<u64>>>,
}

/// A kernel interface that a port receives from.
struct Interface {
    name: String,
    /// Frames it had dropped when that was asked first and last; `None` once it could not be told.
    dropped: Option<(u64, u64)>,
}

impl Interface {
    /// Frames it dropped since it was asked first, by what the kernel says now. An interface that
    /// is gone, or that counts from zero again as another one of the same name does, can never
    /// tell any more.
    fn dropped(&mut self, kernel: &str) -> Option<u64> {
        let (first, last) = self.dropped?;
        let now = received_and_dropped(kernel, &self.name).filter(|now| *now >= last);
        self.dropped = now.map(|now| (first, now));
        now.map(|now| now - first)
    }
}

impl Missed {
    /// Begins to watch the interfaces of ports, which were opened just now.
    pub fn watch<'a>(ports: impl Iterator<Item = &'a PortInfo>) -> Self {
        let kernel = interfaces();
        let under = ports.map(|p| {
            let name = p.interface.clone()?;
            let now = received_and_dropped(&kernel, &name);
            Some(Interface {
                name,
                dropped: now.map(|now| (now, now)),
            })
        });
        Self {
            under: under.collect(),
            last: None,
        }
    }

    /// Frames that each port missed so far; `None` if nobody can say.
    pub fn frames(&mut self, ports: &[PortStats]) -> Vec<Option<u64>> {
        if let Some(last) = &self.last {
            return last.clone();
        }
        self.now(&interfaces(), ports, |p| p.rx_missed)
    }

    /// The mirror is not read any more: what comes from now on is not missed, and what still waits
    /// to be received is.
    pub fn close(&mut self, ports: &[PortStats]) {
        self.last = Some(self.now(&interfaces(), ports, |p| p.rx_missed + p.rx_waiting));
    }

    fn now(
        &mut self,
        kernel: &str,
        ports: &[PortStats],
        missed: impl Fn(&PortStats) -> u64,
    ) -> Vec<Option<u64>> {
        let mut all = Vec::with_capacity(ports.len());
        for (i, port) in ports.iter().enumerate() {
            let under = match self.under.get_mut(i) {
                Some(Some(interface)) => interface.dropped(kernel),
                _ => Some(0),
            };
            all.push(under.map(|under| under + missed(port)));
        }
        all
    }
}

/// What was seen and what was missed until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Frames of the mirror that were seen.
    pub frames: u64,
    /// Frames that were missed; `None` if nobody can say.
    pub missed: Option<u64>,
    /// Among those that were seen, clients' segments with payload.
    pub payloads: u64,
}

/// An estimate of the turns that nobody saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unseen {
    before: Sight,
    /// Clients' segments with payload that were probably among the frames missed.
    payloads: f64,
    /// It could not be told at least once.
    unknown: bool,
}

impl Unseen {
    /// Takes in what was seen and missed since the last time.
    pub fn look(&mut self, now: Sight) {
        let Some(missed) = now.missed else {
            self.unknown = true;
            return;
        };
        let frames = now.frames.saturating_sub(self.before.frames);
        let missed = missed.saturating_sub(self.before.missed.unwrap_or(0));
        if frames == 0 {
            // What was missed is judged by what is seen next.
            return;
        }
        let payloads = now.payloads.saturating_sub(self.before.payloads);
        self.payloads += missed as f64 * payloads as f64 / frames as f64;
        self.before = now;
    }

    /// Turns that left no trace, for books with these counters: turns that probably were missed,
    /// without those that are in the books although their beginning was not seen.
    pub fn turns(&self, books: &Counters, copies: u64) -> Option<u64> {
        let missed = self.before.missed.unwrap_or(0);
        if self.unknown {
            return None;
        }
        if missed == 0 {
            return Some(0);
        }
        let seen = self.before.payloads as f64;
        let share = beginnings(books, copies, seen);
        let unseen = share * (seen + self.payloads) - books.turns as f64;
        Some((unseen.round().max(0.0) as u64).min(missed))
    }
}

/// The share of clients' segments with payload that begin a turn. A session that was joined in the
/// middle has a turn in the books for what came before its first boundary; neither that nor its
/// segments tell anything.
fn beginnings(books: &Counters, copies: u64, payloads: f64) -> f64 {
    let midstream = books.lost_turns[Loss::Midstream as usize] / copies.max(1);
    let turns = books.turns.saturating_sub(midstream) as f64;
    let segments = payloads - books.dropped[Unused::BeforeJoin as usize] as f64;
    if segments > 0.0 {
        (turns / segments).min(1.0)
    } else {
        1.0
    }
}

/// The kernel's account of all interfaces; empty if it gives none.
fn interfaces() -> String {
    std::fs::read_to_string(INTERFACES).unwrap_or_default()
}

/// Frames that an interface received and could not keep, for lack of room in its own ring or in the
/// kernel's backlog.
fn received_and_dropped(kernel: &str, interface: &str) -> Option<u64> {
    // Bytes, packets, errors, drops; a name has neither blanks nor a colon.
    let mut lines = kernel.lines().filter_map(|l| l.split_once(':'));
    let (_, counts) = lines.find(|(name, _)| name.trim() == interface)?;
    counts.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
 span0: 2000      20    1    7    0     0          0         0        0       0    0    9    0     0       0          0
span01: 3000      30    0    8    0     0          0         0        0       0    0    0    0     0       0          0
";

    fn watching(name: &str) -> Missed {
        let dropped = received_and_dropped(KERNEL, name).map(|n| (n, n));
        Missed {
            under: vec![Some(Interface {
                name: name.to_owned(),
                dropped,
            })],
            last: None,
        }
    }

    fn stats(missed: u64, waiting: u64) -> [PortStats; 1] {
        [PortStats {
            rx_missed: missed,
            rx_waiting: waiting,
            ..PortStats::default()
        }]
    }

    #[test]
    fn an_interface_tells_what_it_dropped() {
        assert_eq!(received_and_dropped(KERNEL, "span0"), Some(7));
        assert_eq!(received_and_dropped(KERNEL, "span01"), Some(8));
        assert_eq!(received_and_dropped(KERNEL, "span"), None);
    }

    #[test]
    fn what_was_dropped_before_does_not_count_and_what_the_socket_missed_does() {
        let mut missed = watching("span0");
        let later = KERNEL.replace("1    7", "1   12");
        let now = |m: &mut Missed, kernel: &str| m.now(kernel, &stats(100, 0), |p| p.rx_missed);
        assert_eq!(now(&mut missed, KERNEL), [Some(100)]);
        assert_eq!(now(&mut missed, &later), [Some(105)]);
    }

    #[test]
    fn an_interface_that_is_gone_or_another_one_cannot_tell() {
        for (name, then) in [
            ("span0", KERNEL.replace("span0:", "other:")),
            ("span0", KERNEL.replace("1    7", "1    6")),
            ("span9", KERNEL.to_owned()),
        ] {
            let mut missed = watching(name);
            let now = |m: &mut Missed, kernel: &str| m.now(kernel, &stats(1, 0), |p| p.rx_missed);
            assert_eq!(now(&mut missed, &then), [None], "{name}");
            assert_eq!(now(&mut missed, KERNEL), [None], "it is not known again");
        }
    }

    /// A mirror that showed `turns` turns and as many beginnings.
    fn books(turns: u64) -> Counters {
        Counters {
            turns,
            ..Counters::default()
        }
    }

    fn sight(frames: u64, missed: u64, payloads: u64) -> Sight {
        Sight {
            frames,
            missed: Some(missed),
            payloads,
        }
    }

    #[test]
    fn whole_sessions_that_were_missed_are_estimated() {
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 2_500, 1_000));
        assert_eq!(unseen.turns(&books(1_000), 1), Some(250));
    }

    #[test]
    fn what_is_in_the_books_as_lost_is_not_counted_again() {
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 2_500, 1_000));
        // 240 of the 250 left holes.
        assert_eq!(unseen.turns(&books(1_240), 1), Some(10));
        assert_eq!(unseen.turns(&books(1_300), 1), Some(0));
    }

    #[test]
    fn requests_of_several_segments_count_once() {
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 1_000, 4_000));
        assert_eq!(unseen.turns(&books(1_000), 1), Some(100));
    }

    #[test]
    fn sessions_joined_in_the_middle_do_not_change_the_share() {
        let mut books = books(1_100);
        books.lost_turns[Loss::Midstream as usize] = 200;
        books.dropped[Unused::BeforeJoin as usize] = 100;
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 2_000, 1_100));
        // 1,100 + 220 beginnings, of which the books have 1,100.
        assert_eq!(unseen.turns(&books, 2), Some(220));
    }

    #[test]
    fn what_was_missed_is_judged_by_the_traffic_of_its_time() {
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 0, 5_000));
        unseen.look(sight(20_000, 1_000, 5_100));
        assert_eq!(unseen.turns(&books(5_100), 1), Some(10));
        // Nothing was seen for a while.
        unseen.look(sight(20_000, 2_000, 5_100));
        unseen.look(sight(21_000, 2_000, 5_200));
        assert_eq!(unseen.turns(&books(5_200), 1), Some(110));
    }

    #[test]
    fn nothing_missed_means_nothing_unseen_and_what_is_unknown_stays_so() {
        let mut unseen = Unseen::default();
        unseen.look(sight(10_000, 0, 1_000));
        assert_eq!(unseen.turns(&books(900), 1), Some(0));
        unseen.look(Sight::default());
        unseen.look(sight(20_000, 0, 1_000));
        assert_eq!(unseen.turns(&books(900), 1), None);
    }

    #[test]
    fn after_the_last_reading_nothing_more_is_missed() {
        let mut missed = Missed {
            under: vec![None],
            last: None,
        };
        assert_eq!(missed.frames(&stats(5, 3)), [Some(5)]);
        missed.close(&stats(6, 3));
        assert_eq!(missed.frames(&stats(900, 0)), [Some(9)]);
    }
}
