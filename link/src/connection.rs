//! One connection of the link as a state machine: bytes and time in, messages and bytes out.
//!
//! Hello → (with a key: Noise handshake) → established → ended. After an error the connection has
//! ended; what is left in [`Connection::output`] is the refusal that tells the peer why, and should
//! still be written.

use crate::clock::{ClockOffset, PeerClock};
use crate::frame::{self, HEADER_LEN, bad_version};
use crate::message::{Kind, put_responses_head};
use crate::noise::{Handshake, Sealer};
use crate::output::Output;
use crate::{
    BATCH_RECORDS, Error, Features, Hello, MIN_VERSION, Message, PortReport, Stats, VERSION,
};
use std::collections::VecDeque;
use wire::Nanos;

/// How often an established end asks the other for a sign of life.
pub const HEARTBEAT_EVERY: Nanos = 1_000_000_000;

/// After this long without a byte from the peer the connection is dead.
pub const DEAD_AFTER: Nanos = 3_000_000_000;

/// Hello and handshake must be over this long after the connection was made, however many bytes
/// come meanwhile.
pub const ESTABLISH_WITHIN: Nanos = 3_000_000_000;

/// Bytes that may wait in the output before [`Connection::send`] says [`Error::Backlog`].
pub const OUTPUT_LIMIT: usize = 1 << 20;

/// Room above [`OUTPUT_LIMIT`] for heartbeats and refusals, so that a backlog does not look like
/// death.
const CONTROL_RESERVE: usize = 64 * 1024;

/// How many echoes [`Connection::round_trip`] looks back on.
const ROUND_TRIPS: usize = 8;

/// Which end of the link this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The end that connects, claims, and reads responses. The initiator of the handshake.
    Engine,
    /// The end that listens and sends responses.
    Intercept,
}

/// What one end brings to a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which end this is.
    pub role: Role,
    /// What it calls itself in its hello.
    pub name: String,
    /// Tells apart two runs of the same program; see [`Hello::instance`].
    pub instance: u64,
    /// Bytes of payload that its records carry; 0 for an engine.
    pub payload_prefix: u16,
    /// The key both ends share, or none.
    pub key: Option<[u8; 32]>,
}

/// How far a connection has come.
enum Stage {
    /// Waits for the peer's hello.
    Hello,
    /// Waits for the peer's handshake message.
    Handshake(Handshake),
    /// Messages pass, sealed if there is a key.
    Open(Option<Sealer>),
    Ended,
}

impl Stage {
    const fn when(&self) -> &'static str {
        match self {
            Self::Hello => "before the hello",
            Self::Handshake(_) => "during the handshake",
            Self::Open(None) => "on an established link",
            Self::Open(Some(_)) => "unsealed, on a link with a key",
            Self::Ended => "after the end",
        }
    }
}

/// One end of one link.
pub struct Connection {
    settings: Settings,
    stage: Stage,
    /// The peer proved that it is there and, with a key, that it has it.
    established: bool,
    hello: Vec<u8>,
    peer: Option<Hello>,
    input: Vec<u8>,
    output: Output,
    messages: VecDeque<Message>,
    plain: Vec<u8>,
    opened_at: Nanos,
    heard_at: Nanos,
    heartbeat_at: Nanos,
    echoed: Option<Nanos>,
    stats: Stats,
    peer_stats: Stats,
    port: Option<PortReport>,
    peer_port: Option<PortReport>,
    clock: PeerClock,
    /// Of the last echoes.
    round_trips: VecDeque<Nanos>,
}

impl Connection {
    /// A new connection at time `now`. Its hello is ready in [`Connection::output`].
    pub fn new(settings: Settings, now: Nanos) -> Self {
        let features = match settings.key {
            Some(_) => Features::PORT.with(Features::KEYED),
            None => Features::PORT,
        };
        let hello = Message::Hello(Hello {
            version: VERSION,
            features,
            payload_prefix: settings.payload_prefix,
            instance: settings.instance,
            name: settings.name.clone(),
        });
        let mut body = Vec::new();
        hello.encode_body(&mut body);
        let mut connection = Self {
            settings,
            stage: Stage::Hello,
            established: false,
            hello: body,
            peer: None,
            input: Vec::new(),
            output: Output::default(),
            messages: VecDeque::new(),
            plain: Vec::new(),
            opened_at: now,
            heard_at: now,
            heartbeat_at: now,
            echoed: None,
            stats: Stats::default(),
            peer_stats: Stats::default(),
            port: None,
            peer_port: None,
            clock: PeerClock::default(),
            round_trips: VecDeque::new(),
        };
        // A hello is always shorter than a frame may be.
        let _ = frame::encode_frame(&hello, &mut connection.output.bytes);
        connection
    }

    /// True while messages can be sent: both ends said hello and, with a key, the peer proved that
    /// it has it.
    pub const fn is_established(&self) -> bool {
        self.established && matches!(self.stage, Stage::Open(_))
    }

    /// True after an error, a goodbye or death.
    pub const fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// The peer's hello, once it was heard. Only on an established connection is it known to be the
    /// peer's.
    pub const fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Takes bytes that arrived at time `now`: any number, cut anywhere.
    ///
    /// # Errors
    /// What is wrong with the peer. The connection has ended then; a refusal for the peer may be in
    /// the output.
    pub fn receive(&mut self, bytes: &[u8], now: Nanos) -> Result<(), Error> {
        if self.has_ended() {
            return Err(Error::Ended);
        }
        self.heard_at = now;
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut used = 0;
        let result = loop {
            if self.has_ended() {
                break Ok(());
            }
            let longest = match self.stage {
                Stage::Hello | Stage::Handshake(_) => frame::MAX_EARLY,
                Stage::Open(_) | Stage::Ended => frame::MAX_SEALED,
            };
            match frame::split(input.get(used..).unwrap_or_default(), longest) {
                Ok(None) => break Ok(()),
                Ok(Some(frame)) => {
                    used += HEADER_LEN + frame.body.len();
                    if let Err(e) = self.frame(frame.kind, frame.body, now) {
                        break Err(e);
                    }
                }
                Err(e) => break Err(e),
            }
        };
        input.drain(..used);
        self.input = input;
        result.inspect_err(|e| self.fail(e))
    }

    /// The next message for the user: claims and releases at the intercept, responses at the
    /// engine, refusals and the goodbye at both.
    pub fn next_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Error::Backlog`] if the peer does not read fast enough; nothing was queued and the caller
    /// decides what to drop. [`Error::NotEstablished`], [`Error::Ended`]. [`Error::TooLong`] or
    /// [`Error::Invalid`] for a batch that is too big, [`Error::Unexpected`] for a message that
    /// this end does not send.
    pub fn send(&mut self, message: &Message) -> Result<(), Error> {
        let ours = match (message, self.settings.role) {
            (Message::Claim(_) | Message::Release(_), Role::Engine) => true,
            (Message::Responses { records, .. }, Role::Intercept) => {
                check_batch(records.len())?;
                true
            }
            (Message::Refuse { .. } | Message::Bye, _) => true,
            _ => false,
        };
        if !ours {
            return Err(Error::Unexpected {
                what: message.name(),
                when: "from the wrong end",
            });
        }
        self.check_room(OUTPUT_LIMIT)?;
        self.queue(message)?;
        match message {
            Message::Responses { records, .. } => self.output.mark(records.len()),
            Message::Bye => self.stage = Stage::Ended,
            _ => {}
        }
        Ok(())
    }

    /// Queues a batch of `count` records that [`crate::encode_record`] has written into `encoded`.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_records(&mut self, owner: u16, count: usize, encoded: &[u8]) -> Result<(), Error> {
        check_batch(count)?;
        self.check_room(OUTPUT_LIMIT)?;
        self.put(Kind::Responses, |out| {
            put_responses_head(out, owner, count);
            out.extend_from_slice(encoded);
        })?;
        self.output.mark(count);
        Ok(())
    }

    /// Bytes that should be written to the stream now.
    pub fn output(&self) -> &[u8] {
        self.output.pending()
    }

    /// The first `n` bytes of the output were written.
    pub fn consume(&mut self, n: usize) {
        self.output.consume(n);
    }

    /// Records that were queued and whose bytes are not all written: lost if the connection is
    /// given up now.
    pub fn unsent_records(&self) -> u64 {
        self.output.unsent_records()
    }

    /// Does what is due at `now`: heartbeats, and giving up a peer that is silent, or that does not
    /// get done with hello and handshake. To be called when everything readable was received, else
    /// a caller that was held up takes its own delay for the peer's silence.
    ///
    /// # Errors
    /// [`Error::Dead`] once nothing was heard for [`DEAD_AFTER`]; [`Error::TooSlow`] if the link is
    /// not established [`ESTABLISH_WITHIN`] after its beginning; [`Error::Ended`] ever after.
    pub fn poll(&mut self, now: Nanos) -> Result<(), Error> {
        if self.has_ended() {
            return Err(Error::Ended);
        }
        let silent = now.saturating_sub(self.heard_at);
        if silent >= DEAD_AFTER {
            self.stage = Stage::Ended;
            return Err(Error::Dead {
                millis: silent / 1_000_000,
            });
        }
        if !self.established && now >= self.opened_at.saturating_add(ESTABLISH_WITHIN) {
            let slow = Error::TooSlow {
                millis: ESTABLISH_WITHIN / 1_000_000,
            };
            self.fail(&slow);
            return Err(slow);
        }
        if matches!(self.stage, Stage::Open(_)) && now >= self.heartbeat_at {
            self.heartbeat_at = now + HEARTBEAT_EVERY;
            self.control(&Message::Heartbeat {
                token: now,
                stats: self.stats,
            })?;
            let understood = |peer: &Hello| peer.features.has(Features::PORT);
            if let Some(port) = self.port
                && self.settings.role == Role::Intercept
                && self.peer.as_ref().is_some_and(understood)
            {
                self.control(&Message::Port(port))?;
            }
        }
        Ok(())
    }

    /// When [`Connection::poll`] has something to do next.
    pub fn next_poll(&self) -> Nanos {
        let mut dead = self.heard_at.saturating_add(DEAD_AFTER);
        if !self.established {
            dead = dead.min(self.opened_at.saturating_add(ESTABLISH_WITHIN));
        }
        if matches!(self.stage, Stage::Open(_)) {
            dead.min(self.heartbeat_at)
        } else {
            dead
        }
    }

    /// Makes a heartbeat due at once.
    pub const fn hurry(&mut self) {
        self.heartbeat_at = 0;
    }

    /// When the last heartbeat was sent that the peer has echoed: it has read everything that was
    /// queued before.
    pub const fn echoed(&self) -> Option<Nanos> {
        self.echoed
    }

    /// The counters that the next heartbeats tell the peer.
    pub const fn set_stats(&mut self, stats: Stats) {
        self.stats = stats;
    }

    /// What the peer's last heartbeat said.
    pub const fn peer_stats(&self) -> Stats {
        self.peer_stats
    }

    /// What an intercept tells of its port with the next heartbeats; nothing before this.
    pub const fn set_port(&mut self, port: PortReport) {
        self.port = Some(port);
    }

    /// What the intercept told last of its port; `None` if it has told nothing.
    pub const fn peer_port(&self) -> Option<PortReport> {
        self.peer_port
    }

    /// The shortest round trip among the last heartbeats.
    pub fn round_trip(&self) -> Option<Nanos> {
        self.round_trips.iter().min().copied()
    }

    /// How the peer's clock stands to ours at `now`, by the heartbeats that it echoed: wrong by at
    /// most half of the shortest round trip, and what the clocks have drifted since. `None` before
    /// the first echo.
    pub fn peer_clock(&self, now: Nanos) -> Option<ClockOffset> {
        self.clock.offset(now)
    }

    fn frame(&mut self, kind: Kind, body: &[u8], now: Nanos) -> Result<(), Error> {
        match (&mut self.stage, kind) {
            (Stage::Hello, Kind::Hello) => self.hello(body, now),
            (Stage::Hello | Stage::Handshake(_), Kind::Refuse) => {
                match Message::decode_body(kind, body)? {
                    Message::Refuse { reason } => Err(Error::Refused(reason)),
                    other => Err(Error::Unexpected {
                        what: other.name(),
                        when: "in place of a refusal",
                    }),
                }
            }
            (Stage::Handshake(handshake), Kind::Handshake) => {
                handshake.read(body)?;
                self.handshake(now)
            }
            (Stage::Open(None), Kind::Handshake | Kind::Sealed) => Err(Error::Unexpected {
                what: kind.name(),
                when: "on a link without a key",
            }),
            (Stage::Open(None), _) => self.message(Message::decode_body(kind, body)?, now),
            (Stage::Open(Some(sealer)), Kind::Sealed) => {
                sealer.open(body, &mut self.plain)?;
                // Only now is it sure that the peer has the key: a recorded handshake can be
                // replayed, a sealed message cannot.
                self.established = true;
                let Some((kind, body)) = self.plain.split_first() else {
                    return Err(Error::Truncated {
                        what: kind.name(),
                        needed: 1,
                        left: 0,
                    });
                };
                let message = Message::decode_body(Kind::parse(*kind)?, body)?;
                self.message(message, now)
            }
            (stage, _) => Err(Error::Unexpected {
                what: kind.name(),
                when: stage.when(),
            }),
        }
    }

    fn hello(&mut self, body: &[u8], now: Nanos) -> Result<(), Error> {
        let Message::Hello(peer) = Message::decode_body(Kind::Hello, body)? else {
            return Err(Error::NotEstablished);
        };
        if !(MIN_VERSION..=VERSION).contains(&peer.version) {
            return Err(bad_version(peer.version));
        }
        let keyed = peer.features.has(Features::KEYED);
        self.peer = Some(peer);
        let initiator = self.settings.role == Role::Engine;
        match (&self.settings.key, keyed) {
            (Some(_), false) => Err(Error::PeerHasNoKey),
            (None, true) => Err(Error::PeerHasKey),
            (None, false) => {
                self.stage = Stage::Open(None);
                self.established = true;
                self.poll(now)
            }
            (Some(key), true) => {
                let (first, second) = if initiator {
                    (self.hello.as_slice(), body)
                } else {
                    (body, self.hello.as_slice())
                };
                let mut handshake = Handshake::new(initiator, key, &[first, second].concat())?;
                if initiator {
                    let message = handshake.write()?;
                    frame::put(&mut self.output.bytes, Kind::Handshake, |out| {
                        out.extend_from_slice(&message)
                    })?;
                }
                self.stage = Stage::Handshake(handshake);
                Ok(())
            }
        }
    }

    /// The peer's handshake message was right.
    fn handshake(&mut self, now: Nanos) -> Result<(), Error> {
        let Stage::Handshake(mut handshake) = std::mem::replace(&mut self.stage, Stage::Ended)
        else {
            return Err(Error::Ended);
        };
        if self.settings.role == Role::Intercept {
            let message = handshake.write()?;
            frame::put(&mut self.output.bytes, Kind::Handshake, |out| {
                out.extend_from_slice(&message)
            })?;
        } else {
            self.established = true;
        }
        self.stage = Stage::Open(Some(handshake.finish()?));
        // The heartbeat that is due at once proves to the peer that this end has the key.
        self.poll(now)
    }

    fn message(&mut self, message: Message, now: Nanos) -> Result<(), Error> {
        match (message, self.settings.role) {
            (Message::Heartbeat { token, stats }, _) => {
                self.peer_stats = stats;
                self.control(&Message::Echo { token, at: now })
            }
            (Message::Echo { token, at }, _) => {
                // A token from the future is none of ours.
                if let Some(rtt) = now.checked_sub(token) {
                    if self.round_trips.len() == ROUND_TRIPS {
                        self.round_trips.pop_front();
                    }
                    self.round_trips.push_back(rtt);
                    self.clock.echo(token, at, now);
                    self.echoed = self.echoed.max(Some(token));
                }
                Ok(())
            }
            (Message::Port(port), Role::Engine) => {
                self.peer_port = Some(port);
                Ok(())
            }
            (Message::Bye, _) => {
                self.messages.push_back(Message::Bye);
                self.stage = Stage::Ended;
                Ok(())
            }
            (m @ Message::Refuse { .. }, _)
            | (m @ (Message::Claim(_) | Message::Release(_)), Role::Intercept)
            | (m @ Message::Responses { .. }, Role::Engine) => {
                self.messages.push_back(m);
                Ok(())
            }
            (m, _) => Err(Error::Unexpected {
                what: m.name(),
                when: "from the wrong end or out of order",
            }),
        }
    }

    /// Ends the connection and tells the peer why, if that can help it.
    fn fail(&mut self, e: &Error) {
        let tell = !matches!(
            e,
            Error::Magic { .. } | Error::Refused(_) | Error::Ended | Error::Noise(_)
        );
        if tell && self.output.pending().len() < OUTPUT_LIMIT + CONTROL_RESERVE {
            // The connection ends whether or not the refusal can be said.
            let _ = self.queue(&Message::Refuse {
                reason: e.to_string(),
            });
        }
        self.stage = Stage::Ended;
    }

    /// Queues a heartbeat or an echo. A peer that does not even read these gets none, and dies of
    /// silence at its own end.
    fn control(&mut self, message: &Message) -> Result<(), Error> {
        if self.output.pending().len() < OUTPUT_LIMIT + CONTROL_RESERVE {
            self.queue(message)?;
        }
        Ok(())
    }

    fn check_room(&self, limit: usize) -> Result<(), Error> {
        let queued = self.output.pending().len();
        if self.has_ended() {
            Err(Error::Ended)
        } else if !self.is_established() {
            Err(Error::NotEstablished)
        } else if queued >= limit {
            Err(Error::Backlog { queued })
        } else {
            Ok(())
        }
    }

    fn queue(&mut self, message: &Message) -> Result<(), Error> {
        self.put(message.kind(), |out| message.encode_body(out))
    }

    fn put(&mut self, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        let Stage::Open(Some(sealer)) = &mut self.stage else {
            return frame::put(&mut self.output.bytes, kind, fill);
        };
        self.plain.clear();
        self.plain.push(kind as u8);
        fill(&mut self.plain);
        let found = self.plain.len() - 1;
        if found > frame::MAX_BODY {
            return Err(Error::TooLong {
                what: kind.name(),
                found,
                max: frame::MAX_BODY,
            });
        }
        let plain = &self.plain;
        let mut sealed = Ok(());
        frame::put(&mut self.output.bytes, Kind::Sealed, |out| {
            sealed = sealer.seal(plain, out)
        })?;
        sealed
    }
}

/// A batch can count its records.
const fn check_batch(count: usize) -> Result<(), Error> {
    if count > BATCH_RECORDS {
        return Err(Error::Invalid {
            what: "the number of records in a batch",
            found: count as u64,
            accepted: "0–256",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
