//! Answers that the appliance misses: it is stopped for a moment under load, while its short ring
//! fills up. The report says that answers were missed, and no more requests count as lost that
//! arrived than it says may have.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::net::IpAddr;
use std::time::Duration;
use tests::lab::appliance::{Engine, EngineOptions, Intercept, InterceptOptions};
use tests::lab::process::{Process, wait_until};
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Responses, skipped};
use tests::load::{Summary, Talk, Workload};

/// Places of the ring that answers are received into.
const SHORT: &str = "framecnt=32";
const CONNECTIONS: usize = 12_000;
/// A second.
const RATE: u32 = 2_000;

/// Stops a process while the target sends more frames to its port than the ring has places.
fn stop_for_a_moment(lab: &Lab, process: &mut Process, address: IpAddr) -> Result<()> {
    process.signal(Signal::STOP)?;
    let text = format!("for i in {{1..500}}; do echo > /dev/udp/{address}/9; done");
    let sent = lab.run(Node::Target, "bash", &["-c", &text]);
    process.signal(Signal::CONT)?;
    sent.map(drop)
}

/// Replays short connections as fast as they come. Returns the engine's last report, how many
/// requests the target had, and the logs of engine and intercept.
fn run(lab: &Lab) -> Result<(Report, u64, String)> {
    let server = Server::start(lab, Side::Production, Service::Http, false)?;
    let target = Server::start(lab, Side::Target, Service::Http, false)?;
    let remote = lab.options().responses == Responses::Remote;
    let intercept = InterceptOptions {
        edits: vec![("framecnt=4096", SHORT.to_owned())],
        ..InterceptOptions::default()
    };
    let mut intercept = remote
        .then(|| Intercept::start(lab, &intercept))
        .transpose()?;
    let ring = if remote { "framecnt=4096" } else { SHORT };
    let options = EngineOptions {
        port: format!("net_af_packet1,iface=replay0,{ring}"),
        // What is replayed is seen whole.
        mirror: "net_af_packet0,iface=span0,framecnt=65536".to_owned(),
        edits: vec![("sessions = 20_000", "sessions = 100_000".to_owned())],
        ..EngineOptions::default()
    };
    let mut engine = Engine::start(lab, &options)?;
    let load = Workload {
        to: Service::Http.on_production(Family::V4),
        from: lab.client_addresses(Family::V4),
        talk: Talk::Get,
        connections: CONNECTIONS,
        requests: 1,
        concurrency: 64,
        rate: RATE,
        seed: 1,
    };
    let mut load = lab.spawn("load", lab.load_command(&load)?)?;
    wait_until("answers", Duration::from_secs(60), || {
        let Some(report) = engine.report()? else {
            return Ok(None);
        };
        Ok((report.number("target.responses")? >= u64::from(RATE)).then_some(()))
    })?;
    match &mut intercept {
        Some(intercept) => {
            stop_for_a_moment(lab, intercept.process(), Family::V4.assistant())?;
        }
        None => stop_for_a_moment(lab, engine.process(), Family::V4.appliance())?,
    }
    ensure!(
        load.wait(Duration::from_secs(120))?.success(),
        "{}",
        load.tail()
    );
    let summary: Summary = serde_json::from_str(load.log().trim())?;
    ensure!(summary.requests == CONNECTIONS as u64, "{summary:?}");
    drop(server);
    wait_until("every turn to end", Duration::from_secs(120), || {
        let Some(report) = engine.report()? else {
            return Ok(None);
        };
        report.check_books(1)?;
        Ok((report.number("in_flight.turns")? == 0).then_some(()))
    })?;
    let mut log = engine.process().log();
    if let Some(intercept) = &mut intercept {
        log.push_str(&intercept.process().log());
    }
    let report = engine.stop()?;
    if let Some(intercept) = intercept {
        let told = intercept.stop()?;
        ensure!(*told.value("answers.complete")? == false, "{told}");
        ensure!(told.number("answers.missed")? > 0, "{told}");
    }
    Ok((report, target.access_count()? as u64, log))
}

fn answers(test: &str, responses: Responses) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        responses,
        more_clients: 20,
        ..LabOptions::default()
    })
    .unwrap();
    let outcome = run(&lab);
    if outcome.is_err() {
        lab.failed();
    }
    let (report, arrived, log) = outcome.unwrap();
    report.check_books(1).unwrap();
    let n = |path: &str| report.number(path).unwrap();
    let (missed, doubtful) = (n("target.answers_missed"), n("target.doubtful_losses"));
    eprintln!(
        "{test}: {arrived} requests at the target, {} replayed, {} lost, {missed} answers missed, {doubtful} in doubt; {}",
        n("replayed.turns"),
        n("lost.turns"),
        report.value("lost.reason").unwrap()
    );
    assert_eq!(report.value("target.answers_complete").unwrap(), false);
    assert!(missed > 0, "{report}");
    assert!(
        arrived <= n("replayed.turns") + doubtful,
        "{arrived} requests arrived\n{report}"
    );
    assert!(
        log.contains("frames were missed") || log.contains("frames of answers"),
        "{log}"
    );
}

#[test]
fn missed_by_the_engine() {
    answers("missed_by_the_engine", Responses::Embedded);
}

#[test]
fn missed_by_the_intercept() {
    answers("missed_by_the_intercept", Responses::Remote);
}
