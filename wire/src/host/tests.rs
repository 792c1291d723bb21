use super::*;
use crate::arp::Message as Arp;
use crate::samples;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
const SECOND: Nanos = 1_000_000_000;

fn v4(last: u8) -> Addr {
    Addr::v4([10, 20, 0, last])
}

fn v6(last: u8) -> Addr {
    Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

/// The host under test: 10.20.0.9/24 and fd00::9/64, a gateway of each family, 10.20.0.100 and
/// fd00::64 stood in for.
struct Rig {
    host: Host,
    now: Nanos,
    out: FrameBuf,
}

impl Rig {
    fn new() -> Self {
        let host = Host::new(HostConfig {
            mac: MAC,
            addresses: vec![Prefix::new(v4(9), 24), Prefix::new(v6(9), 64)],
            gateways: vec![v4(1), v6(1)],
            next_hop_mac: None,
            seed: 1,
        });
        Self {
            host,
            now: SECOND,
            out: FrameBuf::new(),
        }
    }

    fn receive(&mut self, frame: &[u8]) -> Received {
        let r = self.host.receive(
            self.now,
            frame,
            &|a| *a == v4(100) || *a == v6(100),
            &mut self.out,
        );
        assert_eq!(
            r.replied,
            !self.out.is_empty(),
            "an answer is announced exactly when there is one"
        );
        r
    }

    fn poll(&mut self) -> Option<Vec<u8>> {
        self.host
            .poll(self.now, &mut self.out)
            .then(|| self.out.to_vec())
    }

    fn arp_answer(&self) -> Arp {
        assert_eq!(self.out[..14], ethernet::header(PEER, MAC, ethertype::ARP));
        Arp::new_checked(&self.out[14..]).unwrap()
    }

    /// The answer's addresses and message.
    fn icmp6_answer(&self) -> ([u8; 6], Addr, Addr, Message<'_>) {
        let h = ipv6::Header::new_checked(&self.out[14..]).unwrap();
        assert_eq!(h.payload_len(), self.out.len() - 54);
        let m = icmp::parse_v6(&self.out[54..], &h.src(), &h.dst()).unwrap();
        (
            ethernet::Frame::new_checked(&self.out).unwrap().dst(),
            h.src(),
            h.dst(),
            m,
        )
    }
}

fn arp(operation: Operation, dst: [u8; 6], sender: Addr, target: Addr) -> Vec<u8> {
    let m = Arp {
        operation,
        sender_mac: PEER,
        sender,
        target_mac: [0; 6],
        target,
    };
    [
        &ethernet::header(dst, PEER, ethertype::ARP)[..],
        &m.to_bytes(),
    ]
    .concat()
}

fn who_has(sender: Addr, target: Addr) -> Vec<u8> {
    arp(Operation::Request, ethernet::BROADCAST, sender, target)
}

fn nd(
    kind: u8,
    flags: u8,
    target: Addr,
    link: Option<[u8; 6]>,
    src: Addr,
    dst: Addr,
    dst_mac: [u8; 6],
) -> Vec<u8> {
    let (m, n) = icmp::discovery(kind, flags, &target, link, &src, &dst);
    let ip = ipv6::header(&src, &dst, protocol::ICMPV6, 255, n);
    [
        &ethernet::header(dst_mac, PEER, ethertype::IPV6)[..],
        &ip,
        &m[..n],
    ]
    .concat()
}

fn solicit(target: Addr, src: Addr) -> Vec<u8> {
    let group = icmp::solicited_node(&target);
    let link = (src != UNSPECIFIED_V6).then_some(PEER);
    nd(
        135,
        0,
        target,
        link,
        src,
        group,
        icmp::multicast_mac(&group),
    )
}

fn ping(src: Addr, dst: Addr, data: &[u8]) -> Vec<u8> {
    let body = [&[0x12, 0x34, 0, 1], data].concat();
    let mut m = [&[if src.is_v4() { 8 } else { 128 }, 0, 0, 0], &body[..]].concat();
    let sum = crate::checksum::Sum::new().bytes(&m);
    if src.is_v4() {
        m[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let ip = ipv4::header(&src, &dst, protocol::ICMP, 64, 0, m.len());
        [&ethernet::header(MAC, PEER, ethertype::IPV4)[..], &ip, &m].concat()
    } else {
        let sum = sum.pseudo_header(&src, &dst, 58, m.len() as u32);
        m[2..4].copy_from_slice(&sum.finish().to_be_bytes());
        let ip = ipv6::header(&src, &dst, protocol::ICMPV6, 64, m.len());
        [&ethernet::header(MAC, PEER, ethertype::IPV6)[..], &ip, &m].concat()
    }
}

#[test]
fn arp_requests_for_own_and_proxied_addresses_are_answered() {
    for target in [v4(9), v4(100)] {
        let mut rig = Rig::new();
        let r = rig.receive(&who_has(v4(2), target));
        assert_eq!((r.kind, r.learned), (Kind::Request, Some((v4(2), PEER))));
        let a = rig.arp_answer();
        assert_eq!(
            (a.operation, a.sender_mac, a.sender),
            (Operation::Reply, MAC, target)
        );
        assert_eq!((a.target_mac, a.target), (PEER, v4(2)));
        assert_eq!(
            rig.host.next_hop(&v4(2)),
            Some(PEER),
            "the asker is known now"
        );
    }
    let mut rig = Rig::new();
    let r = rig.receive(&who_has(v4(2), v4(3)));
    assert_eq!(
        (r.replied, r.learned),
        (false, None),
        "a request for someone else"
    );
}

#[test]
fn announcements_and_probes_are_not_answered_for_proxied_addresses() {
    let mut rig = Rig::new();
    assert!(
        !rig.receive(&who_has(v4(100), v4(100))).replied,
        "an announcement"
    );
    assert!(
        !rig.receive(&who_has(UNSPECIFIED_V4, v4(100))).replied,
        "a probe"
    );
    assert!(
        !rig.receive(&solicit(v6(100), UNSPECIFIED_V6)).replied,
        "duplicate address detection"
    );
    // An asker that is known to have the address itself, asking from its other address.
    rig.host.learn(v4(100), PEER, rig.now);
    assert!(
        !rig.receive(&who_has(v4(2), v4(100))).replied,
        "the asker's own address"
    );
}

#[test]
fn own_addresses_are_defended() {
    let mut rig = Rig::new();
    assert!(rig.receive(&who_has(UNSPECIFIED_V4, v4(9))).replied);
    assert_eq!(rig.arp_answer().sender, v4(9));
    assert!(rig.receive(&solicit(v6(9), UNSPECIFIED_V6)).replied);
    let (mac, src, dst, m) = rig.icmp6_answer();
    assert_eq!(
        (mac, src, dst),
        ([0x33, 0x33, 0, 0, 0, 1], v6(9), icmp::ALL_NODES)
    );
    assert_eq!(
        m,
        Message::Advertisement {
            target: v6(9),
            link: Some(MAC),
            solicited: false,
            overrides: true
        }
    );
    assert_eq!(
        rig.receive(&who_has(v4(9), v4(9))).kind,
        Kind::Conflict(v4(9))
    );
    let claim = nd(
        136,
        0x20,
        v6(9),
        Some(PEER),
        v6(9),
        icmp::ALL_NODES,
        [0x33, 0x33, 0, 0, 0, 1],
    );
    assert_eq!(rig.receive(&claim).kind, Kind::Conflict(v6(9)));
}

#[test]
fn solicitations_are_answered() {
    let own_link_local = icmp::link_local(MAC);
    for (target, overrides) in [(v6(9), true), (own_link_local, true), (v6(100), false)] {
        let mut rig = Rig::new();
        let r = rig.receive(&solicit(target, v6(2)));
        assert_eq!((r.replied, r.learned), (true, Some((v6(2), PEER))));
        let (mac, src, dst, m) = rig.icmp6_answer();
        assert_eq!((mac, src, dst), (PEER, target, v6(2)));
        assert_eq!(
            m,
            Message::Advertisement {
                target,
                link: Some(MAC),
                solicited: true,
                overrides
            }
        );
    }
    let mut far = solicit(v6(9), v6(2));
    far[21] = 64;
    let mut rig = Rig::new();
    assert_eq!(
        rig.receive(&far).kind,
        Kind::Malformed(Skip::BadEncapsulation),
        "it came through a router"
    );
}

#[test]
fn pings_are_answered() {
    for (peer, targets) in [(v4(2), [v4(9), v4(100)]), (v6(2), [v6(9), v6(100)])] {
        for target in targets {
            let mut rig = Rig::new();
            assert!(rig.receive(&ping(peer, target, b"are you there")).replied);
            let reply = rig.out.clone();
            let p = etherparse::SlicedPacket::from_ethernet(&reply).unwrap();
            let (id, seq) = match p.transport.unwrap() {
                etherparse::TransportSlice::Icmpv4(m) => match m.icmp_type() {
                    etherparse::Icmpv4Type::EchoReply(e) => {
                        assert_eq!(m.payload(), b"are you there");
                        assert_eq!(crate::checksum::checksum(&reply[34..]), 0);
                        (e.id, e.seq)
                    }
                    t => panic!("{t:?}"),
                },
                etherparse::TransportSlice::Icmpv6(m) => match m.icmp_type() {
                    etherparse::Icmpv6Type::EchoReply(e) => {
                        assert!(m.is_checksum_valid(*target.bytes(), *peer.bytes()));
                        (e.id, e.seq)
                    }
                    t => panic!("{t:?}"),
                },
                t => panic!("{t:?}"),
            };
            assert_eq!((id, seq), (0x1234, 1));
            assert!(
                !rig.receive(&ping(target, target, b"")).replied,
                "from ourselves"
            );
        }
        let mut rig = Rig::new();
        let other = if peer.is_v4() { v4(77) } else { v6(77) };
        assert!(
            !rig.receive(&ping(peer, other, b"")).replied,
            "for someone else"
        );
        let mut other_mac = ping(peer, targets[0], b"");
        other_mac[5] = 0x77;
        assert!(
            !rig.receive(&other_mac).replied,
            "on its way to another machine"
        );
        let mut damaged = ping(peer, targets[0], b"data");
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(
            rig.receive(&damaged).kind,
            Kind::Malformed(Skip::BadEncapsulation)
        );
    }
}

#[test]
fn an_answer_carries_the_tag_of_its_question() {
    let mut rig = Rig::new();
    let f = who_has(v4(2), v4(9));
    let tagged = [&f[..12], &[0x81, 0, 0x20, 5], &f[12..]].concat();
    assert!(rig.receive(&tagged).replied);
    assert_eq!(rig.out[12..18], [0x81, 0, 0x20, 5, 0x08, 0x06]);
    assert_eq!(Arp::new_checked(&rig.out[18..]).unwrap().target, v4(2));
}

#[test]
fn routes() {
    let rig = Rig::new();
    assert_eq!(rig.host.route(&v4(200)), Route::OnLink);
    assert_eq!(rig.host.route(&Addr::v4([10, 21, 0, 1])), Route::Via(v4(1)));
    assert_eq!(rig.host.route(&Addr::v6([0x20; 16])), Route::Via(v6(1)));
    assert_eq!(rig.host.route(&icmp::link_local(PEER)), Route::OnLink);
    assert_eq!(rig.host.route(&Addr::v4([255; 4])), Route::None);
    assert_eq!(rig.host.route(&icmp::ALL_NODES), Route::None);
    let bare = HostConfig {
        mac: MAC,
        addresses: vec![Prefix::new(v6(9), 0)],
        gateways: vec![v6(1)],
        next_hop_mac: None,
        seed: 1,
    };
    let host = Host::new(bare);
    assert_eq!(
        host.route(&Addr::v6([0x20; 16])),
        Route::OnLink,
        "a prefix of length zero covers its family"
    );
    assert_eq!(host.route(&v4(1)), Route::None, "but not the other");
}

#[test]
fn a_next_hop_is_asked_for_each_second_until_it_answers() {
    let mut rig = Rig::new();
    assert_eq!(rig.poll(), None);
    assert_eq!(rig.host.next_hop(&v4(2)), None);
    for attempt in 0..ATTEMPTS {
        assert_eq!(rig.host.unresolved().count(), 0, "attempt {attempt}");
        let f = rig.poll().unwrap();
        assert_eq!(
            f[..14],
            ethernet::header(ethernet::BROADCAST, MAC, ethertype::ARP)
        );
        let m = Arp::new_checked(&f[14..]).unwrap();
        assert_eq!(
            (m.operation, m.sender, m.target),
            (Operation::Request, v4(9), v4(2))
        );
        assert_eq!(rig.poll(), None, "one question a second");
        rig.now += RETRY;
    }
    assert_eq!(rig.host.unresolved().collect::<Vec<_>>(), [v4(2)]);
    assert!(rig.poll().is_some(), "it goes on asking");
    let r = rig.receive(&arp(Operation::Reply, MAC, v4(2), v4(9)));
    assert_eq!((r.kind, r.learned), (Kind::Reply, Some((v4(2), PEER))));
    assert_eq!(rig.host.next_hop(&v4(2)), Some(PEER));
    assert_eq!(rig.host.unresolved().count(), 0);
}

#[test]
fn an_ipv6_next_hop_is_asked_for_and_learned_through_the_gateway() {
    let mut rig = Rig::new();
    assert_eq!(rig.host.next_hop(&Addr::v6([0x20; 16])), None);
    rig.poll().unwrap();
    let (mac, src, dst, m) = rig.icmp6_answer();
    assert_eq!((src, dst), (v6(9), icmp::solicited_node(&v6(1))));
    assert_eq!(mac, icmp::multicast_mac(&dst));
    assert_eq!(
        m,
        Message::Solicitation {
            target: v6(1),
            link: Some(MAC)
        }
    );
    let r = rig.receive(&nd(136, 0x60, v6(1), None, v6(1), v6(9), MAC));
    assert_eq!(
        r.learned,
        Some((v6(1), PEER)),
        "without the option the frame's source counts"
    );
    assert_eq!(rig.host.next_hop(&Addr::v6([0x20; 16])), Some(PEER));
    let elsewhere = [2, 0, 0, 0, 0, 0x0c];
    let r = rig.receive(&nd(136, 0x40, v6(1), Some(elsewhere), v6(1), v6(9), MAC));
    assert_eq!(
        (r.learned, rig.host.next_hop(&v6(1))),
        (None, Some(PEER)),
        "not without the override flag"
    );
    let r = rig.receive(&nd(136, 0x60, v6(1), Some(elsewhere), v6(1), v6(9), MAC));
    assert_eq!(
        (r.learned, rig.host.next_hop(&v6(1))),
        (Some((v6(1), elsewhere)), Some(elsewhere))
    );
}

#[test]
fn what_is_sent_to_is_refreshed_and_then_given_up() {
    let mut rig = Rig::new();
    rig.host.learn(v4(2), PEER, rig.now);
    assert_eq!(rig.host.next_hop(&v4(2)), Some(PEER));
    rig.now += REFRESH - 1;
    assert_eq!(rig.poll(), None);
    rig.now += 1;
    let f = rig.poll().unwrap();
    assert_eq!(
        f[..6],
        PEER,
        "while the answer is believed only its giver is asked"
    );
    rig.receive(&arp(Operation::Reply, MAC, v4(2), v4(9)));
    rig.now += REFRESH;
    for _ in 0..(LIFETIME - REFRESH) / RETRY {
        assert_eq!(rig.poll().unwrap()[..6], PEER);
        assert_eq!(rig.host.next_hop(&v4(2)), Some(PEER));
        rig.now += RETRY;
    }
    assert_eq!(rig.poll().unwrap()[..6], ethernet::BROADCAST);
    assert_eq!(rig.host.next_hop(&v4(2)), None, "the neighbour is gone");
    assert_eq!(rig.host.unresolved().collect::<Vec<_>>(), [v4(2)]);
}

#[test]
fn several_questions_are_asked_one_a_call() {
    let mut rig = Rig::new();
    for last in [5, 3, 4] {
        rig.host.next_hop(&v4(last));
    }
    let mut targets = Vec::new();
    while let Some(f) = rig.poll() {
        targets.push(Arp::new_checked(&f[14..]).unwrap().target);
    }
    assert_eq!(targets, [v4(3), v4(4), v4(5)]);
}

#[test]
#[cfg_attr(miri, ignore = "it takes Miri minutes")]
fn the_table_is_bounded_and_keeps_what_is_sent_to() {
    let mut rig = Rig::new();
    rig.host.learn(v4(2), PEER, 0);
    rig.host.next_hop(&v4(2));
    for i in 0..4 * MAX_NEIGHBORS as u32 {
        let [_, _, a, b] = i.to_be_bytes();
        rig.host.learn(Addr::v4([11, 1, a, b]), PEER, u64::from(i));
    }
    assert_eq!(rig.host.next_hop(&v4(2)), Some(PEER));
    assert_eq!(rig.host.neighbors.len(), MAX_NEIGHBORS);
    rig.now = LIFETIME + 8 * SECOND;
    rig.poll();
    assert_eq!(
        rig.host.neighbors.len(),
        1,
        "what is old and not sent to is forgotten"
    );
}

#[test]
fn implausible_neighbours_are_not_learned() {
    let mut rig = Rig::new();
    assert!(!rig.host.learn(v4(2), ethernet::BROADCAST, 0));
    assert!(!rig.host.learn(v4(2), [0; 6], 0));
    assert!(!rig.host.learn(v4(2), MAC, 0));
    assert!(!rig.host.learn(v4(9), PEER, 0), "our own address");
    assert!(!rig.host.learn(Addr::v4([224, 0, 0, 1]), PEER, 0));
    let stranger = arp(Operation::Reply, MAC, Addr::v4([8, 8, 8, 8]), v4(9));
    assert_eq!(
        rig.receive(&stranger).learned,
        None,
        "it is not on the wire"
    );
}

#[test]
fn a_fixed_next_hop_needs_no_asking() {
    let config = HostConfig {
        mac: MAC,
        addresses: vec![Prefix::new(v4(9), 24)],
        gateways: vec![],
        next_hop_mac: Some(PEER),
        seed: 1,
    };
    let mut host = Host::new(config);
    assert_eq!(host.next_hop(&Addr::v6([0x20; 16])), Some(PEER));
    assert!(!host.poll(SECOND, &mut FrameBuf::new()));
}

#[test]
fn errors_are_passed_on() {
    let (head, quoted) = crate::samples::plain(b"");
    let mut m = [&[3, 1, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat();
    let c = crate::checksum::checksum(&m).to_be_bytes();
    m[2..4].copy_from_slice(&c);
    let ip = ipv4::header(&v4(1), &v4(100), protocol::ICMP, 64, 0, m.len());
    let f = [&ethernet::header(MAC, PEER, ethertype::IPV4)[..], &ip, &m].concat();
    let mut rig = Rig::new();
    assert_eq!(rig.receive(&f).kind, Kind::Unreachable(Some(head.flow), 1));
}

proptest::proptest! {
    #[test]
    fn any_frame_is_received_without_harm(
        frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), which in 0usize..4, at in 0usize..80, v: u8,
    ) {
        let mut rig = Rig::new();
        let _ = rig.receive(&frame);
        let mut real = match which {
            0 => who_has(v4(2), v4(9)),
            1 => solicit(v6(9), v6(2)),
            2 => ping(v4(2), v4(9), b"data"),
            _ => ping(v6(2), v6(9), b"data"),
        };
        let n = real.len();
        real[at % n] = v;
        let _ = rig.receive(&real);
        let _ = rig.receive(&real[..at % n]);
    }
}

/// Keeps what was sent on it, as long as it has room.
struct Kept {
    frames: Vec<Vec<u8>>,
    room: usize,
}

impl Answers for Kept {
    fn answer(&mut self, answer: &Answer<'_>) -> bool {
        let sent = self.frames.len() < self.room;
        if sent {
            self.frames.push(answer.bytes().to_vec());
        }
        sent
    }
}

#[test]
fn a_responder_answers_for_its_own_addresses_and_says_nothing_else() {
    let mut host = Responder::new(MAC, vec![Prefix::new(v4(9), 24), Prefix::new(v6(9), 64)], 1);
    let mut queue = Kept {
        frames: Vec::new(),
        room: 4,
    };
    let to_another = {
        let mut frame = ping(v4(1), v4(9), b"hello");
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x0c]);
        frame
    };
    for (frame, asked) in [
        (who_has(v4(1), v4(9)), Some(Asked::Answered)),
        (solicit(v6(9), v6(1)), Some(Asked::Answered)),
        (ping(v4(1), v4(9), b"hello"), Some(Asked::Answered)),
        (ping(v6(1), v6(9), b"hello"), Some(Asked::Answered)),
        // Of a mirror, most questions are for others.
        (who_has(v4(1), v4(100)), None),
        (solicit(v6(100), v6(1)), None),
        (ping(v4(1), v4(100), b"hello"), None),
        (to_another, None),
        (arp(Operation::Reply, MAC, v4(1), v4(9)), None),
        (samples::plain(b"hello").1, None),
        (vec![0; 9], None),
        (who_has(v4(1), v4(9)), Some(Asked::Unsent)),
    ] {
        let got = host.receive(SECOND, &frame, &mut queue);
        assert_eq!(got, asked, "{frame:?}");
    }
    for answer in &queue.frames {
        assert_eq!(answer[..6], PEER, "to whoever asked");
    }
}
