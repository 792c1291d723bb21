//! Two ends talk to each other over plain memory, with time as a number.

use super::*;
use crate::tests::head;
use crate::{Claim, Record};
use wire::{Addr, Endpoint};

const KEY: [u8; 32] = [7; 32];

fn end(role: Role, key: Option<[u8; 32]>) -> Connection {
    let settings = Settings {
        role,
        name: format!("{role:?}"),
        instance: 1,
        payload_prefix: 0,
        key,
    };
    Connection::new(settings, 0)
}

fn pair(engine: Option<[u8; 32]>, intercept: Option<[u8; 32]>) -> (Connection, Connection) {
    (end(Role::Engine, engine), end(Role::Intercept, intercept))
}

/// Carries bytes of `from` to `to` in pieces of `step`.
fn carry(from: &mut Connection, to: &mut Connection, now: Nanos, step: usize) -> Result<(), Error> {
    while !from.output().is_empty() {
        let piece: Vec<u8> = from.output().iter().copied().take(step).collect();
        from.consume(piece.len());
        to.receive(&piece, now)?;
    }
    Ok(())
}

/// Lets both talk until both are silent; returns what the first error of each end was.
fn talk(
    a: &mut Connection,
    b: &mut Connection,
    now: Nanos,
    step: usize,
) -> (Option<Error>, Option<Error>) {
    let (mut ea, mut eb) = (None, None);
    while !(a.output().is_empty() && b.output().is_empty()) {
        if let Err(e) = carry(a, b, now, step) {
            eb.get_or_insert(e);
        }
        if let Err(e) = carry(b, a, now, step) {
            ea.get_or_insert(e);
        }
    }
    (ea, eb)
}

fn claim() -> Message {
    let client = Endpoint::new(Addr::v4([10, 0, 0, 1]), 1);
    let target = Endpoint::new(Addr::v4([10, 0, 0, 2]), 80);
    Message::Claim(Claim::exact(client, target, 1))
}

fn responses(n: usize) -> Message {
    let record = Record {
        head: head(false),
        received_at: 5,
        prefix: (*b"HTTP/1.1 200").into(),
        path_mtu: None,
    };
    Message::Responses {
        owner: 1,
        records: vec![record; n],
    }
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn messages_pass_in_both_directions_however_the_stream_is_cut() {
    for key in [None, Some(KEY)] {
        for step in [1, 3, 8, 100_000] {
            let (mut a, mut b) = pair(key, key);
            assert_eq!(talk(&mut a, &mut b, 1, step), (None, None));
            assert!(
                a.is_established() && b.is_established(),
                "key {} step {step}",
                key.is_some()
            );
            assert_eq!(a.peer().unwrap().name, "Intercept");
            assert_eq!(b.peer().unwrap().name, "Engine");
            a.send(&claim()).unwrap();
            b.send(&responses(3)).unwrap();
            b.send(&responses(0)).unwrap();
            assert_eq!(talk(&mut a, &mut b, 2, step), (None, None));
            assert_eq!(b.next_message(), Some(claim()));
            assert_eq!(a.next_message(), Some(responses(3)));
            assert_eq!(a.next_message(), Some(responses(0)));
            assert_eq!((a.next_message(), b.next_message()), (None, None));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn encoded_batches_are_the_same_as_messages() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    talk(&mut a, &mut b, 0, 999);
    let Message::Responses { owner, records } = responses(5) else {
        unreachable!()
    };
    let mut bytes = Vec::new();
    records.iter().for_each(|r| r.encode(&mut bytes));
    b.send_records(owner, 5, &bytes).unwrap();
    assert_eq!(b.unsent_records(), 5);
    b.consume(1);
    assert_eq!(
        b.unsent_records(),
        5,
        "a batch counts until its last byte is written"
    );
    b.consume(usize::MAX);
    assert_eq!((b.unsent_records(), b.output().len()), (0, 0));
    b.send_records(owner, 5, &bytes).unwrap();
    // The frame that was swallowed above is missed by the nonce of the next.
    assert_eq!(talk(&mut a, &mut b, 0, 999), (Some(Error::Sealed), None));
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn with_a_key_no_payload_is_readable() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    talk(&mut a, &mut b, 0, 999);
    b.send(&responses(1)).unwrap();
    assert!(!b.output().windows(4).any(|w| w == b"HTTP"));
    let (mut c, mut d) = pair(None, None);
    talk(&mut c, &mut d, 0, 999);
    d.send(&responses(1)).unwrap();
    assert!(d.output().windows(4).any(|w| w == b"HTTP"));
}

#[test]
fn different_keys_are_told_at_both_ends() {
    let (mut a, mut b) = pair(Some(KEY), Some([8; 32]));
    let (ea, eb) = talk(&mut a, &mut b, 0, 999);
    assert_eq!(eb, Some(Error::WrongKey));
    let ea = ea.unwrap().to_string();
    assert!(ea.contains("does not have the same key"), "{ea}");
    assert!(a.has_ended() && b.has_ended());
    assert_eq!(a.send(&claim()), Err(Error::Ended));
}

#[test]
fn a_key_at_one_end_alone_is_told_at_both_ends() {
    let (mut a, mut b) = pair(Some(KEY), None);
    assert_eq!(
        talk(&mut a, &mut b, 0, 999),
        (Some(Error::PeerHasNoKey), Some(Error::PeerHasKey))
    );
    let (mut a, mut b) = pair(None, Some(KEY));
    assert_eq!(
        talk(&mut a, &mut b, 0, 999),
        (Some(Error::PeerHasKey), Some(Error::PeerHasNoKey))
    );
}

#[test]
fn a_hello_changed_on_its_way_fails_the_handshake() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    let mut hello = a.output().to_vec();
    a.consume(hello.len());
    *hello.last_mut().unwrap() ^= 1;
    b.receive(&hello, 0).unwrap();
    let (_, eb) = talk(&mut a, &mut b, 0, 999);
    assert_eq!(eb, Some(Error::WrongKey));
}

#[test]
fn a_replayed_handshake_does_not_establish_the_link() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    let hello = a.output().to_vec();
    a.consume(hello.len());
    // b's hello is the same for the same settings, so a recorded first message fits.
    carry(&mut b, &mut a, 0, 999).unwrap();
    let first = a.output().to_vec();
    let mut c = end(Role::Intercept, Some(KEY));
    c.receive(&hello, 0).unwrap();
    c.receive(&first, 0).unwrap();
    assert!(!c.is_established());
    assert_eq!(c.send(&responses(1)), Err(Error::NotEstablished));
}

#[test]
fn another_version_is_refused_in_words_at_both_ends() {
    let (mut a, mut b) = pair(None, None);
    let mut hello = a.output().to_vec();
    a.consume(hello.len());
    // A peer of version 3: in the frame's header and in its hello.
    hello[4] = 3;
    hello[HEADER_LEN] = 3;
    let e = b.receive(&hello, 0).unwrap_err();
    assert_eq!(
        e.to_string(),
        "version 3 offered, this side speaks 2\u{2013}2"
    );
    let (ea, _) = talk(&mut a, &mut b, 0, 999);
    // `a` itself speaks version 2, so it gets through the hello and reads the refusal.
    assert!(matches!(ea, None | Some(Error::Refused(_))));
    let said = a.next_message();
    assert_eq!(
        said,
        Some(Message::Refuse {
            reason: "version 3 offered, this side speaks 2\u{2013}2".into()
        })
    );
}

#[test]
fn a_stranger_gets_no_answer() {
    let mut b = end(Role::Intercept, None);
    let n = b.output().len();
    b.consume(n);
    assert!(matches!(
        b.receive(b"GET / HTTP/1.0\r\n", 0),
        Err(Error::Magic { .. })
    ));
    assert!(b.output().is_empty());
    assert_eq!(b.receive(b"x", 0), Err(Error::Ended));
    assert_eq!(b.poll(0), Err(Error::Ended));
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn heartbeats_keep_a_quiet_link_alive_and_silence_ends_it() {
    let second = HEARTBEAT_EVERY;
    for key in [None, Some(KEY)] {
        let (mut a, mut b) = pair(key, key);
        talk(&mut a, &mut b, 0, 999);
        for n in 1..=10 {
            a.set_stats(Stats {
                records: n,
                dropped: 1,
            });
            a.poll(n * second).unwrap();
            b.poll(n * second).unwrap();
            assert!(!a.output().is_empty() && !b.output().is_empty());
            assert_eq!(talk(&mut a, &mut b, n * second, 999), (None, None));
            assert_eq!(b.peer_stats().records, n);
        }
        let last = 10 * second;
        assert!(a.next_poll() <= last + second);
        a.poll(last + DEAD_AFTER - 1).unwrap();
        assert_eq!(a.poll(last + DEAD_AFTER), Err(Error::Dead { millis: 3000 }));
        assert!(a.has_ended() && !a.is_established());
        assert_eq!(a.poll(last + DEAD_AFTER), Err(Error::Ended));
    }
}

#[test]
fn an_intercept_tells_of_its_port_whom_it_may() {
    let told = |n| PortReport {
        missed: n,
        resolution: 1_000,
    };
    let (mut a, mut b) = pair(None, None);
    b.set_port(told(5));
    a.set_port(told(99));
    talk(&mut a, &mut b, 0, 3);
    assert_eq!(a.peer_port(), Some(told(5)), "with the first heartbeat");
    b.set_port(told(6));
    a.poll(HEARTBEAT_EVERY).unwrap();
    b.poll(HEARTBEAT_EVERY).unwrap();
    assert_eq!(talk(&mut a, &mut b, HEARTBEAT_EVERY, 3), (None, None));
    assert_eq!((a.peer_port(), b.peer_port()), (Some(told(6)), None));

    // An engine of before does not know the message, and gets none.
    let mut old = Vec::new();
    let hello = Message::Hello(Hello {
        version: VERSION,
        features: Features::default(),
        payload_prefix: 0,
        instance: 1,
        name: "old".into(),
    });
    frame::encode_frame(&hello, &mut old).unwrap();
    let mut b = end(Role::Intercept, None);
    b.set_port(told(5));
    b.receive(&old, 0).unwrap();
    let (mut output, mut kinds) = (b.output(), Vec::new());
    while let Ok(Some((message, n))) = crate::decode_frame(output) {
        kinds.push(message.name());
        output = &output[n..];
    }
    assert_eq!(kinds, ["hello", "heartbeat"]);

    // Nobody but an intercept tells of a port.
    let mut frame = Vec::new();
    frame::encode_frame(&Message::Port(told(1)), &mut frame).unwrap();
    let e = b.receive(&frame, 0).unwrap_err();
    assert!(matches!(e, Error::Unexpected { .. }), "{e}");
}

#[test]
fn a_peer_that_says_nothing_at_all_is_given_up() {
    let mut a = end(Role::Engine, Some(KEY));
    a.poll(DEAD_AFTER - 1).unwrap();
    assert_eq!(a.next_poll(), DEAD_AFTER);
    assert!(matches!(a.poll(DEAD_AFTER), Err(Error::Dead { .. })));
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn a_backlog_is_an_error_and_not_memory() {
    for key in [None, Some(KEY)] {
        let (mut a, mut b) = pair(key, key);
        talk(&mut a, &mut b, 0, 9999);
        let mut queued = 0;
        let e = loop {
            match b.send(&responses(100)) {
                Ok(()) => queued += 100,
                Err(e) => break e,
            }
            assert!(b.output().len() < OUTPUT_LIMIT + 65536);
        };
        assert!(matches!(e, Error::Backlog { queued } if queued >= OUTPUT_LIMIT));
        assert_eq!(b.unsent_records(), queued);
        // Heartbeats still go, but not without end.
        for n in 1..100_000 {
            b.poll(HEARTBEAT_EVERY).unwrap();
            b.receive(&[], n * HEARTBEAT_EVERY).unwrap();
            b.poll(n * HEARTBEAT_EVERY).unwrap();
        }
        assert!(b.output().len() <= OUTPUT_LIMIT + CONTROL_RESERVE + 65536);
        assert_eq!(talk(&mut a, &mut b, 0, 65536), (None, None));
        assert_eq!(b.unsent_records(), 0);
        let mut got = 0;
        while let Some(Message::Responses { records, .. }) = a.next_message() {
            got += records.len() as u64;
        }
        assert_eq!(got, queued);
        b.send(&responses(1)).unwrap();
    }
}

#[test]
fn messages_of_the_wrong_end_are_refused_at_both() {
    let (mut a, mut b) = pair(None, None);
    assert_eq!(a.send(&claim()), Err(Error::NotEstablished));
    talk(&mut a, &mut b, 0, 999);
    assert!(matches!(
        a.send(&responses(1)),
        Err(Error::Unexpected { .. })
    ));
    assert!(matches!(b.send(&claim()), Err(Error::Unexpected { .. })));
    let mut bytes = Vec::new();
    frame::encode_frame(&responses(1), &mut bytes).unwrap();
    assert!(matches!(
        b.receive(&bytes, 0),
        Err(Error::Unexpected { .. })
    ));
}

#[test]
fn too_many_records_for_one_batch_are_refused() {
    let (mut a, mut b) = pair(None, None);
    talk(&mut a, &mut b, 0, 999);
    assert!(matches!(
        b.send(&responses(BATCH_RECORDS + 1)),
        Err(Error::Invalid { found: 257, .. })
    ));
    assert!(b.output().is_empty());
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn a_goodbye_ends_both_ends_after_what_was_sent_before_it() {
    for key in [None, Some(KEY)] {
        let (mut a, mut b) = pair(key, key);
        talk(&mut a, &mut b, 0, 999);
        b.send(&responses(2)).unwrap();
        b.send(&Message::Bye).unwrap();
        assert!(b.has_ended());
        carry(&mut b, &mut a, 0, 7).unwrap();
        assert_eq!(a.next_message(), Some(responses(2)));
        assert_eq!(a.next_message(), Some(Message::Bye));
        assert!(a.has_ended());
    }
}

#[test]
fn the_peers_clock_is_told_in_ours() {
    let (mut a, mut b) = pair(None, None);
    // b's clock is 1 h ahead of a's.
    let ahead = 3_600_000_000_000;
    assert_eq!(a.peer_clock(5), None);
    b.receive(a.output(), ahead).unwrap();
    a.consume(usize::MAX);
    a.receive(b.output(), 0).unwrap();
    b.consume(usize::MAX);
    let request = a.output().to_vec();
    a.consume(request.len());
    b.receive(&request, ahead + 1000).unwrap();
    let answer = b.output().to_vec();
    a.receive(&answer, 2000).unwrap();
    assert_eq!(a.round_trip(), Some(2000));
    let clock = a.peer_clock(2000).unwrap();
    assert_eq!((clock.to_local(ahead + 77), clock.error()), (77, 1000));
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn a_damaged_sealed_frame_ends_the_link() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    talk(&mut a, &mut b, 0, 999);
    b.send(&responses(1)).unwrap();
    let mut bytes = b.output().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(a.receive(&bytes, 0), Err(Error::Sealed));
    // A message in the clear is no way around the key.
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    talk(&mut a, &mut b, 0, 999);
    let mut bytes = Vec::new();
    frame::encode_frame(&claim(), &mut bytes).unwrap();
    assert!(matches!(
        b.receive(&bytes, 0),
        Err(Error::Unexpected { .. })
    ));
    assert!(b.next_message().is_none());
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn an_echo_tells_what_the_peer_has_read() {
    let (mut a, mut b) = pair(Some(KEY), Some(KEY));
    assert_eq!(a.echoed(), None);
    assert_eq!(talk(&mut a, &mut b, 10, 100_000), (None, None));
    let first = a.echoed();
    assert!(first.is_some());
    // The next heartbeat is not due, unless it is wanted.
    a.poll(20).unwrap();
    assert!(a.output().is_empty() && a.next_poll() > 20);
    a.hurry();
    assert!(a.next_poll() <= 20);
    a.send(&claim()).unwrap();
    a.poll(20).unwrap();
    carry(&mut a, &mut b, 21, 100_000).unwrap();
    assert_eq!((a.echoed(), b.next_message()), (first, Some(claim())));
    carry(&mut b, &mut a, 22, 100_000).unwrap();
    assert_eq!(a.echoed(), Some(20));
}

#[test]
#[cfg_attr(miri, ignore = "cryptography takes Miri minutes")]
fn a_peer_that_trickles_is_given_up_in_time() {
    for key in [None, Some(KEY)] {
        let (engine, mut intercept) = pair(key, key);
        // One byte of a hello every tenth of a second, and a key's owner stops before its proof.
        let hello: Vec<u8> = engine.output().to_vec();
        let mut at = 0;
        for (n, byte) in hello.iter().take(25).enumerate() {
            at = n as Nanos * 100_000_000;
            intercept.receive(&[*byte], at).unwrap();
            intercept.poll(at).unwrap();
        }
        assert!(at < ESTABLISH_WITHIN && !intercept.is_established());
        assert_eq!(intercept.next_poll(), ESTABLISH_WITHIN);
        let slow = Err(Error::TooSlow { millis: 3000 });
        assert_eq!(intercept.poll(ESTABLISH_WITHIN), slow);
        assert!(intercept.has_ended() && !intercept.output().is_empty());
    }
    // The same after the handshake, for one that replays a recorded one: it cannot seal a message.
    let (mut engine, mut intercept) = pair(Some(KEY), Some(KEY));
    carry(&mut engine, &mut intercept, 0, 999).unwrap();
    carry(&mut intercept, &mut engine, 0, 999).unwrap();
    let handshake = engine.output().to_vec();
    intercept.receive(&handshake, 1).unwrap();
    assert!(!intercept.is_established());
    assert_eq!(
        intercept
            .poll(ESTABLISH_WITHIN - 1)
            .map(|()| intercept.has_ended()),
        Ok(false)
    );
    // A byte just before shows that it is alive, and helps nothing.
    intercept.receive(b"R", ESTABLISH_WITHIN - 1).unwrap();
    assert_eq!(
        intercept.poll(ESTABLISH_WITHIN),
        Err(Error::TooSlow { millis: 3000 })
    );
}

#[test]
fn an_established_link_has_no_limit_of_that_kind() {
    let (mut a, mut b) = pair(None, None);
    talk(&mut a, &mut b, 0, 999);
    for second in 1..10 {
        let now = second * HEARTBEAT_EVERY;
        a.poll(now).unwrap();
        b.poll(now).unwrap();
        assert_eq!(talk(&mut a, &mut b, now, 999), (None, None));
    }
}

#[test]
fn a_stranger_may_not_fill_a_buffer() {
    let (_, mut intercept) = pair(Some(KEY), Some(KEY));
    let mut frame = b"RPLK".to_vec();
    frame.extend_from_slice(&[VERSION, Kind::Hello as u8]);
    frame.extend_from_slice(&(frame::MAX_EARLY as u16 + 1).to_be_bytes());
    let error = intercept.receive(&frame, 1);
    assert_eq!(
        error,
        Err(Error::TooLong {
            what: Kind::Hello.name(),
            found: frame::MAX_EARLY + 1,
            max: frame::MAX_EARLY
        })
    );
}
