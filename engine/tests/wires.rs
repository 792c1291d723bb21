//! Two replay ports over memory ports: what goes out on which of them, and what comes in.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

use ::tests::memory::{MemoryFrame, MemoryPort, MemoryRx, MemoryTx, MemoryWire};
use engine::egress::{Outlet, Target, Wire};
use engine::worker::{ResponseOwner, Worker};
use replay::{Core, Params, Transfer};
use wire::build::{LinkHeader, tcp};
use wire::decode::mirrored;
use wire::head::HeaderBuf;
use wire::host::{Host, HostConfig};
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Prefix, Seq, arp, ethernet};

const MILLISECOND: Nanos = 1_000_000;
const CLIENT: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 1]), 40_000);

/// Of each wire: production, whose target is there, the target, ourselves, and MAC addresses.
const PRODUCTION: [Endpoint; 2] = [of([10, 10, 0, 2]), of([10, 10, 0, 3])];
const TARGET: [Endpoint; 2] = [of([10, 20, 0, 2]), of([10, 21, 0, 2])];
const OURS: [Addr; 2] = [Addr::v4([10, 20, 0, 9]), Addr::v4([10, 21, 0, 9])];
const MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const TARGET_MAC: [[u8; 6]; 2] = [[4, 0, 0, 0, 0, 1], [4, 0, 0, 0, 0, 2]];

const fn of(addr: [u8; 4]) -> Endpoint {
    Endpoint::new(Addr::v4(addr), 80)
}

fn segment(flow: Flow, flags: Flags, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let head = Head {
        flow,
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

/// A worker with a mirror port and two wires, on which nobody is known yet.
struct Rig {
    worker: Worker<MemoryRx, MemoryTx>,
    mirror: MemoryWire,
    wires: [MemoryWire; 2],
    now: Nanos,
}

impl Rig {
    fn new() -> Self {
        let transfers = PRODUCTION
            .into_iter()
            .zip(TARGET)
            .map(|(from, to)| Transfer::new(from, to));
        let params = Params {
            start: MILLISECOND,
            ..Params::new(transfers.collect(), 64, 1_024)
        };
        let owner = ResponseOwner::new(&params, Vec::new());
        let ports = [MemoryPort::new(64), MemoryPort::new(64)];
        let (mut wires, mut replay, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (i, port) in ports.into_iter().enumerate() {
            let host = Host::new(HostConfig {
                mac: MAC[i],
                addresses: vec![Prefix::new(OURS[i], 24)],
                gateways: Vec::new(),
                next_hop_mac: None,
                seed: 1,
            });
            wires.push(Wire::new(port.tx, host));
            replay.push((i, port.rx));
            ends.push(port.wire);
        }
        let targets = TARGET.into_iter().enumerate();
        let targets = targets.map(|(wire, to)| Target { to, wire }).collect();
        let out = Outlet::new(wires, targets, None, 1);
        let mut worker = Worker::new(0, Core::new(params, MILLISECOND), out, owner);
        worker.replay = replay;
        let mirror = MemoryPort::new(64);
        worker.mirrors.push(mirror.rx);
        Self {
            worker,
            mirror: mirror.wire,
            wires: ends.try_into().unwrap_or_else(|_| panic!("two wires")),
            now: MILLISECOND,
        }
    }

    fn step(&mut self) {
        self.now += MILLISECOND;
        self.worker.step(self.now, true);
    }

    /// A request of the client's to one of the production servers.
    fn request(&mut self, of: usize) {
        let flow = Flow {
            src: CLIENT,
            dst: PRODUCTION[of],
        };
        let (ack, push) = (Flags::ACK, Flags::PSH.with(Flags::ACK));
        for frame in [
            segment(flow, Flags::SYN, 999, 0, b""),
            segment(flow.reversed(), Flags::SYN.with(ack), 4_999, 1_000, b""),
            segment(flow, ack, 1_000, 5_000, b""),
            segment(flow, push, 1_000, 5_000, b"GET /\r\n"),
        ] {
            assert!(self.mirror.push(MemoryFrame::new(&frame)));
            self.step();
        }
    }

    /// The ARP messages that left on a wire.
    fn asked(&self, wire: usize) -> Vec<arp::Message> {
        let sent = self.wires[wire].drain().into_iter();
        sent.map(|sent| arp::Message::new_checked(&sent.to_vec()[ethernet::HEADER_LEN..]).unwrap())
            .collect()
    }

    /// A host on a wire says something by ARP.
    fn say(&mut self, wire: usize, operation: arp::Operation, sender: Addr, target: Addr) {
        let m = arp::Message {
            operation,
            sender_mac: TARGET_MAC[wire],
            sender,
            target_mac: MAC[wire],
            target,
        };
        let link = ethernet::header(MAC[wire], TARGET_MAC[wire], ethernet::ethertype::ARP);
        let frame = [&link[..], &m.to_bytes()].concat();
        assert!(self.wires[wire].push_bytes(&frame));
        self.step();
    }

    /// The segments that left on a wire, with their Ethernet addresses.
    fn segments(&self, wire: usize) -> Vec<([u8; 12], Head)> {
        let sent = self.wires[wire].drain().into_iter().map(|s| s.to_vec());
        sent.map(|bytes| {
            let packet = mirrored(&bytes, bytes.len()).unwrap();
            (*bytes.first_chunk().unwrap(), packet.head)
        })
        .collect()
    }
}

#[test]
fn a_target_is_reached_over_its_wire_and_answers_on_any() {
    for (mine, other) in [(0, 1), (1, 0)] {
        let mut rig = Rig::new();
        rig.request(mine);
        let asked = rig.asked(mine);
        assert_eq!(asked[0].target, TARGET[mine].addr);
        assert_eq!(
            (asked[0].sender, asked[0].sender_mac),
            (OURS[mine], MAC[mine])
        );
        // The same address on the other wire is another machine.
        rig.say(other, arp::Operation::Reply, TARGET[mine].addr, OURS[other]);
        assert_eq!(rig.segments(mine), []);
        rig.say(mine, arp::Operation::Reply, TARGET[mine].addr, OURS[mine]);
        rig.now += 1_000 * MILLISECOND;
        rig.step();

        let link: [u8; 12] = [TARGET_MAC[mine], MAC[mine]].concat().try_into().unwrap();
        let sent = rig.segments(mine);
        let (first, syn) = &sent[0];
        assert_eq!((*first, syn.flow.dst), (link, TARGET[mine]));
        assert!(syn.flags.has(Flags::SYN), "{syn:?}");
        let syn_ack = segment(
            syn.flow.reversed(),
            Flags::SYN.with(Flags::ACK),
            70_000,
            syn.seq.0.wrapping_add(1),
            b"",
        );
        assert!(rig.wires[other].push_bytes(&syn_ack));
        rig.step();
        rig.step();
        let sent = rig.segments(mine);
        let data = sent.iter().find(|(_, head)| head.payload_len == 7);
        let (second, _) = data.unwrap_or_else(|| panic!("no request: {sent:?}"));
        assert_eq!(*second, link);
        assert_eq!(rig.worker.counters.replay_responses, 1);
        assert_eq!(rig.wires[other].drain().len(), 0);
    }
}

#[test]
fn each_wire_answers_for_its_own_address() {
    let mut rig = Rig::new();
    let stranger = Addr::v4([10, 20, 0, 77]);
    for (wire, target, answered) in [(0, 0, true), (1, 1, true), (0, 1, false), (1, 0, false)] {
        rig.say(wire, arp::Operation::Request, stranger, OURS[target]);
        let answers = rig.asked(wire);
        assert_eq!(answers.len(), usize::from(answered), "{wire} {target}");
        assert!(answers.iter().all(|a| a.sender_mac == MAC[wire]));
    }
    assert_eq!(rig.worker.out.counters.control_sent, 2);
}
