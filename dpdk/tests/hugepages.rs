//! Memory from hugepages, without a hugetlbfs mount. Needs root and some free hugepages; without,
//! the test says so and does nothing.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use arrayvec::ArrayVec;
use dpdk::{DATA_ROOM, EalOptions, HEADER_ROOM, Hugepages, Memory, Mempool, Port, PortOptions};

#[test]
fn pools_and_ports_work_on_hugepages() {
    let before = Hugepages::of_machine();
    if before.free_bytes < 64 << 20 {
        eprintln!("not run: it needs 64 MiB of free hugepages");
        return;
    }
    let eal = EalOptions {
        memory: Memory::Hugepages,
        ..common::options()
    }
    .start()
    .unwrap();
    let packets = Mempool::new(&eal, "packets", 8191, DATA_ROOM, 256, None).unwrap();
    let small = Mempool::new(&eal, "small", 1023, HEADER_ROOM, 64, None).unwrap();
    assert!(
        Hugepages::of_machine().free < before.free,
        "memory comes from hugepages"
    );
    let (port, mut rx, mut tx) =
        Port::open(&eal, "net_ring0", &PortOptions::default(), &packets, &small).unwrap();
    let mut payload = common::frame(&packets, b"payload").into_payload(0..7);
    tx[0]
        .send(b"headers, ", Some((&mut payload, 0..7)))
        .unwrap();
    tx[0].flush();
    let mut got = ArrayVec::new();
    assert_eq!(rx[0].rx_burst(&mut got), 1);
    assert_eq!(got[0].bytes(), b"headers, payload");
    drop((got, payload, rx, tx, port));
    assert_eq!((packets.in_use(), small.in_use()), (0, 0));
}
