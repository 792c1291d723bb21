//! Ports over files, memory and nothing, and what is said about those that cannot be opened.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use arrayvec::ArrayVec;
use common::{Pool, eal, flatten, frame, headers, pattern, pcap, unique};
use dpdk::{
    DATA_ROOM, Error, HEADER_ROOM, HEADROOM, Mbuf, Mempool, MirrorPort, Port, PortOptions, RxQueue,
};
use wire::io::BURST;

fn mirror_error(device: &str) -> Error {
    let pool = Pool::new(255, DATA_ROOM);
    MirrorPort::open(&eal(), device, &PortOptions::default(), &pool).unwrap_err()
}

/// All that a queue yields until it is empty.
fn read_all(rx: &mut RxQueue) -> Vec<Mbuf> {
    let mut all = vec![];
    loop {
        let mut burst: ArrayVec<Mbuf, BURST> = ArrayVec::new();
        if rx.rx_burst(&mut burst) == 0 {
            return all;
        }
        all.extend(burst);
    }
}

/// The frames of a classic pcap file in this machine's byte order.
fn read_pcap(path: &std::path::Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).unwrap();
    let mut rest = &file[24..];
    let mut frames = vec![];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

#[test]
fn a_capture_file_is_read_with_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    let frames: Vec<_> = (0..100u8)
        .map(|i| {
            (
                1_700_000_000_123_456 + u64::from(i),
                pattern(60 + usize::from(i), i),
            )
        })
        .collect();
    std::fs::write(&path, pcap(&frames)).unwrap();
    let pool = Pool::new(511, DATA_ROOM);
    let device = format!("net_pcap{},rx_pcap={}", unique(), path.display());
    let (port, mut rx) = MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
    assert_eq!(port.info().driver, "net_pcap");
    assert!(port.info().software);
    let got = read_all(&mut rx[0]);
    assert_eq!(got.len(), 100);
    for (m, (micros, bytes)) in got.iter().zip(&frames) {
        assert_eq!(m.bytes(), bytes);
        assert_eq!(m.captured_at(), Some(micros * 1000));
        assert_eq!(m.port(), port.info().number);
    }
    assert_eq!((rx[0].frames(), port.stats().rx_frames), (100, 100));
    assert_eq!(pool.in_use(), 100);
    assert!(
        pool.alloc().unwrap().captured_at().is_none(),
        "a fresh frame was captured at no time"
    );
}

#[test]
fn jumbo_frames_come_chained_and_can_be_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jumbo.pcap");
    let jumbo = pattern(9000, 1);
    std::fs::write(
        &path,
        pcap(&[(1, jumbo.clone()), (2, jumbo.clone()), (3, jumbo.clone())]),
    )
    .unwrap();
    let pool = Pool::new(255, DATA_ROOM);
    let device = format!("net_pcap{},rx_pcap={}", unique(), path.display());
    let (_port, mut rx) =
        MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
    let mut got = read_all(&mut rx[0]).into_iter();
    let (first, mut second, third) = (
        got.next().unwrap(),
        got.next().unwrap(),
        got.next().unwrap(),
    );
    let segments = first.segments();
    assert_eq!((first.frame_len(), segments), (9000, 5));
    assert_eq!(pool.in_use() as usize, 3 * segments);
    assert_eq!(flatten(first), jumbo);
    assert_eq!(pool.in_use() as usize, 2 * segments);

    // Each segment kept for itself.
    let mut rest = second.split_rest();
    let mut kept = vec![second.into_payload(54..usize::MAX)];
    while let Some(mut segment) = rest {
        rest = segment.split_rest();
        kept.push(segment.into_payload(0..usize::MAX));
    }
    let bytes: Vec<u8> = kept.iter().flat_map(|p| p.bytes().to_vec()).collect();
    assert_eq!(bytes, jumbo[54..]);
    drop(kept);

    // Only the first segment is kept, the others are given back.
    let head = third.into_payload(10..100);
    assert_eq!(head.bytes(), &jumbo[10..100]);
    assert_eq!(pool.in_use(), 1);
}

#[test]
fn ranges_outside_the_frame_are_cut() {
    let pool = Pool::new(15, DATA_ROOM);
    let data = pattern(50, 0);
    for (range, expected) in [
        (10..20, 10..20),
        (40..90, 40..50),
        (60..90, 50..50),
        (0..0, 0..0),
        (usize::MAX..usize::MAX, 50..50),
    ] {
        assert_eq!(
            frame(&pool, &data).into_payload(range).bytes(),
            &data[expected]
        );
    }
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = frame(&pool, &data).into_payload(30..10);
    assert!(reversed.is_empty());
}

#[test]
fn mbufs_grow_and_shrink_within_their_buffer() {
    let pool = Pool::new(3, HEADROOM + 100);
    let mut m = pool.alloc().unwrap();
    assert_eq!((m.bytes().len(), m.tailroom()), (0, 100));
    assert!(m.append(&[1; 60]) && !m.append(&[2; 41]) && m.append(&[3; 40]));
    assert_eq!((m.frame_len(), m.tailroom()), (100, 0));
    m.trim_front(50);
    m.bytes_mut().unwrap()[0] = 9;
    assert_eq!(m.bytes()[..11], [9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3]);
    m.trim_front(1000);
    assert_eq!((m.frame_len(), m.bytes().len()), (0, 0));
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((all.len(), pool.avail(), pool.in_use()), (2, 0, 3));
}

#[test]
fn a_capture_file_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcap");
    let (packets, small) = (Pool::new(255, DATA_ROOM), Pool::new(255, HEADER_ROOM));
    let device = format!("net_pcap{},tx_pcap={}", unique(), path.display());
    let (port, rx, mut tx) =
        Port::open(&eal(), &device, &PortOptions::default(), &packets, &small).unwrap();
    let data = pattern(1000, 5);
    let mut payload = frame(&packets, &data).into_payload(0..1000);
    let h = headers(1);
    // Alone, in place, and as a chain.
    tx[0].send(&h, None).unwrap();
    tx[0].send(&h, Some((&mut payload, 0..1000))).unwrap();
    tx[0].send(&h, Some((&mut payload, 300..600))).unwrap();
    assert_eq!(tx[0].flush(), 3);
    assert_eq!(payload.references(), 1);
    drop((port, rx, tx));
    assert_eq!(
        read_pcap(&path),
        [
            h.clone(),
            [&h[..], &data[..]].concat(),
            [&h[..], &data[300..600]].concat()
        ]
    );
}

#[test]
fn nothing_yields_and_takes_everything() {
    let (packets, small) = (Pool::new(255, DATA_ROOM), Pool::new(255, HEADER_ROOM));
    let device = format!("net_null{},size=60", unique());
    let (port, mut rx, mut tx) =
        Port::open(&eal(), &device, &PortOptions::default(), &packets, &small).unwrap();
    let mut burst = ArrayVec::new();
    assert_eq!(rx[0].rx_burst(&mut burst), BURST);
    assert_eq!(rx[0].rx_burst(&mut burst), 0, "no room");
    assert_eq!(burst[0].frame_len(), 60);
    assert_eq!(tx[0].tx_burst(&mut burst), BURST);
    assert!(burst.is_empty());
    let mut payload = frame(&packets, &pattern(100, 0)).into_payload(0..100);
    let _other = payload.share();
    tx[0]
        .send(&headers(0), Some((&mut payload, 0..100)))
        .unwrap();
    assert_eq!(tx[0].flush(), 1);
    assert_eq!(port.stats().tx_frames, 33);
    assert!(port.is_link_up());
}

#[test]
fn mirror_ports_of_all_software_drivers_need_no_transmit_queue() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    std::fs::write(&path, pcap(&[])).unwrap();
    let pool = Pool::new(255, DATA_ROOM);
    for device in [
        format!("net_null{}", unique()),
        format!("net_ring{}", unique()),
        format!("net_pcap{},rx_pcap={}", unique(), path.display()),
    ] {
        let (port, rx) = MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
        assert_eq!(rx.len(), 1, "{device}");
        assert!(port.info().name.starts_with("net_"));
    }
}

#[test]
fn a_device_is_gone_with_its_last_handle_and_can_be_made_again() {
    let pool = Pool::new(255, DATA_ROOM);
    let device = format!("net_null{}", unique());
    for _ in 0..3 {
        let (port, mut rx) =
            MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
        drop(port);
        let mut burst = ArrayVec::new();
        assert_eq!(
            rx[0].rx_burst(&mut burst),
            BURST,
            "a queue keeps its port open"
        );
        let again = MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap_err();
        assert!(matches!(again, Error::Duplicate { .. }), "{again}");
    }
}

#[test]
fn a_failed_set_up_leaves_no_device_behind() {
    let pool = Pool::new(255, DATA_ROOM);
    let device = format!("net_null{}", unique());
    let headers = Pool::new(63, HEADER_ROOM);
    let options = PortOptions {
        tx_queues: 5000,
        ..PortOptions::default()
    };
    let Err(e) = Port::open(&eal(), &device, &options, &pool, &headers) else {
        panic!("it has no 5000 queues");
    };
    let e = e.to_string();
    assert!(
        e.starts_with(&format!("port {device}: each of the 5000 workers needs a"))
            && e.contains("at most 1024 CPUs in eal.lcores"),
        "{e}"
    );
    let options = PortOptions {
        rx_queues: 0,
        ..PortOptions::default()
    };
    assert!(MirrorPort::open(&eal(), &device, &options, &pool).is_err());
    MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();
}

#[test]
fn errors_name_what_is_missing() {
    let text = |device: &str| mirror_error(device).to_string();
    let e = text("net_af_packet90,iface=span9");
    assert!(
        e.starts_with("mirror port net_af_packet90: no interface \"span9\""),
        "{e}"
    );
    let e = text("net_pcap90,rx_pcap=/nosuch/a.pcap");
    assert!(
        e.contains("\"/nosuch/a.pcap\" cannot be opened: No such file"),
        "{e}"
    );
    let e = text("net_nosuchdriver0");
    assert!(
        e.starts_with("mirror port net_nosuchdriver0: no driver has this name"),
        "{e}"
    );
    let e = text("0000:99:00.0");
    assert!(e.contains("DPDK has not made a port of it"), "{e}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.pcap");
    std::fs::write(&path, "this is no capture").unwrap();
    let e = text(&format!("net_pcap91,rx_pcap={}", path.display()));
    assert!(
        e.starts_with("mirror port net_pcap91: making the virtual device failed"),
        "{e}"
    );
    println!("{e}");
}

#[test]
fn a_device_with_fewer_queues_is_opened_with_those_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    std::fs::write(&path, pcap(&[])).unwrap();
    let pool = Pool::new(255, DATA_ROOM);
    let device = format!("net_pcap{},rx_pcap={}", unique(), path.display());
    let options = PortOptions {
        rx_queues: 3,
        cores: 3,
        rss: true,
        ..PortOptions::default()
    };
    let (port, rx) = MirrorPort::open(&eal(), &device, &options, &pool).unwrap();
    assert_eq!((port.info().rx_queues, rx.len()), (1, 1));
    assert!(!port.info().rss);
}

#[test]
fn pools_say_why_they_cannot_be_made() {
    let eal = eal();
    let fails = |name: &str, count, room, cache| {
        Mempool::new(&eal, name, count, room, cache, None)
            .unwrap_err()
            .to_string()
    };
    assert!(fails("", 10, DATA_ROOM, 0).contains("1 to 25 characters"));
    assert!(fails("a\0b", 10, DATA_ROOM, 0).contains("NUL"));
    assert!(fails("x", 0, DATA_ROOM, 0).contains("at least one"));
    assert!(fails("x", 10, 5, 0).contains("headroom"));
    assert!(fails("x", 10, DATA_ROOM, 9).contains("too large"));
    let much = fails("x", 10_000_000, DATA_ROOM, 0);
    assert!(
        much.contains("Cannot allocate memory") && much.contains("it takes 22584 MiB"),
        "{much}"
    );
    let first = Mempool::new(&eal, "same", 10, DATA_ROOM, 0, None).unwrap();
    assert!(fails("same", 10, DATA_ROOM, 0).contains("exists"));
    drop(first);
    Mempool::new(&eal, "same", 10, DATA_ROOM, 0, None).unwrap();
}

#[test]
fn an_mbuf_outlives_its_pool() {
    let pool = Mempool::new(&eal(), &format!("late{}", unique()), 15, DATA_ROOM, 0, None).unwrap();
    let m = frame(&pool, b"still here");
    let p = frame(&pool, b"and here").into_payload(0..8);
    drop(pool);
    assert_eq!(
        (m.bytes(), p.bytes()),
        (&b"still here"[..], &b"and here"[..])
    );
}
