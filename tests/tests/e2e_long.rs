//! Memory that grows under load. Half a minute of it; the variable `LONG_SECONDS` says how long
//! instead, as what grows slowly shows after minutes:
//! `LONG_SECONDS=600 cargo nextest run -p tests --test e2e_long --no-capture`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use tests::lab::appliance::{Clients, Engine, EngineOptions};
use tests::lab::servers::{Server, Service, Side};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, skipped};
use tests::load::{Summary, Talk, Workload};

/// Seconds that the load goes on, if nothing else is said. Memory is looked at first after a fifth
/// of it.
const SECONDS: u64 = 30;
/// Requests of each connection.
const REQUESTS: usize = 3;

/// Resident memory of a process in KiB (proc(5), VmRSS).
fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(Path::new(&path)).context(path)?;
    text.lines()
        .find_map(|l| {
            l.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .context("the process has no VmRSS")
}

fn workload(lab: &Lab, connections: usize, rate: u32, seed: u64) -> Workload {
    Workload {
        to: Service::Http.on_production(Family::V4),
        from: lab.client_addresses(Family::V4),
        talk: Talk::Get,
        connections,
        requests: REQUESTS,
        concurrency: 64,
        rate,
        seed,
    }
}

fn run(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Side::Production, Service::Http, false)?;
    let target = Server::start(lab, Side::Target, Service::Http, false)?;
    let options = EngineOptions {
        // A pool's table is touched place by place, for as long as it takes to come round.
        clients: Clients::Own,
        edits: vec![("sessions = 20_000", "sessions = 100_000".to_owned())],
        ..EngineOptions::default()
    };
    let mut engine = Engine::start(lab, &options)?;
    let seconds = match std::env::var("LONG_SECONDS") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("LONG_SECONDS={text}"))?,
        Err(_) => SECONDS,
    };
    let (long, settled) = (
        Duration::from_secs(seconds),
        Duration::from_secs(seconds / 5),
    );
    // What the lab carries with everything on the same cores.
    let begin = Instant::now();
    let summary = lab.load(&workload(lab, 20_000, 0, 1))?;
    let most = summary.requests as f64 / begin.elapsed().as_secs_f64();
    let rate = (most * 0.8) as u32;
    let connections = (f64::from(rate) * long.as_secs_f64()) as usize / REQUESTS;
    eprintln!("the lab carries {most:.0} requests a second; {rate} a second for {long:?}");
    let begin = Instant::now();
    let load = workload(lab, connections, rate, 2);
    let mut load = lab.spawn("load", lab.load_command(&load)?)?;
    let pid = engine.process().id();
    let mut seen = Vec::new();
    while load.status()?.is_none() {
        std::thread::sleep(Duration::from_secs(1));
        let at = begin.elapsed();
        if at.as_secs().is_multiple_of(30) {
            eprintln!("{:>4} s: {} KiB resident", at.as_secs(), resident(pid)?);
        }
        seen.push((at, resident(pid)?));
    }
    let (_, last) = *seen.last().context("memory was never looked at")?;
    let early = seen.iter().find(|(at, _)| *at >= settled);
    let (_, early) = *early.context("the load was over too soon")?;
    let loaded: Summary = serde_json::from_str(load.log().trim())?;
    let requests = summary.requests + loaded.requests;
    let logged = server.access_count()? as u64;
    ensure!(
        logged == requests,
        "{logged} requests in production's log, {requests} were made"
    );
    let report = engine.stop()?;
    report.check_books(1)?;
    let replayed = report.number("replayed.turns")?;
    eprintln!(
        "{early} KiB after {settled:?}, {last} KiB after {long:?}; {requests} requests: {replayed} replayed, {} lost, {} missed frames; {} in the target's log",
        report.number("lost.turns")?,
        report.number("mirror.missed")?,
        target.access_count()?
    );
    ensure!(
        replayed * 2 > requests,
        "{replayed} of {requests} requests were replayed: that is no load"
    );
    ensure!(
        last * 100 <= early * 102,
        "memory grew from {early} KiB to {last} KiB"
    );
    Ok(())
}

#[test]
fn memory_stays_as_it_is() {
    if skipped("memory_stays_as_it_is") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        more_clients: 40,
        ..LabOptions::default()
    })
    .unwrap();
    let outcome = run(&lab);
    if outcome.is_err() {
        lab.failed();
    }
    outcome.unwrap();
}
