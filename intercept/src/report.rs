//! What the intercept says about its run: `report.json`, and a line for the log.
//!
//! Frames received = records handed on + each reason why not; records handed on = records sent +
//! each reason why not + those on their way. [`Report::adds_up`] says whether that is so.

use crate::counters::{Counters, Unsent};
use crate::server::{self, ClaimRefused, TurnedAway, Undelivered};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wire::Skip;

/// All counters since the start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Whether all responses were seen.
    pub answers: Answers,
    /// What came off the wire.
    pub received: Received,
    /// What became of responses.
    pub records: Records,
    /// Engines and their claims.
    pub link: Link,
    /// What the port counted, if it is known.
    pub port: BTreeMap<&'static str, u64>,
    /// The frames of each core.
    pub cores: Vec<Core>,
}

/// What of the responses was not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Answers {
    /// Nothing was missed or dropped here; `None` if nobody can say.
    pub complete: Option<bool>,
    /// Frames that the port missed, and responses that cores had to drop; `None` if nobody can say.
    pub missed: Option<u64>,
}

impl Answers {
    /// With so many frames that the port missed, as far as anybody can say.
    pub fn new(cores: &[Counters], port_missed: Option<u64>) -> Self {
        let full = |c: &Counters| c.dropped(Unsent::RingFull) + c.dropped(Unsent::PendingFull);
        let dropped: u64 = cores.iter().map(full).sum();
        let missed = port_missed.map(|n| n + dropped);
        Self {
            complete: match missed {
                _ if dropped > 0 => Some(false),
                Some(missed) => Some(missed == 0),
                None => None,
            },
            missed,
        }
    }
}

/// Frames. `frames = control + records + in_flight + Σ dropped`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Received {
    /// Frames received.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// ARP, neighbour discovery, ping and ICMP errors.
    pub control: u64,
    /// Of these, routers' words that a path carries smaller packets only, handed on as records.
    pub path_mtu: u64,
    /// Answers to these.
    pub replies: u64,
    /// Answers that could not be sent.
    pub replies_failed: u64,
    /// Responses handed on as records.
    pub records: u64,
    /// Responses that wait for a claim.
    pub in_flight: u64,
    /// Frames that were not handed on, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// Records. `batched = sent + in_flight + Σ dropped`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Records {
    /// Records that cores handed on.
    pub batched: u64,
    /// Records that went to engines.
    pub sent: u64,
    /// Records between core and link.
    pub in_flight: u64,
    /// Records that went to no engine, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// Engines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Link {
    /// Engines connected now.
    pub engines: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that ended with an error.
    pub failed: u64,
    /// Of these, those that came to no link, by reason.
    pub turned_away: BTreeMap<&'static str, u64>,
    /// Connections that are not known to be engines yet, now.
    pub waiting: u64,
    /// Claims there are now.
    pub claims: u64,
    /// Claims that were not granted.
    pub claims_refused: u64,
    /// The same, by reason.
    pub claims_refused_for: BTreeMap<&'static str, u64>,
    /// Changes of claims that wait for a receive core now.
    pub changes_waiting: u64,
    /// Bytes that wait to be written to engines now.
    pub output_bytes: u64,
    /// Log lines that were left out, as there were too many of their kind.
    pub log_lines_left_out: u64,
}

/// One core.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Core {
    /// Frames received.
    pub frames: u64,
    /// Responses handed on.
    pub records: u64,
    /// Responses dropped because the link did not keep up.
    pub ring_full: u64,
}

fn by_reason<const N: usize>(
    names: [&'static str; N],
    counters: &[AtomicU64; N],
) -> BTreeMap<&'static str, u64> {
    let counts = counters.iter().map(|n| n.load(Relaxed));
    names.into_iter().zip(counts).collect()
}

impl Report {
    /// Puts together what cores and server have counted.
    pub fn new(
        cores: &[Counters],
        link: &server::Counters,
        port: BTreeMap<&'static str, u64>,
        port_missed: Option<u64>,
    ) -> Self {
        // The server's numbers first: what it has sent was batched before, so nothing is in flight
        // twice.
        let sent = link.records_sent.load(Relaxed);
        let lost = Undelivered::ALL.map(|r| link.records_dropped[r as usize].load(Relaxed));
        let refused = by_reason(
            ClaimRefused::ALL.map(ClaimRefused::name),
            &link.claims_refused,
        );
        let sum = cores.iter().fold(Counters::default(), Counters::plus);
        let mut dropped: BTreeMap<_, _> = Skip::ALL
            .iter()
            .map(|s| s.name())
            .zip(sum.skipped)
            .collect();
        dropped.extend(Unsent::ALL.iter().map(|r| (r.name(), sum.dropped(*r))));
        Self {
            answers: Answers::new(cores, port_missed),
            received: Received {
                frames: sum.frames,
                bytes: sum.bytes,
                control: sum.control,
                path_mtu: sum.path_mtu,
                replies: sum.replies,
                replies_failed: sum.replies_failed,
                records: sum.records,
                in_flight: sum.pending,
                dropped,
            },
            records: Records {
                batched: sum.records + sum.path_mtu,
                sent,
                in_flight: (sum.records + sum.path_mtu)
                    .saturating_sub(sent + lost.iter().sum::<u64>()),
                dropped: Undelivered::ALL
                    .map(Undelivered::name)
                    .into_iter()
                    .zip(lost)
                    .collect(),
            },
            link: Link {
                engines: link.engines.load(Relaxed),
                accepted: link.accepted.load(Relaxed),
                failed: link.failed.load(Relaxed),
                turned_away: by_reason(TurnedAway::ALL.map(TurnedAway::name), &link.turned_away),
                waiting: link.waiting.load(Relaxed),
                claims: link.claims.load(Relaxed),
                claims_refused: refused.values().sum(),
                claims_refused_for: refused,
                changes_waiting: link.changes_waiting.load(Relaxed),
                output_bytes: link.output_bytes.load(Relaxed),
                log_lines_left_out: link.log_lines_left_out.load(Relaxed),
            },
            port,
            cores: cores
                .iter()
                .map(|c| Core {
                    frames: c.frames,
                    records: c.records,
                    ring_full: c.dropped(Unsent::RingFull),
                })
                .collect(),
        }
    }

    /// True if every frame and every record is accounted for. While cores run, a burst may be half
    /// published.
    pub fn adds_up(&self) -> bool {
        let (f, r) = (&self.received, &self.records);
        f.frames == f.control + f.records + f.in_flight + f.dropped.values().sum::<u64>()
            && r.batched == r.sent + r.in_flight + r.dropped.values().sum::<u64>()
    }

    /// Writes the report to a file ([`config::write_report`]).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        config::write_report(path, &text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, s, l) = (&self.received, &self.records, &self.link);
        let dropped: u64 = r.dropped.values().sum();
        let lost: u64 = s.dropped.values().sum();
        write!(
            f,
            "{} frames, {} records sent, {dropped} frames and {lost} records dropped; {} engines, {} claims",
            r.frames, s.sent, l.engines, l.claims
        )?;
        let mut reasons = r
            .dropped
            .iter()
            .chain(&s.dropped)
            .filter(|(_, n)| **n > 0)
            .peekable();
        if reasons.peek().is_some() {
            f.write_str("; dropped:")?;
        }
        for (reason, n) in reasons {
            write!(f, " {reason} {n}")?;
        }
        match (self.answers.complete, self.answers.missed) {
            (Some(true), _) => Ok(()),
            (Some(false), Some(n)) => write!(f, "; {n} frames of answers were missed or dropped"),
            (Some(false), None) => f.write_str("; answers were missed"),
            (None, _) => f.write_str("; nobody can say whether answers were missed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_or_it_says_so() {
        let mut core = Counters {
            frames: 100,
            control: 1,
            records: 90,
            pending: 1,
            ..Counters::default()
        };
        core.skipped[Skip::NotTcp as usize] = 2;
        core.dropped = [3, 1, 2];
        assert_eq!(core.accounted(), core.frames);
        let link = server::Counters::default();
        link.records_sent.store(170, Relaxed);
        link.records_dropped[Undelivered::SlowEngine as usize].store(3, Relaxed);
        link.records_dropped[Undelivered::EngineGone as usize].store(4, Relaxed);
        let report = Report::new(&[core, core], &link, BTreeMap::new(), Some(40));
        assert!(report.adds_up());
        assert_eq!((report.received.frames, report.records.in_flight), (200, 3));
        assert_eq!(report.received.dropped["not_tcp"], 4);
        // 40 of the port, and 1 + 2 of each core.
        let answers = report.answers;
        assert_eq!((answers.complete, answers.missed), (Some(false), Some(46)));
        let line = report.to_string();
        assert!(
            line.contains("200 frames, 170 records sent, 16 frames and 7 records dropped"),
            "{line}"
        );
        assert!(
            line.contains("not_tcp 4") && !line.contains("too_short"),
            "{line}"
        );
        assert!(
            line.contains("; 46 frames of answers were missed"),
            "{line}"
        );
        let none = Counters::default();
        for (port, expected) in [(Some(0), Some(true)), (Some(1), Some(false)), (None, None)] {
            assert_eq!(Answers::new(&[none], port).complete, expected);
        }
        core.frames += 1;
        assert!(!Report::new(&[core], &link, BTreeMap::new(), None).adds_up());
    }

    #[test]
    fn the_file_is_json_and_a_bad_path_an_error() {
        let dir = std::env::temp_dir().join(format!("intercept-report-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("report.json");
        let report = Report::new(
            &[Counters::default()],
            &server::Counters::default(),
            [("missed", 1)].into(),
            Some(0),
        );
        report.write(&path).unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["received"]["dropped"]["unclaimed"], 0);
        assert_eq!(json["port"]["missed"], 1);
        assert_eq!(
            std::fs::read_dir(&dir).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert!(report.write(&dir.join("none").join("report.json")).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
