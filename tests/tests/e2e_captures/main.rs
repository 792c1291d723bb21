//! Real captures, replayed offline by the real engine, one run for each file, and compared with
//! what an independent reassembler says that the clients said (`manifest.json`).
//!
//! A stream that was captured from its SYN on without a hole arrives byte for byte on one
//! connection. Of the others no byte arrives that was not captured, and the report says what was
//! lost. Every file, the hostile ones included, is played to its end with books that balance.
//!
//! The manifest names the ends of 22 complete streams, all of them inside tunnels, the wrong way
//! round: the end it calls the client sent no SYN but a SYN|ACK. Here the end that sent the SYN is
//! the client, and what it said was taken from tshark (see `expected.rs`).
//!
//! The captures are looked for in `REPLAY_CAPTURES`, by default `../shared/captures` beside the
//! workspace; without them the tests say that they are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

mod expected;

use expected::{Capture, Whole, captures, folder, sha256};
use std::collections::BTreeSet;
use tests::lab::Lab;
use tests::lab::guise::Guise;
use tests::lab::offline::{Delivered, Offline, Play, Replayed};
use tests::lab::pcap::Stream;
use tests::lab::skipped;
use tests::lab::turn::Turn;

/// The reader that decides what was captured is right about every stream that the manifest knows.
#[test]
fn the_reference_agrees_with_the_manifest() {
    let Some(folder) = folder("the_reference_agrees_with_the_manifest") else {
        return;
    };
    let all = captures(&folder);
    let mut differing = Vec::new();
    for c in &all {
        for w in &c.whole {
            let said = w.stream.captured();
            if !w.stream.is_whole() || said.len() != w.bytes || sha256(&said) != w.sha256 {
                differing.push(format!(
                    "{}: {} -> {}: {} bytes instead of {}",
                    c.name,
                    w.stream.client,
                    w.stream.server,
                    said.len(),
                    w.bytes
                ));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(all.iter().map(|c| c.swapped).sum::<usize>(), 22);
}

/// What is wrong with a replay, in sentences.
fn judge(c: &Capture, play: &Play, r: &Replayed) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut left: Vec<&Delivered> = r.connections.iter().collect();
    let accepted = |w: &&Whole| {
        let client = w.stream.client.to_string();
        !NOT_ACCEPTED.contains(&(c.name.as_str(), client.as_str()))
    };
    for w in c.whole.iter().filter(accepted) {
        let port = play.sink_port(w.stream.server.port());
        let found = left.iter().position(|d| {
            Some(d.record.local.port()) == port
                && d.record.bytes == w.bytes as u64
                && d.record.sha256 == w.sha256
        });
        match found {
            Some(i) => drop(left.remove(i)),
            None => wrong.push(format!(
                "{} -> {}: {} bytes did not arrive as they are",
                w.stream.client, w.stream.server, w.bytes
            )),
        }
    }
    let mut places: Vec<(&Stream, BTreeSet<i64>)> =
        c.partial.iter().map(|s| (s, s.beginning())).collect();
    for d in left {
        let explained = places.iter_mut().any(|(s, at)| {
            if play.sink_port(s.server.port()) != Some(d.record.local.port()) {
                return false;
            }
            let ends = s.explains(at, &d.bytes);
            let fits = !ends.is_empty();
            if fits {
                *at = ends;
            }
            fits
        });
        if !explained {
            wrong.push(format!(
                "{} bytes from {} to port {} are nobody's",
                d.record.bytes,
                d.record.peer,
                d.record.local.port()
            ));
        }
    }
    let n = |path: &str| r.report.sum(path).unwrap();
    let lost = n("lost.turns") + n("lost.bytes");
    if c.partial.is_empty() && c.unread == 0 {
        let said: usize = c.whole.iter().map(|w| w.bytes).sum();
        if lost != 0 || n("production.bytes") != said as u64 {
            wrong.push(format!(
                "{said} bytes were said and all were captured, but the report has {} bytes and lost {}",
                n("production.bytes"),
                r.report.value("lost").unwrap()
            ));
        }
    } else if lost == 0 && c.partial.iter().any(|s| !s.captured().is_empty()) {
        wrong.push("something was not captured, but nothing was reported as lost".to_owned());
    }
    if n("in_flight") != 0 {
        wrong.push(format!("still in flight: {}", n("in_flight")));
    }
    wrong
}

/// Streams that are a SYN, which production refused or never answered (seen with tshark 4.0.17): no
/// connection is opened for them.
const NOT_ACCEPTED: [(&str, &str); 3] = [
    ("conn-size.pcap", "141.42.64.125:56729"),
    (
        "smb__smb2-zero-byte-error-ioctl.pcapng",
        "192.168.2.186:62082",
    ),
    (
        "tunnels__vxlan-inner-tcp-bad-checksum.pcap",
        "10.0.0.1:12345",
    ),
];

/// Captures with a stream of which every frame has a wrong checksum: one was made so on purpose,
/// the other has had its addresses changed.
const CORRUPT: [&str; 2] = [
    "conn-size.pcap",
    "tunnels__vxlan-inner-tcp-bad-checksum.pcap",
];

/// Replays captures, and fails with everything that was wrong with any.
fn replay_all(rig: &mut Offline, all: &[Capture], mut change: impl FnMut(&Lab, &mut Play)) {
    let mut wrong = Vec::new();
    let mut streams = 0;
    for c in all {
        let mut play = Play::new(&c.path, &c.ports);
        play.verify_checksums = !CORRUPT.contains(&c.name.as_str());
        change(&rig.lab, &mut play);
        match rig.replay(&play) {
            Ok(r) => {
                let found = judge(c, &play, &r);
                streams += c.whole.len();
                println!(
                    "{}: {} whole, {} partial, {} connections; lost {}, dropped {}",
                    c.name,
                    c.whole.len(),
                    c.partial.len(),
                    r.connections.len(),
                    terse(r.report.value("lost.reason").unwrap()),
                    terse(r.report.value("mirror.dropped").unwrap())
                );
                if !found.is_empty() {
                    wrong.push(format!(
                        "{}:\n  {}\n{}",
                        c.name,
                        found.join("\n  "),
                        r.report
                    ));
                }
            }
            Err(e) => wrong.push(format!("{}: {e:#}", c.name)),
        }
    }
    if !wrong.is_empty() {
        rig.lab.failed();
    }
    assert!(
        wrong.is_empty(),
        "{} of {} captures were not replayed as they are:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
    assert!(streams > 0, "nothing was compared");
    println!("{streams} streams arrived byte for byte");
}

/// The parts of a report's section that are not 0.
fn terse(section: &serde_json::Value) -> String {
    let parts: Vec<String> = section
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, v)| **v != 0 && v["bytes"] != 0 || v["turns"].as_u64().unwrap_or(0) > 0)
        .map(|(name, v)| format!("{name} {v}"))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

#[test]
fn captures_arrive_as_the_manifest_says() {
    let name = "captures_arrive_as_the_manifest_says";
    let Some(folder) = folder(name) else { return };
    if skipped(name) {
        return;
    }
    let all = captures(&folder);
    let _turn = Turn::take().unwrap();
    let mut rig = Offline::start().unwrap();
    replay_all(&mut rig, &all, |_, _| ());
}

/// In another format, compressed, split over files, by way of a pipe, for two workers: each capture
/// in one guise, with `REPLAY_ALL_GUISES` in all of them.
#[test]
fn captures_in_other_guises_arrive_as_the_manifest_says() {
    let name = "captures_in_other_guises_arrive_as_the_manifest_says";
    let Some(folder) = folder(name) else { return };
    if skipped(name) {
        return;
    }
    let all = captures(&folder);
    let _turn = Turn::take().unwrap();
    let mut rig = Offline::start().unwrap();
    let guises = Guise::all();
    let rounds = match std::env::var_os("REPLAY_ALL_GUISES") {
        Some(_) => guises.len(),
        None => 1,
    };
    for round in 0..rounds {
        let mut n = round;
        replay_all(&mut rig, &all, |lab, play| {
            n += 1;
            play.workers = 1 + n % 2;
            guises[n % guises.len()].put_on(lab, play).unwrap();
        });
    }
}

/// With a target that never answers each turn waits for the gate's limit and goes then: nothing is
/// lost by that.
#[test]
fn the_gate_loses_nothing() {
    let name = "the_gate_loses_nothing";
    let Some(folder) = folder(name) else { return };
    if skipped(name) {
        return;
    }
    // Server first and client first, pipelined, several connections, tunnels, holes, and one that
    // begins in the middle.
    let wanted = [
        "dce-rpc__kerberos445_auth.pcapng",
        "erspan.pcap",
        "ftp__ipv6.pcap",
        "http__get_nosyn.pcap",
        "http__pipelined-requests.pcap",
        "http__vnd.ms-cab-compressed-multi-conn.pcap",
        "mysql__mysql.pcap",
        "postgresql__psql-select-now.pcap",
        "redis__pipelining-example.pcap",
        "smtp__smtp-bdat-cmd-invalid.pcapng",
        "spicy__gap-recovery.pcap",
        "tls__google-cert-repeat.pcap",
        "tunnels__geneve-47101.pcap",
        "var-services-std-ports.pcap",
    ];
    let all: Vec<Capture> = captures(&folder)
        .into_iter()
        .filter(|c| wanted.contains(&c.name.as_str()))
        .collect();
    assert_eq!(all.len(), wanted.len());
    let _turn = Turn::take().unwrap();
    let mut rig = Offline::start().unwrap();
    replay_all(&mut rig, &all, |_, play| play.wait_for_responses = true);
}
