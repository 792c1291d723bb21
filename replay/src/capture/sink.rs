//! The door between the halves: what the capture half tells of a session, and the little it asks.
//!
//! A session is named by its id in the capture half's slab. What it knows of the other side is that
//! bytes and turns go somewhere, that there is room for them or not, and whether that side is done.

use super::session::End;
use crate::Loss;
use crate::ledger::Ledger;
use crate::piece::{Charge, Piece};
use crate::pos::StreamPos;
use wire::{Flow, Nanos};

/// What is told of a session when it is first seen.
pub(crate) struct Opening {
    /// The targets it goes to.
    pub fan: u16,
    /// Largest segment the client can receive, in bytes of payload.
    pub mss: u16,
}

/// What is told of a turn when it begins.
#[derive(Clone, Copy)]
pub(crate) struct Beginning {
    /// Bytes of production's answer that the client had acknowledged since it last spoke.
    pub after: u64,
    /// When it is to go, on our own clock, as far as production's pace decides that.
    pub due: Nanos,
}

/// Where a session's events go.
pub(crate) trait Sink<P> {
    /// False while new sessions to these targets are to be turned away: for want of buffers, or of
    /// a way back.
    fn accepts_sessions(&self, fan: u16) -> bool;

    /// The books.
    fn ledger(&mut self) -> &mut Ledger;

    /// Session `sid` was seen; nothing of it can be replayed yet.
    fn opened(&mut self, sid: u32, opening: &Opening);

    /// Its stream, which `flow` (client to server, in production) carries, can be replayed from
    /// `at` on.
    fn begun(&mut self, sid: u32, flow: &Flow, at: StreamPos);

    /// Its stream was told to begin.
    fn has_begun(&self, sid: u32) -> bool;

    /// The client's SYN tells the largest segment it can receive, in bytes of payload.
    fn segment_size(&mut self, sid: u32, mss: u16);

    /// The client has connected.
    fn connected(&mut self, sid: u32);

    /// The session was out of step: what the client was answered meanwhile, nobody else was.
    fn rejoined(&mut self, sid: u32);

    /// A measure of the client's round-trip time: it is no longer than that.
    fn round_trip(&mut self, sid: u32, rtt: Nanos);

    /// The next bytes of the stream, captured at `at`. They begin a turn, or continue
    /// the open one. If there is no room, that is the reason for which they are lost.
    fn append(
        &mut self,
        sid: u32,
        piece: Piece<P>,
        begins: Option<Beginning>,
        at: Nanos,
    ) -> Result<(), Loss>;

    /// No more bytes come for the open turn, if there is one.
    fn close_turn(&mut self, sid: u32);

    /// The rest of the open turn was not captured.
    fn break_turn(&mut self, sid: u32, reason: Loss);

    /// A turn is open: more bytes may come for it.
    fn turn_is_open(&self, sid: u32) -> bool;

    /// Production's answer to the open turn was seen at `at`.
    fn answer_seen(&mut self, sid: u32, at: Nanos);

    /// The client asked its server for a sign of life.
    fn keep_alive(&mut self, sid: u32);

    /// The client's stream is over, `after` bytes of answer behind its last turn.
    fn ended(&mut self, sid: u32, end: End, after: u64);

    /// All of the above is told for now: what may be sent can go.
    fn push(&mut self, sid: u32);

    /// Bytes of `piece` that are others than those captured before at the same places.
    fn conflicts(&self, sid: u32, piece: &Piece<P>) -> u64;

    /// Takes room for one more buffer of the session. False if there is none.
    fn reserve(&mut self, sid: u32, charge: Charge) -> bool;

    /// Gives that room back.
    fn release(&mut self, sid: u32, charge: Charge);

    /// Nothing is left to be replayed.
    fn is_done(&self, sid: u32) -> bool;

    /// Nothing is left to be replayed at one of its targets, but at another there is.
    fn is_held_up(&self, sid: u32) -> bool;

    /// Nothing captured is held.
    fn is_idle(&self, sid: u32) -> bool;

    /// What is left is lost for `reason`.
    fn give_up(&mut self, sid: u32, reason: Loss);

    /// The session is forgotten.
    fn removed(&mut self, sid: u32);

    /// Asks the processor for what is kept of a session on that side, at the second call for more
    /// of it, without waiting for it. A hint.
    fn ask_for(&self, sid: u32, more: bool);

    /// The same for the cache line at the beginning of `of`.
    fn prefetch<T>(of: &T);
}
