//! One link's thread: connect, keep the link, connect again.

use super::{Clock, Shared};
use crossbeam::queue::ArrayQueue;
use link::{Claim, ClockOffset, Connection, Error, LogRate, Message, Record};
use link_tcp::Stream;
use log::{info, warn};
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use wake::{Sleeper, Waker};
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

/// How long the last bytes may take at the end.
const LAST_WORDS: Nanos = 500_000_000;

/// Echoes after which every claim was granted or refused: one may overtake the refusal of a claim
/// that the server read together with the heartbeat, the next one cannot.
const CONFIRMING_ECHOES: u8 = 2;

/// Why a link is down.
#[derive(Debug)]
pub(super) enum Ended {
    /// It cannot be connected to, the stream broke or was closed, or the server broke the protocol.
    Stream(link_tcp::Error),
    /// The server ended the stream after this refusal.
    Refused(String),
    Bye,
    /// We end it.
    Stopped,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(link_tcp::Error::Closed) => {
                f.write_str("the server closed the connection")
            }
            Self::Stream(e) => e.fmt(f),
            Self::Refused(reason) => write!(f, "the server refused the link: {reason}"),
            Self::Bye => f.write_str("the server said goodbye"),
            Self::Stopped => f.write_str("the engine ends"),
        }
    }
}

impl From<link::Error> for Ended {
    fn from(e: link::Error) -> Self {
        Self::Stream(link_tcp::Error::Link(e))
    }
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Self {
        Self::Stream(link_tcp::Error::Io(e))
    }
}

/// One connection to the server, and what was said over it.
struct Attempt {
    stream: Stream,
    /// The last refusal.
    refusal: Option<String>,
    /// When the heartbeat was asked for whose echo is waited for, and how many came, while claims
    /// are being confirmed.
    asked_at: Option<Nanos>,
    echoes: u8,
    /// What the server had missed when it told last.
    missed: Option<u64>,
}

impl Attempt {
    fn new(socket: TcpStream, settings: link::Settings, now: Nanos) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::new(socket, settings, now)?,
            refusal: None,
            asked_at: None,
            echoes: 0,
            missed: None,
        })
    }

    fn write(&mut self) -> Result<(), Ended> {
        self.stream.write().map_err(|e| self.why(e))
    }

    /// Reads what has arrived; the number of bytes.
    fn read(&mut self, buffer: &mut [u8], clock: &dyn Fn() -> Nanos) -> Result<u64, Ended> {
        self.stream.read(buffer, clock).map_err(|e| self.why(e))
    }

    /// A stream that was closed after a refusal was closed for that reason.
    fn why(&mut self, e: link_tcp::Error) -> Ended {
        match (e, self.refusal.take()) {
            (link_tcp::Error::Closed, Some(reason)) => Ended::Refused(reason),
            (e, _) => Ended::Stream(e),
        }
    }
}

/// The thread's state.
pub(super) struct LinkThread {
    settings: link::Settings,
    shared: Arc<Shared>,
    commands: Vec<Arc<ArrayQueue<Message>>>,
    responses: Vec<(Arc<ArrayQueue<Record>>, Option<Waker>)>,
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
    /// How often refusals, and failures of the link, are logged. All refusals are counted.
    refusals: LogRate,
    failures: LogRate,
    buffer: Vec<u8>,
}

/// Warns, if it is time for a line of this kind.
fn say(rate: &mut LogRate, now: Nanos, text: std::fmt::Arguments<'_>) {
    match rate.admit(now) {
        Some(0) => warn!("{text}"),
        Some(n) => warn!("{text} ({n} lines of this kind were left out)"),
        None => {}
    }
}

impl LinkThread {
    pub(super) fn new(
        settings: link::Settings,
        shared: Arc<Shared>,
        commands: Vec<Arc<ArrayQueue<Message>>>,
        responses: Vec<(Arc<ArrayQueue<Record>>, Option<Waker>)>,
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
            refusals: LogRate::default(),
            failures: LogRate::default(),
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
        let mut logged = None;
        while !self.stopping() {
            let connects = self.shared.connects.load(Relaxed);
            let why = self.attempt();
            if self.shared.up.swap(false, Relaxed) {
                self.up.fetch_sub(1, Relaxed);
            }
            self.shared.clock_error.store(u64::MAX, Relaxed);
            if matches!(why, Ended::Stopped) {
                return;
            }
            if self.shared.connects.load(Relaxed) != connects {
                backoff = FIRST_BACKOFF;
                logged = None;
            }
            let why = why.to_string();
            // The same failure again and again is said once.
            if logged.as_ref() != Some(&why) {
                let now = self.now();
                let text = format_args!("control link to {}: {why}", self.shared.address);
                say(&mut self.failures, now, text);
            }
            self.shared.set_error(why.clone());
            logged = Some(why);
            self.pause(backoff);
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    /// One connection, from connecting to its end.
    fn attempt(&mut self) -> Ended {
        let stream = match self.connect() {
            Ok(stream) => stream,
            Err(e) => return e,
        };
        let mut attempt = match Attempt::new(stream, self.settings.clone(), self.now()) {
            Ok(attempt) => attempt,
            Err(e) => return e.into(),
        };
        self.delayed = None;
        self.to_claim.clear();
        loop {
            if self.stopping() {
                self.finish(&mut attempt);
                return Ended::Stopped;
            }
            if let Err(e) = self.turn(&mut attempt) {
                // What the peer is to know is in the output.
                let _ = attempt.write();
                return e;
            }
        }
    }

    /// Connecting blocks, so a thread of its own does it while this one takes the workers'
    /// commands.
    fn connect(&mut self) -> Result<TcpStream, Ended> {
        let address = self.shared.address;
        let connecting: JoinHandle<io::Result<TcpStream>> = std::thread::Builder::new()
            .name("link-connect".into())
            .spawn(move || TcpStream::connect_timeout(&address, CONNECT_TIME))?;
        while !connecting.is_finished() {
            if self.stopping() {
                return Err(Ended::Stopped);
            }
            self.pause(1_000_000);
        }
        match connecting.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(io::Error::other("connecting panicked").into()),
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

    fn turn(&mut self, attempt: &mut Attempt) -> Result<(), Ended> {
        self.wait(attempt);
        let now = self.now();
        let read = attempt.read(&mut self.buffer, &*self.clock);
        if let Ok(bytes) = read {
            self.shared.bytes.fetch_add(bytes, Relaxed);
        }
        self.messages(attempt)?;
        read?;
        if attempt.stream.connection.is_established() && !self.shared.up.load(Relaxed) {
            self.established(attempt);
        }
        if attempt.stream.connection.is_established() {
            self.send_claims(attempt)?;
            self.confirm(attempt, now);
            self.note_port(attempt);
        } else {
            self.note_commands();
        }
        if now >= attempt.stream.connection.next_poll() {
            attempt.stream.connection.set_stats(link::Stats {
                records: self.shared.records.load(Relaxed),
                dropped: self.shared.records_dropped.load(Relaxed),
            });
            attempt.stream.connection.poll(now)?;
            self.shared
                .server_dropped
                .store(attempt.stream.connection.peer_stats().dropped, Relaxed);
            let connection = &attempt.stream.connection;
            let round_trip = connection.round_trip().unwrap_or(u64::MAX);
            self.shared.round_trip.store(round_trip, Relaxed);
            // At its largest: the next echo is about to come.
            let error = connection.peer_clock(now).map(ClockOffset::error);
            self.shared
                .clock_error
                .store(error.unwrap_or(u64::MAX), Relaxed);
        }
        attempt.write()
    }

    fn wait(&mut self, attempt: &Attempt) {
        let now = self.now();
        let to_send = self.delayed.is_some() || !self.to_claim.is_empty();
        let blocked = attempt.stream.wants_to_write();
        let timeout = match (
            to_send && !blocked,
            now.saturating_sub(self.commands_at) < LATELY,
        ) {
            (true, _) => Duration::ZERO,
            (false, true) => WAIT_BUSY,
            (false, false) => WAIT_IDLE,
        };
        let mut fds = [self.sleeper.poll_fd(), attempt.stream.poll_fd(true)];
        let commands = &self.commands;
        let idle = || blocked || commands.iter().all(|ring| ring.is_empty());
        if self.sleeper.wait(&mut fds, timeout, idle).is_err() {
            std::thread::sleep(WAIT_IDLE);
        }
    }

    fn established(&mut self, attempt: &Attempt) {
        self.shared.up.store(true, Relaxed);
        self.shared.connects.fetch_add(1, Relaxed);
        self.up.fetch_add(1, Relaxed);
        self.to_claim = self.live.iter().cloned().collect();
        let name = attempt
            .stream
            .connection
            .peer()
            .map_or("", |hello| hello.name.as_str());
        info!(
            "control link to {} is up: intercept \"{name}\"",
            self.shared.address
        );
    }

    fn messages(&mut self, attempt: &mut Attempt) -> Result<(), Ended> {
        while let Some(message) = attempt.stream.connection.next_message() {
            match message {
                Message::Responses { owner, records } => {
                    self.responses(&attempt.stream.connection, owner, records)
                }
                Message::Refuse { reason } => {
                    self.shared.refusals.fetch_add(1, Relaxed);
                    let now = self.now();
                    let text = format_args!("intercept {} refused: {reason}", self.shared.address);
                    say(&mut self.refusals, now, text);
                    self.shared.set_error(reason.clone());
                    attempt.refusal = Some(reason);
                }
                Message::Bye => return Err(Ended::Bye),
                // The connection lets no other through to an engine.
                _ => {}
            }
        }
        Ok(())
    }

    fn responses(&self, connection: &Connection, owner: u16, records: Vec<Record>) {
        let mut dropped = 0;
        let count = records.len() as u64;
        match self.responses.get(usize::from(owner)) {
            None => dropped = count,
            Some((ring, waker)) => {
                // After the records came here: they cannot have been received later than that,
                // whatever the comparison of clocks says.
                let now = self.now();
                let clock = connection.peer_clock(now);
                for mut record in records {
                    record.received_at =
                        clock.map_or(now, |clock| clock.to_local(record.received_at).min(now));
                    dropped += u64::from(ring.push(record).is_err());
                }
                waker.iter().for_each(Waker::wake);
            }
        }
        self.shared.records.fetch_add(count - dropped, Relaxed);
        self.shared.records_dropped.fetch_add(dropped, Relaxed);
    }

    /// What the server tells of its port. It counts since its own start, and here the time counts in
    /// which the link is up.
    fn note_port(&self, attempt: &mut Attempt) {
        let connection = &attempt.stream.connection;
        let tells = |hello: &link::Hello| hello.features.has(link::Features::PORT);
        let (missed, resolution) = match connection.peer_port() {
            Some(port) => (port.missed, port.resolution),
            // It is about to.
            None if connection.peer().is_some_and(tells) => return,
            None => (u64::MAX, u64::MAX),
        };
        let before = attempt.missed.replace(missed).unwrap_or(missed);
        let all = &self.shared.answers_missed;
        if missed == u64::MAX {
            all.store(u64::MAX, Relaxed);
        } else if all.load(Relaxed) != u64::MAX {
            all.fetch_add(missed.saturating_sub(before), Relaxed);
        }
        self.shared.resolution.store(resolution, Relaxed);
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
    fn send_claims(&mut self, attempt: &mut Attempt) -> Result<(), Ended> {
        if let Some(message) = self.delayed.take() {
            self.send(attempt, message)?;
        }
        while self.delayed.is_none()
            && let Some(claim) = self.to_claim.pop()
        {
            // It may have been released since.
            if self.live.contains(&claim) {
                self.send(attempt, Message::Claim(claim))?;
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
                    self.send(attempt, message)?;
                }
            }
        }
        Ok(())
    }

    /// Where it is asked for, finds out that the server has answered for every claim there is.
    fn confirm(&self, attempt: &mut Attempt, now: Nanos) {
        if !self.shared.confirm.load(Relaxed) || attempt.echoes == CONFIRMING_ECHOES {
            return;
        }
        let all_sent = self.delayed.is_none()
            && self.to_claim.is_empty()
            && self.commands.iter().all(|ring| ring.is_empty());
        match attempt.asked_at {
            Some(at) if attempt.stream.connection.echoed() >= Some(at) => {
                attempt.asked_at = None;
                attempt.echoes += 1;
                if attempt.echoes == CONFIRMING_ECHOES {
                    self.shared.confirmed.store(true, Relaxed);
                }
            }
            None if all_sent => {
                attempt.asked_at = Some(now);
                attempt.stream.connection.hurry();
            }
            _ => {}
        }
    }

    fn send(&mut self, attempt: &mut Attempt, message: Message) -> Result<(), Ended> {
        match attempt.stream.connection.send(&message) {
            Ok(()) => Ok(()),
            Err(Error::Backlog { .. }) => {
                self.delayed = Some(message);
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The last claims, releases and the goodbye.
    fn finish(&mut self, attempt: &mut Attempt) {
        let end = self.now() + LAST_WORDS;
        let mut goodbye_sent = false;
        while self.now() < end {
            if !goodbye_sent && attempt.stream.connection.is_established() {
                if self.send_claims(attempt).is_err() {
                    return;
                }
                let waiting =
                    self.delayed.is_some() || self.commands.iter().any(|ring| !ring.is_empty());
                goodbye_sent = !waiting && attempt.stream.connection.send(&Message::Bye).is_ok();
            }
            if attempt.write().is_err()
                || (goodbye_sent && attempt.stream.connection.output().is_empty())
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
) -> Result<(), Ended> {
    let end = clock().saturating_add(time.as_nanos() as u64);
    let stream = TcpStream::connect_timeout(&address, time)?;
    let mut attempt = Attempt::new(stream, settings, clock())?;
    let mut buffer = vec![0; 4096];
    loop {
        attempt.write()?;
        let result = attempt.read(&mut buffer, &**clock);
        while let Some(message) = attempt.stream.connection.next_message() {
            if let Message::Refuse { reason } = message {
                return Err(Ended::Refused(reason));
            }
        }
        if let Err(e) = result {
            // The refusal, if this side has one to say.
            let _ = attempt.write();
            return Err(e);
        }
        // A round trip proves that the server accepts this side, too.
        if attempt.stream.connection.is_established()
            && attempt.stream.connection.round_trip().is_some()
        {
            let _ = attempt.stream.connection.send(&Message::Bye);
            return attempt.write();
        }
        let now = clock();
        attempt.stream.connection.poll(now)?;
        if now >= end {
            return Err(Error::Dead {
                millis: time.as_millis() as u64,
            }
            .into());
        }
        std::thread::sleep(WAIT_IDLE);
    }
}
