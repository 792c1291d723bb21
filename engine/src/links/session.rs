//! One link's thread: connect, keep the link, connect again.

use super::{Clock, Shared};
use crossbeam::queue::ArrayQueue;
use link::{Claim, Connection, Error, Message, Record};
use log::{info, warn};
use rustix::event::{PollFd, PollFlags};
use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use wake::Sleeper;
use wire::Nanos;

/// Pauses between attempts to connect: they double from the first to the last.
const FIRST_BACKOFF: Nanos = 100_000_000;
const LAST_BACKOFF: Nanos = 2_000_000_000;

/// How long one attempt to connect may take.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long the thread looks for new claims by itself while some came lately; a spinning worker
/// does not wake it.
const LATELY: Nanos = 20_000_000;
const WAIT_BUSY: Duration = Duration::from_micros(100);
const WAIT_IDLE: Duration = Duration::from_millis(1);

/// Commands taken from each worker before the socket has its turn.
const COMMANDS_A_TURN: usize = 256;

/// Pieces read before claims have their turn.
const READS_A_TURN: usize = 16;

/// How long the last bytes may take at the end.
const LAST_WORDS: Nanos = 500_000_000;

/// Echoes after which every claim was granted or refused: one may overtake the refusal of a claim
/// that the server read together with the heartbeat, the next one cannot.
const CONFIRMING_ECHOES: u8 = 2;

/// Refusals that are logged for each connection; all are counted.
const LOGGED_REFUSALS: u32 = 5;

/// Why a link is down.
#[derive(Debug)]
pub(super) enum Down {
    Io(io::Error),
    Link(Error),
    /// The server ended the stream, after this refusal if there was one.
    Closed(Option<String>),
    Bye,
    /// We end it.
    Stopped,
}

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Link(e) => e.fmt(f),
            Self::Closed(Some(reason)) => write!(f, "the server refused the link: {reason}"),
            Self::Closed(None) => f.write_str("the server closed the connection"),
            Self::Bye => f.write_str("the server said goodbye"),
            Self::Stopped => f.write_str("the engine ends"),
        }
    }
}

/// A socket and the connection over it.
struct Line {
    stream: TcpStream,
    connection: Connection,
    refusal: Option<String>,
    refusals: u32,
    /// When the heartbeat was asked for whose echo is waited for, and how many came, while claims
    /// are being confirmed.
    asked_at: Option<Nanos>,
    echoes: u8,
}

impl Line {
    fn new(stream: TcpStream, settings: link::Settings, now: Nanos) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            connection: Connection::new(settings, now),
            refusal: None,
            refusals: 0,
            asked_at: None,
            echoes: 0,
        })
    }

    fn write(&mut self) -> Result<(), Down> {
        while !self.connection.output().is_empty() {
            match self.stream.write(self.connection.output()) {
                Ok(0) => return Err(Down::Closed(self.refusal.take())),
                Ok(n) => self.connection.consume(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Down::Io(e)),
            }
        }
        Ok(())
    }

    /// Reads what has arrived; the number of bytes.
    fn read(&mut self, buffer: &mut [u8], now: Nanos) -> Result<u64, Down> {
        let mut total = 0;
        for _ in 0..READS_A_TURN {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Down::Closed(self.refusal.take())),
                Ok(n) => {
                    total += n as u64;
                    let bytes = buffer.get(..n).unwrap_or_default();
                    self.connection.receive(bytes, now).map_err(Down::Link)?;
                    if n < buffer.len() || self.connection.has_ended() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Down::Io(e)),
            }
        }
        Ok(total)
    }
}

/// The thread's state.
pub(super) struct Session {
    settings: link::Settings,
    shared: Arc<Shared>,
    commands: Vec<Arc<ArrayQueue<Message>>>,
    responses: Vec<Arc<ArrayQueue<Record>>>,
    up: Arc<AtomicUsize>,
    sleeper: Sleeper,
    clock: Clock,
    /// All claims that workers have and the server should know.
    live: HashSet<Claim>,
    /// Live claims that this connection has still to be told.
    to_claim: Vec<Claim>,
    /// A message that found the output full.
    delayed: Option<Message>,
    commands_at: Nanos,
    buffer: Vec<u8>,
}

impl Session {
    pub(super) fn new(
        settings: link::Settings,
        shared: Arc<Shared>,
        commands: Vec<Arc<ArrayQueue<Message>>>,
        responses: Vec<Arc<ArrayQueue<Record>>>,
        up: Arc<AtomicUsize>,
        sleeper: Sleeper,
        clock: Clock,
    ) -> Self {
        Self {
            settings,
            shared,
            commands,
            responses,
            up,
            sleeper,
            clock,
            live: HashSet::new(),
            to_claim: Vec::new(),
            delayed: None,
            commands_at: 0,
            buffer: vec![0; 64 * 1024],
        }
    }

    fn now(&self) -> Nanos {
        (self.clock)()
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    pub(super) fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut said = None;
        while !self.stopping() {
            let connects = self.shared.connects.load(Relaxed);
            let why = self.attempt();
            if self.shared.up.swap(false, Relaxed) {
                self.up.fetch_sub(1, Relaxed);
            }
            if matches!(why, Down::Stopped) {
                return;
            }
            if self.shared.connects.load(Relaxed) != connects {
                backoff = FIRST_BACKOFF;
                said = None;
            }
            let why = why.to_string();
            // The same failure again and again is said once.
            if said.as_ref() != Some(&why) {
                warn!("control link to {}: {why}", self.shared.address);
            }
            self.shared.set_error(why.clone());
            said = Some(why);
            self.pause(backoff);
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    /// One connection, from connecting to its end.
    fn attempt(&mut self) -> Down {
        let stream = match self.connect() {
            Ok(stream) => stream,
            Err(e) => return e,
        };
        let mut line = match Line::new(stream, self.settings.clone(), self.now()) {
            Ok(line) => line,
            Err(e) => return Down::Io(e),
        };
        self.delayed = None;
        self.to_claim.clear();
        loop {
            if self.stopping() {
                self.finish(&mut line);
                return Down::Stopped;
            }
            if let Err(e) = self.turn(&mut line) {
                // What the peer is to know is in the output.
                let _ = line.write();
                return e;
            }
        }
    }

    /// Connecting blocks, so a thread of its own does it while this one takes the workers'
    /// commands.
    fn connect(&mut self) -> Result<TcpStream, Down> {
        let address = self.shared.address;
        let connecting: JoinHandle<io::Result<TcpStream>> = std::thread::Builder::new()
            .name("link-connect".into())
            .spawn(move || TcpStream::connect_timeout(&address, CONNECT_TIME))
            .map_err(Down::Io)?;
        while !connecting.is_finished() {
            if self.stopping() {
                return Err(Down::Stopped);
            }
            self.pause(1_000_000);
        }
        match connecting.join() {
            Ok(result) => result.map_err(Down::Io),
            Err(_) => Err(Down::Io(io::Error::other("connecting panicked"))),
        }
    }

    /// Lets time pass while the link is down: claims are noted, to be said when it is up.
    fn pause(&mut self, length: Nanos) {
        let end = self.now() + length;
        while !self.stopping() {
            self.note_commands();
            let left = end.saturating_sub(self.now());
            if left == 0 {
                return;
            }
            let mut fds = [self.sleeper.poll_fd()];
            let wait = Duration::from_nanos(left).min(WAIT_IDLE);
            if self.sleeper.wait(&mut fds, wait, || true).is_err() {
                std::thread::sleep(WAIT_IDLE);
            }
        }
    }

    fn turn(&mut self, line: &mut Line) -> Result<(), Down> {
        self.wait(line);
        let now = self.now();
        let read = line.read(&mut self.buffer, now);
        if let Ok(bytes) = read {
            self.shared.bytes.fetch_add(bytes, Relaxed);
        }
        self.messages(line, now)?;
        read?;
        if line.connection.is_established() && !self.shared.up.load(Relaxed) {
            self.established(line);
        }
        if line.connection.is_established() {
            self.send_claims(line)?;
            self.confirm(line, now);
        } else {
            self.note_commands();
        }
        if now >= line.connection.next_poll() {
            line.connection.set_stats(link::Stats {
                records: self.shared.records.load(Relaxed),
                dropped: self.shared.records_dropped.load(Relaxed),
            });
            line.connection.poll(now).map_err(Down::Link)?;
            self.shared
                .server_dropped
                .store(line.connection.peer_stats().dropped, Relaxed);
            self.shared
                .round_trip
                .store(line.connection.round_trip().unwrap_or(u64::MAX), Relaxed);
        }
        line.write()
    }

    fn wait(&mut self, line: &Line) {
        let now = self.now();
        let to_send = self.delayed.is_some() || !self.to_claim.is_empty();
        let blocked = !line.connection.output().is_empty();
        let timeout = match (
            to_send && !blocked,
            now.saturating_sub(self.commands_at) < LATELY,
        ) {
            (true, _) => Duration::ZERO,
            (false, true) => WAIT_BUSY,
            (false, false) => WAIT_IDLE,
        };
        let mut events = PollFlags::IN;
        if blocked {
            events |= PollFlags::OUT;
        }
        let mut fds = [self.sleeper.poll_fd(), PollFd::new(&line.stream, events)];
        let commands = &self.commands;
        let idle = || blocked || commands.iter().all(|ring| ring.is_empty());
        if self.sleeper.wait(&mut fds, timeout, idle).is_err() {
            std::thread::sleep(WAIT_IDLE);
        }
    }

    fn established(&mut self, line: &Line) {
        self.shared.up.store(true, Relaxed);
        self.shared.connects.fetch_add(1, Relaxed);
        self.up.fetch_add(1, Relaxed);
        self.to_claim = self.live.iter().cloned().collect();
        let name = line
            .connection
            .peer()
            .map_or("", |hello| hello.name.as_str());
        info!(
            "control link to {} is up: intercept \"{name}\"",
            self.shared.address
        );
    }

    fn messages(&mut self, line: &mut Line, now: Nanos) -> Result<(), Down> {
        while let Some(message) = line.connection.next_message() {
            match message {
                Message::Responses { owner, records } => {
                    self.responses(&line.connection, owner, records, now)
                }
                Message::Refuse { reason } => {
                    self.shared.refusals.fetch_add(1, Relaxed);
                    if line.refusals < LOGGED_REFUSALS {
                        warn!("intercept {} refused: {reason}", self.shared.address);
                    }
                    line.refusals = line.refusals.saturating_add(1);
                    self.shared.set_error(reason.clone());
                    line.refusal = Some(reason);
                }
                Message::Bye => return Err(Down::Bye),
                // The connection lets no other through to an engine.
                _ => {}
            }
        }
        Ok(())
    }

    fn responses(&self, connection: &Connection, owner: u16, records: Vec<Record>, now: Nanos) {
        let mut dropped = 0;
        let count = records.len() as u64;
        match self.responses.get(usize::from(owner)) {
            None => dropped = count,
            Some(ring) => {
                for mut record in records {
                    // It cannot have been received after it came here, whatever the comparison of
                    // clocks says.
                    record.received_at = connection
                        .to_local(record.received_at)
                        .map_or(now, |at| at.min(now));
                    dropped += u64::from(ring.push(record).is_err());
                }
            }
        }
        self.shared.records.fetch_add(count - dropped, Relaxed);
        self.shared.records_dropped.fetch_add(dropped, Relaxed);
    }

    /// Takes a worker's command into the set of live claims. True if it is one that servers are to
    /// be told.
    fn note(&mut self, message: &Message) -> bool {
        let known = match message {
            Message::Claim(claim) => {
                self.live.insert(claim.clone());
                true
            }
            Message::Release(claim) => {
                self.live.remove(claim);
                true
            }
            _ => false,
        };
        self.shared.claims.store(self.live.len() as u64, Relaxed);
        known
    }

    fn note_commands(&mut self) {
        for n in 0..self.commands.len() {
            while let Some(message) = self.commands.get(n).and_then(|ring| ring.pop()) {
                self.note(&message);
            }
        }
    }

    /// Tells the server what it does not know yet, as far as the output has room. What has none
    /// stays in the rings.
    fn send_claims(&mut self, line: &mut Line) -> Result<(), Down> {
        if let Some(message) = self.delayed.take() {
            self.send(line, message)?;
        }
        while self.delayed.is_none()
            && let Some(claim) = self.to_claim.pop()
        {
            // It may have been released since.
            if self.live.contains(&claim) {
                self.send(line, Message::Claim(claim))?;
            }
        }
        for n in 0..self.commands.len() {
            for _ in 0..COMMANDS_A_TURN {
                if self.delayed.is_some() {
                    return Ok(());
                }
                let Some(message) = self.commands.get(n).and_then(|ring| ring.pop()) else {
                    break;
                };
                self.commands_at = self.now();
                if self.note(&message) {
                    self.send(line, message)?;
                }
            }
        }
        Ok(())
    }

    /// Where it is asked for, finds out that the server has answered for every claim there is.
    fn confirm(&self, line: &mut Line, now: Nanos) {
        if !self.shared.confirm.load(Relaxed) || line.echoes == CONFIRMING_ECHOES {
            return;
        }
        let said = self.delayed.is_none()
            && self.to_claim.is_empty()
            && self.commands.iter().all(|ring| ring.is_empty());
        match line.asked_at {
            Some(at) if line.connection.echoed() >= Some(at) => {
                line.asked_at = None;
                line.echoes += 1;
                if line.echoes == CONFIRMING_ECHOES {
                    self.shared.confirmed.store(true, Relaxed);
                }
            }
            None if said => {
                line.asked_at = Some(now);
                line.connection.hurry();
            }
            _ => {}
        }
    }

    fn send(&mut self, line: &mut Line, message: Message) -> Result<(), Down> {
        match line.connection.send(&message) {
            Ok(()) => Ok(()),
            Err(Error::Backlog { .. }) => {
                self.delayed = Some(message);
                Ok(())
            }
            Err(e) => Err(Down::Link(e)),
        }
    }

    /// The last claims, releases and the goodbye.
    fn finish(&mut self, line: &mut Line) {
        let end = self.now() + LAST_WORDS;
        let mut said = false;
        while self.now() < end {
            if !said && line.connection.is_established() {
                if self.send_claims(line).is_err() {
                    return;
                }
                let waiting =
                    self.delayed.is_some() || self.commands.iter().any(|ring| !ring.is_empty());
                said = !waiting && line.connection.send(&Message::Bye).is_ok();
            }
            if line.write().is_err()
                || (said && line.connection.output().is_empty())
                || !self.shared.up.load(Relaxed)
            {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// One connection, established and ended.
pub(super) fn check(
    settings: link::Settings,
    address: SocketAddr,
    time: Duration,
    clock: &Clock,
) -> Result<(), Down> {
    let end = clock().saturating_add(time.as_nanos() as u64);
    let stream = TcpStream::connect_timeout(&address, time).map_err(Down::Io)?;
    let mut line = Line::new(stream, settings, clock()).map_err(Down::Io)?;
    let mut buffer = vec![0; 4096];
    loop {
        line.write()?;
        let result = line.read(&mut buffer, clock());
        while let Some(message) = line.connection.next_message() {
            if let Message::Refuse { reason } = message {
                return Err(Down::Closed(Some(reason)));
            }
        }
        if let Err(e) = result {
            // The refusal, if this side has one to say.
            let _ = line.write();
            return Err(e);
        }
        // A round trip proves that the server accepts this side, too.
        if line.connection.is_established() && line.connection.round_trip().is_some() {
            let _ = line.connection.send(&Message::Bye);
            return line.write();
        }
        let now = clock();
        line.connection.poll(now).map_err(Down::Link)?;
        if now >= end {
            return Err(Down::Link(Error::Dead {
                millis: time.as_millis() as u64,
            }));
        }
        std::thread::sleep(WAIT_IDLE);
    }
}
