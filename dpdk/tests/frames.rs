//! Frames made of bytes: what was put in comes out, with its time.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod common;

use common::{Pool, eal, flatten, pattern};
use dpdk::{DATA_ROOM, FrameMaker};

#[test]
fn frames_have_the_bytes_and_the_time_they_were_made_with() {
    let pool = Pool::new(511, DATA_ROOM);
    assert_eq!(pool.alloc().unwrap().captured_at(), None);
    let mut maker = FrameMaker::new(&eal(), &pool).unwrap();
    for (i, len) in [0, 1, 60, 2_047, 2_048, 2_049, 9_000, 65_549, 262_144]
        .into_iter()
        .enumerate()
    {
        let bytes = pattern(len, i as u8);
        let at = 1_700_000_000_123_456_789 + i as u64;
        let frame = maker.make(&bytes, at).unwrap();
        assert_eq!(frame.captured_at(), Some(at), "in nanoseconds");
        assert_eq!(
            (frame.frame_len(), frame.segments()),
            (len, len.div_ceil(2_048).max(1))
        );
        assert!(flatten(frame) == bytes, "{len} bytes");
    }
    assert_eq!(
        pool.alloc().unwrap().captured_at(),
        None,
        "a buffer that was used before has no time"
    );
    drop(maker);
}

#[test]
fn an_empty_pool_gives_no_frame_and_loses_no_buffer() {
    let pool = Pool::new(63, DATA_ROOM);
    let mut maker = FrameMaker::new(&eal(), &pool).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| maker.make(b"frame", 7)).collect();
    assert_eq!(held.len(), 63);
    drop(held);
    // Longer than all buffers together.
    assert!(maker.make(&pattern(200_000, 1), 7).is_none());
    assert_eq!(maker.make(b"frame", 7).unwrap().bytes(), b"frame");
    drop(maker);
}
