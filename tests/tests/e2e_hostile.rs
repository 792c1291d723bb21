//! What the Internet may send past a mirror port: floods of SYNs, and payload in as many segments
//! as it has bytes. Other sessions lose nothing by it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::conversation::{Conversation, MSS, on_link};
use tests::lab::offline::{Offline, Play, Replayed};
use tests::lab::pcap::{Format, Frame, link, write};
use tests::lab::skipped;
use tests::lab::turn::Turn;

const PORT: u16 = 8000;
/// Sessions that go on beside the attack.
const OTHERS: u16 = 10;

fn conversation(client_port: u16, turns: &[usize]) -> Conversation {
    let said = |(i, len): (usize, &usize)| {
        let seed = client_port as u8 ^ i as u8;
        (0..*len).map(|at| (at % 251) as u8 ^ seed).collect()
    };
    Conversation {
        client_port,
        server_port: PORT,
        turns: turns.iter().enumerate().map(said).collect(),
        start_us: 1_000_000,
        pause_us: 1_000,
        mss: MSS,
    }
}

/// Conversations that go on while `frames` pass for `span_us`.
fn others(span_us: u64) -> Vec<Conversation> {
    let one = |i: u16| Conversation {
        start_us: 1_000_000 + u64::from(i) * span_us / 20,
        pause_us: span_us / 20,
        ..conversation(50_000 + i, &[100, 2_000, 300, 40, 5_000, 60, 700, 8])
    };
    (0..OTHERS).map(one).collect()
}

/// Replays what the attacker sends, with others beside it.
fn attack(rig: &mut Offline, hostile: Vec<Frame>, change: impl FnOnce(&mut Play)) -> Replayed {
    let first = hostile.first().map_or(0, |f| f.at_us);
    let last = hostile.last().map_or(0, |f| f.at_us);
    let mut frames = hostile;
    frames.extend(others(last - first).iter().flat_map(Conversation::frames));
    frames.sort_by_key(|f| f.at_us);
    let path = rig.lab.file("hostile.pcap");
    let kind = link::ETHERNET;
    write(&path, Format::Pcap, kind, &on_link(kind, &frames)).unwrap();
    let mut play = Play::new(&path, &[PORT]);
    change(&mut play);
    let replayed = rig.replay(&play).unwrap();
    for other in others(last - first) {
        let same = |c: &&tests::lab::offline::Delivered| c.bytes == other.said();
        assert!(
            replayed.connections.iter().find(same).is_some(),
            "the session from port {} is not at the target:\n{}",
            other.client_port,
            replayed.report
        );
    }
    replayed
}

fn with_rig(name: &str, test: impl FnOnce(&mut Offline)) {
    if skipped(name) {
        return;
    }
    let _turn = Turn::take().unwrap();
    test(&mut Offline::start().unwrap());
}

#[test]
fn handshakes_that_are_never_completed_open_nothing() {
    with_rig("handshakes_that_are_never_completed_open_nothing", |rig| {
        // Of some the server's answer is shown as well.
        let flood = (0..2_000u16).flat_map(|i| {
            let mut talk = conversation(10_000 + i, &[]);
            talk.start_us += u64::from(i) * 50;
            talk.frames().into_iter().take(1 + usize::from(i % 2))
        });
        let r = attack(rig, flood.collect(), |_| {});
        let n = |path: &str| r.report.number(path).unwrap();
        assert_eq!(n("target.connects"), u64::from(OTHERS), "{}", r.report);
        assert_eq!(n("production.sessions"), u64::from(OTHERS), "{}", r.report);
        assert_eq!(r.report.sum("production.handshakes").unwrap(), 2_000);
        r.report.check_nothing_lost().unwrap();
    });
}

#[test]
fn many_more_handshakes_than_there_is_room_for_open_nothing() {
    let name = "many_more_handshakes_than_there_is_room_for_open_nothing";
    with_rig(name, |rig| {
        let flood = (0..40_000u16).map(|i| {
            let mut talk = conversation(10_000 + i, &[]);
            talk.start_us += u64::from(i) * 5;
            talk.frames().remove(0)
        });
        let r = attack(rig, flood.collect(), |play| play.sessions = 100);
        let n = |path: &str| r.report.number(path).unwrap();
        assert_eq!(n("target.connects"), u64::from(OTHERS), "{}", r.report);
        assert!(n("production.handshakes.evicted") > 30_000, "{}", r.report);
        r.report.check_nothing_lost().unwrap();
    });
}

#[test]
fn a_segment_for_each_byte_is_replayed() {
    with_rig("a_segment_for_each_byte_is_replayed", |rig| {
        let one = Conversation {
            mss: 1,
            ..conversation(40_001, &[200_000])
        };
        let r = attack(rig, one.frames(), |play| play.speed = "5.0".to_owned());
        assert!(r.connections.iter().any(|c| c.bytes == one.said()));
        r.report.check_nothing_lost().unwrap();
    });
}

/// The frames of one turn, every other byte first, and then those between.
fn every_other_first(one: &Conversation) -> Vec<Frame> {
    let frames = one.frames();
    let said = one.said().len();
    let (begin, rest) = frames.split_at(3);
    let (bytes, end) = rest.split_at(said);
    let half = |odd: usize| bytes.iter().skip(odd).step_by(2);
    let all = begin.iter().chain(half(1)).chain(half(0)).chain(end);
    // In this order, one after the other.
    all.zip(&frames)
        .map(|(frame, place)| Frame {
            at_us: place.at_us,
            ..frame.clone()
        })
        .collect()
}

#[test]
fn segments_of_a_byte_out_of_order_are_replayed_within_the_limit() {
    let name = "segments_of_a_byte_out_of_order_are_replayed_within_the_limit";
    with_rig(name, |rig| {
        let one = Conversation {
            mss: 1,
            ..conversation(40_002, &[10_000])
        };
        let r = attack(rig, every_other_first(&one), |play| {
            play.speed = "1.0".to_owned();
        });
        assert!(r.connections.iter().any(|c| c.bytes == one.said()));
        r.report.check_nothing_lost().unwrap();
    });
}

#[test]
fn segments_of_a_byte_out_of_order_beyond_the_limit_are_counted() {
    let name = "segments_of_a_byte_out_of_order_beyond_the_limit_are_counted";
    with_rig(name, |rig| {
        let one = Conversation {
            mss: 1,
            ..conversation(40_003, &[200_000])
        };
        let r = attack(rig, every_other_first(&one), |play| {
            play.speed = "5.0".to_owned();
        });
        let n = |path: &str| r.report.number(path).unwrap();
        assert!(n("mirror.dropped.no_room") > 10_000, "{}", r.report);
        assert_eq!(n("lost.turns"), 1, "{}", r.report);
        assert_eq!(n("lost.reason.hole.turns"), 1, "{}", r.report);
    });
}
