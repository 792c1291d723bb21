use super::*;
use std::net::IpAddr;

const SERVER: ([u8; 4], u16) = ([10, 10, 0, 2], 80);
const ISN: u32 = u32::MAX - 10;

/// A client's segment: flags, its place in the stream, what it acknowledges, its payload's length.
fn segment(port: u16, flags: u8, at: u32, ack: u32, len: u32) -> Seen {
    let seq = ISN.wrapping_add(u32::from(flags & SYN == 0));
    Seen {
        macs: [[0; 6]; 2],
        ips: Some([IpAddr::from([10, 10, 0, 1]), IpAddr::from(SERVER.0)]),
        tcp: Some(Segment {
            ports: [port, SERVER.1],
            seq: seq.wrapping_add(at),
            ack,
            flags,
            payload_len: len,
        }),
        len: 54 + len,
        at_us: 0,
    }
}

/// Five turns of 10 bytes, the last one in two segments, and the FIN.
fn sent() -> Vec<Seen> {
    let mut frames = vec![segment(1, SYN, 0, 0, 0), segment(1, 0x10, 0, 1, 0)];
    frames.extend((0..4).map(|i| segment(1, 0x18, i * 10, 1 + i * 100, 10)));
    frames.push(segment(1, 0x10, 40, 401, 5));
    frames.push(segment(1, 0x18, 45, 401, 5));
    frames.push(segment(1, 0x11, 50, 501, 0));
    frames
}

/// The session, with the frames of these numbers not shown.
fn without(missing: &[usize]) -> Session {
    let all = sent();
    let shown: Vec<Seen> = (0..all.len())
        .filter(|i| !missing.contains(i))
        .map(|i| all[i].clone())
        .collect();
    let sight = compare(&all, &shown, SocketAddr::from(SERVER)).unwrap();
    assert_eq!((sight.sessions.len(), sight.not_shown), (1, missing.len()));
    sight.sessions[0].clone()
}

fn arrived(parts: &[(&str, End)]) -> Vec<(Record, Vec<u8>)> {
    let record = |text: &str, end| Record {
        peer: SocketAddr::from(([10, 10, 0, 1], 1)),
        local: SocketAddr::from(SERVER),
        bytes: text.len() as u64,
        sha256: String::new(),
        answered: 0,
        asked_at: Vec::new(),
        end,
        opened_us: 0,
        closed_us: 0,
    };
    parts
        .iter()
        .map(|(text, end)| (record(text, *end), text.as_bytes().to_vec()))
        .collect()
}

const SAID: &str = "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee";

#[test]
fn a_session_that_was_shown_costs_nothing() {
    let session = without(&[]);
    assert_eq!(session.turns.len(), 5, "{session:?}");
    assert!(session.is_whole() && session.end_shown && !session.port_used_twice);
    assert_eq!(session.price(), (0, 0));
    let all = arrived(&[(SAID, End::Fin)]);
    assert_eq!(session.check_arrived(SAID.as_bytes(), &all).unwrap(), 5);
    let less = arrived(&[(&SAID[10..], End::Fin)]);
    assert!(session.check_arrived(SAID.as_bytes(), &less).is_err());
    // Acknowledgments and the FIN carry nothing.
    assert!(without(&[1, 8]).is_whole() && !without(&[8]).end_shown);
}

#[test]
fn a_missing_turn_costs_itself_and_perhaps_its_neighbours() {
    let session = without(&[4]);
    assert!(!session.is_whole());
    assert_eq!(session.price(), (1, 3));
    let check = |parts: &[(&str, End)]| session.check_arrived(SAID.as_bytes(), &arrived(parts));
    assert_eq!(
        check(&[(&SAID[..20], End::Rst), (&SAID[30..], End::Fin)]).unwrap(),
        4
    );
    assert_eq!(
        check(&[(&SAID[..13], End::Rst), (&SAID[40..], End::Fin)]).unwrap(),
        2
    );
    let refused: [&[(&str, End)]; 6] = [
        &[(SAID, End::Fin)],
        &[(&SAID[..13], End::Fin), (&SAID[40..], End::Fin)],
        &[(&SAID[..3], End::Rst), (&SAID[30..], End::Fin)],
        &[(&SAID[40..], End::Fin), (&SAID[..20], End::Rst)],
        &[(&SAID[..20], End::Rst)],
        &[("x", End::Rst), (&SAID[30..], End::Fin)],
    ];
    for parts in refused {
        assert!(check(parts).is_err(), "{parts:?}");
    }
}

#[test]
fn the_ends_of_a_session() {
    assert_eq!(without(&[7]).price(), (1, 2), "half of the last turn");
    let session = without(&[0]);
    assert!(!session.is_whole() && !session.syn_shown);
    assert_eq!(session.price(), (1, 2), "the SYN costs the first turn");
    assert_eq!(without(&[2, 7]).price(), (2, 4));
    assert_eq!(without(&[2, 3, 4, 5, 6, 7, 8]).price(), (1, 5));
    assert_eq!(
        without(&[0, 2, 3, 4, 5, 6, 7]).price(),
        (0, 0),
        "nobody knows that it was there"
    );
}

#[test]
fn a_port_that_is_used_twice() {
    let mut all = sent();
    let second = 1 << 20;
    for mut frame in sent() {
        let tcp = frame.tcp.as_mut().unwrap();
        tcp.seq = tcp.seq.wrapping_add(second);
        all.push(frame);
    }
    let mut shown = all.clone();
    shown.remove(9 + 4);
    let sight = compare(&all, &shown, SocketAddr::from(SERVER)).unwrap();
    let whole: Vec<bool> = sight.sessions.iter().map(Session::is_whole).collect();
    assert_eq!(whole, [true, false]);
    assert!(sight.sessions.iter().all(|s| s.port_used_twice));
    let none_sent = compare(&[], &shown, SocketAddr::from(SERVER));
    assert!(none_sent.is_err(), "shown and never sent");
}
