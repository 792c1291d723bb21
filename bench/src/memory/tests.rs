//! Small runs of each kind.

use super::*;

const SIZE: Size = Size {
    sessions: 2_000,
    frames: 20_000,
    windows: 2,
    transfers: 1,
};

#[test]
fn long_lived_sessions_are_replayed_to_the_last_turn() {
    let o = run(Kind::Long, SIZE).unwrap();
    assert_eq!(o.sessions, SIZE.sessions);
    assert!(o.packets >= 2 * SIZE.frames * 2);
    // Request, response and its acknowledgment are mirrored, one response comes, request and
    // acknowledgment are sent.
    for (share, want) in o.mix.iter().zip([3.0, 1.0, 2.0]) {
        assert!((share - want / 6.0).abs() < 0.01, "{:?}", o.mix);
    }
}

#[test]
fn short_sessions_are_replayed_to_the_last_turn() {
    let o = run(Kind::Short, SIZE).unwrap();
    assert!(o.resident_per_session.is_none());
    // The request is there when the target accepts, and acknowledges its SYN.
    for (share, want) in o.mix.iter().zip([9.0, 3.0, 5.0]) {
        assert!((share - want / 17.0).abs() < 0.01, "{:?}", o.mix);
    }
}

#[test]
fn sessions_of_the_last_of_many_transfers_are_replayed_as_well() {
    let size = Size {
        transfers: 1_000,
        ..SIZE
    };
    let o = run(Kind::Long, size).unwrap();
    assert_eq!((o.transfers, o.allocations), (1_000, 0));
}

#[test]
fn a_size_that_cannot_be_measured_is_refused() {
    let size = Size {
        sessions: 3,
        ..SIZE
    };
    let e = run(Kind::Long, size).unwrap_err().to_string();
    assert!(e.contains("--sessions 3"), "{e}");
}
