//! What a worker does with the control core's requests, over a memory port. The clock that the loop
//! reads once a turn plays the control core.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

use ::tests::memory::{MemoryFrame, MemoryPort, MemoryRx, MemoryTx};
use crossbeam::queue::ArrayQueue;
use engine::egress::Outlet;
use engine::lcore::{self, Orders, RunPhase, Settings};
use engine::worker::{Parcel, ResponseOwner, Ring, Worker};
use replay::{Core, HashBy, Ownership, Params, Transfer};
use std::cell::Cell;
use std::sync::Arc;
use wire::build::{LinkHeader, tcp};
use wire::decode::mirrored;
use wire::head::HeaderBuf;
use wire::host::{Host, HostConfig};
use wire::io::BURST;
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Prefix, Seq};

const MILLISECOND: Nanos = 1_000_000;
const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);

/// A client's payload, as another core hands it over.
fn said(client: u16) -> Parcel<MemoryFrame> {
    let head = Head {
        flow: Flow {
            src: Endpoint::new(Addr::v4([192, 0, 2, 1]), client),
            dst: PRODUCTION,
        },
        seq: Seq(1),
        ack: Seq(1),
        flags: Flags::PSH.with(Flags::ACK),
        window: 1_000,
        urgent: 0,
        options: Options::default(),
        payload_len: 4,
    };
    let link = LinkHeader {
        dst: [2; 6],
        src: [4; 6],
    };
    let mut bytes = HeaderBuf::new();
    tcp(&mut bytes, &link, &head, 64, 1, b"said");
    let bytes = [&bytes[..], b"said"].concat();
    let packet = mirrored(&bytes, bytes.len()).unwrap();
    Parcel::Mirrored(packet, MemoryFrame::new(&bytes))
}

/// The second of two workers, and the ring to it from the first.
fn second_worker() -> (Worker<MemoryRx, MemoryTx>, Ring<MemoryFrame>) {
    let ownership = Ownership {
        cores: 2,
        me: 1,
        by: HashBy::Client,
    };
    let transfers = vec![Transfer::new(PRODUCTION, TARGET)];
    let params = Params {
        ownership,
        start: MILLISECOND,
        ..Params::new(transfers, 1_024, 1_024)
    };
    let host = Host::new(HostConfig {
        mac: [2; 6],
        addresses: vec![Prefix::new(Addr::v4([10, 20, 0, 9]), 24)],
        gateways: Vec::new(),
        next_hop_mac: Some([4; 6]),
        seed: 1,
    });
    let owner = ResponseOwner::new(&params, Vec::new());
    let port = MemoryPort::new(4_096);
    let out = Outlet::new(port.tx, host, [2; 6], vec![TARGET], None, 1);
    let mut worker = Worker::new(1, Core::new(params, MILLISECOND), out, owner);
    let ring = || -> Ring<MemoryFrame> { Arc::new(ArrayQueue::new(1_024)) };
    let from = [ring(), ring()];
    worker.to = vec![ring(), ring()];
    worker.from = from.to_vec();
    let [from_first, _] = from;
    (worker, from_first)
}

#[test]
fn what_was_handed_over_comes_before_the_end_of_all_sessions() {
    let (worker, ring) = second_worker();
    let orders = Orders::new();
    let (step, turns) = (Cell::new(0), Cell::new(0u64));
    // More than one turn of the loop takes over.
    let frames = 3 * BURST as u16;
    let control = || {
        turns.set(turns.get() + 1);
        assert!(turns.get() < 1_000_000, "stuck at step {}", step.get());
        let done = match step.get() {
            0 => {
                (0..frames).for_each(|n| assert!(ring.push(said(1_000 + n)).is_ok()));
                orders.take_over.ask();
                true
            }
            1 => orders.take_over.is_done(),
            2 => {
                assert!(ring.is_empty(), "not all was taken over");
                orders.end_sessions.ask();
                assert!(!orders.end_sessions.is_done());
                true
            }
            3 => orders.end_sessions.is_done(),
            4 => {
                // The next pass begins with the same segment, which begins another session.
                assert!(ring.push(said(1_000)).is_ok());
                orders.take_over.ask();
                true
            }
            5 => orders.take_over.is_done(),
            _ => {
                orders.set(RunPhase::Stop);
                false
            }
        };
        step.set(step.get() + u32::from(done));
        turns.get() * MILLISECOND
    };
    let settings = Settings {
        clock: control,
        pressure: || false,
        rest: None,
        patience: 1_000 * MILLISECOND,
    };
    let worker = lcore::run(worker, None, &orders, settings);
    let c = worker.core.counters();
    assert_eq!(step.get(), 6);
    assert_eq!(c.sessions, u64::from(frames) + 1);
    assert_eq!(worker.counters.taken_over, u64::from(frames) + 1);
    assert!(worker.core.is_drained(), "it ends with nothing left to do");
    c.balance().unwrap();
}
