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

use tests::lab::turn::Turn;
use tests::lab::vm::trial::{Outcome, Setup};
use tests::lab::vm::{Machine, Model};

/// Runs a set-up; `None` if this machine can't.
fn prove(test: &str, setup: &Setup) -> Option<Outcome> {
    let machine = Machine::here(test).unwrap()?;
    let _turn = Turn::take().unwrap();
    let outcome = setup.run(test, &machine);
    Some(outcome.unwrap_or_else(|e| panic!("{test}: {e:#}")))
}

#[test]
fn igb_gives_each_worker_the_frames_of_its_sessions() {
    let Some(outcome) = prove("igb", &Setup::of(Model::Igb)) else {
        return;
    };
    let handed_over = outcome.report.number("mirror.handed_over").unwrap();
    assert_eq!(handed_over, 0, "{}\n{}", outcome.report, outcome.log);
}
