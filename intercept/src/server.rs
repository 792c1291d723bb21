//! The server of the control link: one thread that listens, grants claims, and sends each engine
//! the records of its responses.
//!
//! It never waits for one engine: sockets do not block, an engine that reads too slowly loses
//! counted records. Whoever has not proved to be an engine costs little and not for long: see
//! [`waiting`] and [`link::ESTABLISH_WITHIN`]. Claims go to every receive core, since any of them
//! may receive any response.

mod counters;
mod lines;
mod peer;
#[cfg(test)]
mod tests;
mod waiting;

pub use crate::registry::Limits;
pub use counters::{ClaimRefused, Counters, TurnedAway, Undelivered};

use crate::registry::{Denied, Registry};
use crate::rings::{Command, ServerEnd};
use lines::{Line, Lines};
use link::{Claim, Message, Stats};
use log::Level;
use peer::{Lost, Peer};
use rustix::event::{PollFd, PollFlags};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use waiting::Waiting;
use wake::{Sleeper, Waker};
use wire::Nanos;

/// The time, from an arbitrary start that all threads of the process share.
pub type Clock = Arc<dyn Fn() -> Nanos + Send + Sync>;

/// Engines that may be connected at the same time. How many others there may be says [`waiting`].
const MAX_ENGINES: usize = 64;

/// Connections that one round accepts: no more than wait from one source, so that each of them is
/// read once before another one pushes it out.
const ACCEPTS_A_ROUND: usize = waiting::MOST_OF_ONE;

/// Changes of claims that may wait for a core before engines are not read any more.
const MAX_WAITING_COMMANDS: usize = 16 * 1024;

/// How long the server looks for new records by itself while some came lately; a spinning core does
/// not wake it.
const LATELY: Nanos = 20_000_000;

/// How long it waits at most for a wake while records came lately, while engines are connected, and
/// while there are none.
const WAIT_BUSY: Duration = Duration::from_micros(100);
const WAIT_CONNECTED: Duration = Duration::from_millis(1);
const WAIT_ALONE: Duration = Duration::from_millis(50);

/// How long the last bytes to engines may take at the end.
const LAST_WORDS: Nanos = 1_000_000_000;

/// What the server is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The key that it shares with engines.
    pub key: Option<[u8; 32]>,
    /// Bytes of payload that its records carry, as it tells engines.
    pub payload_prefix: u16,
    /// Its name in the hello.
    pub name: String,
    /// How many claims there may be.
    pub limits: Limits,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// A server that listens and has not started yet.
pub struct Server {
    settings: Settings,
    listener: TcpListener,
    cores: Vec<(ServerEnd, VecDeque<Command>)>,
    sleeper: Sleeper,
    clock: Clock,
    counters: Arc<Counters>,
    registry: Registry,
    peers: BTreeMap<u32, Peer>,
    last_peer: u32,
    waiting: Waiting,
    /// The engine that was read last.
    last_read: u32,
    lines: Lines,
    records_at: Nanos,
    buffer: Vec<u8>,
}

/// A running server.
pub struct Running {
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
    address: SocketAddr,
}

impl Running {
    /// Where it listens: with the port that the system chose, if it was asked to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its counters, live.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Sends what cores have batched, says goodbye to all engines and ends. To be called when the
    /// cores have stopped. False if the thread had died of a panic.
    pub fn stop(self) -> bool {
        self.stop.store(true, Relaxed);
        self.waker.wake();
        self.thread.join().is_ok()
    }
}

impl Server {
    /// Listens. `cores` are the rings of the receive cores, whose waker wakes `sleeper`.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(
        settings: Settings,
        cores: Vec<ServerEnd>,
        sleeper: Sleeper,
        clock: Clock,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        let counters = Arc::<Counters>::default();
        Ok(Self {
            registry: Registry::new(settings.limits),
            cores: cores
                .into_iter()
                .map(|core| (core, VecDeque::new()))
                .collect(),
            settings,
            listener,
            sleeper,
            clock,
            lines: Lines::new(Arc::clone(&counters)),
            counters,
            peers: BTreeMap::new(),
            last_peer: 0,
            waiting: Waiting::default(),
            last_read: 0,
            records_at: 0,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Runs in a thread of its own. `waker` belongs to the server's sleeper.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(self, waker: Waker) -> io::Result<Running> {
        let address = self.listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, counters) = (Arc::clone(&stop), Arc::clone(&self.counters));
        let thread = std::thread::Builder::new()
            .name("link".into())
            .spawn(move || self.run(&flag))?;
        Ok(Running {
            stop,
            waker,
            thread,
            counters,
            address,
        })
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            self.wait();
            self.round();
        }
        self.finish();
    }

    fn round(&mut self) {
        self.accept();
        self.read();
        self.pass_commands();
        self.send_batches();
        self.write_and_poll();
        let now = self.now();
        self.lines.poll(now);
    }

    fn now(&self) -> Nanos {
        (self.clock)()
    }

    fn wait(&mut self) {
        let now = self.now();
        let commands_wait = self.cores.iter().any(|(_, waiting)| !waiting.is_empty());
        let timeout = if commands_wait || now.saturating_sub(self.records_at) < LATELY {
            WAIT_BUSY
        } else if self.peers.is_empty() {
            WAIT_ALONE
        } else {
            WAIT_CONNECTED
        };
        let readable = self.may_read();
        let mut fds = vec![
            self.sleeper.poll_fd(),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        for peer in self.peers.values() {
            fds.push(peer.poll_fd(readable));
        }
        let cores = &self.cores;
        let result = self.sleeper.wait(&mut fds, timeout, || {
            cores.iter().all(|(core, _)| core.is_empty())
        });
        if result.is_err() {
            // Without poll(2) there is still the interval; it must not become a spin.
            std::thread::sleep(WAIT_CONNECTED);
        }
    }

    /// False while cores have too many changes of claims ahead of them: engines then wait in their
    /// own send buffers.
    fn may_read(&self) -> bool {
        self.cores
            .iter()
            .all(|(_, waiting)| waiting.len() < MAX_WAITING_COMMANDS)
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_A_ROUND {
            match self.listener.accept() {
                Ok((stream, address)) => self.admit(stream, address),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is waiting, or the system is short of descriptors: either way later.
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, address: SocketAddr) {
        add(&self.counters.accepted, 1);
        // Numbers are never reused: after 2^32 connections no more are accepted rather than
        // confused.
        let next = self.last_peer.checked_add(1).ok_or(io::ErrorKind::Other);
        let (now, port) = (self.now(), self.counters.port());
        let peer = next
            .map_err(io::Error::from)
            .and_then(|n| Peer::new(stream, address, &self.settings, port, now).map(|p| (n, p)));
        let (number, peer) = match peer {
            Ok(peer) => peer,
            Err(e) => {
                let text = format_args!("engine {address}: cannot be served: {e}");
                self.lines.say(Line::TurnedAway, Level::Warn, now, text);
                add(&self.counters.failed, 1);
                add(self.counters.turned_away(TurnedAway::Rejected), 1);
                return;
            }
        };
        self.last_peer = number;
        self.peers.insert(number, peer);
        if let Some(gone) = self.waiting.enter(number, address.ip()) {
            self.drop_peer(gone, &Lost::NoRoom);
        }
        self.count_peers();
    }

    fn read(&mut self) {
        let clock = Arc::clone(&self.clock);
        // One that makes the cores' queues full has its turn again when all others had theirs.
        let mut numbers: Vec<u32> = self.peers.keys().copied().collect();
        let first = numbers.partition_point(|n| *n <= self.last_read);
        numbers.rotate_left(first);
        for number in numbers {
            if !self.may_read() {
                return;
            }
            self.last_read = number;
            let Some(peer) = self.peers.get_mut(&number) else {
                continue;
            };
            let result = peer.read(&mut self.buffer, &*clock);
            let (new, mut messages) = (peer.newly_established(), Vec::new());
            while let Some(message) = peer.next_message() {
                messages.push(message);
            }
            if new && !self.welcome(number) {
                continue;
            }
            for message in messages {
                self.message(number, message);
            }
            if let Err(lost) = result {
                self.drop_peer(number, &lost);
            }
        }
    }

    /// A peer has said hello and has the key. False if there are too many already.
    fn welcome(&mut self, number: u32) -> bool {
        self.waiting.leave(number);
        let Some(peer) = self.peers.get(&number) else {
            return false;
        };
        let same = |(n, other): &(&u32, &Peer)| **n != number && other.is_same_engine(peer);
        let older: Vec<u32> = self.peers.iter().filter(same).map(|(n, _)| *n).collect();
        for n in older {
            self.drop_peer(n, &Lost::Displaced);
        }
        self.count_peers();
        if self.counters.engines.load(Relaxed) > MAX_ENGINES as u64 {
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.refuse(format!(
                    "{MAX_ENGINES} engines are connected already, which is the limit"
                ));
            }
            self.drop_peer(number, &Lost::TooMany);
            return false;
        }
        let now = self.now();
        if let Some(peer) = self.peers.get(&number) {
            let text = format_args!("engine {peer} is connected");
            self.lines.say(Line::Connected, Level::Info, now, text);
        }
        true
    }

    fn message(&mut self, number: u32, message: Message) {
        match message {
            Message::Claim(claim) => match self.registry.claim(&claim, number) {
                Ok(()) => self.command(&Command::Claim(claim, number)),
                Err(denied) => self.deny(number, &claim, denied),
            },
            Message::Release(claim) => self.release(claim, number),
            Message::Refuse { reason } => {
                if let Some(peer) = self.peers.get(&number) {
                    let now = (self.clock)();
                    let text = format_args!("engine {peer} refuses: {reason}");
                    self.lines.say(Line::Refused, Level::Warn, now, text);
                }
            }
            // The others are the connection's own business, or end it.
            _ => {}
        }
        self.counters
            .claims
            .store(self.registry.len() as u64, Relaxed);
    }

    /// Something an engine has not claimed needs no release: it may have been refused.
    fn release(&mut self, claim: Claim, number: u32) {
        if self.registry.release(&claim, number) {
            self.command(&Command::Release(claim, number));
        }
    }

    fn deny(&mut self, number: u32, claim: &Claim, denied: Denied) {
        let (counted, reason) = match denied {
            Denied::Overlap(other) => {
                let other = match self.peers.get(&other) {
                    Some(other) => format!("engine {other}"),
                    None => "another engine".to_owned(),
                };
                (
                    ClaimRefused::Overlap,
                    format!("claim {claim}: {other} has claimed some of these responses already"),
                )
            }
            Denied::Full(limit) => (
                ClaimRefused::TableFull,
                format!(
                    "claim {claim}: there are {limit} claims of its size already, which is the limit"
                ),
            ),
            Denied::LinkFull(limit) => (
                ClaimRefused::LinkFull,
                format!(
                    "claim {claim}: this engine has {limit} claims of its size already, which is the limit for one"
                ),
            ),
        };
        add(self.counters.claims_refused(counted), 1);
        if let Some(peer) = self.peers.get_mut(&number) {
            let now = (self.clock)();
            let text = format_args!("engine {peer}: refused {reason}");
            self.lines.say(Line::Claim, Level::Warn, now, text);
            peer.refuse(reason);
        }
    }

    fn command(&mut self, command: &Command) {
        for (_, waiting) in &mut self.cores {
            waiting.push_back(command.clone());
        }
    }

    fn pass_commands(&mut self) {
        for (core, waiting) in &mut self.cores {
            while let Some(command) = waiting.pop_front() {
                if let Err(command) = core.command(command) {
                    waiting.push_front(command);
                    break;
                }
            }
        }
        let waiting = self.cores.iter().map(|(_, waiting)| waiting.len()).max();
        self.counters
            .changes_waiting
            .store(waiting.unwrap_or(0) as u64, Relaxed);
    }

    fn send_batches(&mut self) {
        let mut any = false;
        for (core, _) in &self.cores {
            while let Some(batch) = core.batch() {
                any = true;
                let records = u64::from(batch.records);
                let result = match self.peers.get_mut(&batch.route.connection) {
                    Some(peer) => peer.send_records(&batch),
                    None => Err(link::Error::Ended),
                };
                let counter = match result {
                    Ok(()) => &self.counters.records_sent,
                    Err(link::Error::Backlog { .. }) => {
                        self.counters.dropped(Undelivered::SlowEngine)
                    }
                    Err(_) => self.counters.dropped(Undelivered::EngineGone),
                };
                add(counter, records);
                core.give_back(batch);
            }
        }
        if any {
            self.records_at = self.now();
        }
    }

    fn write_and_poll(&mut self) {
        let (now, port) = (self.now(), self.counters.port());
        let mut lost = Vec::new();
        for (number, peer) in &mut self.peers {
            if let Err(e) = peer.poll(now, port).and_then(|()| peer.write()) {
                lost.push((*number, e));
            }
        }
        for (number, e) in lost {
            self.drop_peer(number, &e);
        }
        let waits: usize = self.peers.values().map(Peer::output_len).sum();
        self.counters.output_bytes.store(waits as u64, Relaxed);
    }

    fn drop_peer(&mut self, number: u32, why: &Lost) {
        let Some(mut peer) = self.peers.remove(&number) else {
            return;
        };
        // A refusal may wait to be read; what cannot be written at once is given up.
        let _ = peer.write();
        let unsent = peer.unsent_records();
        self.counters.records_sent.fetch_sub(unsent, Relaxed);
        add(self.counters.dropped(Undelivered::EngineGone), unsent);
        let now = self.now();
        if matches!(why, Lost::Bye) {
            let text = format_args!("engine {peer} said goodbye");
            self.lines.say(Line::Gone, Level::Info, now, text);
        } else {
            add(&self.counters.failed, 1);
            let line = match why.turned_away(peer.was_welcomed()) {
                Some(reason) => {
                    add(self.counters.turned_away(reason), 1);
                    Line::TurnedAway
                }
                None => Line::Gone,
            };
            let text = format_args!("engine {peer} is gone: {why}");
            self.lines.say(line, Level::Warn, now, text);
        }
        self.waiting.leave(number);
        for claim in self.registry.remove(number) {
            self.command(&Command::Release(claim, number));
        }
        self.counters
            .claims
            .store(self.registry.len() as u64, Relaxed);
        self.count_peers();
    }

    fn count_peers(&self) {
        self.counters
            .waiting
            .store(self.waiting.len() as u64, Relaxed);
        let engines = self.peers.values().filter(|p| p.is_established()).count();
        self.counters.engines.store(engines as u64, Relaxed);
    }

    fn finish(mut self) {
        self.send_batches();
        let end = self.now() + LAST_WORDS;
        for peer in self.peers.values_mut() {
            peer.goodbye();
        }
        while !self.peers.is_empty() && self.now() < end {
            let mut done = Vec::new();
            for (number, peer) in &mut self.peers {
                if peer.write().is_err() || !peer.wants_to_write() {
                    done.push(*number);
                }
            }
            for number in done {
                self.drop_peer(number, &Lost::Bye);
            }
            if !self.peers.is_empty() {
                std::thread::sleep(WAIT_CONNECTED);
            }
        }
        let left: Vec<u32> = self.peers.keys().copied().collect();
        for number in left {
            self.drop_peer(number, &Lost::Bye);
        }
    }
}

/// What a peer's heartbeats say of it.
fn stats(sent: u64, dropped: u64) -> Stats {
    Stats {
        records: sent,
        dropped,
    }
}
