//! Hard weather on the wires: a replay network and a mirror that lose frames, a mirror that shows each of them twice.
//!
//! Loss between the appliance and the target costs time and no byte. Loss on the mirror costs the turns it hits and no other. By default a tenth of
//! the load runs; `REPLAY_FULL=1` runs all of it.
#![cfg(feature = "lab")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use std::collections::BTreeSet;
use std::time::Duration;
use tests::lab::appliance::{Clients, Engine, EngineOptions};
use tests::lab::process::wait_until;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::weather::{MirrorWatch, check_others, scaled};
use tests::lab::{Family, Lab, LabOptions, skipped};
use tests::load::{Talk, Workload};

/// One request on each connection, or more.
fn gets(connections: usize, requests: usize, rate: u32, seed: u64) -> Workload {
    Workload {
        to: Service::Http.on_production(Family::V4),
        from: Vec::new(),
        talk: Talk::Get,
        connections,
        requests,
        concurrency: 20,
        rate,
        seed,
    }
}

fn uploads(connections: usize, size: usize, rate: u32, seed: u64) -> Workload {
    Workload {
        talk: Talk::Post(vec![size]),
        concurrency: 2,
        ..gets(connections, 1, rate, seed)
    }
}

/// The load crosses a replay network that loses `percent` of the packets each way; nothing of it is lost.
fn crosses(test: &str, percent: u8, load: &Workload) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let options = EngineOptions {
        extra: vec![("traffic", "gate_timeout = \"60s\"".to_owned())],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    trial.lab.lose_on_replay_network(percent).unwrap();
    let began = std::time::Instant::now();
    trial.load(load).unwrap();
    let loaded = began.elapsed();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    eprintln!(
        "{test}: load {loaded:.1?}, replayed and compared {:.1?}, retransmitted {}",
        began.elapsed(),
        outcome.report.number("replayed.retransmitted").unwrap(),
    );
    assert_eq!(outcome.connections, load.connections);
    let retransmitted = outcome.report.number("replayed.retransmitted").unwrap();
    assert!(retransmitted > 0, "nothing was lost, so nothing was proved");
}

#[test]
fn one_percent_of_short_requests() {
    let n = scaled("short requests", 20_000, 2_000);
    crosses("one_percent_of_short_requests", 1, &gets(n, 1, 400, 1));
}

#[test]
fn five_percent_of_short_requests() {
    let n = scaled("short requests", 20_000, 2_000);
    crosses("five_percent_of_short_requests", 5, &gets(n, 1, 400, 2));
}

#[test]
fn one_percent_of_uploads() {
    let n = scaled("uploads of 1 MiB", 200, 20);
    crosses("one_percent_of_uploads", 1, &uploads(n, 1 << 20, 4, 3));
}

#[test]
fn five_percent_of_uploads() {
    let n = scaled("uploads of 1 MiB", 200, 20);
    crosses("five_percent_of_uploads", 5, &uploads(n, 1 << 20, 4, 4));
}

/// Reasons for which turns may be lost when the mirror loses frames.
const OF_THE_MIRROR: [&str; 2] = ["hole", "midstream"];

/// A mirror that loses 1 % of the frames: the sessions that were hit lose turns, all others arrive byte for byte.
#[test]
fn a_mirror_that_loses_frames() {
    let test = "a_mirror_that_loses_frames";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    // Several client addresses, so that hardly a port is used twice and connections match one to one.
    let lab = Lab::start(LabOptions {
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    if let Err(e) = mirror_loses(&lab) {
        lab.failed();
        panic!("{test}: {e:#}");
    }
}

fn mirror_loses(lab: &Lab) -> anyhow::Result<()> {
    let production = Server::start(lab, Side::Production, Service::Http, true)?;
    let target = Server::start(lab, Side::Target, Service::Http, true)?;
    let options = EngineOptions {
        clients: Clients::Own,
        ..EngineOptions::default()
    };
    let engine = Engine::start(lab, &options)?;
    lab.lose_on_mirror(10)?;
    let watch = MirrorWatch::start(lab)?;
    let short = scaled("short requests", 5_000, 1_000);
    let loads = [
        gets(short, 1, 400, 11),
        gets(40, 25, 400, 12),
        uploads(40, 100_000, 10, 13),
    ]
    .map(|load| Workload {
        from: lab.client_addresses(Family::V4),
        ..load
    });
    for load in &loads {
        let summary = lab.load(load)?;
        anyhow::ensure!(summary.errors == 0, "production failed: {summary:?}");
    }
    // Where neither the client's FIN nor the server's acknowledgment of it was shown, nothing tells that the last turn is over. All others are settled.
    let missing = watch.stop(Service::Http.on_production(Family::V4))?;
    // A gap that no acknowledgment of the server told of is waited for 3 s, of which ending the captures took two.
    std::thread::sleep(Duration::from_secs(2));
    let before = wait_until("turns settled", Duration::from_secs(30), || {
        let Some(report) = engine.report()? else {
            return Ok(None);
        };
        report.check_books(1)?;
        let open = report.number("in_flight.turns")?;
        Ok((open <= missing.ends as u64).then_some(report))
    })?;
    let report = engine.stop()?;
    let (production, target) = (production.stop()?, target.stop()?);
    let hit: BTreeSet<_> = missing.clients.keys().copied().collect();
    let connections: usize = loads.iter().map(|l| l.connections).sum();
    eprintln!(
        "{} client segments were not shown; {} of {connections} sessions lost payload or SYN; lost: {}",
        missing.segments,
        hit.len(),
        report.value("lost")?
    );
    anyhow::ensure!(
        missing.segments > hit.len() && !hit.is_empty(),
        "no loss, no proof: {missing:?}"
    );
    anyhow::ensure!(
        production.len() == connections,
        "production recorded {}",
        production.len()
    );
    let others = check_others(&production, &target, &hit)?;
    // A client may use a port twice, so a hit may leave out two.
    anyhow::ensure!(
        others + 2 * hit.len() >= connections,
        "only {others} others of {connections} were compared"
    );
    report.check_books(1)?;
    anyhow::ensure!(
        report.number("in_flight.turns")? == 0,
        "turns are in flight at the end:\n{report}"
    );

    // Each segment that was not shown costs at least part of a turn, and at most its own turn, the one before and the one that follows. Only of
    // a session that hardly anything was shown of, nobody knows that it had a turn.
    let lost = report.number("lost.turns")?;
    let segments: usize = missing.clients.values().sum();
    anyhow::ensure!(
        lost * 10 >= hit.len() as u64 * 9 && lost <= 3 * segments as u64,
        "{lost} turns lost, though {segments} segments of {} sessions were not shown:\n{report}",
        hit.len()
    );
    let because: u64 = OF_THE_MIRROR
        .iter()
        .map(|reason| report.number(&format!("lost.reason.{reason}.turns")))
        .sum::<anyhow::Result<u64>>()?;
    anyhow::ensure!(
        because == lost,
        "lost for another reason than the mirror's:\n{report}"
    );
    anyhow::ensure!(
        before.number("lost.turns")? == lost,
        "turns were lost at the end that were not lost before:\n{report}"
    );
    Ok(())
}

/// A mirror that shows every frame twice: nothing is replayed twice, and the frames are counted.
#[test]
fn a_mirror_that_shows_everything_twice() {
    let test = "a_mirror_that_shows_everything_twice";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let options = EngineOptions {
        clients: Clients::Own,
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    trial.lab.mirror_twice().unwrap();
    let n = scaled("short requests", 5_000, 1_000);
    trial.load(&gets(n, 1, 300, 21)).unwrap();
    trial.load(&gets(20, 50, 300, 22)).unwrap();
    trial.load(&uploads(20, 200_000, 5, 23)).unwrap();
    let turns = (n + 20 * 50 + 20) as u64;
    let report = trial
        .finish()
        .unwrap_or_else(|e| panic!("{test}: {e:#}"))
        .report;
    let duplicates = report.number("mirror.dropped.duplicate").unwrap();
    eprintln!("{test}: {duplicates} duplicates");
    // At least every segment with payload came twice.
    assert!(duplicates >= turns, "{duplicates} of {turns}\n{report}");
    assert_eq!(report.number("production.turns").unwrap(), turns);
}
