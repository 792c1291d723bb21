//! What the mirror ports did not take.
//!
//! A NIC counts the frames it had no descriptor for, a packet socket those that found its ring
//! full, libpcap those it dropped: [`dpdk::PortStats::rx_missed`] has them. What is under such a
//! socket drops frames too, when a NIC's own ring or the kernel's backlog is full, and only the
//! interface tells. All of it is read by the control core when a report is due.

use dpdk::{PortInfo, PortStats};

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
