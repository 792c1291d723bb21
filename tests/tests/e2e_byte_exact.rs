//! The target receives exactly what the clients sent, in every way the appliance can be set up.
//!
//! One test for each combination of embedded or remote intercept, pool or own client addresses,
//! IPv4 or IPv6, one worker or two; each runs the whole load. They run one after another, as a
//! machine has just so many cores to replay on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::appliance::{Clients, EngineOptions};
use tests::lab::servers::Service;
use tests::lab::trial::{Trial, full_load};
use tests::lab::turn::Turn;
use tests::lab::{Family, LabOptions, Responses, skipped};

fn prove(test: &str, responses: Responses, clients: Clients, family: Family, workers: usize) {
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
        families: vec![family],
        services: Service::ALL.to_vec(),
        workers,
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    for workload in full_load(&trial.lab, family) {
        trial.load(&workload).unwrap();
    }
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 2000 + 50 + 21 + 40 + 20);
}

macro_rules! matrix {
    ($($name:ident: $responses:ident $clients:ident $family:ident $workers:literal;)*) => {$(
        #[test]
        fn $name() {
            prove(stringify!($name), Responses::$responses, Clients::$clients, Family::$family, $workers);
        }
    )*};
}

matrix! {
    embedded_pool_v4_one_worker: Embedded Pool V4 1;
    embedded_pool_v4_two_workers: Embedded Pool V4 2;
    embedded_pool_v6_one_worker: Embedded Pool V6 1;
    embedded_pool_v6_two_workers: Embedded Pool V6 2;
    embedded_own_v4_one_worker: Embedded Own V4 1;
    embedded_own_v4_two_workers: Embedded Own V4 2;
    embedded_own_v6_one_worker: Embedded Own V6 1;
    embedded_own_v6_two_workers: Embedded Own V6 2;
    remote_pool_v4_one_worker: Remote Pool V4 1;
    remote_pool_v4_two_workers: Remote Pool V4 2;
    remote_pool_v6_one_worker: Remote Pool V6 1;
    remote_pool_v6_two_workers: Remote Pool V6 2;
    remote_own_v4_one_worker: Remote Own V4 1;
    remote_own_v4_two_workers: Remote Own V4 2;
    remote_own_v6_one_worker: Remote Own V6 1;
    remote_own_v6_two_workers: Remote Own V6 2;
}
