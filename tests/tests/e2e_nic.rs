//! The appliance on PCI NICs, in a virtual machine: DPDK's own drivers, VFIO, an IOMMU and
//! hugepages.
//!
//! QEMU emulates the NICs in software, so this shows what a driver and the engine say to each
//! other, and nothing of speed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::Family;
use tests::lab::turn::Turn;
use tests::lab::vm::trial::{Outcome, Setup};
use tests::lab::vm::{Cable, Machine, Memory, Model, Nic};

/// Runs a set-up; `None` if this machine can't.
fn prove(test: &str, setup: &Setup) -> Option<Outcome> {
    let machine = Machine::here(test).unwrap()?;
    let _turn = Turn::take().unwrap();
    let outcome = setup.run(test, &machine);
    Some(outcome.unwrap_or_else(|e| panic!("{test}: {e:#}")))
}

/// Frames, of the mirror and of the target, that came to another core than that of their session.
fn handed_over(outcome: &Outcome) -> u64 {
    let both = ["mirror.handed_over", "intercept.handed_over"];
    let numbers = both.map(|name| outcome.report.number(name));
    numbers
        .map(|n| n.unwrap_or_else(|e| panic!("{e:#}")))
        .iter()
        .sum()
}

/// Both cables were pulled and plugged in again: the report tells it, as the log does.
fn links_came_back(outcome: &Outcome) {
    let ports = outcome.report.value("mirror.ports").unwrap();
    for port in [&ports[0], outcome.report.value("replay_port").unwrap()] {
        assert_eq!(port["link"], "up", "{}", shown(outcome));
        assert_eq!(port["link_changes"], 2, "{}", shown(outcome));
    }
}

/// What a failure shows.
fn shown(outcome: &Outcome) -> String {
    format!("{}\n{}", outcome.report, outcome.log)
}

#[test]
fn igb_gives_each_worker_the_frames_of_its_sessions() {
    let setup = Setup {
        pulls_cables: true,
        ..Setup::of(Model::Igb)
    };
    let test = "igb_gives_each_worker_the_frames_of_its_sessions";
    if let Some(outcome) = prove(test, &setup) {
        assert_eq!(handed_over(&outcome), 0, "{}", shown(&outcome));
        links_came_back(&outcome);
    }
}

#[test]
fn igb_gives_each_worker_the_frames_of_its_ipv6_sessions() {
    let setup = Setup {
        family: Family::V6,
        ..Setup::of(Model::Igb)
    };
    let test = "igb_gives_each_worker_the_frames_of_its_ipv6_sessions";
    if let Some(outcome) = prove(test, &setup) {
        assert_eq!(handed_over(&outcome), 0, "{}", shown(&outcome));
    }
}

#[test]
fn virtio_gives_each_worker_the_frames_of_its_sessions() {
    let test = "virtio_gives_each_worker_the_frames_of_its_sessions";
    if let Some(outcome) = prove(test, &Setup::of(Model::Virtio(2))) {
        assert_eq!(handed_over(&outcome), 0, "{}", shown(&outcome));
    }
}

#[test]
fn without_rss_workers_hand_frames_over() {
    let test = "without_rss_workers_hand_frames_over";
    if let Some(outcome) = prove(test, &Setup::of(Model::E1000e)) {
        assert!(handed_over(&outcome) > 0, "{}", shown(&outcome));
    }
}

/// Its driver offers RSS, and nobody does it.
#[test]
fn vmxnet3_is_found_not_to_spread_flows() {
    let setup = Setup {
        pulls_cables: true,
        ..Setup::of(Model::Vmxnet3)
    };
    if let Some(outcome) = prove("vmxnet3_is_found_not_to_spread_flows", &setup) {
        assert!(handed_over(&outcome) > 0, "{}", shown(&outcome));
        let said = "the NIC does not spread flows as asked";
        assert!(outcome.log.contains(said), "{}", shown(&outcome));
        links_came_back(&outcome);
    }
}

#[test]
fn ports_and_workers_on_two_numa_nodes() {
    let mut setup = Setup::of(Model::Igb);
    setup.vm.memory = Memory::TwoNodes;
    prove("ports_and_workers_on_two_numa_nodes", &setup);
}

#[test]
fn igb_on_a_page_of_a_gibibyte() {
    let mut setup = Setup::of(Model::Igb);
    setup.vm.memory = Memory::Gib1;
    prove("igb_on_a_page_of_a_gibibyte", &setup);
}

#[test]
fn engine_and_intercept_share_a_machine() {
    let mut setup = Setup::of(Model::Igb);
    setup.vm.nics.push(Nic {
        model: Model::Igb,
        cable: Cable::Assistant,
    });
    let Some(outcome) = prove("engine_and_intercept_share_a_machine", &setup) else {
        return;
    };
    assert_eq!(handed_over(&outcome), 0, "{}", shown(&outcome));
    let intercept = outcome.intercept.unwrap();
    let answers = intercept.number("records.sent").unwrap();
    let requests = outcome.report.number("production.turns").unwrap();
    assert!(answers > requests, "{intercept}");
    assert_eq!(intercept.sum("records.dropped").unwrap(), 0, "{intercept}");
}
