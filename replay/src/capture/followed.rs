//! Sessions that are followed frame by frame: how many frames a handshake takes, a turn, and the
//! end of a session.
//!
//! Where the mirror misses frames, these figures tell how many turns there were in all. So only
//! what was seen as a whole counts: a handshake of which both SYNs and the client's acknowledgment
//! were shown, a turn up to the next of which no byte of either direction is missing, and a last
//! turn with all of what ended its session.
//!
//! A sample is enough. It has a fixed number of places, so sessions are none the larger for it; a
//! session that has been silent gives its place to another.

use crate::counters::Counters;
use crate::slab::NIL;
use wire::{Flags, Head, Seq};

const PLACES: u32 = 1 << 12;
/// One session in so many is followed,
const ONE_IN: u32 = 16;
/// but every one while there are fewer than this.
const FEW: usize = 512;

/// What is being counted of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// Nothing, up to the next turn.
    None,
    /// From the first SYN to the first turn.
    Handshake,
    /// From a turn's beginning to the next, or to the session's end.
    Turn,
}

// What was seen of a session.
/// The client has spoken.
const SPOKEN: u8 = 1;
/// The server's place in its stream is known.
const SERVER_KNOWN: u8 = 1 << 1;
/// The client acknowledged the server's SYN, and said nothing with it.
const ACCEPTED: u8 = 1 << 2;
/// FIN of the client, of the server, and that they were acknowledged.
const CLIENT_FIN: u8 = 1 << 3;
const SERVER_FIN: u8 = 1 << 4;
const CLIENT_FIN_ACKED: u8 = 1 << 5;
const SERVER_FIN_ACKED: u8 = 1 << 6;
const RESET: u8 = 1 << 7;

const BOTH_FINS: u8 = CLIENT_FIN | SERVER_FIN;
const CLOSED: u8 = BOTH_FINS | CLIENT_FIN_ACKED | SERVER_FIN_ACKED;

/// One session that is followed.
#[derive(Clone)]
struct Place {
    /// The session, or [`NIL`].
    sid: u32,
    /// Next number of the client's stream, and of the server's.
    client_next: Seq,
    server_next: Seq,
    /// What the client acknowledged with its latest payload.
    acked: Seq,
    /// Frames of the stretch so far, and those among them with SYN, FIN or RST.
    frames: u32,
    marks: u32,
    stretch: Stretch,
    seen: u8,
    /// A frame came since somebody else wanted the place.
    busy: bool,
}

const FREE: Place = Place {
    sid: NIL,
    client_next: Seq(0),
    server_next: Seq(0),
    acked: Seq(0),
    frames: 0,
    marks: 0,
    stretch: Stretch::None,
    seen: 0,
    busy: false,
};

/// What is known of a session when it begins.
pub(super) struct Start {
    /// It was running already, so the turn that it is in began before.
    pub running: bool,
    /// Next number of the client's stream.
    pub client_next: Seq,
    /// Next number of the server's stream, if that is known.
    pub server_next: Option<Seq>,
    /// What the client has acknowledged.
    pub acked: Seq,
    /// Frames with SYN that were shown, if both ends' were.
    pub syns: Option<u32>,
}

/// See the module's documentation.
pub(crate) struct Followed(Vec<Place>);

const fn index(sid: u32) -> usize {
    // Those that are chosen one in so many have a place each, and so have the first few.
    ((sid / ONE_IN + sid % ONE_IN * (PLACES / ONE_IN)) % PLACES) as usize
}

impl Followed {
    pub fn new() -> Self {
        Self(vec![FREE; PLACES as usize])
    }

    /// Session `sid`, one of `sessions`, begins: true if it is followed from now on.
    pub fn begin(&mut self, sid: u32, sessions: usize, start: &Start) -> bool {
        let chosen = sid.is_multiple_of(ONE_IN) || sessions < FEW;
        let place = &mut self.0[index(sid)];
        if !chosen || (place.sid != NIL && std::mem::take(&mut place.busy)) {
            return false;
        }
        let mut seen = 0;
        if start.running {
            seen |= SPOKEN;
        }
        if start.server_next.is_some() {
            seen |= SERVER_KNOWN;
        }
        *place = Place {
            sid,
            client_next: start.client_next,
            server_next: start.server_next.unwrap_or(start.acked),
            acked: start.acked,
            frames: start.syns.unwrap_or(0),
            marks: start.syns.unwrap_or(0),
            stretch: if start.syns.is_some() {
                Stretch::Handshake
            } else {
                Stretch::None
            },
            seen,
            busy: true,
        };
        true
    }

    /// A segment of the client's, or of its server's, of a session that is followed.
    pub fn segment(&mut self, sid: u32, head: &Head, of_client: bool, count: &mut Counters) {
        let place = &mut self.0[index(sid)];
        if place.sid != sid {
            return;
        }
        place.busy = true;
        if of_client {
            place.client(head, count);
        } else {
            place.server(head);
        }
        if head.flags.has(Flags::RST) {
            place.seen |= RESET;
            place.marks += 1;
        }
        if place.seen & CLOSED == CLOSED {
            place.end(count);
        }
    }

    /// Session `sid`, which was followed, is forgotten.
    pub fn removed(&mut self, sid: u32, count: &mut Counters) {
        let place = &mut self.0[index(sid)];
        if place.sid == sid {
            place.end(count);
        }
    }
}

impl Place {
    fn client(&mut self, head: &Head, count: &mut Counters) {
        let (end, fin) = (head.end(), head.flags.has(Flags::FIN));
        let missing = head.seq.gt(self.client_next);
        if missing {
            self.stretch = Stretch::None;
        }
        let payload = head.payload_len > 0;
        let spoke = self.seen & SPOKEN != 0;
        let begins = payload && head.seq == self.client_next && (!spoke || head.ack.gt(self.acked));
        if begins {
            self.turn_begins(head, count);
        } else {
            self.frames += 1;
        }
        if payload {
            self.acked = if spoke {
                self.acked.max(head.ack)
            } else {
                head.ack
            };
            self.seen |= SPOKEN;
        } else if head.flags.has(Flags::ACK) {
            self.seen |= ACCEPTED;
        }
        self.client_next = self.client_next.max(end);
        if fin {
            self.seen |= CLIENT_FIN;
            self.marks += 1;
        }
        if self.seen & SERVER_FIN != 0 && head.ack == self.server_next {
            self.seen |= SERVER_FIN_ACKED;
        }
    }

    fn turn_begins(&mut self, head: &Head, count: &mut Counters) {
        // What the client has read was shown, or it is missing.
        let read = self.seen & SERVER_KNOWN == 0 || !head.ack.gt(self.server_next);
        match self.stretch {
            Stretch::Handshake if read && self.seen & ACCEPTED != 0 => {
                count.whole_handshakes += 1;
                count.handshake_frames += u64::from(self.frames);
                count.handshake_marks += u64::from(self.marks);
            }
            Stretch::Turn if read => {
                count.whole_turns += 1;
                count.turn_frames += u64::from(self.frames);
            }
            _ => {}
        }
        if self.seen & SERVER_KNOWN != 0 {
            self.server_next = self.server_next.max(head.ack);
        }
        self.stretch = Stretch::Turn;
        self.frames = 1;
        self.marks = 0;
    }

    fn server(&mut self, head: &Head) {
        self.frames += 1;
        if self.seen & SERVER_KNOWN == 0 {
            self.server_next = head.seq;
            self.seen |= SERVER_KNOWN;
        }
        if head.seq.gt(self.server_next) {
            self.stretch = Stretch::None;
        }
        self.server_next = self.server_next.max(head.end());
        if head.flags.has(Flags::FIN) {
            self.seen |= SERVER_FIN;
            self.marks += 1;
        }
        if self.seen & CLIENT_FIN != 0 && head.ack == self.client_next {
            self.seen |= CLIENT_FIN_ACKED;
        }
    }

    /// Nothing more comes of the session.
    fn end(&mut self, count: &mut Counters) {
        let over = self.seen & BOTH_FINS == BOTH_FINS || self.seen & RESET != 0;
        if over && self.stretch == Stretch::Turn {
            count.whole_endings += 1;
            count.ending_frames += u64::from(self.frames);
            count.ending_marks += u64::from(self.marks);
        }
        *self = FREE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Addr, Endpoint, Flow, Options};

    const CLIENT: Seq = Seq(u32::MAX - 30);
    const SERVER: Seq = Seq(u32::MAX - 400);

    /// A session and what was counted of it.
    struct Talk {
        followed: Followed,
        count: Counters,
        sid: u32,
        client: Seq,
        server: Seq,
        /// The next frames are not shown.
        hidden: bool,
    }

    impl Talk {
        fn of(sid: u32, syns: Option<u32>) -> Self {
            let mut followed = Followed::new();
            let start = Start {
                running: syns.is_none(),
                client_next: CLIENT,
                server_next: Some(SERVER),
                acked: SERVER,
                syns,
            };
            assert!(followed.begin(sid, 1, &start));
            Self {
                followed,
                count: Counters::default(),
                sid,
                client: CLIENT,
                server: SERVER,
                hidden: false,
            }
        }

        fn segment(&mut self, of_client: bool, flags: Flags, payload_len: u32) {
            let end = |port| Endpoint::new(Addr::v4([10, 0, 0, 1]), port);
            let (mine, other) = if of_client {
                (&mut self.client, self.server)
            } else {
                (&mut self.server, self.client)
            };
            let head = Head {
                flow: Flow {
                    src: end(4_000),
                    dst: end(80),
                },
                seq: *mine,
                ack: other,
                flags: flags.with(Flags::ACK),
                window: 0,
                urgent: 0,
                options: Options::default(),
                payload_len,
            };
            *mine = head.end();
            if !self.hidden {
                let (sid, count) = (self.sid, &mut self.count);
                self.followed.segment(sid, &head, of_client, count);
            }
        }

        fn client(&mut self, len: u32) {
            self.segment(true, Flags::ACK, len);
        }

        fn server(&mut self, len: u32) {
            self.segment(false, Flags::ACK, len);
        }

        /// A request, which is acknowledged, and an answer of two segments.
        fn turn(&mut self) {
            self.client(50);
            self.server(0);
            self.server(500);
            self.server(500);
        }

        fn close(&mut self) {
            self.segment(false, Flags::FIN, 0);
            self.segment(true, Flags::FIN, 0);
            self.server(0);
        }

        /// Number, frames and marks of handshakes, turns and endings.
        fn counted(&self) -> [(u64, u64, u64); 3] {
            let c = &self.count;
            [
                (c.whole_handshakes, c.handshake_frames, c.handshake_marks),
                (c.whole_turns, c.turn_frames, 0),
                (c.whole_endings, c.ending_frames, c.ending_marks),
            ]
        }
    }

    #[test]
    fn each_frame_counts_where_it_belongs() {
        let mut t = Talk::of(16, Some(3));
        t.client(0);
        t.turn();
        t.turn();
        t.client(0);
        t.turn();
        assert_eq!(t.counted(), [(1, 4, 3), (2, 9, 0), (0, 0, 0)]);
        t.close();
        assert_eq!(t.counted(), [(1, 4, 3), (2, 9, 0), (1, 7, 2)]);
        t.followed.removed(16, &mut t.count);
        assert_eq!(t.counted()[2], (1, 7, 2), "once");
    }

    #[test]
    fn what_has_a_gap_does_not_count_and_what_follows_does() {
        for hidden in 0..4 {
            let mut t = Talk::of(16, Some(2));
            t.client(0);
            t.turn();
            for frame in 0..4 {
                t.hidden = frame == hidden;
                match frame {
                    0 => t.client(50),
                    1 => t.server(0),
                    _ => t.server(500),
                }
            }
            t.hidden = false;
            for _ in 0..3 {
                t.turn();
            }
            let turns = match hidden {
                // The turn behind a request that is missing may have begun with it.
                0 => (1, 4, 0),
                // Nothing is missing without an acknowledgment.
                1 => (4, 15, 0),
                _ => (3, 12, 0),
            };
            assert_eq!(t.counted()[1], turns, "without frame {hidden}");
        }
    }

    #[test]
    fn an_end_counts_if_both_fins_were_shown_or_a_reset() {
        let mut t = Talk::of(16, Some(2));
        t.client(0);
        t.turn();
        t.segment(false, Flags::FIN, 0);
        t.hidden = true;
        t.segment(true, Flags::FIN, 0);
        t.hidden = false;
        t.server(0);
        t.followed.removed(16, &mut t.count);
        assert_eq!(t.counted()[2], (0, 0, 0));

        let mut t = Talk::of(16, Some(2));
        t.turn();
        t.segment(true, Flags::RST, 0);
        t.followed.removed(16, &mut t.count);
        assert_eq!(t.counted()[2], (1, 5, 1));
        assert_eq!(t.counted()[0], (0, 0, 0), "nobody saw it accepted");
    }

    #[test]
    fn a_session_that_was_running_counts_from_its_next_turn_on() {
        let mut t = Talk::of(16, None);
        t.turn();
        t.turn();
        t.turn();
        assert_eq!(t.counted(), [(0, 0, 0), (1, 4, 0), (0, 0, 0)]);
    }

    #[test]
    fn a_sample_is_followed_and_a_silent_session_gives_its_place_up() {
        let mut t = Talk::of(16, Some(2));
        let start = Start {
            running: false,
            client_next: CLIENT,
            server_next: None,
            acked: SERVER,
            syns: Some(2),
        };
        let same = 16 + PLACES * ONE_IN;
        assert_eq!(index(same), index(16));
        assert!(!t.followed.begin(17, FEW, &start), "one in so many");
        assert!(t.followed.begin(17, FEW - 1, &start), "or one of few");
        assert!(!t.followed.begin(same, FEW, &start), "it is new");
        t.client(0);
        assert!(!t.followed.begin(same, FEW, &start), "it was heard of");
        assert!(t.followed.begin(same, FEW, &start), "it is silent");
        t.turn();
        t.turn();
        t.followed.removed(16, &mut t.count);
        assert_eq!(t.counted(), [(0, 0, 0); 3], "another has its place");
    }
}
