//! Engines and intercepts in other numbers than one and one, an intercept that dies, and what a
//! link shows to others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use rustix::process::Signal;
use std::net::IpAddr;
use std::time::Duration;
use tests::lab::appliance::{Clients, Engine, EngineOptions, Intercept, InterceptOptions};
use tests::lab::process::{Process, wait_until};
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::traces::run_to_end;
use tests::lab::trial::turns;
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Responses, Span, skipped};
use tests::load::{Summary, Talk, Workload};
use tests::record::{Match, Record, check_byte_exact};

const LIMIT: Duration = Duration::from_secs(30);
const LISTEN: &str = "10.30.0.3:36524";
const SECOND: &str = "10.30.0.3:36525";

/// Servers on both sides, each behind a recorder, in a lab whose responses go to the assistant.
struct Rig {
    services: Vec<(Server, Server)>,
    lab: Lab,
}

impl Rig {
    fn start(second: Option<Span>, services: &[Service]) -> Self {
        let lab = Lab::start(LabOptions {
            responses: Responses::Remote,
            second,
            more_clients: 4,
            ..LabOptions::default()
        })
        .unwrap();
        let start = |side, service| Server::start(&lab, side, service, true).unwrap();
        let services = services
            .iter()
            .map(|s| (start(Side::Production, *s), start(Side::Target, *s)))
            .collect();
        Self { services, lab }
    }

    /// Short connections, connections kept alive, and bodies of several segments. Returns how many
    /// turns they are.
    fn load(&self, family: Family) -> u64 {
        let mut all = 0;
        for (seed, (talk, connections, requests)) in [
            (Talk::Get, 300, 1),
            (Talk::Get, 20, 30),
            (Talk::Post(vec![1461, 50_000]), 10, 2),
        ]
        .into_iter()
        .enumerate()
        {
            let workload = Workload {
                to: Service::Http.on_production(family),
                from: self.lab.client_addresses(family),
                talk,
                connections,
                requests,
                concurrency: 10,
                rate: 400,
                seed: seed as u64 + 1 + 10 * u64::from(family == Family::V6),
            };
            assert_eq!(self.lab.load(&workload).unwrap().first_error, None);
            all += turns(&workload);
        }
        all
    }

    /// Ends the servers, when the target has had as many times production's connections as that.
    /// What each side recorded.
    fn stop(&mut self, times: usize) -> (Vec<Record>, Vec<Record>) {
        let (mut production, mut target) = (Vec::new(), Vec::new());
        for (p, t) in self.services.drain(..) {
            let expected = p.records().unwrap().len() * times;
            t.records_when(expected, Duration::from_secs(10)).unwrap();
            production.extend(p.stop().unwrap());
            target.extend(t.stop().unwrap());
        }
        (production, target)
    }
}

/// The second engine: at the second mirror and replay port, on the other core.
fn second_engine() -> EngineOptions {
    let first = EngineOptions::default();
    EngineOptions {
        name: "engine-b",
        mirror: first.mirror.replace("span0", "span1"),
        port: first.port.replace("replay0", "replay1"),
        edits: vec![
            ("10.20.0.9/", "10.20.0.8/".to_owned()),
            ("lcores = [1]", "lcores = [0]".to_owned()),
        ],
        ..first
    }
}

fn pool(options: EngineOptions, prefix: &str) -> EngineOptions {
    let mut edits = options.edits;
    edits.push(("62.135.200.0/24", prefix.to_owned()));
    EngineOptions { edits, ..options }
}

/// What came from addresses for which this is true.
fn from(records: &[Record], is: impl Fn([u8; 4]) -> bool) -> Vec<Record> {
    let is = |r: &&Record| matches!(r.peer.ip(), IpAddr::V4(a) if is(a.octets()));
    records.iter().filter(is).cloned().collect()
}

fn clean(report: &Report) {
    report.check_books(1).unwrap();
    report.check_nothing_lost().unwrap();
}

/// The engine's links, as its report has them.
fn links(report: &Report) -> Vec<serde_json::Value> {
    report
        .value("intercept.links")
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

fn count(link: &serde_json::Value, key: &str) -> u64 {
    link.get(key).unwrap().as_u64().unwrap()
}

fn two_engines(test: &str, first: EngineOptions, second: EngineOptions) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let own = second.clients == Clients::Own;
    let mut rig = Rig::start(Some(Span::Both), &[Service::Http]);
    let intercept = Intercept::start(&rig.lab, &InterceptOptions::default()).unwrap();
    let mut a = Engine::start(&rig.lab, &first).unwrap();
    let mut b = Engine::start(&rig.lab, &second).unwrap();
    let turns = rig.load(Family::V4);
    a.settle(turns, 1, LIMIT).unwrap();
    b.settle(turns, 1, LIMIT).unwrap();
    let (production, target) = rig.stop(2);
    let reports = [a.stop().unwrap(), b.stop().unwrap()];
    let intercept = intercept.stop().unwrap();

    let ours = from(&target, |a| a[0] == 62 && a[3] < 128);
    let theirs = from(&target, |a| {
        if own {
            a[0] == 10
        } else {
            a[0] == 62 && a[3] >= 128
        }
    });
    assert_eq!(ours.len() + theirs.len(), target.len());
    check_byte_exact(&production, &ours, Match::Bytes, 1).unwrap();
    let mode = if own { Match::Endpoint } else { Match::Bytes };
    check_byte_exact(&production, &theirs, mode, 1).unwrap();
    let mut records = 0;
    for report in &reports {
        clean(report);
        assert_eq!(report.number("production.turns").unwrap(), turns);
        let links = links(report);
        assert_eq!(count(&links[0], "refusals"), 0);
        records += count(&links[0], "records");
    }
    // Each response went to one of the two.
    assert_eq!(intercept.number("records.sent").unwrap(), records);
    assert_eq!(intercept.number("link.claims_refused").unwrap(), 0);
}

#[test]
fn two_engines_with_a_pool_each() {
    two_engines(
        "two_engines_with_a_pool_each",
        pool(EngineOptions::default(), "62.135.200.0/25"),
        pool(second_engine(), "62.135.200.128/25"),
    );
}

#[test]
fn two_engines_one_with_a_pool_one_with_own_addresses() {
    two_engines(
        "two_engines_one_with_a_pool_one_with_own_addresses",
        pool(EngineOptions::default(), "62.135.200.0/25"),
        EngineOptions {
            clients: Clients::Own,
            ..second_engine()
        },
    );
}

#[test]
fn a_pool_that_another_engine_has_is_refused() {
    if skipped("a_pool_that_another_engine_has_is_refused") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Rig::start(Some(Span::Both), &[Service::Http]);
    let intercept = Intercept::start(&rig.lab, &InterceptOptions::default()).unwrap();
    let mut a = Engine::start(&rig.lab, &EngineOptions::default()).unwrap();
    // A part of it is too much already, and a check finds it too.
    for args in [vec![], vec!["--check".to_owned()]] {
        let options = EngineOptions {
            args,
            ..pool(second_engine(), "62.135.200.64/26")
        };
        let command = Engine::command(&rig.lab, &options).unwrap();
        let (code, last) = run_to_end(&rig.lab, Node::Appliance, "engine-run", command).unwrap();
        assert_eq!(code, Some(1), "{last}");
        for word in ["clients.pool", LISTEN, "62.135.200.64/26", "engine"] {
            assert!(last.contains(word), "{word:?} is not in {last:?}");
        }
    }
    // The first engine never noticed.
    let turns = rig.load(Family::V4);
    a.settle(turns, 1, LIMIT).unwrap();
    let (production, target) = rig.stop(1);
    check_byte_exact(&production, &target, Match::Bytes, 1).unwrap();
    clean(&a.stop().unwrap());
    // Its addresses are free as soon as it has ended.
    let b = pool(second_engine(), "62.135.200.64/26");
    Engine::start(&rig.lab, &b).unwrap().stop().unwrap();
    let report = intercept.stop().unwrap();
    // Refused were one claim each time.
    assert_eq!(report.number("link.claims_refused").unwrap(), 2);
}

#[test]
fn own_addresses_that_another_engine_has_are_refused_and_said() {
    if skipped("own_addresses_that_another_engine_has_are_refused_and_said") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Rig::start(Some(Span::Both), &[Service::Http]);
    let intercept = Intercept::start(&rig.lab, &InterceptOptions::default()).unwrap();
    let own = |options| EngineOptions {
        clients: Clients::Own,
        extra: vec![("traffic", "gate_timeout = \"200ms\"".to_owned())],
        ..options
    };
    // Both see the same clients and would speak for them to the same target: who claims a client
    // first has it.
    let engines = [EngineOptions::default(), second_engine()]
        .map(|options| Engine::start(&rig.lab, &own(options)).unwrap());
    rig.load(Family::V4);
    let (production, _target) = rig.stop(1);
    assert_eq!(production.len(), 330);
    let mut refusals = 0;
    for mut engine in engines {
        // What was refused is never answered; it is given up when the engine ends.
        let status = engine.process().terminate(LIMIT).unwrap();
        assert!(status.success(), "{}", engine.process().tail());
        let report = engine.report().unwrap().unwrap();
        report.check_books(1).unwrap();
        let refused = count(&links(&report)[0], "refusals");
        let said = engine
            .process()
            .log()
            .contains("has claimed some of these responses already");
        assert_eq!(said, refused > 0, "{}", engine.process().tail());
        refusals += refused;
    }
    let report = intercept.stop().unwrap();
    assert_eq!(report.number("link.claims_refused").unwrap(), refusals);
    // One of the two at each session, if both had it at the same time.
    assert!(refusals > 100, "{refusals}");
}

/// A service's target routes a prefix of client addresses to an address.
fn route(lab: &Lab, prefix: &str, via: &str) {
    lab.run(
        Node::Target,
        "ip",
        &["route", "replace", prefix, "via", via],
    )
    .unwrap();
}

/// One engine, two intercepts: each gets the responses that the target's routes bring it, and the
/// engine gets them all.
fn two_intercepts(test: &str, clients: Clients, families: &[Family], routes: &[(&str, &str)]) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Rig::start(Some(Span::Both), &[Service::Http]);
    for (prefix, via) in routes {
        route(&rig.lab, prefix, via);
    }
    let intercepts = [InterceptOptions::default(), InterceptOptions::second()]
        .map(|options| Intercept::start(&rig.lab, &options).unwrap());
    let options = EngineOptions {
        clients,
        families: families.to_vec(),
        workers: 2,
        edits: vec![(
            "servers = [\"10.30.0.3:36524\"]",
            format!("servers = [{LISTEN:?}, {SECOND:?}]"),
        )],
        ..EngineOptions::default()
    };
    let mut engine = Engine::start(&rig.lab, &options).unwrap();
    let turns = families.iter().map(|f| rig.load(*f)).sum();
    engine.settle(turns, 1, LIMIT).unwrap();
    let (production, target) = rig.stop(1);
    let report = engine.stop().unwrap();
    let mode = if clients == Clients::Own {
        Match::Endpoint
    } else {
        Match::Bytes
    };
    check_byte_exact(&production, &target, mode, 1).unwrap();
    clean(&report);
    assert_eq!(report.number("production.turns").unwrap(), turns);
    let links = links(&report);
    for (link, intercept) in links.iter().zip(intercepts) {
        let sent = intercept.stop().unwrap().number("records.sent").unwrap();
        assert_eq!(count(link, "records"), sent);
        // A share that is no accident: both carried sessions.
        assert!(sent > turns / 10, "{sent} records of {turns} turns");
    }
}

#[test]
fn one_engine_at_two_intercepts_by_half_of_the_pool() {
    two_intercepts(
        "one_engine_at_two_intercepts_by_half_of_the_pool",
        Clients::Pool,
        &[Family::V4],
        &[("62.135.200.128/25", "10.20.0.4")],
    );
}

#[test]
fn one_engine_at_two_intercepts_by_family() {
    two_intercepts(
        "one_engine_at_two_intercepts_by_family",
        Clients::Own,
        &[Family::V4, Family::V6],
        &[("fd10::/64", "fd20::4")],
    );
}

/// Starts a load beside the test.
fn start_load(lab: &Lab, name: &str, workload: &Workload) -> Process {
    lab.spawn(name, lab.load_command(workload).unwrap())
        .unwrap()
}

/// Waits until it has ended. Production answered all of it.
fn end_load(mut load: Process) -> Summary {
    load.wait(LIMIT).unwrap();
    let log = load.log();
    let line = log.lines().find(|l| l.starts_with('{')).unwrap();
    let summary: Summary = serde_json::from_str(line).unwrap();
    assert_eq!(summary.first_error, None);
    summary
}

/// The intercept dies under load and comes back two seconds later. What was under way is finished,
/// what came meanwhile is shed and counted.
fn outage(test: &str, clients: Clients) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Rig::start(None, &[Service::Http]);
    let mut intercept = Intercept::start(&rig.lab, &InterceptOptions::default()).unwrap();
    // A session that was shed is not joined in its middle here, so that each is either replayed as
    // a whole or not at all.
    let options = EngineOptions {
        clients,
        extra: vec![("traffic", "full_sessions_only = true".to_owned())],
        ..EngineOptions::default()
    };
    let mut engine = Engine::start(&rig.lab, &options).unwrap();
    let base = Workload {
        to: Service::Http.on_production(Family::V4),
        from: rig.lab.client_addresses(Family::V4),
        talk: Talk::Get,
        connections: 1,
        requests: 1,
        concurrency: 10,
        rate: 100,
        seed: 1,
    };
    let short = Workload {
        connections: 900,
        ..base.clone()
    };
    let kept_alive = Workload {
        connections: 10,
        requests: 90,
        seed: 2,
        ..base
    };
    let loads = [
        start_load(&rig.lab, "load-short", &short),
        start_load(&rig.lab, "load-kept", &kept_alive),
    ];
    std::thread::sleep(Duration::from_millis(2000));
    intercept.process().signal(Signal::KILL).unwrap();
    intercept.process().wait(LIMIT).unwrap();
    engine.process().wait_for(LISTEN, LIMIT).unwrap();
    let sheds = |report: &Report| report.number("production.sessions_shed").unwrap() > 0;
    wait_until("new sessions are shed", LIMIT, || {
        Ok(engine.report()?.filter(sheds))
    })
    .unwrap();
    let intercept = Intercept::start(&rig.lab, &InterceptOptions::default()).unwrap();
    let up = |report: &Report| {
        let link = &links(report)[0];
        count(link, "reconnects") == 1 && link.get("up").unwrap().as_bool().unwrap()
    };
    let again = wait_until("the link is up again", LIMIT, || {
        Ok(engine.report()?.filter(up))
    })
    .unwrap();
    let begun = again.number("production.sessions").unwrap();
    let later =
        |report: &Report| report.number("production.sessions").unwrap() > begun && up(report);
    let shed_by_then = wait_until("new sessions are taken on", LIMIT, || {
        Ok(engine.report()?.filter(later))
    })
    .unwrap()
    .number("production.sessions_shed")
    .unwrap();
    for load in loads {
        end_load(load);
    }
    // Two reports, so that the last of the load is in the one that is looked at.
    std::thread::sleep(Duration::from_millis(1200));
    let report = engine.settle(1, 1, LIMIT).unwrap();
    let (sessions, shed) = (
        report.number("production.sessions").unwrap(),
        report.number("production.sessions_shed").unwrap(),
    );
    let target_server = &rig.services[0].1;
    target_server
        .records_when(sessions as usize, Duration::from_secs(10))
        .unwrap();
    let report = engine.stop().unwrap();
    intercept.stop().unwrap();
    let (production, target) = rig.stop(0);

    assert_eq!(production.len(), 910);
    assert_eq!(sessions + shed, 910, "{report}");
    // New ones were shed while there was no link, and all taken on again afterwards.
    assert!(shed > 0 && begun > 10, "{begun} by the outage: {report}");
    assert_eq!(shed, shed_by_then, "shed with the link up: {report}");
    clean(&report);
    assert_eq!(report.number("replayed.sessions").unwrap(), sessions);
    assert_eq!(target.len() as u64, sessions);
    // What the target got, production got, byte for byte; and of the long connections it got every
    // one.
    let same = |a: &Record, b: &Record| {
        a.sha256 == b.sha256 && (clients == Clients::Pool || a.peer == b.peer)
    };
    for record in &target {
        assert!(
            production.iter().any(|p| same(p, record)),
            "nobody sent this in production: {record:?}"
        );
    }
    let long = |r: &&Record| r.bytes > 2_000;
    assert_eq!(production.iter().filter(long).count(), 10);
    for record in production.iter().filter(long) {
        assert_eq!(target.iter().filter(|t| same(t, record)).count(), 1);
    }
}

#[test]
fn a_killed_intercept_costs_new_sessions_alone_with_a_pool() {
    outage(
        "a_killed_intercept_costs_new_sessions_alone_with_a_pool",
        Clients::Pool,
    );
}

#[test]
fn a_killed_intercept_costs_new_sessions_alone_with_own_addresses() {
    outage(
        "a_killed_intercept_costs_new_sessions_alone_with_own_addresses",
        Clients::Own,
    );
}

const KEY: &str = "key_file = \"link.key\"";

/// What crosses the control network while a load is replayed, with the first bytes of each
/// response's payload in its record.
fn on_the_control_network(edits: &[(&'static str, String)]) -> (Vec<u8>, String) {
    let mut rig = Rig::start(None, &[Service::Http]);
    let path = rig.lab.file("link.pcap");
    let mut command = rig.lab.command(Node::Assistant, "tcpdump");
    command.args(["-i", "ctl0", "-s", "0", "-B", "32768", "-U", "-Z", "root"]);
    command.arg("-w").arg(&path);
    let mut tcpdump = rig.lab.spawn("tcpdump", command).unwrap();
    tcpdump.wait_for("listening on", LIMIT).unwrap();
    let intercept = InterceptOptions {
        edits: edits.to_vec(),
        extra: vec![("link", "payload_prefix = 64".to_owned())],
        ..InterceptOptions::default()
    };
    let intercept = Intercept::start(&rig.lab, &intercept).unwrap();
    let options = EngineOptions {
        edits: edits.to_vec(),
        ..EngineOptions::default()
    };
    let mut engine = Engine::start(&rig.lab, &options).unwrap();
    let turns = rig.load(Family::V4);
    engine.settle(turns, 1, LIMIT).unwrap();
    let (production, target) = rig.stop(1);
    let log = engine.process().log();
    clean(&engine.stop().unwrap());
    intercept.stop().unwrap();
    check_byte_exact(&production, &target, Match::Bytes, 1).unwrap();
    tcpdump.terminate(LIMIT).unwrap();
    (std::fs::read(&path).unwrap(), log)
}

fn shows(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|w| w == text)
}

#[test]
fn a_key_hides_what_crosses_the_control_network() {
    if skipped("a_key_hides_what_crosses_the_control_network") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let (open, log) = on_the_control_network(&[(KEY, "insecure = true".to_owned())]);
    assert!(
        log.contains("insecure"),
        "an open link is said at every start:\n{log}"
    );
    // The test can see what there is to be seen.
    assert!(shows(&open, b"HTTP/1.1 200"));
    let (sealed, _) = on_the_control_network(&[]);
    assert!(!shows(&sealed, b"HTTP/1.1 200"));
    // As much went over it as over the open one: records, sealed.
    assert!(sealed.len() > open.len() / 2, "{}", sealed.len());
}
