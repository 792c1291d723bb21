//! Sending over a ring that leads back: what arrives is byte for byte what was sent, by whichever
//! way, and nothing leaks.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use arrayvec::ArrayVec;
use common::{Loop, Pool, eal, flatten, frame, headers, pattern, unique};
use dpdk::{
    DATA_ROOM, HEADER_ROOM, HEADROOM, MBUF_OVERHEAD, Mbuf, Payload, Port, PortOptions, SMALL_ROOM,
};
use std::collections::VecDeque;
use wire::io::{BURST, TxError};

#[test]
fn headers_alone_arrive_as_they_are() {
    let mut l = Loop::new();
    let h = headers(1);
    l.tx.send(&h, None).unwrap();
    assert_eq!(l.tx.flush(), 1);
    let got = l.receive();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].bytes(), h);
    assert_eq!(l.tx.counters().header_only, 1);
    assert_eq!((l.tx.counters().frames, l.tx.counters().bytes), (1, 54));
}

#[test]
fn a_payload_of_ones_own_is_sent_in_place() {
    let mut l = Loop::new();
    let data = pattern(1000, 7);
    let mut payload = l.frame(&data).into_payload(60..1000);
    let h = headers(9);
    let end = payload.len();
    l.tx.send(&h, Some((&mut payload, 0..end))).unwrap();
    assert_eq!(payload.references(), 2);
    assert_eq!(l.headers.in_use(), 0, "no other mbuf is needed");
    l.tx.flush();
    assert_eq!(payload.bytes(), &data[60..]);
    let mut got = l.receive();
    assert_eq!(got[0].segments(), 1);
    assert_eq!(got[0].bytes(), [&h[..], &data[60..]].concat());
    assert!(
        got[0].bytes_mut().is_none(),
        "the sender still holds the payload"
    );
    drop(got);
    assert_eq!(payload.references(), 1);
    assert_eq!(l.tx.counters().in_place, 1);
}

#[test]
fn a_payload_that_starts_too_near_to_its_buffers_front_is_chained() {
    let mut l = Loop::new();
    let data = pattern(100, 3);
    // A frame that came in with headers where its headroom was: 128 - 54 bytes are left of that.
    for (len, in_place) in [(74, 1), (75, 0)] {
        let h = headers(5);
        let mut payload = l.frame(&data).into_payload(0..100);
        l.tx.send(&h, Some((&mut payload, 0..100))).unwrap();
        l.tx.flush();
        drop(payload);
        let mut payload = l.receive().remove(0).into_payload(0..154);
        assert_eq!(payload.references(), 1);
        let before = l.tx.counters().in_place;
        let mut second = pattern(len, 5);
        second[12] = 0;
        l.tx.send(&second, Some((&mut payload, 0..154))).unwrap();
        l.tx.flush();
        assert_eq!(
            l.tx.counters().in_place - before,
            in_place,
            "{len} bytes of headers"
        );
        assert_eq!(
            flatten(l.receive().remove(0)),
            [&second[..], &h[..], &data[..]].concat()
        );
    }
}

#[test]
fn later_parts_leave_the_bytes_before_them_alone() {
    let mut l = Loop::new();
    let data = pattern(1200, 11);
    let mut payload = l.frame(&data).into_payload(0..1200);
    // The later part first: sent in place, its headers would lie in the first part.
    for range in [500..1200, 0..500, 500..1200] {
        let h = headers(range.start as u8);
        l.tx.send(&h, Some((&mut payload, range.clone()))).unwrap();
        l.tx.flush();
        let got = l.receive().remove(0);
        assert_eq!(flatten(got), [&h[..], &data[range]].concat());
        assert_eq!(payload.bytes(), data);
    }
    let c = l.tx.counters();
    assert_eq!((c.in_place, c.indirect, c.copied), (1, 2, 0));
}

#[test]
fn what_was_trimmed_makes_room_for_headers() {
    let mut l = Loop::new();
    let data = pattern(600, 2);
    let mut payload = l.frame(&data).into_payload(0..600);
    payload.trim_front(200);
    payload.truncate(300);
    let h = headers(4);
    l.tx.send(&h, Some((&mut payload, 0..300))).unwrap();
    l.tx.flush();
    assert_eq!(l.receive()[0].bytes(), [&h[..], &data[200..500]].concat());
    assert_eq!(l.tx.counters().in_place, 1);
    payload.trim_front(1000);
    assert!(payload.is_empty());
    payload.truncate(5);
    assert!(payload.is_empty());
}

#[test]
fn copies_share_one_buffer() {
    let mut l = Loop::new();
    let data = pattern(900, 1);
    let mut first = l.frame(&data).into_payload(100..900);
    let mut second = first.share();
    let (a, b) = (headers(1), headers(2));
    l.tx.send(&a, Some((&mut first, 0..800))).unwrap();
    l.tx.send(&b, Some((&mut second, 0..800))).unwrap();
    assert_eq!(l.packets.in_use(), 1, "one buffer for all");
    l.tx.flush();
    // The payloads go before the frames do.
    drop((first, second));
    let mut got = l.receive();
    assert_eq!(l.packets.in_use(), 1);
    let second = got.remove(1);
    assert_eq!(second.segments(), 2);
    assert_eq!(flatten(second), [&b[..], &data[100..]].concat());
    assert_eq!(flatten(got.remove(0)), [&a[..], &data[100..]].concat());
    assert_eq!(l.tx.counters().indirect, 2);
    assert_eq!(l.packets.in_use(), 0);
}

#[test]
fn retransmission_while_the_device_holds_the_first_goes_beside_it() {
    let mut l = Loop::new();
    let data = pattern(700, 8);
    let mut payload = l.frame(&data).into_payload(54..700);
    let hs: Vec<_> = (0..3).map(headers).collect();
    for h in &hs {
        // The ring keeps every frame until it is received: only the first may be written in place.
        l.tx.send(h, Some((&mut payload, 0..646))).unwrap();
        l.tx.flush();
    }
    let c = l.tx.counters();
    assert_eq!((c.in_place, c.indirect), (1, 2));
    for (frame, h) in l.receive().into_iter().zip(&hs) {
        assert_eq!(flatten(frame), [&h[..], &data[54..]].concat());
    }
    // All are back: in place again.
    let h = headers(77);
    l.tx.send(&h, Some((&mut payload, 0..646))).unwrap();
    l.tx.flush();
    assert_eq!(l.tx.counters().in_place, 2);
    assert_eq!(
        flatten(l.receive().remove(0)),
        [&h[..], &data[54..]].concat()
    );
}

#[test]
fn a_received_frame_that_is_still_shared_can_be_kept_and_sent_on() {
    let mut l = Loop::new();
    let data = pattern(400, 6);
    let mut mine = l.frame(&data).into_payload(0..400);
    let h = headers(3);
    l.tx.send(&h, Some((&mut mine, 0..400))).unwrap();
    l.tx.flush();
    // The same mbuf is now the receiver's frame and the sender's payload.
    let mut theirs = l.receive().remove(0).into_payload(10..454);
    assert_eq!((mine.references(), theirs.references()), (2, 2));
    let h2 = headers(4);
    l.tx.send(&h2, Some((&mut theirs, 0..444))).unwrap();
    assert_eq!(
        l.tx.counters().indirect,
        1,
        "the bytes before it are shared, so it must not be written in place"
    );
    l.tx.flush();
    let expected = [&h[10..], &data[..]].concat();
    assert_eq!(
        flatten(l.receive().remove(0)),
        [&h2[..], &expected[..]].concat()
    );
    assert_eq!(mine.bytes(), data);
    assert_eq!(theirs.bytes(), expected);
}

#[test]
fn payload_of_an_indirect_frame_holds_the_buffer_under_it() {
    let mut l = Loop::new();
    let data = pattern(300, 9);
    let mut payload = l.frame(&data).into_payload(0..300);
    let _second = payload.share();
    l.tx.send(&headers(0), Some((&mut payload, 0..300)))
        .unwrap();
    l.tx.flush();
    let mut got = l.receive().remove(0);
    let mut rest = got.split_rest().unwrap();
    assert!(
        rest.bytes_mut().is_none() && !rest.append(b"x"),
        "its buffer is another's"
    );
    let mut kept = rest.into_payload(5..295);
    drop((got, payload, _second));
    assert_eq!(l.packets.in_use(), 1);
    let h = headers(8);
    l.tx.send(&h, Some((&mut kept, 0..290))).unwrap();
    drop(kept);
    l.tx.flush();
    assert_eq!(
        flatten(l.receive().remove(0)),
        [&h[..], &data[5..295]].concat()
    );
    assert_eq!((l.packets.in_use(), l.headers.in_use()), (0, 0));
}

#[test]
fn a_full_ring_leaves_frames_with_their_owner() {
    let mut l = Loop::new();
    let mut sent = 0u32;
    loop {
        match l.tx.send(&headers(sent as u8), None) {
            Ok(()) => sent += 1,
            Err(e) => {
                assert_eq!(e, TxError::Full);
                break;
            }
        }
    }
    // The ring's 1023 and all that the queue holds back.
    assert_eq!((sent, l.tx.pending()), (1023 + 64, 64));
    assert_eq!(l.headers.in_use(), sent);
    assert_eq!(l.tx.flush(), 0);
    let mut whole: ArrayVec<Mbuf, 4> = (0..4).map(|i| l.frame(&pattern(60, i))).collect();
    assert_eq!(l.tx.tx_burst(&mut whole), 0);
    assert_eq!((whole.len(), l.packets.in_use()), (4, 4));

    // Everything comes out in the order it was sent, the frames last.
    let mut received = 0u32;
    for _ in 0..200 {
        l.tx.flush();
        l.tx.tx_burst(&mut whole);
        for frame in l.receive() {
            let expected = if received < sent {
                headers(received as u8)
            } else {
                pattern(60, (received - sent) as u8)
            };
            assert_eq!(frame.bytes(), expected, "frame {received}");
            received += 1;
        }
    }
    assert_eq!((received, whole.len()), (sent + 4, 0));
    assert_eq!(l.tx.counters().full, 1);
    assert_eq!(l.tx.counters().frames, u64::from(received));
}

#[test]
fn tx_burst_takes_what_fits_and_no_more() {
    let mut l = Loop::new();
    let mut taken = 0;
    let mut seed = 0u32;
    let mut frames: ArrayVec<Mbuf, BURST> = ArrayVec::new();
    loop {
        while !frames.is_full() {
            frames.push(l.frame(&seed.to_be_bytes()));
            seed += 1;
        }
        let n = l.tx.tx_burst(&mut frames);
        taken += n;
        if n < BURST {
            break;
        }
    }
    assert_eq!((taken, frames.len()), (1023, 1));
    assert_eq!(frames[0].bytes(), 1023u32.to_be_bytes());
    drop(frames);
    assert_eq!(l.packets.in_use(), 1023);
    let mut expected = 0u32;
    loop {
        let got = l.receive();
        if got.is_empty() {
            break;
        }
        for f in got {
            assert_eq!(f.bytes(), expected.to_be_bytes());
            expected += 1;
        }
    }
    assert_eq!(expected, 1023);
}

#[test]
fn an_empty_header_pool_is_said_and_loses_nothing() {
    let mut l = Loop::new();
    let all: Vec<_> = std::iter::from_fn(|| l.headers.alloc()).collect();
    assert_eq!(all.len(), 2047);
    assert_eq!(l.tx.send(&headers(0), None), Err(TxError::NoBuffer));
    let mut payload = l.frame(&pattern(200, 0)).into_payload(0..200);
    let other = payload.share();
    assert_eq!(
        l.tx.send(&headers(0), Some((&mut payload, 0..200))),
        Err(TxError::NoBuffer)
    );
    assert_eq!(payload.references(), 2);
    drop(other);
    // In place needs no header mbuf.
    l.tx.send(&headers(0), Some((&mut payload, 0..200)))
        .unwrap();
    drop(all);
    // One is not enough for a chain, and is given back.
    let mut all: Vec<_> = std::iter::from_fn(|| l.headers.alloc()).collect();
    all.pop();
    assert_eq!(
        l.tx.send(&headers(0), Some((&mut payload, 0..200))),
        Err(TxError::NoBuffer)
    );
    assert_eq!(l.headers.in_use(), 2046);
    assert_eq!(l.tx.counters().no_buffer, 3);
    assert_eq!(l.tx.pending(), 1);
}

#[test]
fn frames_beyond_the_mtu_and_ranges_outside_the_payload_are_refused() {
    let mut l = Loop::new();
    assert_eq!(l.port.info().mtu, 1500);
    let mut payload = l.frame(&pattern(1900, 0)).into_payload(0..1900);
    let h = headers(0);
    let mut tagged = headers(0);
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    tagged[16..18].copy_from_slice(&[0x08, 0x00]);
    let most = 1500 + 14 - 54;
    assert_eq!(
        l.tx.send(&h, Some((&mut payload, 0..most + 1))),
        Err(TxError::TooLong)
    );
    assert_eq!(l.tx.send(&h, Some((&mut payload, 0..most))), Ok(()));
    assert_eq!(
        l.tx.send(&tagged, Some((&mut payload, 0..most + 5))),
        Err(TxError::TooLong)
    );
    assert_eq!(
        l.tx.send(&tagged, Some((&mut payload, 0..most + 4))),
        Ok(())
    );
    assert_eq!(
        l.tx.send(&h, Some((&mut payload, 1800..1901))),
        Err(TxError::TooLong)
    );
    assert_eq!(
        l.tx.send(&h, Some((&mut payload, usize::MAX - 1..usize::MAX))),
        Err(TxError::TooLong)
    );
    assert_eq!(
        l.tx.send(&vec![0; 300], None),
        Err(TxError::TooLong),
        "more than a header mbuf holds"
    );
    assert_eq!(l.tx.counters().too_long, 5);
    // An empty range is a frame without payload.
    l.tx.send(&h, Some((&mut payload, 5..5))).unwrap();
    assert_eq!(l.tx.counters().header_only, 1);
}

#[test]
fn what_is_pending_goes_back_when_the_queue_is_dropped() {
    let mut l = Loop::new();
    let mut payload = l.frame(&pattern(500, 0)).into_payload(0..500);
    l.tx.send(&headers(0), Some((&mut payload, 0..500)))
        .unwrap();
    l.tx.send(&headers(1), Some((&mut payload, 0..500)))
        .unwrap();
    let Loop {
        rx,
        tx,
        port,
        packets,
        headers,
    } = l;
    drop((rx, port));
    assert_eq!(payload.references(), 3);
    drop(tx);
    assert_eq!(payload.references(), 1);
    assert_eq!((packets.in_use(), headers.in_use()), (1, 0));
    drop(payload);
}

#[test]
fn what_a_closed_port_still_held_goes_back() {
    let mut l = Loop::new();
    for i in 0..100 {
        l.tx.send(&headers(i), None).unwrap();
    }
    l.tx.flush();
    let Loop {
        rx,
        tx,
        port,
        packets,
        headers,
    } = l;
    assert_eq!(headers.in_use(), 100);
    drop((rx, tx, port));
    assert_eq!((packets.in_use(), headers.in_use()), (0, 0));
}

#[test]
fn without_chains_shared_payloads_are_copied() {
    let packets = Pool::new(255, DATA_ROOM);
    let small = Pool::new(255, HEADER_ROOM);
    let options = PortOptions {
        chains: false,
        ..PortOptions::default()
    };
    let device = format!("net_ring{}", unique());
    let (port, mut rx, mut tx) = Port::open(&eal(), &device, &options, &packets, &small).unwrap();
    assert!(!port.info().chains);
    let data = pattern(1400, 1);
    let mut payload = frame(&packets, &data).into_payload(0..1400);
    let other = payload.share();
    let h = headers(1);
    tx[0].send(&h, Some((&mut payload, 100..1400))).unwrap();
    drop(other);
    tx[0].send(&h, Some((&mut payload, 0..1400))).unwrap();
    tx[0].flush();
    let c = tx[0].counters();
    assert_eq!((c.in_place, c.indirect, c.copied), (1, 0, 1));
    let mut got = ArrayVec::new();
    rx[0].rx_burst(&mut got);
    assert_eq!(got[0].segments(), 1);
    assert_eq!(got[0].bytes(), [&h[..], &data[100..]].concat());
    assert_eq!(got[1].bytes(), [&h[..], &data[..]].concat());

    // The copy must fit one buffer, so the MTU is limited at the start.
    let options = PortOptions {
        mtu: Some(2040),
        ..options
    };
    let e = Port::open(
        &eal(),
        &format!("net_ring{}", unique()),
        &options,
        &packets,
        &small,
    )
    .unwrap_err();
    assert!(
        e.to_string()
            .contains("mtu is 2040, but this device takes at most 2026"),
        "{e}"
    );
}

/// Any order of sharing, cutting, sending, receiving and dropping leaves every byte as it was, and
/// every mbuf comes back.
#[test]
fn random_use_keeps_bytes_and_counts() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below.max(1) as u64) as usize
    };
    let mut l = Loop::new();
    let mut kept: Vec<(Payload, Vec<u8>)> = vec![];
    let mut expected: VecDeque<Vec<u8>> = VecDeque::new();
    for step in 0..60_000u32 {
        let pick = random(kept.len());
        match random(10) {
            0 if kept.len() < 200 => {
                let bytes = pattern(random(1400), step as u8);
                let (a, b) = (random(bytes.len() + 1), random(bytes.len() + 1));
                let range = a.min(b)..a.max(b);
                kept.push((
                    l.frame(&bytes).into_payload(range.clone()),
                    bytes[range].to_vec(),
                ));
            }
            1 if !kept.is_empty() && kept.len() < 200 => {
                let copy = (kept[pick].0.share(), kept[pick].1.clone());
                kept.push(copy);
            }
            2 if !kept.is_empty() => {
                let n = random(200);
                let (payload, bytes) = &mut kept[pick];
                payload.trim_front(n);
                bytes.drain(..n.min(bytes.len()));
            }
            3 if !kept.is_empty() => {
                let n = random(1400);
                let (payload, bytes) = &mut kept[pick];
                payload.truncate(n);
                bytes.truncate(n);
            }
            4 if !kept.is_empty() => drop(kept.swap_remove(pick)),
            5..=7 if !kept.is_empty() && expected.len() < 900 => {
                let (payload, bytes) = &mut kept[pick];
                let start = if random(2) == 0 {
                    0
                } else {
                    random(bytes.len() + 1)
                };
                let range = start..start + random(bytes.len() - start + 1);
                let mut h = headers(step as u8);
                h.resize(54 + random(68), 7);
                match l.tx.send(&h, Some((payload, range.clone()))) {
                    Ok(()) => expected.push_back([&h[..], &bytes[range]].concat()),
                    Err(e) => assert_eq!(e, TxError::TooLong, "step {step}"),
                }
            }
            8 => {
                l.tx.flush();
            }
            _ => {
                for frame in l.receive() {
                    let bytes = expected.pop_front().unwrap();
                    // Some received frames are kept, so that one mbuf is frame and payload of two
                    // holders.
                    if frame.segments() == 1 && kept.len() < 200 && random(4) == 0 {
                        let from = random(bytes.len());
                        let payload = frame.into_payload(from..usize::MAX);
                        assert_eq!(payload.bytes(), &bytes[from..], "step {step}");
                        kept.push((payload, bytes[from..].to_vec()));
                    } else {
                        assert_eq!(flatten(frame), bytes, "step {step}");
                    }
                }
            }
        }
        if step % 64 == 0 {
            assert!(kept.iter().all(|(p, b)| p.bytes() == b), "step {step}");
        }
    }
    let c = l.tx.counters();
    assert!(
        c.in_place > 500 && c.indirect > 500 && c.header_only > 100,
        "{c:?}"
    );
}

#[test]
fn a_short_payload_is_copied_and_its_frame_goes_back() {
    let mut l = Loop::new();
    let small = Pool::new(16, SMALL_ROOM);
    let most = usize::from(SMALL_ROOM - HEADROOM);
    let data = pattern(1000, 3);
    for (len, copied) in [(1, true), (most, true), (most + 1, false), (0, true)] {
        let payload = l.frame(&data).into_payload(60..60 + len).compact(&small);
        assert_eq!(payload.bytes(), &data[60..60 + len]);
        let room = if copied { SMALL_ROOM } else { DATA_ROOM };
        assert_eq!(payload.footprint(), MBUF_OVERHEAD + usize::from(room));
        assert_eq!(wire::io::Payload::holds_frame(&payload), !copied);
        assert_eq!(l.packets.in_use(), u32::from(!copied), "{len} bytes");
        assert_eq!(small.in_use(), u32::from(copied), "{len} bytes");
    }
    // The longest headers fit before it: nothing else is needed to send it.
    let mut payload = l.frame(&data).into_payload(0..200).compact(&small);
    let h = [7_u8; 14 + 40 + 60];
    l.tx.send(&h, Some((&mut payload, 0..200))).unwrap();
    l.tx.flush();
    assert_eq!(l.receive()[0].bytes(), [&h[..], &data[..200]].concat());
    assert_eq!(l.tx.counters().in_place, 1);
}

#[test]
fn a_short_payload_stays_where_it_is_if_no_small_buffer_is_free() {
    let l = Loop::new();
    let small = Pool::new(1, SMALL_ROOM);
    let first = l.frame(b"first").into_payload(0..5).compact(&small);
    let second = l.frame(b"second").into_payload(0..6).compact(&small);
    assert_eq!(
        (first.bytes(), second.bytes()),
        (&b"first"[..], &b"second"[..])
    );
    assert_eq!((small.in_use(), l.packets.in_use()), (1, 1));
    // A copy is not copied again.
    drop(second);
    let other = Pool::new(1, SMALL_ROOM);
    drop(first.compact(&other));
    assert_eq!(other.in_use(), 0);
}
