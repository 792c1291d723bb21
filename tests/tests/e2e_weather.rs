//! Hard weather on the wires: a replay network and a mirror that lose frames, a mirror that shows
//! each of them twice, or out of order.
//!
//! Loss between the appliance and the target costs time and no byte. Loss on the mirror costs the
//! turns it hits and no other. What the weather did is known from the kernel's counters and from
//! captures, never from the appliance.
#![cfg(feature = "lab")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tests::lab::appliance::{Clients, Engine, EngineOptions};
use tests::lab::capture::{Capture, Direction};
use tests::lab::process::wait_until;
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side, kept};
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::weather::holes::{MirrorWatch, Sight};
use tests::lab::weather::{check_others, overtaken};
use tests::lab::{Family, Lab, LabOptions, Node, skipped};
use tests::load::{Talk, Workload};
use tests::record::Record;

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

/// The load crosses a replay network that loses `percent` of the packets each way; nothing of it is
/// lost.
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
    trial.load(load).unwrap();
    let lost = trial.lab.lost_on_replay_network().unwrap();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    let number = |what: &str| outcome.report.number(what).unwrap();
    let mut took: Vec<u64> = outcome
        .target
        .iter()
        .map(|r| r.closed_us.saturating_sub(r.opened_us) / 1000)
        .collect();
    took.sort_unstable();
    let at = |percent: usize| took.get((took.len() - 1) * percent / 100).unwrap();
    eprintln!(
        "{test}: {lost} packets lost on the way; {} bytes in {} segments sent again; connections took {} ms, {} ms, {} ms, {} ms (50, 90, 99, 100 %)",
        number("replayed.retransmitted"),
        number("replayed.retransmitted_segments"),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert_eq!(outcome.connections, load.connections);
    assert_eq!(number("production.turns"), load.connections as u64);
    assert_eq!(number("replayed.turns"), load.connections as u64);
    // An upload of a MiB takes some 700 segments, a short request some 4; half of what has to be
    // lost of them is enough to prove that there was loss.
    let segments = load.connections as u64 * if load.talk == Talk::Get { 4 } else { 700 };
    assert!(
        lost * 200 >= segments * u64::from(percent),
        "{lost} packets lost, so nothing was proved"
    );
    assert!(number("replayed.retransmitted") > 0);
}

#[test]
fn one_percent_of_short_requests() {
    let load = gets(20_000, 1, 500, 1);
    crosses("one_percent_of_short_requests", 1, &load);
}

#[test]
fn five_percent_of_short_requests() {
    let load = gets(20_000, 1, 500, 2);
    crosses("five_percent_of_short_requests", 5, &load);
}

#[test]
fn one_percent_of_uploads() {
    let load = uploads(200, 1 << 20, 5, 3);
    crosses("one_percent_of_uploads", 1, &load);
}

#[test]
fn five_percent_of_uploads() {
    let load = uploads(200, 1 << 20, 5, 4);
    crosses("five_percent_of_uploads", 5, &load);
}

/// A mirror that loses 1 % of the frames: the sessions that were hit lose the turns that were hit,
/// all others arrive byte for byte.
#[test]
fn a_mirror_that_loses_frames() {
    let test = "a_mirror_that_loses_frames";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    // Many client addresses, so that hardly a port is used twice and connections match one to one.
    let lab = Lab::start(LabOptions {
        more_clients: 99,
        keep_bytes: true,
        ..LabOptions::default()
    })
    .unwrap();
    if let Err(e) = mirror_loses(&lab) {
        lab.failed();
        panic!("{test}: {e:#}");
    }
}

fn mirror_loses(lab: &Lab) -> Result<()> {
    let production = Server::start(lab, Side::Production, Service::Http, true)?;
    let target = Server::start(lab, Side::Target, Service::Http, true)?;
    let options = EngineOptions {
        clients: Clients::Own,
        ..EngineOptions::default()
    };
    let engine = Engine::start(lab, &options)?;
    lab.lose_on_mirror(10)?;
    let watch = MirrorWatch::start(lab)?;
    let loads = [
        gets(5_000, 1, 400, 11),
        gets(40, 25, 400, 12),
        uploads(40, 100_000, 10, 13),
    ]
    .map(|load| Workload {
        from: lab.client_addresses(Family::V4),
        ..load
    });
    for load in &loads {
        let summary = lab.load(load)?;
        ensure!(summary.errors == 0, "production failed: {summary:?}");
    }
    let sight = watch.stop(Service::Http.on_production(Family::V4))?;
    // A gap that no acknowledgment of the server told of is waited for 3 s, of which ending the
    // captures took two.
    std::thread::sleep(Duration::from_secs(2));
    // Where neither the client's FIN nor the server's acknowledgment of it was shown, nothing tells
    // that the last turn is over. All others are settled.
    let open_ended = sight.sessions.iter().filter(|s| !s.end_shown).count() as u64;
    let before = wait_until("turns settled", Duration::from_secs(30), || {
        let Some(report) = engine.report()? else {
            return Ok(None);
        };
        report.check_books(1)?;
        let open = report.number("in_flight.turns")?;
        Ok((open <= open_ended).then_some(report))
    })?;
    let report = engine.stop()?;
    let (production, target) = (production.stop()?, target.stop()?);
    report.check_books(1)?;
    ensure!(
        report.number("in_flight.turns")? == 0,
        "turns are in flight at the end:\n{report}"
    );
    ensure!(
        before.number("lost.turns")? == report.number("lost.turns")?,
        "turns were lost at the end that were not lost before:\n{report}"
    );
    let connections: usize = loads.iter().map(|l| l.connections).sum();
    ensure!(
        sight.sessions.len() == connections && production.len() == connections,
        "of {connections} sessions {} were captured and {} recorded",
        sight.sessions.len(),
        production.len()
    );
    check_costs(&sight, &report)?;
    check_target(lab, &sight, &production, &target, &report)
}

/// What the engine counts as lost is what the frames that were not shown have to cost.
fn check_costs(sight: &Sight, report: &Report) -> Result<()> {
    let sessions = &sight.sessions;
    let hit = sessions.iter().filter(|s| !s.is_whole()).count();
    let (least, most) = sessions
        .iter()
        .map(tests::lab::weather::holes::Session::price)
        .fold((0, 0), |(l, m), (least, most)| (l + least, m + most));
    // Each session of which neither SYN was shown begins in its midst. One whose port was in use
    // before may be taken for the end of the session before it.
    let late = sessions.iter().filter(|s| !s.syn_shown && s.was_seen());
    let (surely, at_most) = (
        late.clone().filter(|s| !s.port_used_twice).count() as u64,
        late.count() as u64,
    );
    let lost = |reason: &str| report.number(&format!("lost.reason.{reason}.turns"));
    let (hole, midstream, all) = (
        lost("hole")?,
        lost("midstream")?,
        report.number("lost.turns")?,
    );
    eprintln!(
        "{} client segments were not shown, {hit} of {} sessions hit; {least} to {most} turns have to be lost, {surely} to {at_most} of them midstream; \
         lost: {hole} hole, {midstream} midstream, {all} in all",
        sight.not_shown,
        sessions.len()
    );
    ensure!(
        hit >= 50 && least >= 50,
        "hardly a loss, so nothing was proved"
    );
    ensure!(
        (least..=most).contains(&all),
        "{all} turns lost instead of {least} to {most}:\n{report}"
    );
    ensure!(
        (surely..=at_most).contains(&midstream),
        "{midstream} turns lost midstream instead of {surely} to {at_most}:\n{report}"
    );
    ensure!(
        hole + midstream == all,
        "turns were lost for another reason than the mirror's:\n{report}"
    );
    Ok(())
}

/// What arrived at the target is what it has to be: all of the sessions that were shown, of the
/// others the turns that were shown.
fn check_target(
    lab: &Lab,
    sight: &Sight,
    production: &[Record],
    target: &[Record],
    report: &Report,
) -> Result<()> {
    let hit: BTreeSet<SocketAddr> = sight
        .sessions
        .iter()
        .filter(|s| !s.is_whole())
        .map(|s| s.client)
        .collect();
    let others = check_others(production, target, &hit)?;
    let whole = sight.sessions.iter().filter(|s| !hit.contains(&s.client));
    let mut arrived: usize = whole.map(|s| s.turns.len()).sum();
    let mut of: BTreeMap<SocketAddr, Vec<(Record, Vec<u8>)>> = BTreeMap::new();
    for record in target.iter().filter(|r| hit.contains(&r.peer)) {
        let bytes = kept(lab, Side::Target, Service::Http, record)?;
        let connections = of.entry(record.peer).or_default();
        connections.push((record.clone(), bytes));
    }
    let (mut compared, mut twice) = (0, Vec::new());
    for session in sight.sessions.iter().filter(|s| hit.contains(&s.client)) {
        if session.port_used_twice {
            // Whose connections at the target were whose is not to be known.
            twice.push(session.turns.len());
            continue;
        }
        let record = production.iter().find(|r| r.peer == session.client);
        let record = record.ok_or_else(|| anyhow::anyhow!("{}: no record", session.client))?;
        let said = kept(lab, Side::Production, Service::Http, record)?;
        let mut there = of.remove(&session.client).unwrap_or_default();
        there.sort_by_key(|(r, _)| r.opened_us);
        arrived += session.check_arrived(&said, &there)?;
        compared += 1;
    }
    eprintln!(
        "{others} sessions are exact; of {compared} that were hit the target has the turns that were shown; {arrived} turns are there; not compared, as ports were used twice: {}",
        twice.len()
    );
    ensure!(
        others + compared + twice.len() == sight.sessions.len() && twice.len() * 10 <= hit.len(),
        "only {others} + {compared} sessions were compared"
    );
    // A turn that arrived may count as lost if its end was not sure.
    let (replayed, lost) = (
        report.number("replayed.turns")? as usize,
        report.number("lost.turns")? as usize,
    );
    let unclear: usize = twice.iter().sum();
    ensure!(
        replayed <= arrived + unclear && arrived <= replayed + lost,
        "{arrived} turns arrived:\n{report}"
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
    let n = 5_000;
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

/// A mirror on which frames overtake others, of the same connection and of any: nothing is lost and
/// all bytes are in their place.
#[test]
fn a_mirror_that_reorders() {
    let test = "a_mirror_that_reorders";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let options = EngineOptions {
        clients: Clients::Own,
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    let _line = trial.lab.reorder_mirror(100, 3).unwrap();
    let shown = Capture::start(&trial.lab, Node::Appliance, "span0", Direction::In).unwrap();
    trial.load(&gets(5_000, 1, 400, 31)).unwrap();
    trial.load(&gets(40, 50, 400, 32)).unwrap();
    trial.load(&uploads(40, 200_000, 10, 33)).unwrap();
    let server = Service::Http.on_production(Family::V4);
    let overtaken = overtaken(&shown.stop().unwrap(), server);
    let report = trial
        .finish()
        .unwrap_or_else(|e| panic!("{test}: {e:#}"))
        .report;
    let noted = report.number("mirror.out_of_order").unwrap();
    eprintln!("{test}: {overtaken} segments were overtaken; {noted} were noted as out of order");
    assert!(
        overtaken >= 100 && noted > 0,
        "{overtaken} segments were overtaken, so nothing was proved"
    );
    assert_eq!(
        report.number("production.turns").unwrap(),
        5_000 + 40 * 50 + 40
    );
}
