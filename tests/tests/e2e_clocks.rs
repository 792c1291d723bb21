//! Latencies are those of the wires: what the report says of production and of the target is held
//! against captures of the mirror and of the replay network, which tcpdump takes beside the engine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::{Result, ensure};
use std::collections::HashMap;
use tests::lab::appliance::{Clients, EngineOptions};
use tests::lab::capture::{Capture, Direction, Seen};
use tests::lab::report::Report;
use tests::lab::servers::Service;
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::{Family, LabOptions, Node, Responses, skipped};
use tests::load::{Talk, Workload};

/// Latencies on a wire in us, sorted: from the last payload that a client said to the first that
/// the server at `port` answered.
fn latencies(frames: &[Seen], port: u16) -> Vec<u64> {
    let (mut asked, mut all) = (HashMap::new(), Vec::new());
    let mut frames: Vec<_> = frames.iter().collect();
    frames.sort_by_key(|f| f.at_us);
    for frame in frames {
        let (Some(ips), Some(tcp)) = (frame.ips, frame.tcp) else {
            continue;
        };
        if tcp.payload_len == 0 {
        } else if tcp.ports[1] == port {
            asked.insert((ips[0], tcp.ports[0]), frame.at_us);
        } else if let Some(at) = asked.remove(&(ips[1], tcp.ports[1])) {
            all.push(frame.at_us - at);
        }
    }
    all.sort_unstable();
    all
}

fn check(report: &Report, side: &str, wire: &[u64]) -> Result<()> {
    let count = report.number(&format!("latency.{side}.count"))?;
    ensure!(
        count == wire.len() as u64,
        "{side}: the report has {count} latencies, the wire {}",
        wire.len()
    );
    let resolution = report.number(&format!("latency.{side}.resolution_us"))?;
    for (name, share) in [("p50_us", 50), ("p90_us", 90), ("p99_us", 99)] {
        let told = report.number(&format!("latency.{side}.{name}"))?;
        // Far out a few latencies lie apart from one another: one of those beside will do.
        let (at, last) = (wire.len() * share / 100, wire.len() - 1);
        let beside = wire.len() / 500 + 1;
        let (least, most) = (
            wire[at.saturating_sub(beside)],
            wire[(at + beside).min(last)],
        );
        eprintln!("{side} {name}: {told} in the report, {least} to {most} on the wire");
        // Beyond the resolution that the report tells, of which 1 us is the kernel's.
        let off = |of: u64| (of / 20).max(5) + resolution.saturating_sub(1);
        ensure!(
            told + off(least) >= least && told <= most + off(most),
            "{side}: {name} is {told} in the report and {least} to {most} on the wire"
        );
    }
    Ok(())
}

fn agree(test: &str, idle: &str, responses: Responses) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = LabOptions {
        responses,
        ..LabOptions::default()
    };
    let options = EngineOptions {
        clients: Clients::Pool,
        extra: vec![("eal", format!("idle = {idle:?}"))],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    let mirror = Capture::start(&trial.lab, Node::Appliance, "span0", Direction::Both).unwrap();
    let replay = Capture::start(&trial.lab, Node::Appliance, "replay0", Direction::Both).unwrap();
    // Answers come to the intercept, and all of the lab has one clock.
    let remote = responses == Responses::Remote;
    let answers = remote
        .then(|| Capture::start(&trial.lab, Node::Assistant, "abs0", Direction::Both).unwrap());
    let short = Workload {
        to: Service::Http.on_production(Family::V4),
        from: Vec::new(),
        talk: Talk::Get,
        connections: 1_000,
        requests: 1,
        concurrency: 8,
        rate: 300,
        seed: 1,
    };
    let long = Workload {
        connections: 10,
        requests: 100,
        seed: 2,
        ..short.clone()
    };
    trial.load(&short).unwrap();
    trial.load(&long).unwrap();
    let port = Service::Http.on_production(Family::V4).port();
    let target_port = Service::Http.on_target(Family::V4).port();
    let outcome = trial.finish_beside(|| {
        let mut replay = replay.stop()?;
        if let Some(answers) = answers {
            replay.extend(answers.stop()?);
        }
        Ok((mirror.stop()?, replay))
    });
    let (outcome, (mirror, replay)) = outcome.unwrap_or_else(|e| panic!("{test}: {e:#}"));
    let (mirror, replay) = (latencies(&mirror, port), latencies(&replay, target_port));
    check(&outcome.report, "production", &mirror).unwrap();
    check(&outcome.report, "target", &replay).unwrap();
    let n = |path: &str| outcome.report.number(path).unwrap();
    let passage = n("latency.passage.p99_us");
    eprintln!("from the mirror to the replay port: p99 {passage} us");
    // Not all turns wait for something of the target.
    assert!(n("latency.passage.count") > 0, "{}", outcome.report);
    assert_eq!(n("latency.production.resolution_us"), 1);
    match responses {
        Responses::Embedded => assert_eq!(n("latency.target.resolution_us"), 1),
        Responses::Remote => {
            let error = n("intercept.links.0.clock_error_us");
            assert_eq!(n("latency.target.resolution_us"), error + 1);
        }
    }
}

#[test]
fn latencies_are_those_of_the_wires_with_idle_sleep() {
    let test = "latencies_are_those_of_the_wires_with_idle_sleep";
    agree(test, "sleep", Responses::Embedded);
}

#[test]
fn latencies_are_those_of_the_wires_with_a_remote_intercept() {
    let test = "latencies_are_those_of_the_wires_with_a_remote_intercept";
    agree(test, "sleep", Responses::Remote);
}

#[test]
fn latencies_are_those_of_the_wires_with_idle_spin() {
    let test = "latencies_are_those_of_the_wires_with_idle_spin";
    agree(test, "spin", Responses::Embedded);
}
