//! Offline replay of capture files that are made here: every file format and link type, pace,
//! repetition, frames that were cut or lost, and files that are no captures.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use std::path::PathBuf;
use tests::lab::conversation::{Conversation, MSS, on_link};
use tests::lab::offline::{Offline, Play, Replayed};
use tests::lab::pcap::{Format, Frame, link, streams, write};
use tests::lab::skipped;
use tests::lab::turn::Turn;

const PORT: u16 = 8000;

/// A turn that is unlike all others.
fn words(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ seed).collect()
}

fn conversation(client_port: u16, turns: &[usize]) -> Conversation {
    let turns = (1u8..).zip(turns);
    Conversation {
        client_port,
        server_port: PORT,
        turns: turns
            .map(|(i, len)| words(i.wrapping_mul(client_port as u8 | 1), *len))
            .collect(),
        start_us: 1_000_000,
        pause_us: 1_000,
        mss: MSS,
    }
}

fn play(rig: &Offline, name: &str, format: Format, kind: u16, frames: &[Frame]) -> Play {
    let path = rig.lab.file(name);
    write(&path, format, kind, &on_link(kind, frames)).unwrap();
    Play::new(&path, &[PORT])
}

/// What arrived, each connection's bytes, in an order of their own.
fn sorted(r: &Replayed) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = r.connections.iter().map(|c| c.bytes.clone()).collect();
    all.sort();
    all
}

/// Runs `test` with a rig; the logs are kept if it fails.
fn with_rig(name: &str, test: impl FnOnce(&mut Offline)) {
    if skipped(name) {
        return;
    }
    let _turn = Turn::take().unwrap();
    test(&mut Offline::start().unwrap());
}

#[test]
fn every_format_and_link_type_is_read() {
    with_rig("every_format_and_link_type_is_read", |rig| {
        let talk = conversation(40_001, &[10, 1, 2_500, 999]);
        let frames = talk.frames();
        for (format, kind) in [
            (Format::Pcap, link::ETHERNET),
            (Format::Pcap, link::RAW),
            (Format::Pcap, link::NULL),
            (Format::Pcap, link::SLL),
            (Format::Pcap, link::SLL2),
            (Format::PcapBigEndianNano, link::ETHERNET),
            (Format::PcapBigEndianNano, link::SLL),
            (Format::PcapNg, link::ETHERNET),
            (Format::PcapNg, link::RAW),
        ] {
            let p = play(rig, "kind.pcap", format, kind, &frames);
            let r = rig.replay(&p).unwrap();
            assert_eq!(sorted(&r), [talk.said()], "{format:?} of link type {kind}");
            assert_eq!(r.report.sum("mirror.dropped").unwrap(), 0, "{}", r.report);
            r.report.check_nothing_lost().unwrap();
        }
    });
}

#[test]
fn pace_is_kept_and_so_is_every_byte() {
    with_rig("pace_is_kept_and_so_is_every_byte", |rig| {
        // Three conversations that go on at the same time, of 1.2 s each.
        let talks: Vec<Conversation> = (0..3u16)
            .map(|i| Conversation {
                start_us: 1_000_000 + u64::from(i) * 50_000,
                pause_us: 400_000,
                ..conversation(41_000 + i, &[50, 60, 70, 80])
            })
            .collect();
        let mut frames: Vec<Frame> = talks.iter().flat_map(Conversation::frames).collect();
        frames.sort_by_key(|f| f.at_us);
        let mut expected: Vec<Vec<u8>> = talks.iter().map(Conversation::said).collect();
        for (speed, at_least_us) in [("1.0", 600_000), ("2.0", 300_000)] {
            let mut p = play(rig, "pace.pcap", Format::Pcap, link::ETHERNET, &frames);
            p.speed = speed.to_owned();
            let r = rig.replay(&p).unwrap();
            // They begin in the order in which they began in production.
            let began: Vec<Vec<u8>> = r.connections.iter().map(|c| c.bytes.clone()).collect();
            assert_eq!(began, expected, "speed {speed}");
            for c in &r.connections {
                let took = c.record.closed_us - c.record.opened_us;
                assert!(took > at_least_us, "speed {speed}: over in {took} µs");
            }
            r.report.check_nothing_lost().unwrap();
        }
        expected.sort();
        let mut p = play(rig, "pace.pcap", Format::Pcap, link::ETHERNET, &frames);
        p.speed = "\"max\"".to_owned();
        assert_eq!(sorted(&rig.replay(&p).unwrap()), expected);
    });
}

#[test]
fn loops_deliver_every_stream_as_often() {
    with_rig("loops_deliver_every_stream_as_often", |rig| {
        let talks = [
            conversation(42_001, &[100, 2_000]),
            conversation(42_002, &[5]),
        ];
        let mut frames: Vec<Frame> = talks.iter().flat_map(Conversation::frames).collect();
        frames.sort_by_key(|f| f.at_us);
        // One that is still open when the file ends: its last three frames are the end of the
        // conversation.
        let open = conversation(42_003, &[300, 301]);
        let open_frames = open.frames();
        frames.extend_from_slice(&open_frames[..open_frames.len() - 3]);
        let mut p = play(rig, "loops.pcap", Format::Pcap, link::ETHERNET, &frames);
        p.loops = 3;
        let r = rig.replay(&p).unwrap();
        let mut expected: Vec<Vec<u8>> = talks
            .iter()
            .chain([&open])
            .map(Conversation::said)
            .collect();
        expected = [expected.clone(), expected.clone(), expected].concat();
        expected.sort();
        assert_eq!(sorted(&r), expected);
        assert_eq!(r.report.number("production.sessions").unwrap(), 9);
        r.report.check_nothing_lost().unwrap();
    });
}

/// Indices of the client's frames with payload, of raw IP frames without options.
fn client_data(frames: &[Frame]) -> Vec<usize> {
    let is_data = |f: &Frame| f.bytes[22..24] == PORT.to_be_bytes() && f.bytes.len() > 40;
    (0..frames.len()).filter(|i| is_data(&frames[*i])).collect()
}

/// Bytes that were not captured are never made up: the turn they lie in is lost, the connection
/// that carries it is reset, and the session goes on with the next turn that certainly begins where
/// it seems to: what stands right behind the hole may have begun in it.
#[test]
fn a_cut_or_missing_frame_costs_its_turn_and_is_never_made_up() {
    with_rig(
        "a_cut_or_missing_frame_costs_its_turn_and_is_never_made_up",
        |rig| {
            let talk = conversation(43_001, &[100, 200, 2_500, 400, 500]);
            let whole = talk.frames();
            let data = client_data(&whole);
            assert_eq!(data.len(), 7, "the third turn takes three frames");
            // The frame's number among the client's, how many bytes of its payload are kept, the
            // turn it is in, and the first turn that is sure to come after it.
            for (nth, kept, turn, next) in [
                (0, 0, 0, 2),
                (1, 50, 1, 3),
                (2, 0, 2, 3),
                (3, 0, 2, 3),
                (3, 999, 2, 3),
                (4, 499, 2, 4),
                (5, 1, 3, 5),
                (6, 499, 4, 5),
                (6, 0, 4, 5),
            ] {
                let mut frames = whole.clone();
                let at = data[nth];
                let missing = whole[at].bytes.len() - 40 - kept;
                if kept == 0 {
                    frames.remove(at);
                } else {
                    frames[at].bytes.truncate(40 + kept);
                }
                let p = play(rig, "cut.pcap", Format::Pcap, link::ETHERNET, &frames);
                let r = rig.replay(&p).unwrap();
                let case = format!("frame {nth} with {kept} bytes\n{}", r.report);
                let n = |path: &str| r.report.number(path).unwrap();
                assert_eq!(n("production.bytes"), 3_700, "{case}");
                assert!(n("lost.reason.hole.bytes") >= missing as u64, "{case}");
                assert!((1..=2).contains(&n("lost.reason.hole.turns")), "{case}");
                assert_eq!(n("lost.turns"), n("lost.reason.hole.turns"), "{case}");
                assert!(n("replayed.turns") >= (turn + 5 - next) as u64, "{case}");

                // All that came is from the capture, in order; all before the hole came first, all
                // that is sure to come came last.
                let stream = streams(&on_link(link::ETHERNET, &frames)).remove(0);
                let all: Vec<u8> = r.connections.iter().flat_map(|c| c.bytes.clone()).collect();
                assert!(!stream.is_whole(), "{case}");
                assert!(
                    !stream.explains(&stream.beginning(), &all).is_empty(),
                    "{case}"
                );
                assert!(all.starts_with(&talk.turns[..turn].concat()), "{case}");
                let after = talk.turns[next..].concat();
                let last = r.connections.last().map_or(&[][..], |c| &c.bytes);
                assert!(last.ends_with(&after), "{case}");
                // Part of a turn is never followed by another turn on the same connection.
                if r.connections.len() == 1 && next < 5 {
                    let before = talk.turns[..turn].concat();
                    let middle = talk.turns[turn + 1..next].concat();
                    let fits = [
                        [&before[..], &middle, &after].concat(),
                        [before, after].concat(),
                    ];
                    assert!(fits.contains(&all), "{case}");
                }
                assert!(r.connections.len() <= 2, "{case}");
            }
        },
    );
}

/// A retransmission brings what a cut frame lacked: then nothing is lost.
#[test]
fn a_retransmission_fills_what_was_cut() {
    with_rig("a_retransmission_fills_what_was_cut", |rig| {
        let talk = conversation(44_001, &[100, 2_500, 300]);
        let mut frames = talk.frames();
        let data = client_data(&frames);
        let again = frames[data[2]].clone();
        frames[data[2]].bytes.truncate(40 + 123);
        frames.insert(data[3] + 1, again);
        let p = play(rig, "again.pcap", Format::Pcap, link::ETHERNET, &frames);
        let r = rig.replay(&p).unwrap();
        assert_eq!(sorted(&r), [talk.said()], "{}", r.report);
        r.report.check_nothing_lost().unwrap();
    });
}

#[test]
fn what_is_no_capture_is_refused_in_a_sentence() {
    with_rig("what_is_no_capture_is_refused_in_a_sentence", |rig| {
        let file = |rig: &Offline, name: &str, bytes: &[u8]| -> PathBuf {
            let path = rig.lab.file(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let frames = conversation(45_001, &[10]).frames();
        let radio = rig.lab.file("radio.pcap");
        write(&radio, Format::Pcap, 195, &frames).unwrap();
        let good = rig.lab.file("good.pcap");
        write(&good, Format::Pcap, link::RAW, &frames).unwrap();
        let good = std::fs::read(good).unwrap();
        let folder = rig.lab.file("folder");
        std::fs::create_dir(&folder).unwrap();
        for (path, word) in [
            (rig.lab.file("missing.pcap"), "missing.pcap does not exist"),
            (folder, "no capture file in this folder"),
            (rig.lab.file("no*.pcap"), "no capture file that fits"),
            (file(rig, "empty.pcap", b""), "empty.pcap is empty"),
            (
                file(rig, "text.pcap", b"a text of some length, but no capture"),
                "text.pcap is no capture file",
            ),
            (file(rig, "head.pcap", &good[..10]), "cut in its header"),
            (radio, "link type 195 (IEEE 802.15.4)"),
        ] {
            let (code, log) = rig.run(&Play::new(&path, &[PORT])).unwrap();
            let last = log.lines().last().unwrap_or_default();
            assert!(matches!(code, Some(1 | 2)), "{code:?}: {log}");
            assert!(
                last.starts_with("engine: ") && last.contains(word),
                "{last}"
            );
            assert!(
                last.contains(path.file_name().unwrap().to_str().unwrap()),
                "{last}"
            );
            assert!(!log.contains("panicked"), "{log}");
        }
    });
}

/// A capture that was cut off is played as far as it goes, and its end is told.
#[test]
fn a_file_that_ends_early_is_played_to_where_it_ends() {
    with_rig("a_file_that_ends_early_is_played_to_where_it_ends", |rig| {
        let talk = conversation(46_001, &[10, 20, 30]);
        let p = play(
            rig,
            "short.pcap",
            Format::Pcap,
            link::ETHERNET,
            &talk.frames(),
        );
        let bytes = std::fs::read(&p.file).unwrap();
        // Into the last frame's payload, or its record's head.
        for cut in [1, 60] {
            std::fs::write(&p.file, &bytes[..bytes.len() - cut]).unwrap();
            let r = rig.replay_damaged(&p).unwrap();
            assert_eq!(sorted(&r), [talk.said()], "{}", r.report);
            let last = r.log.lines().last().unwrap_or_default();
            let end = format!("short.pcap is cut at byte {}", bytes.len() - cut);
            assert!(
                last.starts_with("engine: ") && last.contains(&end),
                "{last}"
            );
        }
        std::fs::write(&p.file, &bytes[..24]).unwrap();
        let r = rig.replay(&p).unwrap();
        assert_eq!(r.report.number("mirror.frames").unwrap(), 0);
        assert!(r.connections.is_empty());
    });
}
