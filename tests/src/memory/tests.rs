use super::*;

#[test]
fn a_payload_refers_to_the_buffer_it_came_in() {
    let frame = MemoryFrame::new(b"headerspayload");
    let kept = frame.clone();
    let mut payload = frame.into_payload(7..14);
    assert_eq!(payload.bytes(), b"payload");
    assert_eq!(kept.references(), 2);
    let mut shared = payload.share();
    payload.trim_front(3);
    shared.truncate(3);
    assert_eq!(
        (payload.bytes(), shared.bytes()),
        (&b"load"[..], &b"pay"[..])
    );
    payload.trim_front(99);
    assert_eq!(payload.bytes(), b"");
    drop((payload, shared));
    assert_eq!(kept.references(), 1);
    assert_eq!(kept.clone().into_payload(5..1000).bytes(), b"rspayload");
    let (start, end) = (9, 2);
    assert_eq!(kept.into_payload(start..end).bytes(), b"");
    assert_eq!(std::mem::size_of::<MemoryPayload>(), 16);
}

#[test]
fn a_chain_is_cut_segment_by_segment() {
    let mut frame = MemoryFrame::chained(b"abcdefgh", 3).captured_at(7);
    assert_eq!(
        (frame.bytes(), frame.frame_len(), frame.to_vec()),
        (&b"abc"[..], 8, b"abcdefgh".to_vec())
    );
    let mut rest = frame.split_rest().unwrap();
    assert_eq!((frame.bytes(), frame.frame_len()), (&b"abc"[..], 3));
    assert_eq!(
        (rest.bytes(), rest.frame_len(), Frame::captured_at(&rest)),
        (&b"def"[..], 5, Some(7))
    );
    let mut last = rest.split_rest().unwrap();
    assert_eq!(last.bytes(), b"gh");
    assert!(last.split_rest().is_none() && frame.split_rest().is_none());
    assert_eq!(MemoryFrame::new(&[1; 70_000]).bytes().len(), MAX_SEGMENT);
    assert_eq!(MemoryFrame::new(b"").frame_len(), 0);
}

#[test]
fn a_port_receives_in_bursts_and_loses_what_its_queue_cannot_hold() {
    let mut port = MemoryPort::new(40);
    for i in 0..50u8 {
        assert_eq!(port.wire.push_bytes(&[i]), i < 40);
    }
    let mut burst = ArrayVec::new();
    assert_eq!(port.rx.rx_burst(&mut burst), BURST);
    assert_eq!(port.rx.rx_burst(&mut burst), 0, "no room in the burst");
    burst.clear();
    assert_eq!(port.rx.rx_burst(&mut burst), 8);
    assert_eq!(burst[0].bytes(), [32]);
}

#[test]
fn sending_fails_in_each_way_a_driver_does_and_queues_nothing_then() {
    let mut port = MemoryPort::new(2);
    port.tx.set_mtu(6);
    let mut payload = MemoryFrame::new(b"0123456789").into_payload(0..10);
    assert_eq!(
        port.tx.send(&[0; 14], Some((&mut payload, 0..7))),
        Err(TxError::TooLong)
    );
    assert_eq!(
        port.tx.send(&[0; MAX_HEADERS + 1], None),
        Err(TxError::TooLong)
    );
    assert_eq!(port.tx.send(&[0; 14], Some((&mut payload, 2..8))), Ok(()));
    port.wire.set_buffers(0);
    assert_eq!(port.tx.send(&[0; 14], None), Err(TxError::NoBuffer));
    port.wire.set_buffers(1);
    assert_eq!(port.tx.send(&[1; 14], None), Ok(()));
    assert_eq!(port.tx.send(&[2; 14], None), Err(TxError::Full));
    assert!(port.wire.pop().is_none(), "not flushed");
    port.wire.set_taking(1);
    assert_eq!((port.tx.flush(), port.tx.queued()), (1, 1));
    let sent = port.wire.pop().unwrap();
    assert_eq!(
        (sent.payload_bytes(), sent.frame_len()),
        (&b"234567"[..], 20)
    );
    assert_eq!(
        payload.references(),
        2,
        "the wire holds one, the caller the other"
    );
    assert_eq!((port.tx.flush(), port.wire.discard()), (1, 1));
}

#[test]
fn repeated_frames_end_after_their_number() {
    let mut rx = RepeatRx::new(
        vec![
            MemoryFrame::new(b"a"),
            MemoryFrame::new(b"b"),
            MemoryFrame::new(b"c"),
        ],
        40,
    );
    let mut burst = ArrayVec::new();
    assert_eq!((rx.rx_burst(&mut burst), rx.left()), (32, 8));
    assert_eq!(
        (burst[0].bytes(), burst[31].bytes()),
        (&b"a"[..], &b"b"[..])
    );
    burst.clear();
    assert_eq!((rx.rx_burst(&mut burst), rx.rx_burst(&mut burst)), (8, 0));
    assert_eq!(RepeatRx::new(vec![], 9).rx_burst(&mut burst), 0);
}
