//! Latencies, and how far they can be believed.

use super::{Sources, total};
use replay::histogram::Histogram;
use serde_json::{Value, json};

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
