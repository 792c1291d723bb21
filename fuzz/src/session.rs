//! Any sequence of events into a session core: frames of the mirror, live or from a recording, in
//! any VLAN, damaged ones among them; segments of the target, time, a transmit queue that refuses,
//! the engine's end. After each of them the core is audited, and no byte leaves that was not
//! captured.

use arbitrary::{Arbitrary, Unstructured};
use replay::params::{Target, Transfer};
use replay::slots::Slice;
use replay::{Core, Egress, Pace, Params, Refused};
use std::collections::HashSet;
use std::ops::Range;
use tests::memory::{MemoryFrame, MemoryPayload};
use wire::build::{self, LinkHeader};
use wire::decode::{LinkType, Packet, verified_on};
use wire::head::HeaderBuf;
use wire::io::{Frame, Payload};
use wire::scope::{self, Network};
use wire::{Addr, Endpoint, Flags, Flow, Head, Nanos, Options, Seq};

const PRODUCTION: Endpoint = Endpoint::new(Addr::v4([10, 10, 0, 2]), 80);
const TARGET: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 2]), 8080);
const OTHER: Endpoint = Endpoint::new(Addr::v4([10, 20, 0, 3]), 9090);
/// Where streams begin: close to the wrap.
const BASE: Seq = Seq(u32::MAX - 200);
const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MS;
/// When a capture began, on the clock that stamps its frames.
const EPOCH: Nanos = 1_700_000_000 * SECOND;

/// Where and when a frame was captured.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Seen {
    /// In which VLAN: 0 is none.
    vlan: u8,
    /// How many milliseconds later than now, if the frame says when.
    stamp: Option<i16>,
}

#[derive(Arbitrary, Debug)]
enum Event {
    /// A client's frame: offsets from [`BASE`], so that they meet.
    Client {
        client: u8,
        seq: u16,
        ack: u16,
        flags: u8,
        len: u16,
        cut: u8,
        buffer: u8,
        seen: Seen,
    },
    /// A frame of production's server.
    Server {
        client: u8,
        seq: u16,
        ack: u16,
        flags: u8,
        len: u16,
        seen: Seen,
    },
    /// A client's frame of which one byte is another on arrival.
    Damaged {
        client: u8,
        seq: u16,
        ack: u16,
        flags: u8,
        len: u8,
        at: u16,
        with: u8,
    },
    /// A segment of the target that fits the newest segment sent to it: `seq` and `ack` are offsets
    /// from what would be right. It was received some milliseconds ago.
    Target {
        which: u8,
        seq: i8,
        ack: i16,
        flags: u8,
        len: u16,
        window: u16,
        sack: Option<(u8, u8)>,
        stamp: Option<u8>,
        ago: u8,
    },
    /// A segment of the target with any numbers.
    Stray {
        client: u8,
        seq: u32,
        ack: u32,
        flags: u8,
    },
    Pass {
        ms: u16,
    },
    Wait {
        seconds: u8,
    },
    Refuse(bool),
    Shed(bool),
    Drain,
    EndAll,
    Abandon,
}

#[derive(Arbitrary, Debug)]
struct Input {
    copies: u8,
    max_segments: u8,
    session_bytes: u16,
    pool: bool,
    full_sessions_only: bool,
    wait_for_responses: bool,
    mtu: u16,
    pace: u8,
    events: Vec<Event>,
}

fn byte_at(seq: Seq) -> u8 {
    (seq.0.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

#[derive(Default)]
struct Out {
    captured: HashSet<u32>,
    sent: Vec<Head>,
    refuse: bool,
    shed: bool,
}

impl Egress<MemoryPayload> for Out {
    fn send(
        &mut self,
        _: u16,
        head: &Head,
        payload: Option<(&mut MemoryPayload, Range<usize>)>,
    ) -> Result<(), Refused> {
        let bytes = payload
            .as_ref()
            .map_or(&[][..], |(p, r)| &p.bytes()[r.clone()]);
        assert_eq!(bytes.len(), head.payload_len as usize);
        for (i, &b) in bytes.iter().enumerate() {
            let seq = head.seq + i as u32;
            assert!(self.captured.contains(&seq.0), "{seq:?} was never captured");
            assert_eq!(b, byte_at(seq));
        }
        assert!([TARGET, OTHER].contains(&head.flow.dst));
        if self.refuse {
            return Err(Refused::Busy);
        }
        self.sent.push(*head);
        Ok(())
    }

    fn claim(&mut self, _: &Flow) -> bool {
        !self.shed
    }

    fn release(&mut self, _: &Flow) {}

    fn accepts_sessions(&self) -> bool {
        !self.shed
    }
}

fn params(input: &Input) -> Params {
    let target = Target {
        wait_for_responses: input.wait_for_responses,
        ..Target::new(TARGET)
    };
    let mut transfer = Transfer::with(PRODUCTION, target);
    if input.copies / 3 % 2 == 1 {
        // Half of the sessions go to another target as well.
        transfer.to.push(Target {
            copies: Some(1),
            percent: Some(50.0 * f64::from(1 + input.copies / 6 % 2)),
            ..Target::new(OTHER)
        });
    }
    let max_segments = usize::from(input.max_segments) + 1;
    Params {
        copies: u16::from(input.copies % 3) + 1,
        full_sessions_only: input.full_sessions_only,
        session_timeout: 60 * SECOND,
        keepalive_timeout: 72 * SECOND,
        session_bytes: u64::from(input.session_bytes),
        mtu: input.mtu.max(68),
        pool: if input.pool {
            vec![Slice {
                first: Addr::v4([62, 135, 200, 1]),
                addresses: 1,
                low: 2000,
                high: 2004,
            }]
        } else {
            Vec::new()
        },
        seed: 1,
        pace: match input.pace % 4 {
            0 => Pace::Live,
            1 => Pace::Recorded(0.5),
            2 => Pace::Recorded(20.0),
            _ => Pace::Unpaced,
        },
        ..Params::new(vec![transfer], 4, max_segments)
    }
}

fn client(n: u8) -> Flow {
    Flow {
        src: Endpoint::new(Addr::v4([192, 0, 2, 1]), 4000 + u16::from(n % 5)),
        dst: PRODUCTION,
    }
}

fn head(flow: Flow, seq: Seq, ack: Seq, flags: u8, payload_len: u32) -> Head {
    Head {
        flow,
        seq,
        ack,
        flags: Flags(flags & 0x3f),
        window: 1000,
        urgent: 0,
        options: Options::default(),
        payload_len,
    }
}

fn scope(seen: Seen) -> u32 {
    match seen.vlan % 3 {
        0 => 0,
        vlan => scope::fold(0, Network::Vlan(vlan.into())),
    }
}

fn stamped(frame: MemoryFrame, epoch: Nanos, now: Nanos, seen: Seen) -> MemoryFrame {
    match seen.stamp {
        Some(ms) => frame.captured_at((epoch + now).wrapping_add_signed(i64::from(ms) * MS as i64)),
        None => frame,
    }
}

/// The frame with a byte behind its Ethernet header changed by `with`, if anybody can take it for a
/// sound one: then nothing that matters has changed.
fn damaged(head: &Head, payload: &[u8], at: u16, with: u8) -> Option<(Packet, MemoryFrame)> {
    let mut headers = HeaderBuf::new();
    let link = LinkHeader {
        dst: [2; 6],
        src: [4; 6],
    };
    build::tcp(&mut headers, &link, head, 64, 0, payload);
    let mut bytes = [&headers, payload].concat();
    let at = 14 + usize::from(at) % (bytes.len() - 14);
    bytes[at] ^= with;
    let frame = MemoryFrame::new(&bytes);
    let packet = verified_on(LinkType::Ethernet, frame.bytes(), frame.frame_len()).ok()?;
    let said = &bytes[packet.payload_offset..][..packet.captured];
    // A checksum may have become one that the hardware was to finish.
    let same = packet.head == *head && said == payload;
    assert!(
        same || said.is_empty() || with != 0,
        "a sound frame has changed"
    );
    same.then_some((packet, frame))
}

/// The segment of the target that `event` describes, right for the newest segment sent on some
/// connection.
fn answer(out: &Out, event: &Event) -> Option<Head> {
    let Event::Target {
        which,
        seq,
        ack,
        flags,
        len,
        window,
        sack,
        stamp,
        ..
    } = *event
    else {
        return None;
    };
    let last = out.sent.iter().rev().nth(usize::from(which % 8))?;
    let expected = if last.flags.has(Flags::ACK) {
        last.ack
    } else {
        Seq(77)
    };
    let mut h = head(
        last.flow.reversed(),
        Seq(expected.0.wrapping_add_signed(seq.into())),
        Seq(last.end().0.wrapping_add_signed(ack.into())),
        flags,
        u32::from(len % 3000),
    );
    h.window = window;
    if h.flags.has(Flags::SYN) {
        h.options.mss = Some(window % 2000);
        h.options.window_scale = Some((window % 15) as u8);
        h.options.sack_permitted = window.is_multiple_of(2);
    }
    if let Some((left, n)) = sack {
        let left = h.ack + u32::from(left) * 16;
        h.options.push_sack(left, left + u32::from(n) * 16);
    }
    h.options.timestamps = stamp.map(|s| (s.into(), 0));
    Some(h)
}

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    // What is too short for an input is none.
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let mut core = Core::<MemoryPayload>::new(params(&input), 0);
    let mut out = Out::default();
    // Of a live mirror the times are told by our own clock.
    let live = core.params().pace == Pace::Live;
    let epoch = if live { 0 } else { EPOCH };
    let mut now = SECOND;
    for event in input.events.iter().take(300) {
        match *event {
            Event::Client {
                client: c,
                seq,
                ack,
                flags,
                len,
                cut,
                buffer,
                seen,
            } => {
                let len = usize::from(len % 4000);
                let seq = BASE + u32::from(seq);
                let h = head(client(c), seq, BASE + u32::from(ack), flags, len as u32);
                let first = seq + u32::from(h.flags.has(Flags::SYN));
                let captured = len - usize::from(cut).min(len);
                let bytes: Vec<u8> = (0..captured as u32).map(|i| byte_at(first + i)).collect();
                if h.flags.0 & Flags::RST.0 == 0 {
                    let there = (0..captured as u32).map(|i| (first + i).0);
                    out.captured.extend(there);
                }
                let frame = MemoryFrame::chained(&bytes, usize::from(buffer) * 16 + 64);
                let frame = stamped(frame, epoch, now, seen);
                let packet = Packet {
                    head: h,
                    payload_offset: 0,
                    captured,
                    depth: 0,
                    scope: scope(seen),
                };
                let _ = core.mirror(now, &packet, frame, &mut out);
            }
            Event::Server {
                client: c,
                seq,
                ack,
                flags,
                len,
                seen,
            } => {
                let h = head(
                    client(c).reversed(),
                    BASE + u32::from(seq),
                    BASE + u32::from(ack),
                    flags,
                    u32::from(len),
                );
                let packet = Packet {
                    head: h,
                    payload_offset: 0,
                    captured: 0,
                    depth: 0,
                    scope: scope(seen),
                };
                let frame = stamped(MemoryFrame::new(&[]), epoch, now, seen);
                let _ = core.mirror(now, &packet, frame, &mut out);
            }
            Event::Damaged {
                client: c,
                seq,
                ack,
                flags,
                len,
                at,
                with,
            } => {
                let seq = BASE + u32::from(seq);
                let h = head(client(c), seq, BASE + u32::from(ack), flags, len.into());
                let first = seq + u32::from(h.flags.has(Flags::SYN));
                let bytes: Vec<u8> = (0..len.into()).map(|i| byte_at(first + i)).collect();
                if let Some((packet, frame)) = damaged(&h, &bytes, at, with) {
                    let there = (0..u32::from(len)).map(|i| (first + i).0);
                    out.captured.extend(there);
                    let _ = core.mirror(now, &packet, frame, &mut out);
                }
            }
            Event::Target { ago, .. } => {
                if let Some(h) = answer(&out, event) {
                    core.response(now, now - Nanos::from(ago) * MS, &h, &mut out);
                }
            }
            Event::Stray {
                client: c,
                seq,
                ack,
                flags,
            } => {
                let flow = Flow {
                    src: TARGET,
                    dst: client(c).src,
                };
                core.response(
                    now,
                    now,
                    &head(flow, Seq(seq), Seq(ack), flags, 0),
                    &mut out,
                );
            }
            Event::Pass { ms } => now += u64::from(ms) * MS,
            Event::Wait { seconds } => now += u64::from(seconds) * SECOND,
            Event::Refuse(refuse) => out.refuse = refuse,
            Event::Shed(shed) => out.shed = shed,
            Event::Drain => core.drain(now, &mut out),
            Event::EndAll => core.end_all(now, &mut out),
            Event::Abandon => core.abandon(now, &mut out),
        }
        core.poll(now, &mut out);
        if let Err(e) = core.audit() {
            panic!("after {event:?}: {e}");
        }
    }
    // Whatever happened, it comes to an end: with the target gone, everything is given up in time.
    out.refuse = false;
    core.drain(now, &mut out);
    for _ in 0..200 {
        now += 10 * SECOND;
        core.poll(now, &mut out);
        if core.session_count() == 0 {
            break;
        }
    }
    if let Err(e) = core.audit() {
        panic!("at the end: {e}");
    }
    assert_eq!(core.segment_count(), 0);
    // The clock of a recording without a pace stands still at its end, so that its sessions stay.
    assert!(core.session_count() == 0 || core.params().pace == Pace::Unpaced);
    assert!(core.is_drained());
    assert_eq!(core.slots().0, 0);
}
