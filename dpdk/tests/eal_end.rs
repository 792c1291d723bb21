//! The end of the EAL: it is ended once nothing can point into its memory, and never started again.
//! A process of its own.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use common::{frame, options};
use dpdk::{DATA_ROOM, Error, HEADER_ROOM, Mempool, Port, PortOptions};

#[test]
fn handles_may_be_dropped_in_any_order() {
    let eal = options().start().unwrap();
    assert!(eal.version().contains(dpdk::VERSION), "{}", eal.version());
    let left = format!("/var/run/dpdk/dpdk-{}", std::process::id());
    assert!(!std::path::Path::new(&left).exists(), "{left} stays behind");
    let packets = Mempool::new(&eal, "packets", 255, DATA_ROOM, 32, None).unwrap();
    let small = Mempool::new(&eal, "small", 255, HEADER_ROOM, 32, None).unwrap();
    let (port, rx, mut tx) =
        Port::open(&eal, "net_ring0", &PortOptions::default(), &packets, &small).unwrap();
    let mut payload = frame(&packets, b"sent and not received").into_payload(0..21);
    tx[0]
        .send(b"some headers", Some((&mut payload, 0..21)))
        .unwrap();
    tx[0].flush();
    let worker = eal.launch(0, || 7).unwrap();
    // The EAL's and the pools' handles first, what they carry last.
    drop((eal, packets, small));
    assert_eq!(worker.join(), Ok(7));
    drop(rx);
    assert_eq!(payload.bytes(), b"sent and not received");
    drop(payload);
    drop(port);
    drop(tx);
    // Nothing is left, so the EAL has been ended; it does not start twice.
    assert_eq!(options().start().unwrap_err(), Error::AlreadyStarted);
}
