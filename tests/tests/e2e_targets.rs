//! One production, several targets: each has every session byte for byte, and what is wrong with
//! one is no concern of the others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use std::path::PathBuf;
use std::time::Duration;
use tests::answer::Answer;
use tests::lab::appliance::{Clients, Engine, EngineOptions, Intercept, InterceptOptions};
use tests::lab::process::{Process, binary, wait_until};
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::trial::turns;
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Responses, skipped};
use tests::load::{Talk, Workload};
use tests::record::{self, Match, check_byte_exact};

const LIMIT: Duration = Duration::from_secs(60);
/// A second address of the target's host.
const SECOND: &str = "10.20.0.5";

/// A recorder at the second address, which starts a target of its own.
struct Recorded {
    process: Process,
    path: PathBuf,
}

impl Recorded {
    fn start(lab: &Lab, port: u16, args: &[String]) -> Self {
        let path = lab.file(&format!("second-{port}.records"));
        let mut command = lab.command(Node::Target, binary("recorder").unwrap());
        command
            .arg(format!("--listen={SECOND}:{port}"))
            .args(args)
            .arg("--out")
            .arg(&path);
        let mut process = lab.spawn(&format!("second-{port}"), command).unwrap();
        process.wait_for("ready", LIMIT).unwrap();
        Self { process, path }
    }

    fn stop(mut self) -> Vec<record::Record> {
        self.process.terminate(LIMIT).unwrap();
        record::read(&self.path).unwrap()
    }
}

fn lab(responses: Responses) -> Lab {
    let lab = Lab::start(LabOptions {
        responses,
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    let address = format!("{SECOND}/24");
    lab.run(
        Node::Target,
        "ip",
        &["addr", "add", &address, "dev", "eth0"],
    )
    .unwrap();
    lab
}

/// Short connections, and some that are kept alive.
fn loads(lab: &Lab, short: usize, kept_alive: usize) -> [Workload; 2] {
    let load = Workload {
        to: Service::Http.on_production(Family::V4),
        from: lab.client_addresses(Family::V4),
        talk: Talk::Get,
        connections: short,
        requests: 1,
        concurrency: 10,
        rate: 300,
        seed: 1,
    };
    let again = Workload {
        connections: kept_alive,
        requests: 30,
        seed: 2,
        ..load.clone()
    };
    [load, again]
}

/// Runs the loads. Returns how many turns they are.
fn run(lab: &Lab, loads: &[Workload]) -> u64 {
    for load in loads {
        let summary = lab.load(load).unwrap();
        assert_eq!(summary.first_error, None, "production failed its clients");
    }
    loads.iter().map(turns).sum()
}

fn engine(lab: &Lab, to: &str, clients: Clients) -> Engine {
    let options = EngineOptions {
        clients,
        workers: 2,
        extra: vec![("traffic", "session_timeout = \"8s\"".to_owned())],
        edits: vec![("to = \"10.20.0.2:8080\"", format!("to = {to}"))],
        ..EngineOptions::default()
    };
    Engine::start(lab, &options).unwrap()
}

fn of(report: &Report, target: usize, what: &str) -> u64 {
    report.number(&format!("targets.{target}.{what}")).unwrap()
}

fn lost(report: &Report, target: usize) -> u64 {
    let value = report.value(&format!("targets.{target}.lost")).unwrap();
    let reasons = value.as_object().unwrap().values();
    reasons.map(|r| r["turns"].as_u64().unwrap()).sum()
}

/// The books of each target and of all together.
fn check_books(report: &Report, targets: usize) {
    let (mut owed, mut bytes) = (0, 0);
    for i in 0..targets {
        let of = |what| of(report, i, what);
        let due = of("turns") * of("copies");
        let found = of("replayed") + lost(report, i) + of("in_flight.turns");
        assert_eq!(due, found, "turns of target {i}:\n{report}");
        owed += due;
        bytes += of("bytes") * of("copies");
    }
    for (what, owed) in [("turns", owed), ("bytes", bytes)] {
        let of = |part: &str| report.number(&format!("{part}.{what}")).unwrap();
        let found = of("replayed") + of("lost") + of("in_flight");
        assert_eq!(owed, found, "{what} of all targets:\n{report}");
    }
}

/// Waits until the report is so, looking at the books of every report on the way.
fn report_when(engine: &mut Engine, targets: usize, is: impl Fn(&Report) -> bool) -> Report {
    let mut last = String::new();
    let report = wait_until("the report", LIMIT, || {
        let Some(report) = engine.report()? else {
            return Ok(None);
        };
        check_books(&report, targets);
        last = report.to_string();
        Ok(is(&report).then_some(report))
    });
    report.unwrap_or_else(|e| panic!("{e:#}\n{last}"))
}

#[test]
fn each_target_is_told_all_that_production_is_and_dead_ones_cost_nothing() {
    if skipped("each_target_is_told_all_that_production_is_and_dead_ones_cost_nothing") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = lab(Responses::Embedded);
    let production = Server::start(&lab, Side::Production, Service::Http, true).unwrap();
    let first = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let second = Recorded::start(&lab, 9_090, &["--to=127.0.0.1:28080".to_owned()]);
    // Nobody has the third one's address, and nobody listens at the fourth one's port.
    let to = format!(
        "[\"10.20.0.2:8080\", {{ address = \"{SECOND}:9090\", copies = 2 }}, \"10.20.0.250:8080\", \"{SECOND}:9\"]"
    );
    let mut engine = engine(&lab, &to, Clients::Pool);
    let said = run(&lab, &loads(&lab, 400, 10));

    // The dead ones' turns are lost in the end.
    let report = report_when(&mut engine, 4, |report| {
        report.number("production.turns").unwrap() == said
            && report.number("in_flight.turns").unwrap() == 0
    });
    assert_eq!(report.number("production.sessions").unwrap(), 410);
    for (i, copies) in [(0, 1), (1, 2)] {
        assert_eq!(of(&report, i, "turns"), said);
        assert_eq!(of(&report, i, "replayed"), said * copies);
        assert_eq!(of(&report, i, "replayed_sessions"), 410 * copies);
        assert_eq!(of(&report, i, "latency.target.count"), said * copies);
    }
    for i in [2, 3] {
        assert_eq!((of(&report, i, "replayed"), lost(&report, i)), (0, said));
    }
    assert_eq!(of(&report, 2, "unconfirmed_cores"), 2);
    assert_eq!(of(&report, 3, "unconfirmed_cores"), 0, "it has refused");
    let last = engine.stop().unwrap();
    check_books(&last, 4);
    let production = production.stop().unwrap();
    let (first, second) = (first.stop().unwrap(), second.stop());
    check_byte_exact(&production, &first, Match::Bytes, 1).unwrap();
    check_byte_exact(&production, &second, Match::Bytes, 2).unwrap();
}

#[test]
fn a_slow_target_holds_nobody_up() {
    if skipped("a_slow_target_holds_nobody_up") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = lab(Responses::Remote);
    let production = Server::start(&lab, Side::Production, Service::Http, true).unwrap();
    let first = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let answer = Answer {
        after_ms: 500,
        ..Answer::of(2_000)
    };
    let slow = Recorded::start(&lab, 9_091, &answer.args());
    let intercept = Intercept::start(&lab, &InterceptOptions::default()).unwrap();
    let to = format!("[\"10.20.0.2:8080\", \"{SECOND}:9091\"]");
    let mut engine = engine(&lab, &to, Clients::Own);
    let said = run(&lab, &loads(&lab, 100, 10));

    // Thirty answers in a row take the slow one 15 s.
    let report = report_when(&mut engine, 2, |report| of(report, 0, "replayed") == said);
    assert!(of(&report, 1, "replayed") < said, "{report}");
    let report = report_when(&mut engine, 2, |report| of(report, 1, "replayed") == said);
    let median = |i| of(&report, i, "latency.target.p50_us");
    assert!(median(1) >= 500_000 && median(0) < 250_000, "{report}");
    assert_eq!((lost(&report, 0), lost(&report, 1)), (0, 0), "{report}");
    engine.stop().unwrap();
    intercept.stop().unwrap();
    let production = production.stop().unwrap();
    // Each has the clients' own addresses and ports.
    check_byte_exact(&production, &first.stop().unwrap(), Match::Endpoint, 1).unwrap();
    check_byte_exact(&production, &slow.stop(), Match::Endpoint, 1).unwrap();
}
