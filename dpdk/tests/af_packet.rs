//! Ports over the kernel's interfaces, in a network namespace that the test makes and that ends
//! with it. Needs root; without, the test says so and does nothing.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use arrayvec::ArrayVec;
use common::{Pool, eal, flatten, frame, headers, pattern};
use dpdk::{
    DATA_ROOM, Eal, Error, HEADER_ROOM, Mbuf, Mempool, MirrorPort, Port, PortOptions, PortStats,
    RxQueue, TxQueue, data_room,
};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::io::BURST;

const INSIDE: &str = "AF_PACKET_TEST_INSIDE";
const SETUP: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; \
    ip link add a0 type veth peer name b0 && ip link set a0 up && ip link set b0 up && ip link set lo up && exec \"$@\"";

#[test]
fn frames_cross_a_veth_pair() {
    if std::env::var_os(INSIDE).is_some() {
        inside();
        return;
    }
    if !Command::new("unshare")
        .args(["--net", "true"])
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("not run: network namespaces need root");
        return;
    }
    let output = Command::new("unshare")
        .args(["--net", "sh", "-ec", SETUP, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "frames_cross_a_veth_pair", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

/// Waits for `n` frames; the kernel may be slow, but not for ever.
fn receive(rx: &mut RxQueue, n: usize) -> Vec<Mbuf> {
    let start = Instant::now();
    let mut all = vec![];
    while all.len() < n {
        let mut burst: ArrayVec<Mbuf, BURST> = ArrayVec::new();
        if rx.rx_burst(&mut burst) == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{} of {n} frames came",
                all.len()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        all.extend(burst);
    }
    all
}

fn is_promiscuous(interface: &str) -> bool {
    let flags = Command::new("ip")
        .args(["-d", "link", "show", interface])
        .output()
        .unwrap()
        .stdout;
    String::from_utf8_lossy(&flags).contains("PROMISC")
}

fn set_promiscuous(interface: &str, on: bool) {
    let on = if on { "on" } else { "off" };
    let status = Command::new("ip")
        .args(["link", "set", interface, "promisc", on])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Frames that find a ring of 32 full are missed, and those in it wait: both are told, as often as
/// one asks.
fn a_ring_that_is_full(eal: &Eal, packets: &Mempool, tx: &mut TxQueue, frame: &[u8]) {
    let device = "net_af_packet0,iface=a0,framecnt=32";
    let (mirror, mut rx) = MirrorPort::open(eal, device, &PortOptions::default(), packets).unwrap();
    assert_eq!(mirror.info().interface.as_deref(), Some("a0"));
    for _ in 0..100 {
        while tx.send(frame, None).is_err() {
            tx.flush();
        }
        tx.flush();
    }
    let all = |s: &PortStats| s.rx_frames + s.rx_missed + s.rx_waiting;
    let start = Instant::now();
    while all(&mirror.stats()) < 100 {
        assert!(start.elapsed() < Duration::from_secs(30), "not all came");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = |s: PortStats| (s.rx_frames, s.rx_missed, s.rx_waiting);
    assert_eq!(told(mirror.stats()), (0, 68, 32));
    receive(&mut rx[0], 32);
    assert_eq!(told(mirror.stats()), (32, 68, 0));
    drop((mirror, rx));

    // Two rings of a port count together.
    let options = PortOptions {
        rx_queues: 2,
        ..PortOptions::default()
    };
    let (mirror, rx) = MirrorPort::open(eal, device, &options, packets).unwrap();
    for _ in 0..100 {
        while tx.send(frame, None).is_err() {
            tx.flush();
        }
        tx.flush();
    }
    while all(&mirror.stats()) < 100 {
        assert!(start.elapsed() < Duration::from_secs(60), "not all came");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (frames, missed, waiting) = told(mirror.stats());
    assert_eq!((frames, missed + waiting), (0, 100));
    assert!(waiting >= 32, "{missed} missed, {waiting} wait");
    drop(rx);
}

/// Frames of 8 kB arrive whole, in a chain of buffers that are smaller than a frame of the ring.
fn long_frames(eal: &Eal, small: &Mempool) {
    for interface in ["a0", "b0"] {
        let status = Command::new("ip")
            .args(["link", "set", interface, "mtu", "9000"])
            .status();
        assert!(status.unwrap().success());
    }
    let ring = "framesz=16384,framecnt=64";
    let [mirror, sender] = ["net_af_packet5,iface=a0", "net_af_packet6,iface=b0"]
        .map(|device| format!("{device},{ring}"));
    let packets = Pool::new(255, data_room(&sender));
    let buffers = Pool::new(255, DATA_ROOM);
    let options = PortOptions::default();
    let (port, mut rx) = MirrorPort::open(eal, &mirror, &options, &buffers).unwrap();
    assert_eq!(port.info().mtu, 9000);
    let (_port, _rx, mut tx) = Port::open(eal, &sender, &options, &packets, small).unwrap();
    let data = pattern(8000, 5);
    let mut payload = frame(&packets, &data).into_payload(0..8000);
    let mut h = headers(1);
    h[0..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 9]);
    tx[0].send(&h, Some((&mut payload, 0..8000))).unwrap();
    tx[0].flush();
    let got = receive(&mut rx[0], 1);
    assert!(got[0].segments() > 1);
    assert_eq!(
        flatten(got.into_iter().next().unwrap()),
        [&h[..], &data[..]].concat()
    );
}

fn inside() {
    let eal = eal();
    let packets = Pool::new(1023, DATA_ROOM);
    let small = Pool::new(1023, HEADER_ROOM);
    let options = PortOptions::default();

    let (mirror, mut from_mirror) =
        MirrorPort::open(&eal, "net_af_packet0,iface=a0", &options, &packets).unwrap();
    assert_eq!(
        (mirror.info().mtu, mirror.info().driver.as_str()),
        (1500, "net_af_packet")
    );
    assert!(is_promiscuous("a0"));
    let (port, mut rx, mut tx) = Port::open(
        &eal,
        "net_af_packet1,iface=b0,framecnt=64",
        &PortOptions {
            tells_sent: true,
            ..options.clone()
        },
        &packets,
        &small,
    )
    .unwrap();
    assert!(port.info().chains && !is_promiscuous("b0"));

    // Headers alone, in place, and as a chain of two.
    let data = pattern(1400, 3);
    let mut payload = frame(&packets, &data).into_payload(0..1400);
    let mut h = headers(1);
    h[0..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 9]);
    tx[0].send(&h, None).unwrap();
    tx[0].send(&h, Some((&mut payload, 0..1400))).unwrap();
    tx[0].send(&h, Some((&mut payload, 700..1400))).unwrap();
    assert_eq!(tx[0].flush(), 3);
    let got: Vec<_> = receive(&mut from_mirror[0], 3)
        .into_iter()
        .map(flatten)
        .collect();
    assert_eq!(
        got,
        [
            h.clone(),
            [&h[..], &data[..]].concat(),
            [&h[..], &data[700..]].concat()
        ]
    );
    assert_eq!(payload.references(), 1, "the driver copies and lets go");
    let c = tx[0].counters();
    assert_eq!((c.header_only, c.in_place, c.indirect), (1, 1, 1));

    // More than the ring of 64 holds, in order, nothing twice.
    let mut received = 0u32;
    let mut sent = 0u32;
    let start = Instant::now();
    while received < 1000 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{received} of {sent} frames came"
        );
        if sent < 1000 {
            let mut h = h.clone();
            h[50..54].copy_from_slice(&sent.to_be_bytes());
            if tx[0].send(&h, None).is_ok() {
                sent += 1;
            }
        }
        tx[0].flush();
        let mut burst = ArrayVec::new();
        from_mirror[0].rx_burst(&mut burst);
        for m in burst {
            assert_eq!(m.bytes()[50..54], received.to_be_bytes());
            received += 1;
        }
    }
    let stats = mirror.stats();
    assert_eq!(
        (stats.rx_frames, stats.rx_missed, stats.rx_waiting),
        (1003, 0, 0)
    );
    let _ = rx[0].rx_burst(&mut ArrayVec::new());

    drop((mirror, from_mirror));
    a_ring_that_is_full(&eal, &packets, &mut tx[0], &h);
    assert!(
        !is_promiscuous("a0"),
        "a port leaves the interface as it was"
    );

    // Somebody else's promiscuous mode is neither ended nor taken away, whatever the port wants for
    // itself.
    set_promiscuous("a0", true);
    for promiscuous in [false, true] {
        let wanted = PortOptions {
            promiscuous,
            ..options.clone()
        };
        let opened =
            Port::open(&eal, "net_af_packet0,iface=a0", &wanted, &packets, &small).unwrap();
        assert!(is_promiscuous("a0"));
        drop(opened);
        assert!(
            is_promiscuous("a0"),
            "a port leaves the interface as it was"
        );
    }
    set_promiscuous("a0", false);

    // What is too long for its place in the ring arrives whole all the same.
    let (_mirror, mut cut) = MirrorPort::open(
        &eal,
        "net_af_packet0,iface=a0,framesz=256",
        &options,
        &packets,
    )
    .unwrap();
    tx[0].send(&h, Some((&mut payload, 0..1000))).unwrap();
    tx[0].flush();
    let whole = receive(&mut cut[0], 1);
    assert_eq!(whole[0].frame_len(), 54 + 1000);
    assert_eq!(whole[0].bytes()[54..], data[..1000]);

    // The kernel's time, by our clock; what the port itself sends is told of if it is a segment
    // with payload.
    let mut bare = h.clone();
    bare[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
    (bare[23], bare[46]) = (6, 0x50);
    bare[16..18].copy_from_slice(&40_u16.to_be_bytes());
    let mut h = bare.clone();
    h[16..18].copy_from_slice(&1040_u16.to_be_bytes());
    let before = eal.clock().now();
    tx[0].send(&bare, None).unwrap();
    tx[0].send(&h, Some((&mut payload, 0..1000))).unwrap();
    tx[0].flush();
    let sent = receive(&mut rx[0], 1);
    let after = eal.clock().now();
    let at = sent[0].captured_at().unwrap();
    assert!((before..=after).contains(&at), "{before} {at} {after}");
    assert!(sent[0].was_sent() && sent[0].bytes()[..54] == h[..]);
    let at = whole[0].captured_at().unwrap();
    assert!(at < before && before - at < 30_000_000_000 && !whole[0].was_sent());
    assert!(
        rx[0].rx_burst(&mut ArrayVec::new()) == 0,
        "one of two has payload"
    );

    receive(&mut cut[0], 2);
    // The kernel takes VLAN tags out, and they are put back, in either way.
    let tagged = [&h[..12], &[0x81, 0x00, 0xa0, 0x2a], &h[12..]].concat();
    for n in [100, 1000] {
        tx[0].send(&tagged, Some((&mut payload, 0..n))).unwrap();
        tx[0].flush();
        let got = receive(&mut cut[0], 1).into_iter().map(flatten).next();
        assert_eq!(got.unwrap(), [&tagged[..], &data[..n]].concat());
    }

    // What the rings cannot send is said before a frame is lost.
    let jumbo = PortOptions {
        mtu: Some(9000),
        ..PortOptions::default()
    };
    let e = Port::open(&eal, "net_af_packet2,iface=a0", &jumbo, &packets, &small).unwrap_err();
    assert!(
        matches!(
            e,
            Error::Option {
                option: "mtu",
                value: 9000,
                ..
            }
        ),
        "{e}"
    );
    let (lo, _queues) =
        MirrorPort::open(&eal, "net_af_packet3,iface=lo", &options, &packets).unwrap();
    assert_eq!(lo.info().mtu, 2048 - 66 - 22);
    let two = PortOptions {
        rx_queues: 2,
        ..PortOptions::default()
    };
    let (_pair, queues) =
        MirrorPort::open(&eal, "net_af_packet4,iface=a0", &two, &packets).unwrap();
    assert_eq!(queues.len(), 2);
    drop((tx, rx, port));
    long_frames(&eal, &small);
}
