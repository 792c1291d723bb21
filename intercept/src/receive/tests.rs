//! The loop of a receive core over a port in memory: every frame is counted once, records reach
//! their route, neighbours are answered.

use super::*;
use crate::claims::Route;
use crate::rings::{Batch, ServerEnd, rings};
use ::tests::memory::{MemoryPort, MemoryRx, MemoryTx, MemoryWire};
use link::{Claim, Record};
use wake::Sleeper;
use wire::build::{self, LinkHeader};
use wire::head::HeaderBuf;
use wire::host::HostConfig;
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Prefix, Seq, Skip};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const TARGET_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 80);
const MS: Nanos = 1_000_000;

struct Rig {
    worker: ReceiveCore<MemoryRx, MemoryTx>,
    wire: MemoryWire,
    server: ServerEnd,
    _sleeper: Sleeper,
}

fn rig(payload_prefix: u16, batches: usize) -> Rig {
    let port = MemoryPort::new(20_000);
    let (waker, sleeper) = wake::pair().unwrap();
    let (out, server) = rings(batches, waker.clone(), waker);
    let own = vec![Prefix::new(Addr::v4([10, 20, 0, 3]), 24)];
    let host = Host::new(HostConfig {
        mac: MAC,
        addresses: own.clone(),
        gateways: vec![],
        next_hop_mac: None,
        seed: 1,
    });
    let worker = ReceiveCore::new(Parts {
        rx: port.rx,
        tx: port.tx,
        host,
        claims: Claims::new(1000, 10, own, 1),
        out,
        payload_prefix,
        published: Arc::default(),
        seed: 1,
    });
    Rig {
        worker,
        wire: port.wire,
        server,
        _sleeper: sleeper,
    }
}

impl Rig {
    fn claim(&self, claim: Claim, connection: u32) {
        self.server
            .command(Command::Claim(claim, connection))
            .unwrap();
    }

    /// Steps until everything on the wire is read.
    fn settle(&mut self, now: Nanos) {
        loop {
            self.worker.step(now);
            if self.wire.unread() == 0 {
                break;
            }
        }
        assert_eq!(
            self.worker.counters().accounted(),
            self.worker.counters().frames
        );
    }

    fn batch(&self) -> Option<(Route, u16, Vec<Record>)> {
        let batch = self.server.batch()?;
        let records = records(&batch);
        let result = (batch.route, batch.records, records);
        self.server.give_back(batch);
        Some(result)
    }
}

/// What an engine reads from a batch.
fn records(batch: &Batch) -> Vec<Record> {
    let settings = |role| link::Settings {
        role,
        name: String::new(),
        instance: 0,
        payload_prefix: 0,
        key: None,
    };
    let mut engine = link::Connection::new(settings(link::Role::Engine), 0);
    let mut intercept = link::Connection::new(settings(link::Role::Intercept), 0);
    intercept.receive(engine.output(), 0).unwrap();
    engine.consume(usize::MAX);
    intercept
        .send_records(batch.route.owner, usize::from(batch.records), &batch.bytes)
        .unwrap();
    engine.receive(intercept.output(), 0).unwrap();
    match engine.next_message() {
        Some(link::Message::Responses { owner, records }) => {
            assert_eq!(
                (owner, records.len()),
                (batch.route.owner, usize::from(batch.records))
            );
            records
        }
        other => panic!("expected responses, got {other:?}"),
    }
}

fn client(port: u16) -> Endpoint {
    Endpoint::new(Addr::v4([62, 135, 200, 7]), port)
}

fn head(port: u16, payload: &[u8]) -> Head {
    Head {
        flow: Flow {
            src: TARGET,
            dst: client(port),
        },
        seq: Seq(1000),
        ack: Seq(2000),
        flags: Flags::ACK.with(Flags::PSH),
        window: 501,
        urgent: 0,
        options: Options {
            timestamps: Some((3, 4)),
            ..Options::default()
        },
        payload_len: payload.len() as u32,
    }
}

fn segment(head: &Head, payload: &[u8]) -> Vec<u8> {
    let mut out = HeaderBuf::new();
    let link = LinkHeader {
        dst: MAC,
        src: TARGET_MAC,
    };
    build::tcp(&mut out, &link, head, 64, 1, payload);
    [&out, payload].concat()
}

fn arp_request(asked: [u8; 4]) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend_from_slice(&TARGET_MAC);
    f.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    f.extend_from_slice(&TARGET_MAC);
    f.extend_from_slice(&[10, 20, 0, 2, 0, 0, 0, 0, 0, 0]);
    f.extend_from_slice(&asked);
    f
}

fn ping(len: usize) -> Vec<u8> {
    let total = (28 + len) as u16;
    let mut ip = vec![
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, 1, 0, 0, 10, 20, 0, 2, 10, 20, 0, 3,
    ];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = wire::checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1];
    icmp.extend((0..len).map(|n| n as u8));
    let sum = wire::checksum::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    [&MAC[..], &TARGET_MAC, &[8, 0], &ip, &icmp].concat()
}

#[test]
fn a_claimed_response_becomes_a_record_with_its_prefix() {
    let mut rig = rig(8, 8);
    let head = head(1000, b"HTTP/1.1 200 OK");
    rig.claim(Claim::exact(client(1000), TARGET, 3), 7);
    rig.wire.push_bytes(&segment(&head, b"HTTP/1.1 200 OK"));
    rig.settle(5 * MS);
    let (route, _, records) = rig.batch().unwrap();
    assert_eq!(
        route,
        Route {
            connection: 7,
            owner: 3
        }
    );
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.head, record.received_at, &*record.prefix),
        (head, 5 * MS, &b"HTTP/1.1"[..])
    );
    let c = *rig.worker.counters();
    assert_eq!((c.frames, c.records, c.pending), (1, 1, 0));
    assert!(rig.wire.pop().is_none(), "nothing is ever forwarded");
}

#[test]
fn a_response_before_its_claim_waits_and_one_without_is_counted() {
    let mut rig = rig(0, 8);
    rig.wire.push_bytes(&segment(&head(1, b"a"), b"a"));
    rig.wire.push_bytes(&segment(&head(2, b"b"), b"b"));
    rig.settle(10 * MS);
    assert_eq!(rig.worker.counters().pending, 2);
    rig.claim(Claim::exact(client(1), TARGET, 0), 1);
    rig.settle(20 * MS);
    let (_, _, records) = rig.batch().unwrap();
    assert_eq!(records[0].head.flow.dst, client(1));
    assert_eq!(
        records[0].received_at,
        10 * MS,
        "the time it came, not the time it was claimed"
    );
    rig.settle(10 * MS + PENDING_WAIT);
    let c = *rig.worker.counters();
    assert_eq!(
        (c.records, c.dropped(Unsent::Unclaimed), c.pending),
        (1, 1, 0)
    );
    rig.server
        .command(Command::Release(Claim::exact(client(1), TARGET, 0), 1))
        .unwrap();
    rig.settle(100 * MS);
    rig.wire.push_bytes(&segment(&head(1, b""), b""));
    rig.settle(200 * MS);
    assert_eq!(
        rig.worker.counters().pending,
        1,
        "released: nobody's any more"
    );
    assert!(rig.batch().is_none());
    assert_eq!(
        rig.worker.finish(201 * MS).dropped(Unsent::Unclaimed),
        2,
        "what waits at the end is counted too"
    );
}

#[test]
fn more_than_waits_and_more_than_the_server_takes_is_counted() {
    let mut rig = rig(0, 2);
    for port in 0..PENDING_ROOM as u16 + 10 {
        rig.wire.push_bytes(&segment(&head(port, b""), b""));
    }
    rig.settle(MS);
    let c = *rig.worker.counters();
    assert_eq!(
        (c.pending, c.dropped(Unsent::PendingFull)),
        (u64::from(PENDING_ROOM), 10)
    );
    let everybody = Claim {
        ports: 0..=u16::MAX,
        ..Claim::exact(client(0), TARGET, 0)
    };
    rig.claim(everybody, 1);
    for _ in 0..100 {
        rig.wire.push_bytes(&segment(&head(1, b""), b""));
    }
    rig.settle(2 * MS);
    let c = rig.worker.finish(3 * MS);
    assert!(c.dropped(Unsent::RingFull) > 0 && c.records > 0);
    assert_eq!((c.accounted(), c.pending), (c.frames, 0));
    let mut batched = 0;
    while let Some(batch) = rig.server.batch() {
        batched += u64::from(batch.records);
    }
    assert_eq!(batched, c.records);
}

#[test]
fn what_is_no_response_is_counted_by_reason() {
    let mut rig = rig(0, 2);
    rig.wire.push_bytes(&[1, 2, 3]);
    let mut udp = segment(&head(1, b""), b"");
    udp[23] = 17;
    rig.wire.push_bytes(&udp);
    let lldp = [
        &[1, 0x80, 0xc2, 0, 0, 0xe][..],
        &TARGET_MAC,
        &[0x88, 0xcc],
        &[0; 46],
    ]
    .concat();
    rig.wire.push_bytes(&lldp);
    rig.settle(MS);
    let c = *rig.worker.counters();
    let by = |s: Skip| c.skipped[s as usize];
    assert_eq!(
        (by(Skip::TooShort), by(Skip::NotTcp), by(Skip::NotIp)),
        (1, 1, 1)
    );
    assert_eq!(c.frames, 3);
}

#[test]
fn neighbours_are_answered_for_our_addresses_and_for_claimed_ones_on_our_wire() {
    let mut rig = rig(0, 2);
    let ask = |rig: &mut Rig, addr| {
        rig.wire.push_bytes(&arp_request(addr));
        rig.settle(MS);
        rig.wire.drain()
    };
    let own = ask(&mut rig, [10, 20, 0, 3]);
    assert_eq!(own.len(), 1);
    let reply = own[0].to_vec();
    assert_eq!(
        (&reply[..6], &reply[22..28], &reply[28..32]),
        (&TARGET_MAC[..], &MAC[..], &[10, 20, 0, 3][..])
    );
    assert!(ask(&mut rig, [10, 20, 0, 77]).is_empty());
    rig.claim(
        Claim::exact(Endpoint::new(Addr::v4([10, 20, 0, 77]), 1), TARGET, 0),
        1,
    );
    rig.settle(MS);
    assert_eq!(ask(&mut rig, [10, 20, 0, 77]).len(), 1);
    let c = *rig.worker.counters();
    assert_eq!((c.control, c.replies, c.frames), (3, 2, 3));
}

#[test]
fn a_ping_of_any_size_comes_back_whole() {
    let mut rig = rig(0, 2);
    for len in [0, 56, 80, 81, 500, 1472] {
        let request = ping(len);
        rig.wire.push_bytes(&request);
        rig.settle(MS);
        let sent = rig.wire.drain();
        assert_eq!(sent.len(), 1, "ping of {len} bytes");
        let reply = sent[0].to_vec();
        assert_eq!(reply.len(), request.len());
        assert_eq!((&reply[..6], reply[34]), (&TARGET_MAC[..], 0));
        assert_eq!(reply[42..], request[42..], "the echo data of {len} bytes");
        assert_eq!(wire::checksum::checksum(&reply[34..]), 0);
    }
    assert_eq!(rig.worker.counters().replies, 6);
    rig.wire.set_buffers(0);
    rig.wire.push_bytes(&ping(5));
    rig.settle(MS);
    assert_eq!(rig.worker.counters().replies_failed, 1);
}

/// A router's word that a segment of ours was longer than `mtu`, to the client that it was from.
fn too_big(port: u16, mtu: u16) -> Vec<u8> {
    let mut ours = head(port, b"");
    ours.flow = ours.flow.reversed();
    let quoted = &segment(&ours, b"")[14..];
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(quoted);
    let sum = wire::checksum::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let router = Addr::v4([10, 20, 0, 1]);
    let ip = wire::ipv4::header(&router, &client(port).addr, 1, 64, 1, icmp.len());
    [&MAC[..], &TARGET_MAC, &[8, 0], &ip, &icmp].concat()
}

#[test]
fn a_router_s_word_about_the_path_reaches_the_engine_that_sent_the_segment() {
    let mut rig = rig(0, 1);
    rig.claim(Claim::exact(client(1000), TARGET, 3), 7);
    rig.wire.push_bytes(&too_big(1000, 1300));
    rig.wire.push_bytes(&too_big(1001, 1300));
    rig.settle(5 * MS);
    let batch = rig.server.batch().unwrap();
    let records = records(&batch);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((batch.route.connection, batch.route.owner), (7, 3));
    assert_eq!(record.path_mtu, Some(1300));
    assert_eq!(record.head.flow, head(1000, b"").flow);
    // While the server has the only buffer it cannot be told: no response is lost by that.
    rig.wire.push_bytes(&too_big(1000, 1200));
    rig.settle(5 * MS);
    let c = *rig.worker.counters();
    assert_eq!((c.control, c.path_mtu, c.records), (3, 1, 0));
    assert_eq!(c.dropped(Unsent::RingFull), 0);
}

#[test]
fn the_loop_ends_when_told_and_hands_everything_on() {
    let rig = rig(0, 64);
    rig.claim(Claim::exact(client(1), TARGET, 0), 1);
    for _ in 0..1000 {
        rig.wire.push_bytes(&segment(&head(1, b"x"), b"x"));
    }
    let stop = AtomicBool::new(false);
    let (worker, wire) = (rig.worker, rig.wire);
    let published = Arc::clone(&worker.parts.published);
    let counters = std::thread::scope(|s| {
        let core = s.spawn(|| worker.run(&stop, None, || 1));
        while wire.unread() > 0 {
            std::thread::yield_now();
        }
        stop.store(true, Relaxed);
        core.join().unwrap()
    });
    assert_eq!((counters.frames, counters.records), (1000, 1000));
    assert_eq!(published.load(), counters);
    let mut records = 0;
    while let Some(batch) = rig.server.batch() {
        records += u64::from(batch.records);
    }
    assert_eq!(records, 1000);
}
