//! Which sessions are replayed and how often, from how much of a mirror, and that the books balance
//! while it goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use std::collections::BTreeSet;
use std::time::Duration;
use tests::lab::appliance::{Clients, Engine, EngineOptions};
use tests::lab::servers::{Server, Service, Side};
use tests::lab::trial::{Outcome, Trial, turns};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Responses, Span, skipped};
use tests::load::{Talk, Workload};
use tests::record::Record;

const LIMIT: Duration = Duration::from_secs(30);

fn workload(lab: &Lab, service: Service, family: Family, talk: Talk) -> Workload {
    Workload {
        to: service.on_production(family),
        from: lab.client_addresses(family),
        talk,
        connections: 200,
        requests: 1,
        concurrency: 10,
        rate: 300,
        seed: 1,
    }
}

/// Short HTTP connections, and some that are kept alive.
fn http(lab: &Lab, family: Family) -> [Workload; 2] {
    let short = workload(lab, Service::Http, family, Talk::Get);
    let kept_alive = Workload {
        connections: 10,
        requests: 30,
        seed: 2,
        ..short.clone()
    };
    [short, kept_alive]
}

/// Runs the HTTP load of all families. Returns how many turns it is.
fn run_http(trial: &mut Trial, families: &[Family]) -> u64 {
    let mut all = 0;
    for family in families {
        for workload in http(&trial.lab, *family) {
            trial.load(&workload).unwrap();
            all += turns(&workload);
        }
    }
    all
}

/// Every session exactly as often as asked for, each byte for byte.
fn copies(test: &str, responses: Responses, clients: Clients) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = LabOptions {
        responses,
        more_clients: 4,
        ..LabOptions::default()
    };
    let options = EngineOptions {
        clients,
        copies: 3,
        workers: 2,
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    let turns = run_http(&mut trial, &[Family::V4]);
    let Outcome { report, .. } = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(report.number("production.sessions").unwrap(), 210);
    assert_eq!(report.number("replayed.sessions").unwrap(), 3 * 210);
    assert_eq!(report.number("production.turns").unwrap(), turns);
    assert_eq!(report.number("replayed.turns").unwrap(), 3 * turns);
}

#[test]
fn three_copies_embedded_with_a_pool() {
    copies(
        "three_copies_embedded_with_a_pool",
        Responses::Embedded,
        Clients::Pool,
    );
}

#[test]
fn three_copies_embedded_with_own_addresses() {
    copies(
        "three_copies_embedded_with_own_addresses",
        Responses::Embedded,
        Clients::Own,
    );
}

#[test]
fn three_copies_remote_with_own_addresses() {
    copies(
        "three_copies_remote_with_own_addresses",
        Responses::Remote,
        Clients::Own,
    );
}

/// What was said on each connection. No two of a load are the same.
fn said(records: &[Record]) -> BTreeSet<String> {
    let all: BTreeSet<_> = records.iter().map(|r| r.sha256.clone()).collect();
    assert_eq!(all.len(), records.len(), "two connections said the same");
    all
}

#[test]
fn a_share_of_the_sessions_is_the_same_for_every_engine() {
    if skipped("a_share_of_the_sessions_is_the_same_for_every_engine") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        second: Some(Span::Both),
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    // Each engine is where its own half of the pool is routed to.
    for (half, via) in [
        ("62.135.200.0/25", "10.20.0.9"),
        ("62.135.200.128/25", "10.20.0.8"),
    ] {
        lab.run(Node::Target, "ip", &["route", "replace", half, "via", via])
            .unwrap();
    }
    let production = Server::start(&lab, Side::Production, Service::Http, true).unwrap();
    let target = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let first = EngineOptions {
        percent: 50,
        edits: vec![("62.135.200.0/24", "62.135.200.0/25".to_owned())],
        ..EngineOptions::default()
    };
    let second = EngineOptions {
        name: "engine-b",
        mirror: first.mirror.replace("span0", "span1"),
        port: first.port.replace("replay0", "replay1"),
        edits: vec![
            ("62.135.200.0/24", "62.135.200.128/25".to_owned()),
            ("10.20.0.9/", "10.20.0.8/".to_owned()),
        ],
        // Another number of workers, too: the choice has nothing to do with who works.
        workers: 2,
        ..first.clone()
    };
    let mut engines = [&first, &second].map(|options| Engine::start(&lab, options).unwrap());
    for w in http(&lab, Family::V4) {
        assert_eq!(lab.load(&w).unwrap().first_error, None);
    }
    for engine in &mut engines {
        engine.settle(1, 1, LIMIT).unwrap();
    }
    // What was under way when the reports settled is over when the engines are.
    let reports = engines.map(|engine| engine.stop().unwrap());
    let (production, target) = (production.stop().unwrap(), target.stop().unwrap());
    let by = |upper: bool| {
        let mine = |r: &&Record| match r.peer.ip() {
            std::net::IpAddr::V4(a) => (a.octets()[3] >= 128) == upper,
            std::net::IpAddr::V6(_) => false,
        };
        target.iter().filter(mine).cloned().collect::<Vec<_>>()
    };
    let (all, a, b) = (said(&production), said(&by(false)), said(&by(true)));
    assert_eq!(all.len(), 210);
    assert_eq!(a, b, "the engines chose different sessions");
    assert!(a.is_subset(&all), "the target was told what nobody said");
    // 105 on average, with a standard deviation of 7.
    assert!((70..=140).contains(&a.len()), "{} of 210", a.len());
    for report in &reports {
        report.check_books(1).unwrap();
        report.check_nothing_lost().unwrap();
        let replayed = report.number("replayed.sessions").unwrap();
        assert_eq!(replayed, a.len() as u64);
        // Each of the others has its frames counted: nothing of a session is chosen later.
        let others = 210 - replayed;
        let frames = report.number("mirror.dropped.not_selected").unwrap();
        assert!(frames >= others * 3, "{frames} frames of {others} sessions");
    }
}

#[test]
fn one_direction_of_the_mirror_is_enough() {
    if skipped("one_direction_of_the_mirror_is_enough") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut outcomes = Vec::new();
    for span in [Span::Both, Span::ClientToServer] {
        let lab = LabOptions {
            span,
            ..LabOptions::default()
        };
        let options = EngineOptions {
            services: Service::ALL.to_vec(),
            ..EngineOptions::default()
        };
        let mut trial = Trial::start(lab, options).unwrap();
        let redis = Talk::Redis {
            pipeline: 8,
            value: 100,
        };
        for (service, talk, connections, requests) in [
            (Service::Http, Talk::Get, 20, 30),
            (Service::Http, Talk::Post(vec![1, 30_000]), 10, 4),
            (Service::Redis, redis, 10, 80),
            (Service::Smtp, Talk::Smtp, 15, 2),
        ] {
            let w = Workload {
                connections,
                requests,
                ..workload(&trial.lab, service, Family::V4, talk)
            };
            trial.load(&w).unwrap();
        }
        let outcome = trial.finish().unwrap_or_else(|e| panic!("{span:?}: {e:#}"));
        assert_eq!(outcome.connections, 55);
        outcomes.push(outcome.report);
    }
    let turns: Vec<u64> = outcomes
        .iter()
        .map(|r| r.number("production.turns").unwrap())
        .collect();
    // HTTP 30 × 20 and 4 × 10, redis 10 × 10, SMTP 10 × 15: EHLO, twice MAIL, RCPT, DATA and the
    // text, QUIT. The clients' own acknowledgments say so, whether or not the server's words
    // are seen.
    assert_eq!(turns, [600 + 40 + 100 + 150; 2]);
    let frames = |i: usize| outcomes[i].number("mirror.frames").unwrap();
    assert!(frames(1) * 4 < frames(0) * 3, "one direction was mirrored");
}

#[test]
fn books_balance_in_every_report() {
    if skipped("books_balance_in_every_report") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let options = EngineOptions {
        copies: 2,
        workers: 2,
        edits: vec![("interval = \"500ms\"", "interval = \"200ms\"".to_owned())],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    let short = workload(&trial.lab, Service::Http, Family::V4, Talk::Get);
    let loads = [
        Workload {
            connections: 1200,
            ..short.clone()
        },
        Workload {
            connections: 10,
            requests: 120,
            seed: 2,
            ..short.clone()
        },
        Workload {
            talk: Talk::Post(vec![200_000]),
            connections: 20,
            rate: 10,
            seed: 3,
            ..short
        },
    ];
    // A report replaces the one before at once, so each read is of a whole one.
    let path = trial.lab.file("report.json");
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen: Vec<(f64, u64, u64)> = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let report = tests::lab::report::Report::read(&path).unwrap();
                let elapsed = report.value("elapsed_s").unwrap().as_f64().unwrap();
                if seen.last().is_none_or(|last| last.0 != elapsed) {
                    report.check_books(2).unwrap();
                    seen.push((
                        elapsed,
                        report.number("production.turns").unwrap(),
                        report.number("in_flight.turns").unwrap(),
                    ));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            seen
        });
        for w in &loads {
            trial.load(w).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap()
    });
    // Looked at while the load ran, one by one, and nothing that grows ever shrank.
    let busy = seen.windows(2).filter(|w| w[0].1 < w[1].1).count();
    assert!(busy >= 15, "{busy} of {} reports under load", seen.len());
    assert!(
        seen.iter().any(|r| r.2 > 0),
        "no report caught a turn in flight"
    );
    assert!(seen.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
    let report = trial.finish().unwrap().report;
    // One request, one turn: no more, or turns were cut too finely, and no less.
    assert_eq!(report.number("production.turns").unwrap(), 1200 + 1200 + 20);
    assert_eq!(report.number("production.sessions").unwrap(), 1230);
}
