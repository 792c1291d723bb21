//! Fragments on the mirror, from a capture file to the target: the very worker loop over net_pcap,
//! with DPDK's reassembly. What the target receives is what it receives of the same capture without
//! fragments, and every frame is accounted for in the report.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

mod capture;
mod target;

use crossbeam::queue::ArrayQueue;
use dpdk::{
    DATA_ROOM, Eal, EalOptions, Mbuf, Memory, Mempool, MirrorPort, PortOptions, Reassembly, RxQueue,
};
use engine::egress::{self, Outlet};
use engine::report::{Sources, json};
use engine::worker::{ResponseOwner, Ring, Snapshot, Worker};
use replay::{Core, HashBy, Origin, Ownership, Params, Transfer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use target::{Target, Wire};
use wire::decode::{LinkType, Skip, fragment, mirrored, mirrored_on};
use wire::defragment::Insert;
use wire::host::{Host, HostConfig};
use wire::{Addr, Endpoint, Flags, Nanos, Prefix};

const MILLISECOND: Nanos = 1_000_000;
const TIMEOUT: Nanos = 2_000 * MILLISECOND;

/// Fails unless two replays brought the target the same.
fn assert_same(got: &Outcome, want: &Outcome, what: &str) {
    let lengths = |o: &Outcome| -> Vec<_> {
        let list = o.streams.iter();
        list.map(|(k, c)| (k.clone(), c.iter().map(Vec::len).collect::<Vec<_>>()))
            .collect()
    };
    assert!(
        got.streams == want.streams,
        "{what}: lengths are {:?}, should be {:?}; {:#} {:#}",
        lengths(got),
        lengths(want),
        got.report["mirror"],
        got.report["lost"]
    );
}

type Streams = BTreeMap<String, Vec<Vec<u8>>>;

/// The process's EAL, started on a thread that stays.
fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    let start = || {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let options = EalOptions {
                workers: vec![0],
                memory: Memory::NoHuge { mib: 192 },
                ..EalOptions::default()
            };
            sender.send(options.start()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap().unwrap()
    };
    EAL.get_or_init(start).clone()
}

/// A number that no other call in this process got.
fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What came of a replay.
struct Outcome {
    /// What each client sent to the target.
    streams: Streams,
    /// The engine's report.
    report: Value,
    /// Fragments that each core took in.
    parts: Vec<u64>,
}

impl Outcome {
    fn number(&self, path: &str) -> u64 {
        let at = path.split('.').fold(&self.report, |v, key| &v[key]);
        at.as_u64().unwrap_or_else(|| panic!("{path} is {at}"))
    }

    /// Frames in = frames used + the sum of the reasons.
    fn check_books(&self) {
        let dropped = self.report["mirror"]["dropped"].as_object().unwrap();
        let sum: u64 = dropped.values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(
            self.number("mirror.frames"),
            self.number("mirror.used") + sum,
            "{:#}",
            self.report["mirror"]
        );
        assert_eq!(self.number("mirror.fragments.held"), 0);
    }
}

type Rig = Worker<RxQueue, Wire, Reassembly>;

/// Any address's `port` is replayed.
fn params(port: u16, v6: bool, ownership: Ownership) -> Params {
    let from = Origin::any(port);
    let target = replay::Target {
        wait_for_responses: false,
        rtt: Some(MILLISECOND),
        gate_timeout: 100 * MILLISECOND,
        ..replay::Target::new(Endpoint::new(our_addr(v6, 2), 8_080))
    };
    let transfer = Transfer::with(from, target);
    Params {
        session_bytes: 16 << 20,
        ownership,
        seed: 1,
        start: MILLISECOND,
        ..Params::new(vec![transfer], 64, 4_096)
    }
}

fn our_addr(v6: bool, host: u8) -> Addr {
    if !v6 {
        return Addr::v4([10, 20, 0, host]);
    }
    let mut b = [0; 16];
    (b[0], b[15]) = (0xfd, host);
    Addr::v6(b)
}

fn worker(index: u16, cores: u16, port: u16, v6: bool) -> Rig {
    bare_worker(index, cores, port, v6)
        .reassembling(Reassembly::new(&eal(), 64, TIMEOUT, None).unwrap())
}

fn bare_worker(index: u16, cores: u16, port: u16, v6: bool) -> Worker<RxQueue, Wire> {
    let ownership = Ownership {
        cores,
        me: index,
        by: HashBy::Client,
    };
    let params = params(port, v6, ownership);
    let target = params.transfers[0].to[0].to;
    let host = Host::new(HostConfig {
        mac: [2; 6],
        addresses: vec![Prefix::new(our_addr(v6, 9), if v6 { 64 } else { 24 })],
        gateways: vec![],
        next_hop_mac: Some([4; 6]),
        seed: 1,
    });
    let owner = ResponseOwner::new(&params, Vec::new());
    let out = Outlet::of_one(egress::Wire::new(Wire::default(), host), &[target], index);
    let start = params.start;
    Worker::new(index, Core::new(params, start), out, owner)
}

/// Replays the frames through `cores` workers, the first of which reads all of them from a capture
/// file.
fn replay(frames: &[Vec<u8>], port: u16, cores: u16, v6: bool) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.pcap");
    std::fs::write(&path, capture::write(frames)).unwrap();
    let name = format!("f{}", unique());
    let pool = Mempool::new(&eal(), &name, 4_095, DATA_ROOM, 0, None).unwrap();
    let device = format!("net_pcap{},rx_pcap={}", unique(), path.display());
    let (mirror, queues) =
        MirrorPort::open(&eal(), &device, &PortOptions::default(), &pool).unwrap();

    let mut workers: Vec<Rig> = (0..cores).map(|i| worker(i, cores, port, v6)).collect();
    workers[0].mirrors = queues;
    let rings: Vec<Vec<Ring<Mbuf>>> = (0..cores)
        .map(|_| {
            (0..cores)
                .map(|_| Arc::new(ArrayQueue::new(1_024)))
                .collect()
        })
        .collect();
    for (i, w) in workers.iter_mut().enumerate() {
        w.to = rings.iter().map(|from| Arc::clone(&from[i])).collect();
        w.from = rings[i].iter().map(Arc::clone).collect();
    }
    let mut target = Target::default();
    let mut now = MILLISECOND;
    // Until the file is read and all fragments are through, then until all of it is replayed.
    for draining in [false, true] {
        for w in workers.iter_mut().filter(|_| draining) {
            w.core.drain(now, &mut w.out);
        }
        let end = now + 20_000 * MILLISECOND;
        let mut idle = 0;
        while idle < 2 * TIMEOUT / MILLISECOND && now < end {
            now += MILLISECOND;
            idle += 1;
            for w in &mut workers {
                if w.step(now, !draining) > 0 {
                    idle = 0;
                }
                for frame in w.out.wires()[0].tx().take() {
                    for head in target.receive(&frame) {
                        w.core.response(now, now, &head, &mut w.out);
                    }
                }
            }
            if draining && workers.iter().all(|w| w.core.is_drained()) {
                break;
            }
        }
    }
    for w in &mut workers {
        w.core.abandon(now, &mut w.out);
    }
    let snapshot = |w: &Rig| {
        let mut s = Snapshot::default();
        w.snapshot(&mut s);
        s.core.balance().unwrap();
        // Each core's own books: received or taken over = used, dropped, handed on or held.
        let (c, f) = (&s.worker, &s.fragments);
        let dropped = [&s.core.dropped[..], &c.skipped, &f.dropped].concat();
        let dropped: u64 = dropped.iter().sum();
        assert_eq!(
            c.mirror_frames + c.taken_over,
            s.core.used + dropped + f.merged + c.handover_full + c.handed_over + f.held()
        );
        s
    };
    let snapshots: Vec<_> = workers.iter().map(snapshot).collect();
    let outcome = Outcome {
        streams: target.received(),
        parts: snapshots.iter().map(|s| s.fragments.received).collect(),
        report: json(&Sources {
            targets: &[],
            workers: &snapshots,
            cpus: &vec![0; snapshots.len()],
            mirrors: vec![],
            capture: None,
            missed: Vec::new(),
            unseen: engine::unseen::Unseen::default(),
            spread: "alone",
            links_up: &[],
            clocks: Vec::new(),
            replay: Default::default(),
            answers_missed: Some(0),
            links: None,
            copies: 1,
            mbufs: [(0, 0); 2],
            elapsed: Duration::ZERO,
            is_final: true,
            failed_writes: 0,
        }),
    };
    outcome.check_books();
    drop((workers, rings, mirror));
    assert_eq!(pool.in_use(), 0, "mbufs leaked");
    outcome
}

/// A client that says 9,000 bytes to port 80, in segments of 1,000.
fn session(v6: bool) -> Vec<Vec<u8>> {
    use wire::build::{LinkHeader, tcp};
    use wire::head::HeaderBuf;
    use wire::{Flow, Head, Options, Seq};
    let addr = |host| {
        if v6 {
            let mut b = [0; 16];
            (b[0], b[15]) = (0x20, host);
            Addr::v6(b)
        } else {
            Addr::v4([10, 10, 0, host])
        }
    };
    let flow = Flow {
        src: Endpoint::new(addr(1), 40_000),
        dst: Endpoint::new(addr(2), 80),
    };
    let mut frames = vec![];
    let mut push = |seq, flags: Flags, data: &[u8]| {
        let head = Head {
            flow,
            seq,
            ack: Seq(if flags == Flags::SYN { 0 } else { 901 }),
            flags,
            window: 8_192,
            urgent: 0,
            options: Options::default(),
            payload_len: data.len() as u32,
        };
        let link = LinkHeader {
            dst: [2; 6],
            src: [4; 6],
        };
        let mut headers = HeaderBuf::new();
        tcp(&mut headers, &link, &head, 64, 1, data);
        frames.push([&headers[..], data].concat());
    };
    let first = Seq(u32::MAX - 4_000);
    let data: Vec<u8> = (0..9_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    push(first, Flags::SYN, &[]);
    push(first + 1, Flags::ACK, &[]);
    let mut at = first + 1;
    for chunk in data.chunks(1_000) {
        push(at, Flags::ACK.with(Flags::PSH), chunk);
        at += chunk.len() as u32;
    }
    push(at, Flags::ACK.with(Flags::FIN), &[]);
    frames
}

#[test]
fn fragments_are_replayed_as_what_they_were() {
    for v6 in [false, true] {
        let frames = session(v6);
        let plain = replay(&frames, 80, 1, v6);
        assert_eq!(plain.streams.len(), 1);
        assert!(plain.streams.values().all(|c| c[0].len() == 9_000));
        let cut = capture::fragmented(&frames, 256);
        for cores in [1, 2] {
            let got = replay(&cut, 80, cores, v6);
            assert_same(&got, &plain, &format!("IPv6: {v6}, {cores} cores"));
            assert_eq!(got.number("mirror.used"), plain.number("mirror.used"));
            // 1,020 bytes make four parts.
            assert_eq!(got.number("mirror.fragments.datagrams"), 9);
            assert_eq!(got.number("mirror.fragments.received"), 36);
            assert_eq!(got.number("mirror.dropped.reassembled"), 27);
            // Not whose session it is, but which datagram, chooses the core.
            assert!(got.parts.iter().all(|n| *n > 0), "{:?}", got.parts);
        }
    }
}

/// Damage that a mirror port let through, with the frame that came after it.
#[test]
fn damaged_frames_are_counted_and_what_is_sent_again_is_used() {
    for v6 in [false, true] {
        let sound = session(v6);
        let mut frames = vec![];
        for f in &sound {
            let mut damaged = f.clone();
            *damaged.last_mut().unwrap() ^= 0x40;
            frames.extend([damaged, f.clone()]);
        }
        let got = replay(&frames, 80, 1, v6);
        assert_same(&got, &replay(&sound, 80, 1, v6), "");
        assert_eq!(
            got.number("mirror.dropped.bad_checksum"),
            sound.len() as u64
        );
    }
}

#[test]
fn first_parts_without_a_whole_header_do_not_matter() {
    let frames = session(false);
    // Five parts of 8 bytes, the last of which has no more than payload, and all the rest in one.
    let small = |(i, f): (usize, &Vec<u8>)| {
        if f.len() != 1_054 {
            return vec![f.clone()];
        }
        let mut parts: Vec<_> = [0, 8, 16, 24, 32, 40]
            .map(|at| {
                let end = if at == 40 { 1_020 } else { at + 8 };
                let mut b = f[..34].to_vec();
                b[16..18].copy_from_slice(&((20 + end - at) as u16).to_be_bytes());
                b[18..20].copy_from_slice(&(i as u16).to_be_bytes());
                b[20..22]
                    .copy_from_slice(&((at / 8) as u16 | u16::from(at < 40) << 13).to_be_bytes());
                // Left to hardware.
                b[24..26].fill(0);
                b.extend(&f[34 + at..34 + end]);
                b
            })
            .into();
        parts.rotate_left(i % 6);
        parts
    };
    let small: Vec<_> = frames.iter().enumerate().flat_map(small).collect();
    let got = replay(&small, 80, 1, false);
    assert_same(&got, &replay(&frames, 80, 1, false), "");
    assert_eq!(got.number("mirror.dropped.too_short"), 0);
}

#[test]
fn without_a_reassembler_fragments_are_counted() {
    let name = format!("f{}", unique());
    let pool = Mempool::new(&eal(), &name, 255, DATA_ROOM, 0, None).unwrap();
    let mut w = bare_worker(0, 1, 80, false);
    for bytes in capture::fragmented(&session(false), 512) {
        let mut m = pool.alloc().unwrap();
        assert!(m.append(&bytes));
        let packet = w.look(Some(LinkType::Ethernet), &m);
        w.recorded_frame(MILLISECOND, Some(LinkType::Ethernet), &packet, m);
    }
    assert_eq!(w.counters.skipped[Skip::Fragment as usize], 18);
    assert_eq!((w.core.counters().used, w.counters.mirror_frames), (3, 21));
    w.core.abandon(MILLISECOND, &mut w.out);
    drop(w);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_mirror_that_shows_everything_twice() {
    let frames = session(false);
    let cut = capture::fragmented(&frames, 512);
    let twice: Vec<_> = cut.iter().flat_map(|f| [f.clone(), f.clone()]).collect();
    let got = replay(&twice, 80, 1, false);
    assert_same(&got, &replay(&frames, 80, 1, false), "");
    assert_eq!(got.number("mirror.dropped.fragment_duplicate"), 18);
    assert_eq!(got.number("mirror.dropped.reassembled"), 9);
}

#[test]
fn a_part_that_is_missing_costs_its_datagram_alone() {
    let frames = session(false);
    let mut cut = capture::fragmented(&frames, 512);
    let lost = cut
        .iter()
        .rposition(|f| fragment(f, f.len()).is_some())
        .unwrap();
    cut.remove(lost);
    let got = replay(&cut, 80, 1, false);
    assert_eq!(got.number("mirror.dropped.fragment_expired"), 1);
    assert_eq!(got.number("mirror.fragments.datagrams"), 8);
    let plain = replay(&frames, 80, 1, false);
    let (got, all) = (got.streams.into_values(), plain.streams.into_values());
    for (got, all) in got.zip(all) {
        assert_eq!(got[0], all[0][..8_000], "nothing is invented");
    }
}

#[test]
fn tunnels_inside_and_outside_of_fragments() {
    let frames = session(true);
    let plain = replay(&frames, 80, 1, true);
    let inside = capture::tunnelled(&capture::fragmented(&frames, 512));
    let outside = capture::fragmented(&capture::tunnelled(&frames), 512);
    // Both: the parts of the inner datagrams come out of datagrams that were in parts themselves.
    let mut both = vec![];
    for (i, f) in inside.iter().enumerate() {
        let len = f.len() - 34;
        // A SYN is never in parts.
        if len <= 200 {
            both.push(f.clone());
            continue;
        }
        for (offset, more) in [(0, true), (64, false)] {
            let mut b = f[..34].to_vec();
            let data = &f[34 + offset..if more { 34 + 64 } else { f.len() }];
            b[16..18].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
            b[18..20].copy_from_slice(&(i as u16).to_be_bytes());
            b[20..22].copy_from_slice(&((offset / 8) as u16 | u16::from(more) << 13).to_be_bytes());
            b.extend(data);
            both.push(b);
        }
    }
    for (name, frames) in [("inside", inside), ("outside", outside), ("both", both)] {
        for cores in [1, 2] {
            let got = replay(&frames, 80, cores, true);
            assert_same(&got, &plain, &format!("{name}, {cores} cores"));
            let datagrams = got.number("mirror.fragments.datagrams");
            assert!(datagrams >= 9, "{name}: {datagrams}");
        }
    }
}

#[test]
fn real_captures_in_fragments_are_replayed_as_without() {
    let captures = [
        ("http__http-post-large.pcap", 80, false),
        ("ftp__ipv6.pcap", 21, true),
    ];
    for (name, port, v6) in captures {
        let Some(path) = capture::real(name) else {
            continue;
        };
        let frames = capture::read(&std::fs::read(path).unwrap());
        let plain = replay(&frames, port, 1, v6);
        let bytes: usize = plain.streams.values().flatten().map(Vec::len).sum();
        assert!(bytes > 0, "{name} has nothing for port {port}");
        let cut = capture::fragmented(&frames, 376);
        let parts = cut.iter().filter(|f| fragment(f, f.len()).is_some());
        let parts = parts.count() as u64;
        for cores in [1, 2] {
            let got = replay(&cut, port, cores, v6);
            assert_same(&got, &plain, &format!("{name}, {cores} cores"));
            assert_eq!(got.number("mirror.fragments.received"), parts);
            assert_eq!(got.number("mirror.dropped.fragment"), 0);
        }
        println!("{name}: {bytes} bytes in {parts} parts");
    }
}

/// The tunnel of this capture is itself in fragments wherever it carries a full-sized frame.
#[test]
fn a_real_tunnel_in_fragments_is_read_to_the_last_byte() {
    use sha2::{Digest, Sha256};
    let (Some(path), Some(manifest)) =
        (capture::real("erspan.pcap"), capture::real("manifest.json"))
    else {
        return;
    };
    let frames = capture::read(&std::fs::read(path).unwrap());
    let fragments = frames
        .iter()
        .filter(|f| mirrored(f, f.len()) == Err(Skip::Fragment));
    assert!(fragments.count() > 0);
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let entry = manifest
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["file"] == "erspan.pcap")
        .unwrap();
    // The manifest calls the server a client. What it said is in the fragments; of the client it
    // knows the length.
    let server = streams(&frames);
    for cores in [1, 2] {
        let client = replay(&frames, 80, cores, false);
        assert_eq!(client.number("mirror.dropped.fragment"), 0);
        assert!(client.number("mirror.fragments.datagrams") > 0);
        for s in entry["streams"].as_array().unwrap() {
            let name = s["server"].as_str().unwrap();
            let said = &client.streams[name];
            assert!(said.iter().any(|b| s["server_bytes"] == b.len()), "{name}");
            let said = &server[&format!("{} -> {name}", s["client"].as_str().unwrap())];
            let hash: String = Sha256::digest(said)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            let said = (Value::from(said.len()), Value::from(hash));
            assert_eq!(said, (s["bytes"].clone(), s["sha256"].clone()), "{name}");
        }
    }
}

/// What each side of each connection said, reassembled and put in order: the first copy of each
/// byte counts. What the capture itself lacks is left out, as the manifest has it.
fn streams(frames: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let mut table = Reassembly::new(&eal(), 64, TIMEOUT, None).unwrap();
    let name = format!("f{}", unique());
    let pool = Mempool::new(&eal(), &name, 511, DATA_ROOM, 0, None).unwrap();
    let mut segments: BTreeMap<String, Vec<(u32, Vec<u8>)>> = BTreeMap::new();
    for bytes in frames {
        let mut m = pool.alloc().unwrap();
        assert!(m.append(bytes));
        let mut link = LinkType::Ethernet;
        if let Some(part) = fragment(m.bytes(), m.frame_len()) {
            match table.insert(0, m, &part) {
                Insert::Whole(datagram) => m = datagram,
                _ => continue,
            }
            link = LinkType::RawIp;
        }
        let Ok(p) = mirrored_on(link, m.bytes(), m.frame_len()) else {
            continue;
        };
        let (start, mut all) = (p.payload_offset, vec![]);
        let mut next = Some(m);
        while let Some(mut m) = next {
            next = m.split_rest();
            all.extend_from_slice(m.bytes());
        }
        let (from, to) = (p.head.flow.src, p.head.flow.dst);
        let list = segments.entry(format!("{from} -> {to}")).or_default();
        let at = p.head.seq + u32::from(p.head.flags.has(Flags::SYN));
        list.push((at.0, all[start..start + p.captured].to_vec()));
    }
    assert_eq!(table.counters().held(), 0);
    let in_order = |(k, list): (String, Vec<(u32, Vec<u8>)>)| {
        let first = list.first().map_or(0, |(at, _)| *at);
        let mut list: Vec<_> = list
            .into_iter()
            .map(|(at, data)| (at.wrapping_sub(first), data))
            .filter(|(at, _)| *at < 1 << 31)
            .collect();
        list.sort_by_key(|(at, _)| *at);
        let (mut out, mut end) = (vec![], 0);
        for (at, data) in list {
            if at > end {
                end = at;
            }
            out.extend(data.get((end - at) as usize..).unwrap_or(&[]));
            end = end.max(at + data.len() as u32);
        }
        (k, out)
    };
    segments.into_iter().map(in_order).collect()
}
