//! What ports did not take of the frames that came for them.
//!
//! A NIC counts the frames it had no descriptor for, a packet socket those that found its ring
//! full, libpcap those it dropped: [`PortStats::rx_missed`] has them. What is under such a socket
//! drops frames too, when a NIC's own ring or the kernel's backlog is full, and only the interface
//! tells. A software driver has taken a frame from the kernel when it finds that there is no buffer
//! for it, so that frame is missed as well; a NIC leaves it where it is. All of it is read off the
//! packet path, now and then.

use crate::port::{PortInfo, PortStats};
use std::time::{Duration, Instant};

/// What the kernel says of the interfaces of this thread's network namespace (proc_pid_net(5)).
const INTERFACES: &str = "/proc/thread-self/net/dev";

/// What ports missed since they were opened.
#[derive(Debug)]
pub struct Missed {
    ports: Vec<Watched>,
    /// What they had missed when they were read for the last time.
    last: Option<Vec<Option<u64>>>,
}

/// A port.
#[derive(Debug, Default)]
struct Watched {
    /// The kernel interface that it receives from.
    under: Option<Interface>,
    software: bool,
}

impl Watched {
    /// Frames that the port has missed so far, by its own counters.
    const fn missed(&self, stats: &PortStats) -> u64 {
        stats.rx_missed + if self.software { stats.rx_no_mbuf } else { 0 }
    }
}

/// A kernel interface that a port receives from.
#[derive(Debug)]
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
    /// Begins to watch ports that were opened just now.
    pub fn watch<'a>(ports: impl IntoIterator<Item = &'a PortInfo>) -> Self {
        let kernel = interfaces();
        let watched = ports.into_iter().map(|p| Watched {
            under: p.interface.as_ref().map(|name| {
                let now = received_and_dropped(&kernel, name);
                Interface {
                    name: name.clone(),
                    dropped: now.map(|now| (now, now)),
                }
            }),
            software: p.software,
        });
        Self {
            ports: watched.collect(),
            last: None,
        }
    }

    /// Frames that each port missed so far; `None` if nobody can say.
    pub fn frames(&mut self, ports: &[PortStats]) -> Vec<Option<u64>> {
        if let Some(last) = &self.last {
            return last.clone();
        }
        self.now(&interfaces(), ports, |_| 0)
    }

    /// The ports are not read any more: what comes from now on is not missed, and what still waits
    /// to be received is.
    pub fn close(&mut self, ports: &[PortStats]) {
        self.last = Some(self.now(&interfaces(), ports, |p| p.rx_waiting));
    }

    fn now(
        &mut self,
        kernel: &str,
        ports: &[PortStats],
        also: impl Fn(&PortStats) -> u64,
    ) -> Vec<Option<u64>> {
        let mut all = Vec::with_capacity(ports.len());
        for (i, stats) in ports.iter().enumerate() {
            let Some(port) = self.ports.get_mut(i) else {
                // Nobody watches it: a capture file, which misses nothing.
                all.push(Some(stats.rx_missed + also(stats)));
                continue;
            };
            let missed = port.missed(stats) + also(stats);
            let under = match &mut port.under {
                Some(interface) => interface.dropped(kernel),
                None => Some(0),
            };
            all.push(under.map(|under| under + missed));
        }
        all
    }
}

/// When to say that a port misses frames: once a minute at most, as long as it does.
#[derive(Debug, Default)]
pub struct MissedLog {
    /// What was known when it was said last.
    said: u64,
    said_at: Option<Instant>,
}

impl MissedLog {
    /// How long nothing more is said.
    const QUIET: Duration = Duration::from_secs(60);

    /// `missed` frames were missed until `now`. Returns how many of them to tell of, if it is time
    /// to.
    pub fn due(&mut self, missed: Option<u64>, now: Instant) -> Option<u64> {
        let missed = missed.filter(|n| *n > self.said)?;
        let quiet = |at| now.saturating_duration_since(at) < Self::QUIET;
        if self.said_at.is_some_and(quiet) {
            return None;
        }
        self.said_at = Some(now);
        Some(missed - std::mem::replace(&mut self.said, missed))
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
        let under = Some(Interface {
            name: name.to_owned(),
            dropped,
        });
        Missed {
            ports: vec![Watched {
                under,
                software: true,
            }],
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
        let now = |m: &mut Missed, kernel: &str| m.now(kernel, &stats(100, 0), |_| 0);
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
            let now = |m: &mut Missed, kernel: &str| m.now(kernel, &stats(1, 0), |_| 0);
            assert_eq!(now(&mut missed, &then), [None], "{name}");
            assert_eq!(now(&mut missed, KERNEL), [None], "it is not known again");
        }
    }

    #[test]
    fn a_frame_without_a_buffer_is_gone_with_a_software_driver_alone() {
        let mut stats = stats(3, 0);
        stats[0].rx_no_mbuf = 4;
        for (software, expected) in [(true, 7), (false, 3)] {
            let mut missed = Missed {
                ports: vec![Watched {
                    under: None,
                    software,
                }],
                last: None,
            };
            assert_eq!(missed.frames(&stats), [Some(expected)]);
        }
    }

    #[test]
    fn after_the_last_reading_nothing_more_is_missed() {
        let mut missed = Missed {
            ports: vec![Watched::default()],
            last: None,
        };
        assert_eq!(missed.frames(&stats(5, 3)), [Some(5)]);
        missed.close(&stats(6, 3));
        assert_eq!(missed.frames(&stats(900, 0)), [Some(9)]);
    }

    #[test]
    fn it_is_said_once_a_minute_while_more_is_missed() {
        let (mut log, start) = (MissedLog::default(), Instant::now());
        let mut at = |seconds, missed| log.due(missed, start + Duration::from_secs(seconds));
        assert_eq!(at(0, Some(0)), None);
        assert_eq!(at(1, Some(5)), Some(5));
        assert_eq!(at(2, Some(9)), None, "said just now");
        assert_eq!(at(60, None), None, "nobody can say");
        assert_eq!(at(61, Some(9)), Some(4));
        assert_eq!(at(200, Some(9)), None, "it has ended");
        assert_eq!(at(201, Some(10)), Some(1));
    }
}
