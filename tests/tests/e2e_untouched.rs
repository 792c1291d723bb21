//! Production is untouched: neither its server nor its clients ever meet a frame of the appliance,
//! and the mirror port never sends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::appliance::{Clients, EngineOptions};
use tests::lab::capture::{
    Capture, Direction, check_clients_saw_production_alone, check_untouched,
};
use tests::lab::servers::Service;
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::{Family, LabOptions, Node, Responses, skipped};
use tests::load::{Talk, Workload};

fn untouched(test: &str, responses: Responses, clients: Clients, family: Family) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let services = vec![Service::Http, Service::Smtp];
    let options = EngineOptions {
        clients,
        families: vec![family],
        services,
        ..EngineOptions::default()
    };
    let lab = LabOptions {
        responses,
        ..LabOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    let at_production =
        Capture::start(&trial.lab, Node::Production, "eth0", Direction::Both).unwrap();
    let at_client = Capture::start(&trial.lab, Node::Client, "eth0", Direction::Both).unwrap();
    let from_mirror = Capture::start(&trial.lab, Node::Switch, "sp0", Direction::In).unwrap();
    for (service, talk) in [
        (Service::Http, Talk::Get),
        (Service::Http, Talk::Post(vec![1, 20_000])),
        (Service::Smtp, Talk::Smtp),
    ] {
        let workload = Workload {
            to: service.on_production(family),
            from: Vec::new(),
            seed: u64::from(talk == Talk::Get),
            talk,
            connections: 40,
            requests: 3,
            concurrency: 4,
            rate: 300,
        };
        trial.load(&workload).unwrap();
    }
    trial
        .engine()
        .settle(1, 1, std::time::Duration::from_secs(20))
        .unwrap();
    let production = at_production.stop().unwrap();
    let client = at_client.stop().unwrap();
    check_untouched(&trial.lab, &production).unwrap();
    check_untouched(&trial.lab, &client).unwrap();
    check_clients_saw_production_alone(&production, &client, family).unwrap();
    assert_eq!(
        from_mirror.stop().unwrap(),
        [],
        "the mirror port sent something"
    );
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 120);
}

#[test]
fn embedded_with_own_addresses_v4() {
    untouched(
        "embedded_with_own_addresses_v4",
        Responses::Embedded,
        Clients::Own,
        Family::V4,
    );
}

#[test]
fn embedded_with_own_addresses_v6() {
    untouched(
        "embedded_with_own_addresses_v6",
        Responses::Embedded,
        Clients::Own,
        Family::V6,
    );
}

#[test]
fn remote_with_own_addresses_v4() {
    untouched(
        "remote_with_own_addresses_v4",
        Responses::Remote,
        Clients::Own,
        Family::V4,
    );
}

#[test]
fn remote_with_pool_v6() {
    untouched(
        "remote_with_pool_v6",
        Responses::Remote,
        Clients::Pool,
        Family::V6,
    );
}
