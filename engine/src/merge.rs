//! Several reports as one: `engine merge a.json b.json`, for engines that share the sessions of a
//! mirror or of capture files.
//!
//! Counters are added, so the equations that hold in each report hold in the sum. Latencies are
//! made anew from the buckets of both. What is told of each port, core and link stands side by
//! side; targets are those of the same transfer. What cannot be added has a rule of its own
//! ([`KEEP_MOST`], [`SAME`]), and what one report cannot tell the sum cannot tell either.

use crate::report::{set_difference, set_share};
use anyhow::{Context, Result, bail};
use replay::histogram::quantile_of;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Of these the greatest counts: they are no amounts.
const KEEP_MOST: [&str; 6] = [
    "elapsed_s",
    "passes",
    "position_s",
    "idle_skipped_s",
    "max_us",
    "resolution_us",
];
/// These must be the same in all reports.
const SAME: [&str; 3] = ["version", "copies", "percent"];

/// Reads the reports in these files and makes one of them.
///
/// # Errors
/// A file cannot be read or is no report, or two do not go together.
pub fn files(paths: &[PathBuf]) -> Result<Value> {
    let mut sum: Option<Value> = None;
    for path in paths {
        let report = read(path)?;
        sum = Some(match sum {
            None => report,
            Some(sum) => reports(&sum, &report).with_context(|| format!("{}", path.display()))?,
        });
    }
    sum.context("merge: give at least one report")
}

fn read(path: &Path) -> Result<Value> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("{name} is no report: give a report.json of the engine"))?;
    let is_report = report["mirror"].is_object() && report["replayed"].is_object();
    if !is_report {
        bail!("{name} is no report of an engine: it has no mirror and replayed");
    }
    Ok(report)
}

/// Two reports as one.
///
/// # Errors
/// They are of different versions or of different numbers of copies.
pub fn reports(a: &Value, b: &Value) -> Result<Value> {
    for key in SAME {
        if a[key] != b[key] {
            bail!(
                "its {key} is {} and that of the reports before it {}: only reports with the same can be merged",
                b[key],
                a[key]
            );
        }
    }
    Ok(both("", a, b))
}

fn both(key: &str, a: &Value, b: &Value) -> Value {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => object(a, b),
        (Value::Array(a), Value::Array(b)) if key == "targets" => targets(a, b),
        (Value::Array(a), Value::Array(b)) if key == "buckets" => buckets(a, b),
        (Value::Array(a), Value::Array(b)) => a.iter().chain(b).cloned().collect(),
        (Value::Number(_), Value::Number(_)) if SAME.contains(&key) => a.clone(),
        (Value::Number(_), Value::Number(_)) => number(key, a, b),
        (Value::Bool(a), Value::Bool(b)) => (*a && *b).into(),
        // What is known not to hold of one does not hold of both.
        (Value::Bool(false), Value::Null) | (Value::Null, Value::Bool(false)) => false.into(),
        (Value::String(a), Value::String(b)) if a != b => format!("{a}, {b}").into(),
        (a, b) if a == b => a.clone(),
        // One cannot tell.
        _ => Value::Null,
    }
}

fn number(key: &str, a: &Value, b: &Value) -> Value {
    let most = KEEP_MOST.contains(&key);
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) if most => a.max(b).into(),
        (Some(a), Some(b)) => (a + b).into(),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            (if most { a.max(b) } else { a + b }).into()
        }
    }
}

fn object(a: &Map<String, Value>, b: &Map<String, Value>) -> Value {
    let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
    let mut sum: Map<String, Value> = Map::new();
    for key in keys {
        let value = match (a.get(key), b.get(key)) {
            (Some(a), Some(b)) => both(key, a, b),
            (one, other) => one.or(other).cloned().unwrap_or_default(),
        };
        sum.insert(key.clone(), value);
    }
    requantile(&mut sum);
    set_share(&mut sum);
    set_difference(&mut sum);
    Value::Object(sum)
}

/// Makes the quantiles of a latency from its buckets.
fn requantile(latency: &mut Map<String, Value>) {
    let Some(Value::Array(buckets)) = latency.get("buckets") else {
        return;
    };
    let counts: Vec<(u64, u64)> = buckets.iter().filter_map(bucket).collect();
    let most = latency.get("max_us").and_then(Value::as_u64).unwrap_or(0);
    for (key, fraction) in [
        ("p50_us", 0.5),
        ("p90_us", 0.9),
        ("p99_us", 0.99),
        ("p999_us", 0.999),
    ] {
        let quantile = quantile_of(counts.iter().copied(), fraction);
        latency.insert(key.to_owned(), quantile.min(most).into());
    }
}

fn bucket(pair: &Value) -> Option<(u64, u64)> {
    Some((pair[0].as_u64()?, pair[1].as_u64()?))
}

fn buckets(a: &[Value], b: &[Value]) -> Value {
    let mut sum = std::collections::BTreeMap::new();
    for (upper, count) in a.iter().chain(b).filter_map(bucket) {
        *sum.entry(upper).or_insert(0) += count;
    }
    sum.iter()
        .map(|(upper, count)| json!([upper, count]))
        .collect()
}

fn targets(a: &[Value], b: &[Value]) -> Value {
    let mut all = a.to_vec();
    for target in b {
        let same = |t: &&mut Value| t["from"] == target["from"] && t["to"] == target["to"];
        match all.iter_mut().find(same) {
            Some(t) => *t = both("", t, target),
            None => all.push(target.clone()),
        }
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Sources, TargetName, json as report};
    use crate::unseen::Unseen;
    use crate::worker::Snapshot;
    use dpdk::PortStats;
    use std::time::Duration;

    /// The report of an engine with these workers.
    fn of(workers: &[Snapshot], seconds: u64) -> Value {
        report(&Sources {
            workers,
            cpus: &[0; 4],
            mirrors: vec![("span0".to_owned(), PortStats::default())],
            capture: None,
            missed: vec![Some(seconds)],
            unseen: Unseen::default(),
            spread: "alone",
            links_up: &[],
            clocks: Vec::new(),
            replay: vec![("replay0".to_owned(), PortStats::default())],
            answers_missed: Some(0),
            targets: &[name(80), name(81)],
            links: None,
            copies: 2,
            mbufs: [(1, 10), (0, 0)],
            elapsed: Duration::from_secs(seconds),
            is_final: true,
            failed_writes: 0,
        })
    }

    fn name(port: u16) -> TargetName {
        TargetName {
            from: format!(":{port}"),
            to: format!("10.0.0.1:{port}"),
            copies: 2,
            percent: 50.0,
        }
    }

    fn worker(n: u64) -> Snapshot {
        let mut w = Snapshot::with_room(2);
        w.core.sessions = n;
        w.core.turns = 10 * n;
        w.core.lost_turns[0] = n;
        w.targets[1].turns = 10 * n;
        for i in 0..10 * n {
            w.core.target_latency.record(i * i * 1_000);
            w.targets[1].target_latency.record(i * i * 1_000);
        }
        w
    }

    #[test]
    fn the_sum_of_two_reports_is_the_report_of_all_workers() {
        let (a, b) = (worker(3), worker(70));
        let sum = reports(
            &of(std::slice::from_ref(&a), 5),
            &of(std::slice::from_ref(&b), 7),
        );
        let sum = sum.unwrap();
        let all = of(&[a, b], 7);
        for part in [
            "production",
            "replayed",
            "lost",
            "in_flight",
            "target",
            "targets",
            "latency",
            "intercept",
            "copies",
            "elapsed_s",
            "version",
            "final",
        ] {
            assert_eq!(sum[part], all[part], "{part}");
        }
        assert!(all["latency"]["target"]["p90_us"].as_u64() > Some(0));
        assert_eq!(sum["mirror"]["missed"], 12);
        assert_eq!(sum["mirror"]["complete"], false);
        let not_seen = |turns: u64, of: u64| turns as f64 / of as f64;
        let told = &sum["mirror"]["not_seen"];
        assert_eq!(
            told["share"],
            not_seen(told["turns"].as_u64().unwrap(), 730)
        );
        assert_eq!(sum["mirror"]["ports"].as_array().map(Vec::len), Some(2));
        assert_eq!(sum["cores"].as_array().map(Vec::len), Some(2));
        assert_eq!(sum["replay_port"]["name"], "replay0");
    }

    #[test]
    fn what_one_cannot_tell_the_sum_cannot() {
        let (mut a, mut b) = (of(&[worker(1)], 1), of(&[worker(1)], 1));
        b["mirror"]["missed"] = Value::Null;
        b["final"] = false.into();
        let sum = reports(&a, &b).unwrap();
        assert_eq!(sum["mirror"]["missed"], Value::Null);
        assert_eq!(sum["final"], false);
        a["mirror"]["complete"] = Value::Null;
        b["mirror"]["complete"] = true.into();
        let complete = |a: &Value, b: &Value| reports(a, b).unwrap()["mirror"]["complete"].clone();
        assert_eq!(complete(&a, &b), Value::Null);
        b["mirror"]["complete"] = false.into();
        assert_eq!(complete(&a, &b), false);
        b["copies"] = 3.into();
        let e = reports(&a, &b).unwrap_err().to_string();
        assert!(e.starts_with("its copies is 3 and that"), "{e}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("text"), "a text").unwrap();
        std::fs::write(path("other"), "{\"mirror\": 1}").unwrap();
        for (name, part) in [
            ("missing", "missing cannot be read"),
            ("text", "text is no report: give a report.json"),
            ("other", "other is no report of an engine"),
        ] {
            let e = format!("{:#}", files(&[path(name)]).unwrap_err());
            assert!(e.contains(part), "{e}");
        }
        assert!(files(&[]).is_err());
    }
}
