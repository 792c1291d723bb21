//! What strangers can do to a mirror port, over a memory port: tunnels with forged segments in
//! them, and questions for addresses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

use ::tests::memory::{MemoryFrame, MemoryPort, MemoryRx, MemoryTx, MemoryWire};
use engine::answering::Answering;
use engine::egress::Outlet;
use engine::worker::{ResponseOwner, Snapshot, Worker};
use replay::{Core, Params, Transfer};
use wire::build::{LinkHeader, tcp};
use wire::decode::MirrorOptions;
use wire::head::HeaderBuf;
use wire::host::{Host, HostConfig, Responder};
use wire::tunnel::{End, Ends};
use wire::{
    Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Prefix, Seq, Skip, arp, ethernet, ipv4,
};

const MILLISECOND: Nanos = 1_000_000;
const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
const CLIENT: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 1]), 40_000);
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);
const STRANGER: Addr = Addr::v4([203, 0, 113, 9]);
/// The mirror's own address, where its tunnels end.
const OURS: Addr = Addr::v4([10, 9, 0, 5]);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// A frame between the client and production.
fn frame(from_client: bool, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client {
        (CLIENT, PRODUCTION)
    } else {
        (PRODUCTION, CLIENT)
    };
    let head = Head {
        flow: Flow { src, dst },
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 1_000,
        urgent: 0,
        options: Options::default(),
        payload_len: payload.len() as u32,
    };
    let link = LinkHeader {
        dst: [2; 6],
        src: [4; 6],
    };
    let mut headers = HeaderBuf::new();
    tcp(&mut headers, &link, &head, 64, 1, payload);
    [&headers[..], payload].concat()
}

/// A handshake and a request.
fn request() -> Vec<Vec<u8>> {
    let push = Flags::PSH.with(Flags::ACK);
    vec![
        frame(true, Flags::SYN, 999, 0, b""),
        frame(false, Flags::SYN.with(Flags::ACK), 4_999, 1_000, b""),
        frame(true, Flags::ACK, 1_000, 5_000, b""),
        frame(true, push, 1_000, 5_000, b"GET /\r\n"),
        frame(false, push, 5_000, 1_007, b"answer"),
    ]
}

/// The request that comes after it.
fn next_request() -> Vec<u8> {
    frame(
        true,
        Flags::PSH.with(Flags::ACK),
        1_007,
        5_006,
        b"GET /2\r\n",
    )
}

/// All kinds of tunnels that IP addresses and that name no network, from the stranger to `to`,
/// around a frame. A network's number would make another connection of it.
fn tunnels(to: Addr, inner: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let datagram = |protocol: u8, payload: &[u8]| {
        let link = ethernet::header([2; 6], [4; 6], ethernet::ethertype::IPV4);
        let ip = ipv4::header(&STRANGER, &to, protocol, 64, 1, payload.len());
        [&link[..], &ip, payload].concat()
    };
    let packet = &inner[ethernet::HEADER_LEN..];
    let udp = |port: u16, head: &[u8], inner: &[u8]| {
        let [hi, lo] = port.to_be_bytes();
        let [l0, l1] = ((8 + head.len() + inner.len()) as u16).to_be_bytes();
        let header = [0x9c, 0x40, hi, lo, l0, l1, 0, 0];
        datagram(17, &[&header, head, inner].concat())
    };
    vec![
        ("IP in IP", datagram(4, packet)),
        ("GRE", datagram(47, &[&[0, 0, 8, 0], packet].concat())),
        (
            "ERSPAN",
            datagram(47, &[&[0, 0, 0x88, 0xbe], inner].concat()),
        ),
        ("EtherIP", datagram(97, &[&[0x30, 0], inner].concat())),
        ("MPLS", datagram(137, &[&[0, 1, 1, 64], packet].concat())),
        ("GRE in UDP", udp(4754, &[0, 0, 8, 0], packet)),
        ("MPLS in UDP", udp(6635, &[0, 1, 1, 64], packet)),
        ("HP ERM", udp(7932, &[0; 12], inner)),
        ("TZSP", udp(37008, &[1, 0, 0, 1, 1], inner)),
    ]
}

/// A worker with one mirror port.
struct Rig {
    worker: Worker<MemoryRx, MemoryTx>,
    mirror: MemoryWire,
    /// Frames that were shown.
    shown: u64,
    now: Nanos,
}

impl Rig {
    fn new(ends: Ends) -> Self {
        let params = Params {
            start: MILLISECOND,
            ..Params::new(vec![Transfer::new(PRODUCTION, TARGET)], 64, 1_024)
        };
        let host = Host::new(HostConfig {
            mac: [2; 6],
            addresses: vec![Prefix::new(Addr::v4([10, 20, 0, 9]), 24)],
            gateways: Vec::new(),
            next_hop_mac: Some([4; 6]),
            seed: 1,
        });
        let owner = ResponseOwner::new(&params, Vec::new());
        let (replay, mirror) = (MemoryPort::new(1_024), MemoryPort::new(1_024));
        let out = Outlet::new(replay.tx, host, [2; 6], vec![TARGET], None, 1);
        let mut worker = Worker::new(0, Core::new(params, MILLISECOND), out, owner);
        worker.mirrors.push(mirror.rx);
        worker.mirror_options = MirrorOptions {
            tunnels: Box::leak(Box::new(ends)),
            ..MirrorOptions::default()
        };
        let responder = Responder::new(MAC, vec![Prefix::new(OURS, 24)], 1);
        worker.answering.push(Answering::new(responder, mirror.tx));
        Self {
            worker,
            mirror: mirror.wire,
            shown: 0,
            now: MILLISECOND,
        }
    }

    fn show(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            assert!(self.mirror.push(MemoryFrame::new(frame)));
            self.shown += 1;
            self.now += MILLISECOND;
            self.worker.step(self.now, true);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::with_room(1);
        self.worker.snapshot(&mut snapshot);
        snapshot.core.balance().unwrap();
        // Every frame was used, or dropped for a reason.
        let dropped: u64 = snapshot
            .worker
            .skipped
            .iter()
            .chain(&snapshot.core.dropped)
            .sum();
        assert_eq!(self.shown, snapshot.core.used + dropped);
        snapshot
    }
}

fn anywhere_but_production() -> Ends {
    Ends::anywhere_but(&[Prefix::host(PRODUCTION.addr)]).and(End::at(Prefix::host(OURS)))
}

const REFUSED: usize = Skip::TunnelRefused as usize;

#[test]
fn a_reset_that_a_stranger_sends_through_a_tunnel_ends_no_session() {
    let reset = frame(true, Flags::RST.with(Flags::ACK), 1_007, 5_006, b"");
    for (name, forged) in tunnels(PRODUCTION.addr, &reset) {
        let turns = |ends: Ends, refused: u64| {
            let mut rig = Rig::new(ends);
            rig.show(&request());
            rig.show(&[forged.clone(), next_request()]);
            let s = rig.snapshot();
            assert_eq!(s.worker.skipped[REFUSED], refused, "{name}");
            s.core.turns
        };
        assert_eq!(turns(anywhere_but_production(), 1), 2, "{name}");
        assert_eq!(turns(Ends::at(vec![]), 1), 2, "{name}");
        // The attack is one: where its tunnel is opened, the session ends.
        assert_eq!(turns(Ends::ANYWHERE.clone(), 0), 1, "{name}");
    }
}

#[test]
fn a_session_that_a_stranger_makes_up_in_a_tunnel_is_not_replayed() {
    let forged: Vec<_> = request()
        .iter()
        .map(|f| tunnels(PRODUCTION.addr, f))
        .collect();
    for kind in 0..forged[0].len() {
        let name = forged[0][kind].0;
        let frames: Vec<_> = forged.iter().map(|f| f[kind].1.clone()).collect();
        let mut rig = Rig::new(anywhere_but_production());
        rig.show(&frames);
        let s = rig.snapshot();
        assert_eq!((s.core.sessions, s.half_open), (0, 0), "{name}");
        assert_eq!(s.worker.skipped[REFUSED], 5, "{name}");
        let report = engine::report::refused(&[s]);
        assert_eq!(report, [(PRODUCTION.addr, 5)], "{name}");
    }
}

#[test]
fn what_a_remote_mirror_sends_to_us_is_replayed() {
    let sent: Vec<_> = request().iter().map(|f| tunnels(OURS, f)).collect();
    for kind in 0..sent[0].len() {
        let frames: Vec<_> = sent.iter().map(|f| f[kind].1.clone()).collect();
        let mut rig = Rig::new(Ends::at(vec![]).and(End::at(Prefix::host(OURS))));
        rig.show(&frames);
        let s = rig.snapshot();
        let name = sent[0][kind].0;
        assert_eq!((s.core.sessions, s.core.turns), (1, 1), "{name}");
    }
}

#[test]
fn a_mirror_port_answers_for_its_address_and_sends_nothing_else() {
    let question = |target: Addr| {
        let m = arp::Message {
            operation: arp::Operation::Request,
            sender_mac: [4; 6],
            sender: Addr::v4([10, 9, 0, 1]),
            target_mac: [0; 6],
            target,
        };
        let link = ethernet::header(ethernet::BROADCAST, [4; 6], ethernet::ethertype::ARP);
        [&link[..], &m.to_bytes()].concat()
    };
    let mut rig = Rig::new(anywhere_but_production());
    rig.show(&request());
    rig.show(&[question(PRODUCTION.addr)]);
    assert!(rig.mirror.pop().is_none());
    rig.show(&[question(OURS)]);
    let answer = rig.mirror.pop().unwrap().to_vec();
    assert_eq!(answer[..12], [[4; 6], MAC].concat());
    let answer = arp::Message::new_checked(&answer[ethernet::HEADER_LEN..]).unwrap();
    assert_eq!((answer.sender, answer.sender_mac), (OURS, MAC));
    rig.mirror.set_buffers(0);
    rig.show(&[question(OURS)]);
    assert!(rig.mirror.pop().is_none());
    let s = rig.snapshot();
    assert_eq!((s.worker.answered, s.worker.unanswered), (1, 1));
    assert_eq!(s.worker.skipped[Skip::NotIp as usize], 3);
}
