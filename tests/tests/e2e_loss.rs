//! A replay network that loses packets costs time, not bytes: the replicas retransmit as any TCP
//! sender does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::appliance::{Clients, EngineOptions};
use tests::lab::servers::Service;
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::{Family, LabOptions, Responses, skipped};
use tests::load::{Talk, Workload};

fn loses(test: &str, percent: u8, responses: Responses, family: Family) {
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
        families: vec![family],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    trial.lab.lose_on_replay_network(percent).unwrap();
    let base = Workload {
        to: Service::Http.on_production(family),
        from: Vec::new(),
        talk: Talk::Get,
        connections: 300,
        requests: 1,
        concurrency: 10,
        rate: 200,
        seed: 1,
    };
    trial.load(&base).unwrap();
    trial
        .load(&Workload {
            connections: 20,
            requests: 50,
            concurrency: 20,
            rate: 500,
            seed: 2,
            ..base.clone()
        })
        .unwrap();
    let bodies = Talk::Post(vec![1461, 100_000]);
    trial
        .load(&Workload {
            talk: bodies,
            connections: 10,
            concurrency: 2,
            rate: 20,
            seed: 3,
            ..base
        })
        .unwrap();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 330);
    let retransmitted = outcome.report.number("replayed.retransmitted").unwrap();
    assert!(
        retransmitted > 0,
        "nothing was lost on the way, so nothing was proved"
    );
}

#[test]
fn one_percent_embedded_v4() {
    loses(
        "one_percent_embedded_v4",
        1,
        Responses::Embedded,
        Family::V4,
    );
}

#[test]
fn five_percent_embedded_v6() {
    loses(
        "five_percent_embedded_v6",
        5,
        Responses::Embedded,
        Family::V6,
    );
}

#[test]
fn five_percent_remote_v4() {
    loses("five_percent_remote_v4", 5, Responses::Remote, Family::V4);
}
