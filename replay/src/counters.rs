//! Everything a core counts. Counters only grow; gauges are what is in flight or held, and what
//! waits for a target's first answer. What was counted as lost is taken back in one case: when a
//! mirror that reorders shows a session's SYN a moment after its first payload.

use crate::histogram::Histogram;
use crate::piece::Charge;

wire::reasons! {
    /// Why a mirrored frame that could be decoded was of no use.
    pub enum Unused {
        /// Neither end is a configured production address.
        NoTransfer = "no_transfer",
        /// The session is not among the `percent` that are replayed, or in another `shard`.
        NotSelected = "not_selected",
        /// Its session would be replayed, but none is known, and it cannot begin one: an ACK, FIN or
        /// RST without payload, or a frame of the server.
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
        /// Payload beyond a gap that cannot wait there for the gap to be filled: too much waits.
        NoRoom = "no_room",
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
        /// Its target held more than its share of the buffers, and another target needed them.
        TargetBudget = "target_budget",
        /// No client address was free, no room for another connection, or no way to claim its responses.
        NoAddress = "no_address",
        /// The target refused the connection.
        ConnectRefused = "connect_refused",
        /// The target did not answer the connection request.
        ConnectTimeout = "connect_timeout",
        /// The target has never answered, and no further connection was opened to it.
        TargetUnconfirmed = "target_unconfirmed",
        /// The target reset the connection.
        TargetReset = "target_reset",
        /// The target did not acknowledge in spite of all retransmissions.
        RetransmitTimeout = "retransmit_timeout",
        /// Its session was shed: no room in the table, no buffers, or no intercept.
        Shed = "shed",
        /// The target did nothing for `session_timeout`, or the session showed nothing for
        /// `keepalive_timeout`.
        SessionTimeout = "session_timeout",
        /// The engine was stopped.
        Stopped = "stopped",
    }
}

macro_rules! counters {
    (
        common { $($(#[$doc:meta])* $field:ident,)* }
        said { $($(#[$said_doc:meta])* $said_field:ident,)* }
        target { $($(#[$target_doc:meta])* $target_field:ident,)* }
    ) => {
        /// What one core has counted since its start about one target.
        #[derive(Clone, Default)]
        pub struct TargetCounters {
            $($(#[$said_doc])* pub $said_field: u64,)*
            $($(#[$target_doc])* pub $target_field: u64,)*
            /// Turns lost, by [`Loss`]; each replica counts.
            pub lost_turns: [u64; Loss::COUNT],
            /// Payload bytes lost, by [`Loss`]; each replica counts.
            pub lost_bytes: [u64; Loss::COUNT],
            /// Production's latency: last byte of a turn to first byte of its response, as the
            /// mirror shows it.
            pub production_latency: Histogram,
            /// The target's latency: last byte of a turn sent to first byte of its response
            /// received.
            pub target_latency: Histogram,
            /// How long after it was due by the recording the first byte of a turn went that
            /// nothing of the target's held up.
            pub schedule_late: Histogram,
            /// The same for turns that had to wait for the target: for its answer, its acceptance
            /// of the connection, its windows, or an answer of the next hop.
            pub schedule_held: Histogram,
        }

        /// What one core has counted since its start, all targets together. What production said,
        /// and its latency, count once for each session, to however many targets that goes.
        #[derive(Clone, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
            $($(#[$said_doc])* pub $said_field: u64,)*
            $($(#[$target_doc])* pub $target_field: u64,)*
            /// Frames of no use, by [`Unused`].
            pub dropped: [u64; Unused::COUNT],
            /// Turns lost, by [`Loss`]; each replica counts.
            pub lost_turns: [u64; Loss::COUNT],
            /// Payload bytes lost, by [`Loss`]; each replica counts.
            pub lost_bytes: [u64; Loss::COUNT],
            /// Production's latency: last byte of a turn to first byte of its response, as the
            /// mirror shows it.
            pub production_latency: Histogram,
            /// The target's latency: last byte of a turn sent to first byte of its response
            /// received.
            pub target_latency: Histogram,
            /// How long after it was due by the recording the first byte of a turn went that
            /// nothing of the target's held up.
            pub schedule_late: Histogram,
            /// The same for turns that had to wait for the target: for its answer, its acceptance
            /// of the connection, its windows, or an answer of the next hop.
            pub schedule_held: Histogram,
            /// How long after a frame of a live mirror had come the turn that it released left,
            /// where nothing of the target's held that up.
            pub passage: Histogram,
        }

        impl Counters {
            /// Adds another core's counts to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                $(self.$said_field += other.$said_field;)*
                $(self.$target_field += other.$target_field;)*
                add_each(&mut self.lost_turns, &other.lost_turns);
                add_each(&mut self.lost_bytes, &other.lost_bytes);
                add_each(&mut self.dropped, &other.dropped);
                self.production_latency.add(&other.production_latency);
                self.target_latency.add(&other.target_latency);
                self.schedule_late.add(&other.schedule_late);
                self.schedule_held.add(&other.schedule_held);
                self.passage.add(&other.passage);
            }

            /// Adds what was counted about one target.
            pub fn add_target(&mut self, target: &TargetCounters) {
                $(self.$target_field += target.$target_field;)*
                add_each(&mut self.lost_turns, &target.lost_turns);
                add_each(&mut self.lost_bytes, &target.lost_bytes);
                self.target_latency.add(&target.target_latency);
                self.schedule_late.add(&target.schedule_late);
                self.schedule_held.add(&target.schedule_held);
            }
        }

        impl TargetCounters {
            /// Takes over what `later` has, which are the same counters at a later time. Costs little
            /// where nothing was counted since.
            pub fn follow(&mut self, later: &Self) {
                $(self.$said_field = later.$said_field;)*
                $(self.$target_field = later.$target_field;)*
                self.lost_turns = later.lost_turns;
                self.lost_bytes = later.lost_bytes;
                self.production_latency.follow(&later.production_latency);
                self.target_latency.follow(&later.target_latency);
                self.schedule_late.follow(&later.schedule_late);
                self.schedule_held.follow(&later.schedule_held);
            }

            /// Adds another core's counts about the same target to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$said_field += other.$said_field;)*
                $(self.$target_field += other.$target_field;)*
                add_each(&mut self.lost_turns, &other.lost_turns);
                add_each(&mut self.lost_bytes, &other.lost_bytes);
                self.production_latency.add(&other.production_latency);
                self.target_latency.add(&other.target_latency);
                self.schedule_late.add(&other.schedule_late);
                self.schedule_held.add(&other.schedule_held);
            }
        }
    };
}

impl TargetCounters {
    /// A session of the target holds another segment.
    #[inline]
    pub(crate) fn hold(&mut self, charge: Charge) {
        self.held_segments += 1;
        self.held_frames += u64::from(charge.frame);
    }

    /// One is let go.
    #[inline]
    pub(crate) fn let_go(&mut self, charge: Charge) {
        self.held_segments -= 1;
        self.held_frames -= u64::from(charge.frame);
    }
}

fn add_each<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    for (a, b) in mine.iter_mut().zip(theirs) {
        *a += b;
    }
}

counters! {
    common {
        /// Decoded frames handed in.
        frames,
        /// Of those, frames that told something new about a session.
        used,
        /// Sessions shed: no room in the table, no buffers, no intercept.
        sessions_shed,
        /// Idle sessions that had to go because the table was full.
        sessions_evicted,
        /// Handshakes that production refused, or the client gave up, with RST.
        handshakes_refused,
        /// Handshakes that were not finished in time.
        handshakes_unfinished,
        /// Handshakes that had to go because their table was full.
        handshakes_evicted,
        /// Sessions that are over, replicas included.
        sessions_ended,
        /// Captured segments that came out of order.
        out_of_order,
        /// Bytes that came again and were others than before, as far as the first capture was still
        /// held; the first is what is replayed.
        conflicting_bytes,
        /// Bytes before a place to which both streams of a session went on at once, unseen: they
        /// are lost ones of it, or the place is of another connection with the same port. They are
        /// in no other counter.
        doubtful_bytes,
        /// Response segments of the targets.
        response_segments,
        /// Response segments for no connection of ours.
        responses_unknown,
        /// Segments handed to the transmit queue.
        segments_sent,
        /// Times the transmit queue had no room; the segment is sent later.
        tx_full,
        /// Frames with SYN of sessions that are to be replayed, of both ends.
        syns,
        /// Frames of them with FIN or RST, likewise.
        ends,
        /// Handshakes that were followed and seen as a whole, up to the first turn; their frames,
        /// and those with SYN among these.
        whole_handshakes,
        /// See `whole_handshakes`.
        handshake_frames,
        /// See `whole_handshakes`.
        handshake_marks,
        /// Turns that were followed and seen as a whole, up to the next, and their frames.
        whole_turns,
        /// See `whole_turns`.
        turn_frames,
        /// Last turns of sessions that were followed and seen as a whole, to the sessions' end;
        /// their frames, and those with FIN or RST among these.
        whole_endings,
        /// See `whole_endings`.
        ending_frames,
        /// See `whole_endings`.
        ending_marks,
    }
    said {
        /// Client sessions seen and selected.
        sessions,
        /// Turns begun by clients.
        turns,
        /// Client payload bytes captured, and bytes production had that were not.
        bytes,
    }
    target {
        /// Turns that are to be replayed: each counts for every replica its session should have.
        owed_turns,
        /// Bytes that are to be replayed, likewise.
        owed_bytes,
        /// Turns the target acknowledged to the last byte; each replica counts.
        replayed_turns,
        /// Payload bytes the target acknowledged; each replica counts.
        replayed_bytes,
        /// Connections closed in good order after everything was replayed; each replica counts.
        replayed_sessions,
        /// Payload bytes sent again.
        retransmitted_bytes,
        /// Segments sent again.
        retransmitted_segments,
        /// Turns neither replayed nor lost yet; each replica counts.
        in_flight_turns,
        /// Bytes neither replayed nor lost yet; each replica counts.
        in_flight_bytes,
        /// Turns sent although the target had not answered the one before within `gate_timeout`.
        gate_timeouts,
        /// Connections opened to the target.
        connects,
        /// Connections the target did not accept.
        connect_failures,
        /// 1 while the core opens connections to the target and no answer has come back yet.
        unconfirmed_cores,
        /// Replicas that wait for that answer now.
        awaiting_replicas,
        /// Captured segments that sessions of the target hold now.
        held_segments,
        /// Those of them that hold the buffer of a received frame.
        held_frames,
        /// Connections the target reset.
        target_resets,
        /// Connections the target reset after all was said and acknowledged, as one does that keeps no
        /// TIME-WAIT.
        resets_at_end,
        /// Turns sent at production's own pace, as the target does not answer where production did.
        paced_turns,
        /// Connections the target closed while the client went on.
        target_closed_early,
        /// Responses: turns the target answered with at least one byte.
        responses,
        /// Response payload bytes, each counted once.
        response_bytes,
        /// Times a router said that the path carries smaller packets only, and it was news.
        path_mtu_lowered,
        /// Keep-alive probes of clients that were repeated towards the target.
        keep_alives,
    }
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

    /// Frames of sessions that are to be replayed.
    pub const fn session_frames(&self) -> u64 {
        let others =
            self.dropped[Unused::NoTransfer as usize] + self.dropped[Unused::NotSelected as usize];
        self.frames.saturating_sub(others)
    }

    /// The books: `Err` says in one sentence which of them do not balance.
    pub fn balance(&self) -> Result<(), String> {
        let books = [
            (
                "turns",
                self.owed_turns,
                self.replayed_turns + self.lost_turns_sum() + self.in_flight_turns,
            ),
            (
                "bytes",
                self.owed_bytes,
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
