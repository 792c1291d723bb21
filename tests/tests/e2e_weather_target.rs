//! Targets in trouble: slow, standing still, restarted, closed, far away, without a way back to us.
//! The engine stays within its memory, sheds by the rules, says what happened, and recovers by
//! itself.
#![cfg(feature = "lab")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;
use tests::lab::appliance::EngineOptions;
use tests::lab::capture::{Capture, Direction, Seen, Segment};
use tests::lab::process::wait_until;
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::stage::{Front, Stage, StageOptions};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, skipped};
use tests::load::{Talk, Workload};

fn load(
    talk: Talk,
    connections: usize,
    requests: usize,
    concurrency: usize,
    rate: u32,
) -> Workload {
    Workload {
        to: Service::Http.on_production(Family::V4),
        from: Vec::new(),
        talk,
        connections,
        requests,
        concurrency,
        rate,
        seed: 1,
    }
}

fn fresh() -> (Workload, u64) {
    let fresh = Workload {
        seed: 99,
        ..load(Talk::Get, 300, 1, 10, 200)
    };
    (fresh, 300)
}

/// Runs a test on a stage; what the stage leaves is kept if it fails.
fn on_stage(
    test: &str,
    options: StageOptions,
    front: impl FnOnce(&mut Front, &Lab) -> Result<()>,
    act: impl FnOnce(&mut Stage) -> Result<()>,
) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut stage = Stage::start(LabOptions::default(), options, front)
        .unwrap_or_else(|e| panic!("{test}: {e:#}"));
    let (fresh, turns) = fresh();
    let outcome = act(&mut stage).and_then(|()| {
        let report = stage.recovers(&fresh, turns)?;
        eprintln!(
            "{test}: lost {:?}, {} sessions shed, target {}, {:?}",
            reasons(&report)?,
            report.number("production.sessions_shed")?,
            report.value("target")?,
            stage.memory()
        );
        Ok(())
    });
    if let Err(e) = outcome {
        stage.lab.failed();
        panic!("{test}: {e:#}");
    }
    stage.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
}

/// The turns that were lost for each reason.
fn reasons(report: &Report) -> Result<Vec<(String, u64)>> {
    let all = report.value("lost.reason")?.as_object();
    let mut lost = Vec::new();
    for reason in all.into_iter().flat_map(|o| o.keys()) {
        let turns = report.number(&format!("lost.reason.{reason}.turns"))?;
        if turns > 0 {
            lost.push((reason.clone(), turns));
        }
    }
    Ok(lost)
}

/// Turns were lost for these reasons and no other.
fn lost_only_for(report: &Report, reasons: &[&str]) -> Result<()> {
    let mut sum = 0;
    for reason in reasons {
        sum += report.number(&format!("lost.reason.{reason}.turns"))?;
    }
    ensure!(
        sum == report.number("lost.turns")?,
        "turns were lost for another reason than {reasons:?}:\n{report}"
    );
    Ok(())
}

/// A target that reads 10 KB a second of each connection out of a tiny buffer: as long as there is
/// memory, nothing is lost.
#[test]
fn a_slow_target_costs_time() {
    on_stage(
        "a_slow_target_costs_time",
        StageOptions {
            throttled: true,
            ..StageOptions::default()
        },
        |front, lab| {
            front.open(lab)?;
            front.throttle(lab, 10_000, 2_048)
        },
        |stage| {
            stage.load(&load(Talk::Post(vec![60_000]), 30, 1, 10, 20))?;
            let during = stage.report()?;
            ensure!(
                during.number("in_flight.turns")? > 0,
                "the target was not slow:\n{during}"
            );
            let report = stage.settle(30, Duration::from_secs(60))?;
            report.check_nothing_lost()
        },
    );
}

/// The same with more than the engine may keep: it gives up what is over the limits, counts it, and
/// stays within its memory.
#[test]
fn a_slow_target_with_little_memory() {
    on_stage(
        "a_slow_target_with_little_memory",
        StageOptions {
            throttled: true,
            mbufs: 8,
            session_bytes: 512,
            ..StageOptions::default()
        },
        |front, lab| {
            front.open(lab)?;
            front.throttle(lab, 10_000, 2_048)
        },
        |stage| {
            // Each of the first is more than a session may hold, all of the others together are
            // more than there are buffers for.
            stage.load(&load(Talk::Post(vec![1 << 20]), 4, 1, 2, 10))?;
            stage.load(&load(Talk::Post(vec![300_000]), 60, 1, 4, 20))?;
            let during = stage.report()?;
            let lost = |r: &Report, reason: &str| r.number(&format!("lost.reason.{reason}.turns"));
            ensure!(
                lost(&during, "session_bytes")? > 0,
                "no session was over its limit:\n{during}"
            );
            ensure!(
                during.number("production.sessions_shed")? > 0,
                "nothing was shed:\n{during}"
            );
            // Sessions hold three quarters of the buffers at most, and new ones are shed when an
            // eighth of that is left.
            let (most, size) = (stage.memory().most_used, during.number("buffers.size")?);
            ensure!(
                most * 10 >= size * 6,
                "only {most} of {size} buffers were ever in use, so nothing had to be shed:\n{during}"
            );
            stage.front.release()?;
            let report = stage.settle(0, Duration::from_secs(90))?;
            lost_only_for(
                &report,
                &["session_bytes", "buffers", "shed", "midstream", "hole"],
            )
        },
    );
}

/// A target that stands still and goes on: everything arrives.
#[test]
fn a_target_that_stands_still_and_goes_on() {
    let seconds = 30;
    on_stage(
        "a_target_that_stands_still_and_goes_on",
        StageOptions::default(),
        |front, lab| front.open(lab),
        |stage| {
            stage.load(&load(Talk::Get, 50, 1, 10, 100))?;
            stage.settle(50, Duration::from_secs(30))?;
            stage.front.freeze()?;
            let began = std::time::Instant::now();
            stage.load(&load(Talk::Get, 100, 1, 10, 50))?;
            stage.load(&load(Talk::Get, 10, 20, 10, 100))?;
            stage.load(&load(Talk::Post(vec![1 << 20]), 10, 1, 2, 10))?;
            while began.elapsed() < Duration::from_secs(seconds) {
                stage.report()?;
                std::thread::sleep(Duration::from_millis(500));
            }
            let during = stage.report()?;
            ensure!(
                during.number("in_flight.turns")? > 0,
                "nothing waited for the target:\n{during}"
            );
            stage.front.thaw()?;
            let report = stage.settle(50 + 100 + 200 + 10, Duration::from_secs(90))?;
            report.check_nothing_lost()
        },
    );
}

/// A target whose service is restarted: what it had is reset, what comes meanwhile is refused, and
/// both are counted; kept-alive sessions go on with new connections.
#[test]
fn a_target_that_is_restarted() {
    on_stage(
        "a_target_that_is_restarted",
        StageOptions::default(),
        |front, lab| front.open(lab),
        |stage| {
            let kept = load(Talk::Get, 20, 40, 20, 100);
            let short = Workload {
                seed: 2,
                ..load(Talk::Get, 400, 1, 10, 50)
            };
            let (kept, short) = (stage.begin("kept", &kept)?, stage.begin("short", &short)?);
            std::thread::sleep(Duration::from_secs(2));
            stage.front.close()?;
            std::thread::sleep(Duration::from_secs(2));
            stage.front.open(&stage.lab)?;
            stage.end(kept, Duration::from_secs(60))?;
            stage.end(short, Duration::from_secs(60))?;
            let report = stage.settle(20 * 40 + 400, Duration::from_secs(60))?;
            let refused = report.number("lost.reason.connect_refused.turns")?;
            ensure!(
                report.number("target.connect_failures")? > 0 && refused > 0,
                "nothing was refused:\n{report}"
            );
            ensure!(
                report.number("target.resets")? + report.number("target.closed_early")? > 0,
                "no connection was ended by the target:\n{report}"
            );
            lost_only_for(&report, &["connect_refused", "target_reset"])?;
            // The service was gone for 2 of 8 s.
            ensure!(
                report.number("replayed.turns")? > report.number("lost.turns")?,
                "more was lost than the restart explains:\n{report}"
            );
            Ok(())
        },
    );
}

/// Uploads that the crash finds under way.
const UPLOADS: u64 = 5;

/// A target whose service crashes with requests unread: they are reset, what comes while it is gone
/// is refused, and both are counted.
#[test]
fn a_target_that_crashes() {
    on_stage(
        "a_target_that_crashes",
        StageOptions::default(),
        |front, lab| front.open(lab),
        |stage| {
            let kept = load(Talk::Get, 20, 40, 20, 100);
            let short = Workload {
                seed: 2,
                ..load(Talk::Get, 400, 1, 10, 50)
            };
            let (kept, short) = (stage.begin("kept", &kept)?, stage.begin("short", &short)?);
            std::thread::sleep(Duration::from_secs(2));
            stage.front.freeze()?;
            // More than the kernel takes for a service that does not read.
            stage.load(&load(Talk::Post(vec![1 << 20]), UPLOADS as usize, 1, 2, 10))?;
            std::thread::sleep(Duration::from_secs(1));
            stage.front.crash()?;
            std::thread::sleep(Duration::from_secs(2));
            stage.front.open(&stage.lab)?;
            stage.end(kept, Duration::from_secs(60))?;
            stage.end(short, Duration::from_secs(60))?;
            let report = stage.settle(20 * 40 + 400 + UPLOADS, Duration::from_secs(60))?;
            let lost = |reason: &str| report.number(&format!("lost.reason.{reason}.turns"));
            // Each of the 20 had asked and was not answered, but its question was acknowledged,
            // which makes it replayed; the uploads were not.
            ensure!(
                lost("target_reset")? >= UPLOADS && report.number("target.resets")? >= UPLOADS + 20,
                "what was not read was not reset:\n{report}"
            );
            ensure!(
                lost("connect_refused")? > 0 && report.number("target.connect_failures")? > 0,
                "nothing was refused:\n{report}"
            );
            lost_only_for(&report, &["connect_refused", "target_reset"])?;
            ensure!(
                report.number("replayed.turns")? > 0,
                "nothing was replayed before and after:\n{report}"
            );
            Ok(())
        },
    );
}

/// A target whose port is closed all the time: each turn is refused and counted, and when the port
/// opens all is well.
#[test]
fn a_target_that_is_closed() {
    on_stage(
        "a_target_that_is_closed",
        StageOptions::default(),
        |_, _| Ok(()),
        |stage| {
            stage.load(&load(Talk::Get, 300, 1, 10, 150))?;
            stage.load(&load(Talk::Get, 10, 20, 10, 100))?;
            stage.load(&load(Talk::Post(vec![200_000]), 10, 1, 2, 10))?;
            let turns = 300 + 200 + 10;
            let report = stage.settle(turns, Duration::from_secs(30))?;
            let refused = report.number("lost.reason.connect_refused.turns")?;
            ensure!(
                refused == turns && report.number("lost.turns")? == turns,
                "{refused} of {turns} turns were refused:\n{report}"
            );
            ensure!(
                report.number("target.connect_failures")? >= 300 + 10 + 10,
                "the failures were not counted:\n{report}"
            );
            stage.front.open(&stage.lab)
        },
    );
}

/// A target 100 ms away: each turn takes at least twice that, and nothing is lost.
#[test]
fn a_target_far_away() {
    let mut line = None;
    on_stage(
        "a_target_far_away",
        StageOptions::default(),
        |front, lab| {
            front.open(lab)?;
            line = Some(lab.delay_target(100)?);
            Ok(())
        },
        |stage| {
            stage.load(&load(Talk::Get, 300, 1, 10, 150))?;
            stage.load(&load(Talk::Get, 10, 20, 10, 200))?;
            stage.load(&load(Talk::Post(vec![200_000]), 10, 1, 2, 10))?;
            let report = stage.settle(300 + 200 + 10, Duration::from_secs(60))?;
            let fastest = report.number("latency.target.p50_us")?;
            ensure!(
                fastest >= 190_000,
                "half of the answers came within {fastest} us from a target 100 ms away:\n{report}"
            );
            report.check_nothing_lost()
        },
    );
}

/// Two targets, of which one reads nothing: its clients say more than there are buffers for, and
/// those of the other lose nothing.
#[test]
fn a_target_that_hangs_beside_one_that_does_not() {
    let engine = EngineOptions {
        services: vec![Service::Http, Service::Redis],
        ..EngineOptions::default()
    };
    let mut servers = Vec::new();
    on_stage(
        "a_target_that_hangs_beside_one_that_does_not",
        StageOptions {
            engine,
            mbufs: 8,
            ..StageOptions::default()
        },
        |front, lab| {
            for side in [Side::Production, Side::Target] {
                servers.push(Server::start(lab, side, Service::Redis, false)?);
            }
            front.open(lab)
        },
        |stage| {
            // Both targets have answered once.
            let redis = |connections| Workload {
                to: Service::Redis.on_production(Family::V4),
                ..load(
                    Talk::Redis {
                        pipeline: 1,
                        value: 64,
                    },
                    connections,
                    20,
                    5,
                    200,
                )
            };
            stage.load(&load(Talk::Get, 1, 1, 1, 10))?;
            stage.load(&redis(1))?;
            stage.settle(21, Duration::from_secs(30))?;
            stage.front.freeze()?;
            let uploads = load(Talk::Post(vec![300_000]), 60, 1, 4, 20);
            let uploads = stage.begin("uploads", &uploads)?;
            stage.load(&redis(60))?;
            stage.end(uploads, Duration::from_secs(60))?;
            stage.load(&redis(20))?;
            let during = stage.report()?;
            let of_target = |report: &Report, target: usize, field: &str| {
                report.number(&format!("targets.{target}.{field}"))
            };
            ensure!(
                of_target(&during, 0, "lost.target_budget.turns")? > 0,
                "the target that hangs had to make no room:\n{during}"
            );
            stage.front.thaw()?;
            let report = stage.settle(0, Duration::from_secs(90))?;
            ensure!(
                of_target(&report, 1, "turns")? == 81 * 20
                    && of_target(&report, 1, "replayed")? == 81 * 20,
                "the target that did not hang lost something:\n{report}"
            );
            lost_only_for(
                &report,
                &["target_budget", "buffers", "shed", "midstream", "hole"],
            )
        },
    );
}

/// A target whose answers go elsewhere is sent few requests for connections, and when the way back
/// to us is there all that waited is replayed.
#[test]
fn a_target_without_a_way_back_to_us() {
    const POOL: &str = "62.135.200.0/24";
    on_stage(
        "a_target_without_a_way_back_to_us",
        StageOptions::default(),
        |front, lab| {
            lab.run(Node::Target, "ip", &["route", "del", POOL])?;
            lab.run(Node::Target, "ip", &["route", "add", "blackhole", POOL])?;
            front.open(lab)
        },
        |stage| {
            let capture = Capture::start(&stage.lab, Node::Target, "eth0", Direction::In)?;
            stage.load(&load(Talk::Get, 60, 1, 10, 100))?;
            let waiting = wait_until("all of them seen", Duration::from_secs(30), || {
                let report = stage.report()?;
                Ok((report.number("production.turns")? == 60).then_some(report))
            })?;
            ensure!(
                waiting.number("target.connects")? == CANARIES
                    && waiting.number("targets.0.unconfirmed_cores")? == 1
                    && waiting.number("targets.0.awaiting_connections")? == 60 - CANARIES,
                "as many were opened as there were sessions:\n{waiting}"
            );
            let log = std::fs::read_to_string(stage.lab.file("engine.log"))?;
            let port = Front::port(false);
            let expected = format!("waiting for the first answer of 10.20.0.2:{port}");
            ensure!(log.contains(&expected), "{expected:?} is not in:\n{log}");
            let asked: BTreeSet<_> = capture
                .stop()?
                .iter()
                .filter_map(|f| Some((f.ips?, f.tcp?)))
                .filter(|(_, tcp)| tcp.flags & 0x12 == 0x02 && tcp.ports[1] == port)
                .map(|(ips, tcp)| (ips, tcp.ports))
                .collect();
            ensure!(
                asked.len() as u64 == CANARIES,
                "the target saw SYNs of {} connections",
                asked.len()
            );
            lab_route(&stage.lab, POOL)?;
            let report = stage.settle(60, Duration::from_secs(60))?;
            ensure!(report.number("target.connects")? == 60, "{report}");
            report.check_nothing_lost()
        },
    );
}

/// Connections that a worker opens to a target that has not answered.
const CANARIES: u64 = 8;

/// The target's way back to the appliance, as a lab has it.
fn lab_route(lab: &Lab, pool: &str) -> Result<()> {
    lab.run(Node::Target, "ip", &["route", "del", "blackhole", pool])?;
    lab.run(
        Node::Target,
        "ip",
        &["route", "add", pool, "via", "10.20.0.9"],
    )?;
    Ok(())
}

/// Emulated clients 50 ms away: the target gets the acknowledgments of its answers that late, and
/// nothing else changes.
#[test]
fn clients_far_away() {
    let mut engine = StageOptions::default().engine;
    engine.extra = vec![("traffic", "rtt = \"50ms\"".to_owned())];
    on_stage(
        "clients_far_away",
        StageOptions {
            engine,
            ..StageOptions::default()
        },
        |front, lab| front.open(lab),
        |stage| {
            let capture = Capture::start(&stage.lab, Node::Target, "eth0", Direction::Both)?;
            // Each client asks every 200 ms, so that no request carries the acknowledgment of the
            // answer before it.
            stage.load(&load(Talk::Get, 20, 10, 20, 100))?;
            let report = stage.settle(200, Duration::from_secs(60))?;
            report.check_nothing_lost()?;
            let mut delays = acknowledgment_delays(&capture.stop()?);
            delays.sort_unstable();
            // The last answer of each connection comes with a FIN, which is acknowledged at once.
            ensure!(
                delays.len() >= 150,
                "{} answers of 200: {delays:?}",
                delays.len()
            );
            let at = |percent: usize| {
                delays
                    .get(delays.len() * percent / 100)
                    .copied()
                    .unwrap_or(0)
            };
            eprintln!(
                "acknowledged after {} us, {} us, {} us",
                at(10),
                at(50),
                at(90)
            );
            // Late, as the machine may be: but not early, and not by whole seconds.
            ensure!(at(25) >= 45_000, "acknowledged too early: {delays:?}");
            ensure!(at(50) <= 500_000, "acknowledged too late: {delays:?}");
            Ok(())
        },
    );
}

/// How long after each answer of the target the first segment came that acknowledged all of it, in
/// us.
fn acknowledgment_delays(frames: &[Seen]) -> Vec<u64> {
    let target = Family::V4.target();
    let segments: Vec<_> = frames
        .iter()
        .filter_map(|f| Some((f.at_us, f.ips?, f.tcp?)))
        .collect();
    let mut delays = Vec::new();
    for (i, (at, ips, tcp)) in segments.iter().enumerate() {
        if ips[0] != target || tcp.payload_len == 0 {
            continue;
        }
        let end = tcp.seq.wrapping_add(tcp.payload_len);
        let acknowledges = |a: &Segment| a.ack.wrapping_sub(end) < 1 << 31;
        let first = segments.iter().skip(i).find(|(_, to, a)| {
            to[0] == ips[1] && a.ports == [tcp.ports[1], tcp.ports[0]] && acknowledges(a)
        });
        delays.extend(first.map(|(then, _, _)| then - at));
    }
    delays
}
