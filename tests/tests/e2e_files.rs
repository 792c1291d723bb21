//! Capture files in every guise give the same replay: compressed, by way of a pipe, split, for two
//! workers, in parts for several engines. Nothing of a file is lost because something is full.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use std::collections::BTreeMap;
use std::io::Write;
use tests::answer::Answer;
use tests::lab::conversation::{Conversation, MSS, on_link};
use tests::lab::guise::Guise;
use tests::lab::offline::{Offline, Play, Replayed};
use tests::lab::pcap::{Format, Frame, link, write};
use tests::lab::skipped;
use tests::lab::turn::Turn;

const PORT: u16 = 8000;

fn with_rig(name: &str, answer: &Answer, test: impl FnOnce(&mut Offline)) {
    if skipped(name) {
        return;
    }
    let _turn = Turn::take().unwrap();
    test(&mut Offline::answering(answer).unwrap());
}

/// What arrived, each connection's bytes, in an order of their own.
fn sorted(r: &Replayed) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = r.connections.iter().map(|c| c.bytes.clone()).collect();
    all.sort();
    all
}

fn check_nothing_lost(r: &Replayed) {
    assert_eq!(r.report.sum("lost").unwrap(), 0, "{}", r.report);
    assert_eq!(r.report.sum("in_flight").unwrap(), 0, "{}", r.report);
}

/// Conversations that go on at the same time, and their frames in the order of time.
fn talks(count: u16, turns: usize) -> (Vec<Vec<u8>>, Vec<Frame>) {
    let talks: Vec<Conversation> = (0..count)
        .map(|i| Conversation {
            client_port: 20_000 + i,
            server_port: PORT,
            turns: (0..turns)
                .map(|t| format!("GET /{i}/{t} HTTP/1.1\r\n\r\n").into_bytes())
                .collect(),
            start_us: 1_000_000 + u64::from(i) * 150,
            pause_us: 1_000,
            mss: MSS,
        })
        .collect();
    let mut said: Vec<Vec<u8>> = talks.iter().map(Conversation::said).collect();
    let mut frames: Vec<Frame> = talks.iter().flat_map(Conversation::frames).collect();
    frames.sort_by_key(|f| f.at_us);
    said.sort();
    (said, on_link(link::ETHERNET, &frames))
}

#[test]
fn files_in_every_guise_give_the_same_streams() {
    let test = "files_in_every_guise_give_the_same_streams";
    with_rig(test, &Answer::default(), |rig| {
        let (said, frames) = talks(20, 3);
        let path = rig.lab.file("plain.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let guises = Guise::all();
        for workers in [1, 2] {
            for guise in &guises {
                let mut play = Play::new(&path, &[PORT]);
                play.workers = workers;
                guise.put_on(&rig.lab, &mut play).unwrap();
                let r = rig.replay(&play).unwrap();
                let case = format!("{guise:?}, {workers} workers: {}", r.report);
                assert_eq!(sorted(&r), said, "{case}");
                check_nothing_lost(&r);
                let n = |path: &str| r.report.number(path).unwrap();
                assert_eq!(n("mirror.frames"), frames.len() as u64, "{case}");
                // Frames go to their owner at once.
                assert_eq!(n("mirror.handed_over"), 0, "{case}");
            }
        }
    });
}

/// The same for a named pipe, which is opened before it has a writer.
#[test]
fn a_named_pipe_is_read_as_it_is_filled() {
    let test = "a_named_pipe_is_read_as_it_is_filled";
    with_rig(test, &Answer::default(), |rig| {
        let (said, frames) = talks(5, 2);
        let path = rig.lab.file("plain.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let pipe = rig.lab.file("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let to = pipe.clone();
        // Opening it waits for the reader.
        let writer = std::thread::spawn(move || {
            let mut pipe = std::fs::File::create(to).unwrap();
            for part in bytes.chunks(1_000) {
                pipe.write_all(part).unwrap();
            }
        });
        let r = rig.replay(&Play::new(&pipe, &[PORT])).unwrap();
        writer.join().unwrap();
        assert_eq!(sorted(&r), said, "{}", r.report);
        check_nothing_lost(&r);
        // Without a writer it is waited for, and not for longer than the engine is to run.
        let waits = Play::new(&pipe, &[PORT]);
        let (code, log) = rig.run_for(&waits, "1s").unwrap();
        assert_eq!(code, Some(0), "{log}");
        // It cannot be played twice.
        let mut twice = Play::new(&pipe, &[PORT]);
        twice.loops = 2;
        let (code, log) = rig.run(&twice).unwrap();
        assert_eq!(code, Some(1), "{log}");
        assert!(
            log.contains("is a pipe, which can be read but once"),
            "{log}"
        );
    });
}

/// A mirror's two directions in two files, and the same frames in a third.
#[test]
fn two_directions_in_two_files_and_all_of_it_again_in_a_third() {
    let test = "two_directions_in_two_files_and_all_of_it_again_in_a_third";
    with_rig(test, &Answer::default(), |rig| {
        let (said, frames) = talks(5, 3);
        let path = |name: &str| rig.lab.file(name);
        let mut play = Play::new(&path("to.pcap"), &[PORT]);
        play.more = vec![path("from.pcap"), path("both.pcap")];
        // Behind Ethernet's header and IP's without options stands the source port.
        let of_server = |f: &&Frame| f.bytes[34..36] == PORT.to_be_bytes();
        let from: Vec<Frame> = frames.iter().filter(of_server).cloned().collect();
        let to: Vec<Frame> = frames.iter().filter(|f| !of_server(f)).cloned().collect();
        assert!(from.len() > 20 && to.len() > 20);
        write(&play.file, Format::Pcap, link::ETHERNET, &to).unwrap();
        write(&play.more[0], Format::PcapNg, link::ETHERNET, &from).unwrap();
        write(
            &play.more[1],
            Format::PcapBigEndianNano,
            link::ETHERNET,
            &frames,
        )
        .unwrap();
        let r = rig.replay(&play).unwrap();
        assert_eq!(sorted(&r), said, "{}", r.report);
        check_nothing_lost(&r);
        let turns = r.report.number("production.turns").unwrap();
        assert_eq!(turns, 15, "what comes again is no turn: {}", r.report);
        assert_eq!(r.report.number("mirror.capture.files").unwrap(), 3);
    });
}

/// A damaged file ends where it is damaged; the others are played to their end, and the exit code
/// tells.
#[test]
fn one_of_several_files_is_damaged() {
    let test = "one_of_several_files_is_damaged";
    with_rig(test, &Answer::default(), |rig| {
        let (said, frames) = talks(6, 2);
        let middle = frames.len() / 2;
        let path = |name: &str| rig.lab.file(name);
        let mut play = Play::new(&path("first.pcap"), &[PORT]);
        play.more = vec![path("second.pcap")];
        write(&play.file, Format::Pcap, link::ETHERNET, &frames[..middle]).unwrap();
        write(
            &play.more[0],
            Format::Pcap,
            link::ETHERNET,
            &frames[middle..],
        )
        .unwrap();
        let mut bytes = std::fs::read(&play.file).unwrap();
        let end = bytes.len();
        // Behind the last frame of the first.
        bytes.extend([0xff; 40]);
        std::fs::write(&play.file, bytes).unwrap();
        let r = rig.replay_damaged(&play).unwrap();
        assert_eq!(sorted(&r), said, "{}", r.report);
        let last = r.log.lines().last().unwrap_or_default();
        let at = format!("first.pcap is damaged at byte {end}");
        assert!(last.starts_with("engine: mirror.file: "), "{last}");
        assert!(last.contains(&at), "{last}");
    });
}

/// Idle stretches are shortened; the clock that the sessions are on goes with what is played.
#[test]
fn a_night_without_a_frame_is_not_waited_for() {
    let test = "a_night_without_a_frame_is_not_waited_for";
    with_rig(test, &Answer::default(), |rig| {
        let (said, mut frames) = talks(2, 2);
        let middle = frames.len() / 2;
        for f in &mut frames[middle..] {
            f.at_us += 10 * 3_600 * 1_000_000;
        }
        let path = rig.lab.file("night.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let mut play = Play::new(&path, &[PORT]);
        play.speed = "1.0".to_owned();
        play.max_idle = "\"200ms\"".to_owned();
        let r = rig.replay(&play).unwrap();
        assert_eq!(sorted(&r), said, "{}", r.report);
        check_nothing_lost(&r);
        let skipped = r.report.value("mirror.capture.idle_skipped_s").unwrap();
        let skipped = skipped.as_f64().unwrap();
        assert!((35_999.0..36_000.0).contains(&skipped), "{skipped}");
    });
}

/// More sessions than there is room for, as fast as the target answers: reading waits.
#[test]
fn a_file_with_more_sessions_than_there_is_room_for() {
    let test = "a_file_with_more_sessions_than_there_is_room_for";
    with_rig(test, &Answer::of(100), |rig| {
        let (said, frames) = talks(3_000, 2);
        let path = rig.lab.file("many.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let mut play = Play::paced(&path, &[PORT]);
        play.speed = "\"max\"".to_owned();
        play.sessions = 100;
        let r = rig.replay(&play).unwrap();
        check_nothing_lost(&r);
        for what in ["sessions_shed", "sessions_evicted"] {
            let n = r.report.number(&format!("production.{what}")).unwrap();
            assert_eq!(n, 0, "{what}: {}", r.report);
        }
        assert!(sorted(&r) == said, "{}", r.report);
    });
}

/// Behind the last frame the engine goes on for as long as the target answers.
#[test]
fn a_target_that_takes_its_time_has_it_after_the_end_of_the_file() {
    let test = "a_target_that_takes_its_time_has_it_after_the_end_of_the_file";
    let answer = Answer {
        after_ms: 500,
        ..Answer::of(100)
    };
    with_rig(test, &answer, |rig| {
        let (said, frames) = talks(2, 24);
        let path = rig.lab.file("slow.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let r = rig.replay(&Play::paced(&path, &[PORT])).unwrap();
        assert_eq!(sorted(&r), said, "{}", r.report);
        check_nothing_lost(&r);
        let n = |path: &str| r.report.number(path).unwrap();
        assert_eq!(n("replayed.turns"), 48, "{}", r.report);
        // A turn follows the one before within milliseconds, and the answer comes after half a
        // second: all but the first two were held.
        let (late, held) = (n("schedule.late.count"), n("schedule.held.count"));
        assert_eq!(late + held, 48, "{}", r.report);
        assert!(held >= 46, "{}", r.report);
    });
}

/// All shards together replay each session once.
#[test]
fn shards_replay_each_session_once() {
    let test = "shards_replay_each_session_once";
    with_rig(test, &Answer::default(), |rig| {
        let (said, frames) = talks(40, 1);
        let path = rig.lab.file("all.pcap");
        write(&path, Format::Pcap, link::ETHERNET, &frames).unwrap();
        let mut arrived: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for shard in 1..=4 {
            let mut play = Play::new(&path, &[PORT]);
            play.shard = format!("{shard}/4");
            let r = rig.replay(&play).unwrap();
            let mine = sorted(&r);
            assert!((1..40).contains(&mine.len()), "{shard}: {}", mine.len());
            for stream in mine {
                *arrived.entry(stream).or_default() += 1;
            }
            check_nothing_lost(&r);
        }
        assert!(arrived.values().all(|n| *n == 1));
        assert!(arrived.into_keys().eq(said));
    });
}
