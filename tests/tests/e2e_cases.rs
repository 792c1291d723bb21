//! Small captures of situations that go wrong in the field (`tests/cases`), each replayed offline
//! by the real engine to a server that stores what every connection brings.
//!
//! Each is a sample of a kind. What is asserted is what is right: which bytes arrive, on how many
//! connections, and what the report says of them. Time is asserted only where the case is about
//! time, and then with room to spare.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use std::path::{Path, PathBuf};
use tests::answer::Answer;
use tests::lab::offline::{Offline, Play, Replayed};
use tests::lab::skipped;
use tests::lab::turn::Turn;

/// What the client of most cases says.
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// What production answers in most cases.
const ANSWER: u64 = 40;
const SECOND: u64 = 1_000_000;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cases")
        .join(name)
}

/// Replays a case as `play` wants it, to a server that answers so. `None` if that is not possible
/// here.
fn replayed(
    test: &str,
    name: &str,
    answer: &Answer,
    play: impl FnOnce(&mut Play),
) -> Option<Replayed> {
    if skipped(test) {
        return None;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Offline::answering(answer).unwrap();
    let mut how = Play::paced(&case(name), &[80]);
    play(&mut how);
    Some(rig.replay(&how).unwrap())
}

/// Checks that `said` arrived, each on a connection of its own, and nothing else did; that the
/// report has all of it as replayed, in as many turns; and that nothing was lost.
fn check_all_arrived(r: &Replayed, said: &[&[u8]], turns: u64) {
    let mut came: Vec<&[u8]> = r.connections.iter().map(|c| &c.bytes[..]).collect();
    let mut said = said.to_vec();
    came.sort_unstable();
    said.sort_unstable();
    assert!(
        came == said,
        "{} came: {:?}\nand not {}: {:?}\n{}",
        came.len(),
        shortened(&came),
        said.len(),
        shortened(&said),
        r.report
    );
    check_nothing_lost(r);
    let n = |path: &str| r.report.number(path).unwrap();
    let bytes: usize = said.iter().map(|s| s.len()).sum();
    for part in ["production", "replayed"] {
        assert_eq!(n(&format!("{part}.turns")), turns, "{part}\n{}", r.report);
        assert_eq!(n(&format!("{part}.bytes")), bytes as u64, "{}", r.report);
    }
    assert_eq!(n("target.connects"), said.len() as u64, "{}", r.report);
}

/// The first of them, and how they begin.
fn shortened(all: &[&[u8]]) -> Vec<String> {
    let begin = |b: &&[u8]| String::from_utf8_lossy(&b[..b.len().min(40)]).into_owned();
    all.iter()
        .take(12)
        .map(|b| format!("{} bytes: {}", b.len(), begin(b)))
        .collect()
}

/// Checks that nothing was lost for any reason, and nothing was left over.
fn check_nothing_lost(r: &Replayed) {
    assert_eq!(r.report.sum("lost").unwrap(), 0, "{}", r.report);
    assert_eq!(r.report.sum("in_flight").unwrap(), 0, "{}", r.report);
}

fn elapsed_s(r: &Replayed) -> f64 {
    r.report.value("elapsed_s").unwrap().as_f64().unwrap()
}

/// A client whose first attempt was refused tries again with the same SYN.
#[test]
fn a_connection_that_was_refused_and_then_accepted() {
    let test = "a_connection_that_was_refused_and_then_accepted";
    let Some(r) = replayed(test, "1a.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[GET], 1);
}

/// The round trip is not the 20 s from the handshake to the first request: an answer of 1 MB, which
/// takes as many round trips as congestion control needs for it, is over soon.
#[test]
fn a_handshake_without_its_last_frame_and_a_client_that_thinks() {
    let test = "a_handshake_without_its_last_frame_and_a_client_that_thinks";
    let megabyte = 1_000_000;
    let play = |p: &mut Play| p.speed = "\"max\"".to_owned();
    let Some(r) = replayed(test, "3.pcap", &Answer::of(megabyte), play) else {
        return;
    };
    check_all_arrived(&r, &[GET], 1);
    let record = &r.connections[0].record;
    let took = record.closed_us - record.opened_us;
    assert!(took < 5 * SECOND, "over in {took} µs\n{}", r.report);
    assert_eq!(record.answered, megabyte);
    let heard = r.report.number("target.response_bytes").unwrap();
    assert_eq!(heard, megabyte, "{}", r.report);
    assert!(elapsed_s(&r) < 10.0, "{}", r.report);
}

/// SYNs that nobody completes neither take the place of sessions nor reach the target.
#[test]
fn a_flood_of_syns_and_ten_sessions() {
    let test = "a_flood_of_syns_and_ten_sessions";
    let play = |p: &mut Play| p.sessions = 1_000;
    let Some(r) = replayed(test, "4.pcap", &Answer::of(ANSWER), play) else {
        return;
    };
    let said: Vec<Vec<u8>> = (0..10)
        .map(|i| format!("GET /{i} HTTP/1.1\r\n\r\n").into_bytes())
        .collect();
    let said: Vec<&[u8]> = said.iter().map(|s| &s[..]).collect();
    check_all_arrived(&r, &said, 10);
    let shed = r.report.number("production.sessions_shed").unwrap();
    assert_eq!(shed, 0, "{}", r.report);
}

/// An acknowledgment of a connection that is long over says nothing about the new one.
#[test]
fn an_old_acknowledgment_in_answer_to_a_syn() {
    let test = "an_old_acknowledgment_in_answer_to_a_syn";
    let Some(r) = replayed(test, "6.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[], 0);
}

/// The SYN and ACK tells where the client's stream begins as well as the SYN does.
#[test]
fn a_session_without_its_syn() {
    let test = "a_session_without_its_syn";
    let Some(r) = replayed(test, "8.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[GET], 1);
    let midstream = r.report.sum("lost.reason.midstream").unwrap();
    assert_eq!(midstream, 0, "{}", r.report);
}

/// A target that answers an upload at its end, where production did so piece by piece, is not made
/// to wait for `gate_timeout` before each piece. Production took a tenth of a second.
#[test]
fn an_upload_that_production_answers_piece_by_piece() {
    let test = "an_upload_that_production_answers_piece_by_piece";
    let (pieces, len) = (40, 1_400);
    let answer = Answer {
        request: pieces * len,
        ..Answer::of(13)
    };
    let Some(r) = replayed(test, "10.pcap", &answer, |_| {}) else {
        return;
    };
    let said: Vec<u8> = (0..pieces)
        .flat_map(|i| std::iter::repeat_n(b'A' + (i % 26) as u8, len as usize))
        .collect();
    check_all_arrived(&r, &[&said], pieces);
    assert_eq!(r.connections[0].record.asked_at, [0]);
    assert_eq!(r.connections[0].record.answered, 13);
    assert!(elapsed_s(&r) < 30.0, "{}", r.report);
}

/// A target whose answers are longer than production's and take their time: a client speaks again
/// when it has heard all of one. The target's latency is what it takes to begin.
#[test]
fn an_answer_that_is_longer_and_slower_than_in_production() {
    let test = "an_answer_that_is_longer_and_slower_than_in_production";
    let long = 400_000;
    let answer = Answer {
        after_ms: 20,
        over_ms: 400,
        ..Answer::of(long)
    };
    let Some(r) = replayed(test, "12.pcap", &answer, |_| {}) else {
        return;
    };
    let said = b"GET /0 HTTP/1.1\r\n\r\nGET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
    check_all_arrived(&r, &[said], 3);
    let record = &r.connections[0].record;
    assert_eq!(record.asked_at, [0, long, 2 * long], "{}", r.report);
    let n = |path: &str| r.report.number(path).unwrap();
    assert_eq!(n("target.response_bytes"), 3 * long, "{}", r.report);
    assert_eq!(n("latency.target.count"), 3, "{}", r.report);
    assert!(n("latency.target.p50_us") >= 20_000, "{}", r.report);
}

/// Two networks may use the same addresses: the tag tells their connections apart.
#[test]
fn the_same_addresses_and_ports_in_two_vlans() {
    let test = "the_same_addresses_and_ports_in_two_vlans";
    let Some(r) = replayed(test, "17.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[GET, b"GET /v20 HTTP/1.1\r\n\r\n"], 2);
}

/// How long a gap may last is a matter of the capture's time, however slowly it is played.
#[test]
fn a_retransmission_in_a_capture_that_is_played_slowly() {
    let test = "a_retransmission_in_a_capture_that_is_played_slowly";
    let answer = Answer {
        request: 2_000,
        ..Answer::of(ANSWER)
    };
    let play = |p: &mut Play| p.speed = "0.1".to_owned();
    let Some(r) = replayed(test, "18.pcap", &answer, play) else {
        return;
    };
    let said = [[b'A'; 1_000], [b'B'; 1_000]].concat();
    check_all_arrived(&r, &[&said], 1);
}

/// A frame that was damaged on its way to the mirror is not what the client said; what it sent
/// again is.
#[test]
fn a_damaged_frame_and_the_good_one_after_it() {
    let test = "a_damaged_frame_and_the_good_one_after_it";
    let Some(r) = replayed(test, "19.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[GET], 1);
    let damaged = r.report.number("mirror.dropped.bad_checksum").unwrap();
    assert_eq!(damaged, 1, "{}", r.report);
}

/// Each interface of a file has its link type.
#[test]
fn two_interfaces_of_different_kinds() {
    let test = "two_interfaces_of_different_kinds";
    let Some(r) = replayed(test, "7a.pcapng", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    assert_eq!(r.connections.len(), 2, "{}", r.report);
    check_nothing_lost(&r);
    assert_eq!(r.report.sum("mirror.dropped").unwrap(), 0, "{}", r.report);
}

/// What stands before the damage is replayed, and the last line says where the file is damaged.
#[test]
fn a_damaged_record_in_the_middle_of_a_file() {
    let test = "a_damaged_record_in_the_middle_of_a_file";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut rig = Offline::answering(&Answer::of(ANSWER)).unwrap();
    let how = Play::paced(&case("7b.pcap"), &[80]);
    let r = rig.replay_damaged(&how).unwrap();
    check_all_arrived(&r, &[GET], 1);
    let last = r.log.lines().last().unwrap_or_default();
    let sentence =
        "7b.pcap is damaged at byte 803: frame 11 has a length of 2147483647 bytes there";
    assert!(last.starts_with("engine: mirror.file: "), "{last}");
    assert!(last.contains(sentence), "{last}");
}

/// A frame that is stamped a day later than the others is of their time.
#[test]
fn a_frame_of_another_day() {
    let test = "a_frame_of_another_day";
    let Some(r) = replayed(test, "9a.pcap", &Answer::of(ANSWER), |_| {}) else {
        return;
    };
    check_all_arrived(&r, &[GET], 1);
    let restamped = r.report.number("mirror.capture.restamped").unwrap();
    assert_eq!(restamped, 1, "{}", r.report);
    assert!(elapsed_s(&r) < 10.0, "{}", r.report);
}

/// The format that Alexey Kuznetsov's tcpdump wrote, and a compressed file.
#[test]
fn a_modified_and_a_compressed_file() {
    let test = "a_modified_and_a_compressed_file";
    for name in ["16a.pcap", "16b.pcap.gz"] {
        let Some(r) = replayed(test, name, &Answer::of(ANSWER), |_| {}) else {
            return;
        };
        check_all_arrived(&r, &[GET], 1);
    }
}

/// What a report says of a file and of the mirror as a whole agrees, however often it is played.
#[test]
fn a_file_that_is_played_three_times() {
    let test = "a_file_that_is_played_three_times";
    let Some(r) = replayed(test, "20.pcap", &Answer::of(ANSWER), |p| p.loops = 3) else {
        return;
    };
    check_all_arrived(&r, &[GET; 3], 3);
    let n = |path: &str| r.report.number(path).unwrap();
    let port = &r.report.value("mirror.ports").unwrap()[0];
    assert_eq!(port["frames"], n("mirror.frames"), "{}", r.report);
    assert_eq!(port["bytes"], n("mirror.bytes"), "{}", r.report);
    assert_eq!(n("mirror.frames") % 3, 0, "{}", r.report);
    assert_eq!(n("mirror.capture.passes"), 3, "{}", r.report);
}
