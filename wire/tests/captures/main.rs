//! Decodes real captures and compares what the clients said with an independent reassembler's
//! account of it.
//!
//! The captures are looked for in the folder that `REPLAY_CAPTURES` names, by default
//! `../shared/captures` beside the workspace; without them the test says that it is skipped. The
//! reassembly here is naive on purpose: it proves the decoder, nothing else.

#[cfg(test)]
mod pcap;

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::decode::{MirrorOptions, Skip, fragment_with, mirrored_on, mirrored_with};
use wire::{Endpoint, Flags, Flow};

/// Connections of which every frame has a wrong checksum: one that was made so on purpose, and one
/// whose addresses were changed. Each is a SYN that nobody answers.
const CORRUPT: [(&str, &str); 2] = [
    ("conn-size.pcap", "141.42.64.125:56729"),
    (
        "tunnels__vxlan-inner-tcp-bad-checksum.pcap",
        "10.0.0.1:12345",
    ),
];

fn folder() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/captures");
    let folder =
        std::env::var_os("REPLAY_CAPTURES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if folder.join("manifest.json").is_file() {
        return Some(folder);
    }
    println!(
        "skipped: no manifest.json in {}; set REPLAY_CAPTURES to a folder of captures",
        folder.display()
    );
    None
}

/// One connection's bytes in one direction: the first copy of each byte counts, and a hole ends
/// them.
#[derive(Default)]
struct Direction {
    segments: Vec<(u32, Vec<u8>)>,
}

impl Direction {
    fn bytes(&self) -> Vec<u8> {
        let mut segments: Vec<&(u32, Vec<u8>)> = self.segments.iter().collect();
        // The sort is stable, so of two segments at the same place the first captured comes first.
        segments.sort_by_key(|(at, _)| *at);
        let mut out = Vec::new();
        for (at, data) in segments {
            match out.len().checked_sub(*at as usize) {
                Some(known) => out.extend(data.get(known..).unwrap_or(&[])),
                None => break,
            }
        }
        out
    }
}

/// What a file holds: each connection that began with a SYN in the direction of its client, and why
/// frames were not used.
#[derive(Default)]
struct Streams {
    /// By flow, one after another if the ports were used again.
    connections: HashMap<Flow, Vec<(u32, Direction)>>,
    skipped: BTreeMap<&'static str, usize>,
    used: usize,
    /// Who opened connections: flows with a SYN that acknowledges nothing.
    opened: HashSet<Flow>,
    /// The scope of each flow.
    scopes: HashMap<Flow, u32>,
}

fn streams(data: &[u8], verify_checksums: bool) -> Streams {
    let mut s = Streams::default();
    for (link, frame, original_len) in pcap::frames(data) {
        let options = MirrorOptions {
            verify_checksums,
            ..MirrorOptions::on(link)
        };
        let p = match mirrored_with(&options, frame, frame.len()) {
            Ok(p) => p,
            Err(reason) => {
                assert_eq!(
                    fragment_with(&options, frame, frame.len()).is_some(),
                    reason == Skip::Fragment
                );
                *s.skipped.entry(reason.name()).or_default() += 1;
                continue;
            }
        };
        assert!(p.captured <= p.head.payload_len as usize && p.captured <= original_len);
        s.used += 1;
        let scope = *s.scopes.entry(p.head.flow).or_insert(p.scope);
        assert_eq!(p.scope, scope, "{} changes its network", p.head.flow);
        let list = s.connections.entry(p.head.flow).or_default();
        if p.head.flags.has(Flags::SYN) {
            if !p.head.flags.has(Flags::ACK) {
                s.opened.insert(p.head.flow);
            }
            let first = p.head.seq.0.wrapping_add(1);
            if list.last().is_none_or(|(f, _)| *f != first) {
                list.push((first, Direction::default()));
            }
        }
        let Some((first, direction)) = list.last_mut() else {
            continue;
        };
        let at = p
            .head
            .seq
            .0
            .wrapping_add(p.head.flags.0 as u32 >> 1 & 1)
            .wrapping_sub(*first);
        let payload = &frame[p.payload_range(frame.len())];
        // A keep-alive's byte stands before the window and is no news.
        if !payload.is_empty() && at < 1 << 31 {
            direction.segments.push((at, payload.to_vec()));
        }
    }
    s
}

#[test]
#[cfg_attr(miri, ignore = "needs captures")]
fn clients_said_what_the_manifest_says() {
    let Some(folder) = folder() else { return };
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let (mut good, mut swapped, mut corrupted, mut bad) = (0, 0, 0, Vec::new());
    let mut scoped = 0;
    for file in manifest.as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        let data = std::fs::read(folder.join(name)).unwrap();
        let mut s = streams(&data, true);
        let mut unverified = streams(&data, false);
        println!("{name}: {} segments, skipped {:?}", s.used, s.skipped);
        let tagged = file["encapsulation"].as_array().unwrap().iter();
        let tagged = |names: [&str; 4]| {
            let mut all = tagged.clone().filter_map(|e| e.as_str());
            all.any(|e| names.iter().any(|n| e.contains(n)))
        };
        if s.scopes.values().any(|scope| *scope != 0) {
            assert!(
                tagged(["vlan", "vxlan", "geneve", "gre"]),
                "{name} has no network"
            );
            scoped += 1;
        }
        let wanted = file["streams"].as_array().unwrap().iter();
        for w in wanted.filter(|w| w["syn"] == true && w["complete"] == true) {
            let end =
                |key: &str| Endpoint::from(w[key].as_str().unwrap().parse::<SocketAddr>().unwrap());
            let flow = Flow {
                src: end("client"),
                dst: end("server"),
            };
            let corrupt = |f: &Flow| CORRUPT.contains(&(name, &f.src.to_string()));
            let s = if corrupt(&flow) || corrupt(&flow.reversed()) {
                assert!(!s.connections.contains_key(&flow), "{name} {flow}");
                assert!(s.skipped.contains_key(Skip::BadChecksum.name()));
                corrupted += 1;
                &mut unverified
            } else {
                &mut s
            };
            let said = |bytes: &[u8]| {
                let hash: String = Sha256::digest(bytes)
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                w["bytes"] == bytes.len() && w["sha256"] == hash
            };
            let have = |f: &Flow| -> Vec<Vec<u8>> {
                s.connections
                    .get(f)
                    .into_iter()
                    .flatten()
                    .map(|(_, d)| d.bytes())
                    .collect()
            };
            let (there, back) = (have(&flow), have(&flow.reversed()));
            // For streams inside IP tunnels the manifest names the server as the client: the SYN
            // came from the other end. Of what that end said it knows the length alone;
            // the server's bytes are compared too, unless fragments hide some or
            // the mirror showed one direction only.
            let is_swapped = !s.opened.contains(&flow) && s.opened.contains(&flow.reversed());
            let found = if is_swapped {
                swapped += 1;
                let server_agrees = match &there[..] {
                    [] => said(&[]),
                    many => {
                        s.skipped.contains_key(Skip::Fragment.name())
                            || many.iter().any(|b| said(b))
                    }
                };
                server_agrees && back.iter().any(|b| w["server_bytes"] == b.len())
            } else if let Some(i) = there.iter().position(|b| said(b)) {
                // Each connection answers for one entry.
                s.connections.entry(flow).or_default().remove(i);
                true
            } else {
                false
            };
            if found {
                good += 1;
            } else {
                let lengths = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
                let (there, back) = (lengths(&there), lengths(&back));
                bad.push(format!(
                    "{name} {flow}: want {} bytes, have {there:?}, {back:?} back",
                    w["bytes"]
                ));
            }
        }
    }
    println!(
        "{good} streams agree, {swapped} of them with client and server swapped in the manifest"
    );
    assert!(
        bad.is_empty(),
        "{good} streams agree, these do not:\n{}",
        bad.join("\n")
    );
    assert!(good > 0, "the manifest names no complete stream");
    assert_eq!(corrupted, CORRUPT.len());
    assert!(scoped > 0, "no capture has VLANs");
}

/// Every way of damaging real frames that is cheap to try: cut at each length, and each byte of the
/// first headers changed.
#[test]
#[cfg_attr(miri, ignore = "needs captures")]
fn damaged_captures_are_read_without_harm() {
    let Some(folder) = folder() else { return };
    let mut tried = 0u64;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|e| e == "pcap" || e == "pcapng")
        {
            continue;
        }
        let data = std::fs::read(&path).unwrap();
        for (link, frame, _) in pcap::frames(&data).into_iter().take(40) {
            let mut b = frame.to_vec();
            for at in 0..frame.len().min(120) {
                for v in [0, 1, 0x0f, 0x45, 0x60, 0x7f, 0x80, 0xff] {
                    b[at] = v;
                    tried += 1;
                    if let Ok(p) = mirrored_on(link, &b, b.len()) {
                        assert!(
                            p.payload_offset + p.captured <= b.len(),
                            "{}",
                            path.display()
                        );
                    }
                    let _ = wire::decode::local(&b, b.len());
                }
                b[at] = frame[at];
                let _ = mirrored_on(link, &frame[..at], at);
                let _ = mirrored_on(link, &frame[..at], frame.len());
            }
        }
    }
    assert!(tried > 0, "no capture was read");
}
