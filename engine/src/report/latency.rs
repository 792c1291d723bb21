//! Latencies, and how far they can be believed.

use super::{Sources, total};
use crate::worker::WorkerCounters;
use dpdk::FrameClock;
use replay::histogram::Histogram;
use serde_json::{Map, Value, json};

/// How far apart the times of a clock can be told, in µs: latencies are kept in whole ones.
const CLOCK_US: u64 = 1;

/// A latency: how many, quantiles, and the buckets that these are made of.
pub(super) fn latency(h: &Histogram) -> Value {
    json!({
        "count": h.count(),
        "p50_us": h.quantile_us(0.5),
        "p90_us": h.quantile_us(0.9),
        "p99_us": h.quantile_us(0.99),
        "p999_us": h.quantile_us(0.999),
        "max_us": h.max_us(),
        "buckets": h.counts().map(|(upper, n)| [upper, n]).collect::<Vec<_>>(),
    })
}

/// How far apart times can be told, in µs, of production's latencies and of the target's; `None` if
/// nobody can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Resolution {
    production: Option<u64>,
    target: Option<u64>,
}

impl Resolution {
    /// Of the clocks and the worker loops.
    pub(super) fn of(s: &Sources<'_>) -> Self {
        let waits = |of: fn(&WorkerCounters) -> &Histogram| {
            let mut all = Histogram::default();
            s.workers.iter().for_each(|w| all.add(of(&w.worker)));
            all.quantile_us(0.99) + 1
        };
        // The clocks of the replay ports are behind those of the mirror ports.
        let mirrors = s.clocks.len().saturating_sub(s.replay.len());
        let (mirrors, replay) = s.clocks.split_at(mirrors);
        let mut ports = s.replay.iter();
        let is_pcap = ports.any(|(name, _)| name.starts_with("net_pcap"));
        let by_poll = |clock: &FrameClock| *clock == FrameClock::Poll;
        // What is handed over waits for a round of the other core's loop as well.
        let rounds = if s.spread == "hand_over" { 2 } else { 1 };
        let production = match mirrors.iter().any(by_poll) && s.capture.is_none() {
            true => rounds * waits(|w| &w.mirror_waits),
            false => CLOCK_US,
        };
        let target = match &s.links {
            // Over net_pcap nobody tells when a turn left.
            None if replay.iter().any(by_poll) || is_pcap => Some(waits(|w| &w.replay_waits)),
            None => Some(CLOCK_US),
            Some(links) => {
                let each = links
                    .iter()
                    .map(|l| Some(l.clock_error_us? + l.resolution_us?));
                each.collect::<Option<Vec<_>>>()
                    .map(|each| each.into_iter().max().unwrap_or(0))
            }
        };
        Self {
            production: Some(production),
            target,
        }
    }

    /// Both latencies, their resolutions beside them, and their difference.
    pub(super) fn json(self, production: &Histogram, target: &Histogram) -> Value {
        let mut both = Map::new();
        for (name, of, resolution) in [
            ("production", production, self.production),
            ("target", target, self.target),
        ] {
            let mut told = latency(of);
            told["resolution_us"] = json!(resolution);
            both.insert(name.to_owned(), told);
        }
        set_difference(&mut both);
        both.into()
    }
}

/// What of a difference of latencies is told if it is smaller than their resolutions.
pub(super) const NOT_RESOLVABLE: &str = "not resolvable";

/// Makes `difference` of the latencies `production` and `target`: by how much the target's
/// quantiles are greater, in µs.
pub(crate) fn set_difference(latency: &mut Map<String, Value>) {
    let (Some(production), Some(target)) = (latency.get("production"), latency.get("target"))
    else {
        return;
    };
    let of = |key: &str| difference(production, target, key);
    let all = json!({ "p50_us": of("p50_us"), "p90_us": of("p90_us"), "p99_us": of("p99_us") });
    latency.insert("difference".to_owned(), all);
}

fn difference(production: &Value, target: &Value, key: &str) -> Value {
    let both = |key: &str| Some((production[key].as_u64()?, target[key].as_u64()?));
    let (Some((a, b)), Some(resolutions)) = (both(key), both("resolution_us")) else {
        return Value::Null;
    };
    if both("count").is_none_or(|(a, b)| a == 0 || b == 0) {
        return Value::Null;
    }
    // A bucket of a histogram is no narrower.
    let bucket = a.max(b) / 32;
    if a.abs_diff(b) < resolutions.0 + resolutions.1 + bucket {
        NOT_RESOLVABLE.into()
    } else {
        (b as i64 - a as i64).into()
    }
}

/// A sentence, if times of responses that came over a control link may be wrong by so much that
/// the target's latencies say little: by more than half of the median.
pub fn clock_doubt(s: &Sources<'_>) -> Option<String> {
    let latency = total(s.workers).target_latency;
    let median = latency.quantile_us(0.5);
    let errors = s
        .links
        .iter()
        .flatten()
        .filter_map(|link| link.clock_error_us);
    let error = errors.max().filter(|_| latency.count() > 0)?;
    (error * 2 > median).then(|| {
        format!(
            "the intercept's clock is known to {error} us only, and the target's median latency is {median} us: take latencies of the target with care"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::sources;
    use super::*;
    use crate::worker::Snapshot;

    fn latencies(us: u64) -> Histogram {
        let mut h = Histogram::default();
        h.record_many(us * 1_000, 100);
        h
    }

    #[test]
    fn a_clock_resolves_a_microsecond_and_a_loop_what_its_rounds_take() {
        let mut w = Snapshot::default();
        w.worker.mirror_waits = latencies(20);
        w.worker.replay_waits = latencies(30);
        let workers = [w];
        let of = |clocks: [FrameClock; 2], spread| {
            let mut s = sources(&workers, None);
            (s.clocks, s.spread) = (clocks.to_vec(), spread);
            let r = Resolution::of(&s);
            (r.production, r.target)
        };
        use FrameClock::{Kernel, Poll};
        assert_eq!(of([Kernel, Kernel], "alone"), (Some(1), Some(1)));
        assert_eq!(of([Poll, Kernel], "alone"), (Some(21), Some(1)));
        assert_eq!(of([Kernel, Poll], "rss"), (Some(1), Some(31)));
        assert_eq!(of([Poll, Kernel], "hand_over"), (Some(42), Some(1)));

        let mut s = sources(&workers, Some(7));
        assert_eq!(
            Resolution::of(&s).target,
            Some(8),
            "the clocks' error and the server's"
        );
        for link in s.links.iter_mut().flatten() {
            link.resolution_us = None;
        }
        assert_eq!(Resolution::of(&s).target, None);
    }

    #[test]
    fn a_difference_below_the_resolutions_is_none() {
        let told = |production, target, resolution: Resolution| {
            let told = resolution.json(&latencies(production), &latencies(target));
            told["difference"]["p99_us"].clone()
        };
        let clocks = Resolution {
            production: Some(1),
            target: Some(1),
        };
        let polls = Resolution {
            production: Some(30),
            target: Some(40),
        };
        assert_eq!(told(20, 25, clocks), 5);
        assert_eq!(told(25, 20, clocks), -5);
        assert_eq!(told(20, 21, clocks), NOT_RESOLVABLE);
        assert_eq!(told(20, 25, polls), NOT_RESOLVABLE);
        assert_eq!(told(20, 89, polls), NOT_RESOLVABLE);
        assert!(told(20, 120, polls).as_i64() > Some(90));
        // The buckets are wider than a clock's steps.
        assert_eq!(told(10_000, 10_200, clocks), NOT_RESOLVABLE);
        let unknown = Resolution {
            target: None,
            ..clocks
        };
        assert_eq!(told(20, 25, unknown), Value::Null);
        let none = clocks.json(&Histogram::default(), &latencies(5));
        assert_eq!(none["difference"]["p50_us"], Value::Null);
    }
}
