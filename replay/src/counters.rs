//! Everything a core counts. Counters only grow; what is in flight is the one gauge. What was
//! counted as lost is taken back in one case: when a mirror that reorders shows a session's SYN a
//! moment after its first payload.

use crate::histogram::Histogram;

wire::reasons! {
    /// Why a mirrored frame was of no use, although it could be decoded.
    pub enum Unused {
        /// Neither end is a configured production address.
        NoTransfer = "no_transfer",
        /// The session is not among the `percent` that are replayed.
        NotSelected = "not_selected",
        /// Its session would be replayed, but none is known, and it cannot begin one: an ACK, FIN
        /// or RST without payload, or a frame of the server.
        NoSession = "no_session",
        /// A session that began before the mirror did, with `full_sessions_only`.
        NotFull = "not_full",
        /// The table is full, buffers are short, or no intercept is up: the session was shed.
        Shed = "shed",
        /// Payload of a session seen in the middle, before its next turn boundary.
        BeforeJoin = "before_join",
        /// Everything in it was captured before: mirrored twice, or retransmitted by the client.
        Duplicate = "duplicate",
        /// Its sequence number is not near the session's.
        OutOfWindow = "out_of_window",
        /// Payload after the client's FIN or RST.
        AfterEnd = "after_end",
    }
}

wire::reasons! {
    /// Why turns or bytes were lost.
    pub enum Loss {
        /// The mirror did not show bytes that production had.
        Hole = "hole",
        /// The session was already running when it was first seen.
        Midstream = "midstream",
        /// More captured bytes were waiting than `limits.session_bytes` allows.
        SessionBytes = "session_bytes",
        /// No room for another captured segment, or no mbuf to keep.
        Buffers = "buffers",
        /// No client address was free, no room for another connection, or no way to claim its
        /// responses.
        NoAddress = "no_address",
        /// The target refused the connection.
        ConnectRefused = "connect_refused",
        /// The target did not answer the connection request.
        ConnectTimeout = "connect_timeout",
        /// The target reset the connection.
        TargetReset = "target_reset",
        /// The target did not acknowledge in spite of all retransmissions.
        RetransmitTimeout = "retransmit_timeout",
        /// The session showed nothing for `session_timeout` or `keepalive_timeout`.
        SessionTimeout = "session_timeout",
        /// The engine was stopped.
        Stopped = "stopped",
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What one core has counted since its start.
        #[derive(Clone, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
            /// Frames of no use, by [`Unused`].
            pub dropped: [u64; Unused::COUNT],
            /// Turns lost, by [`Loss`]; each copy counts.
            pub lost_turns: [u64; Loss::COUNT],
            /// Payload bytes lost, by [`Loss`]; each copy counts.
            pub lost_bytes: [u64; Loss::COUNT],
            /// Production's latency: last byte of a turn to first byte of its response, as the
            /// mirror shows it.
            pub production_latency: Histogram,
            /// The target's latency: last byte of a turn sent to first byte of its response
            /// received.
            pub target_latency: Histogram,
        }

        impl Counters {
            /// Adds another core's counts to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                let arrays = [(&mut self.lost_turns, &other.lost_turns), (&mut self.lost_bytes, &other.lost_bytes)];
                for (mine, theirs) in arrays {
                    for (a, b) in mine.iter_mut().zip(theirs) {
                        *a += b;
                    }
                }
                for (a, b) in self.dropped.iter_mut().zip(&other.dropped) {
                    *a += b;
                }
                self.production_latency.add(&other.production_latency);
                self.target_latency.add(&other.target_latency);
            }
        }
    };
}

counters! {
    /// Decoded frames handed in.
    frames,
    /// Of those, frames that told something new about a session.
    used,
    /// Client sessions seen and selected.
    sessions,
    /// Sessions shed: no room in the table, no buffers, no intercept.
    sessions_shed,
    /// Sessions that are over, replicas included.
    sessions_ended,
    /// Turns begun by clients.
    turns,
    /// Client payload bytes captured, and bytes production had that were not.
    bytes,
    /// Captured segments that came out of order.
    out_of_order,
    /// Bytes that came again and were others than before, as far as the first capture was still
    /// held; the first is what is replayed.
    conflicting_bytes,
    /// Turns the target acknowledged to the last byte; each copy counts.
    replayed_turns,
    /// Payload bytes the target acknowledged; each copy counts.
    replayed_bytes,
    /// Connections closed in good order after everything was replayed; each copy counts.
    replayed_sessions,
    /// Payload bytes sent again.
    retransmitted_bytes,
    /// Segments sent again.
    retransmitted_segments,
    /// Turns neither replayed nor lost yet; each copy counts.
    in_flight_turns,
    /// Bytes neither replayed nor lost yet; each copy counts.
    in_flight_bytes,
    /// Turns sent although the target had not answered the one before within `gate_timeout`.
    gate_timeouts,
    /// Connections opened to the target.
    connects,
    /// Connections the target did not accept.
    connect_failures,
    /// Connections the target reset.
    target_resets,
    /// Connections the target closed while the client went on.
    target_closed_early,
    /// Responses: turns the target answered with at least one byte.
    responses,
    /// Response segments of the target.
    response_segments,
    /// Response payload bytes, each counted once.
    response_bytes,
    /// Response segments for no connection of ours.
    responses_unknown,
    /// Times a router said that the path carries smaller packets only, and it was news.
    path_mtu_lowered,
    /// Keep-alive probes of clients that were repeated towards the target.
    keep_alives,
    /// Segments handed to the transmit queue.
    segments_sent,
    /// Times the transmit queue had no room; the segment is sent later.
    tx_full,
}

impl Counters {
    /// Lost turns of all reasons.
    pub fn lost_turns_sum(&self) -> u64 {
        self.lost_turns.iter().sum()
    }

    /// Lost bytes of all reasons.
    pub fn lost_bytes_sum(&self) -> u64 {
        self.lost_bytes.iter().sum()
    }

    /// The books: `Err` says in one sentence which of them do not balance. `copies` is the
    /// configured number.
    pub fn balance(&self, copies: u64) -> Result<(), String> {
        let books = [
            (
                "turns",
                self.turns * copies,
                self.replayed_turns + self.lost_turns_sum() + self.in_flight_turns,
            ),
            (
                "bytes",
                self.bytes * copies,
                self.replayed_bytes + self.lost_bytes_sum() + self.in_flight_bytes,
            ),
            (
                "frames",
                self.frames,
                self.used + self.dropped.iter().sum::<u64>(),
            ),
        ];
        for (what, total, parts) in books {
            if total != parts {
                return Err(format!(
                    "{what}: {total} in all, but the parts add up to {parts}"
                ));
            }
        }
        Ok(())
    }
}
