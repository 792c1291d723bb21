//! The server of the control link: one thread that listens, grants claims, and sends each engine
//! the records of its responses.
//!
//! It never waits for one engine: sockets do not block, an engine that reads too slowly loses
//! counted records. Claims go to every receive core, since any of them may receive any response.

mod peer;

use crate::registry::{Denied, Registry};
use crate::rings::{Command, ServerEnd};
use link::{Claim, Message, Stats};
use log::{info, warn};
use peer::{Lost, Peer};
use rustix::event::{PollFd, PollFlags};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use wake::{Sleeper, Waker};
use wire::Nanos;

/// The time, from an arbitrary start that all threads of the process share.
pub type Clock = Arc<dyn Fn() -> Nanos + Send + Sync>;

/// Engines that may be connected at the same time, those that have not said hello yet included.
const MAX_PEERS: usize = 64;

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
    /// Most claims of size one, of all engines together.
    pub max_exact: usize,
    /// Most other claims.
    pub max_ranges: usize,
}

wire::reasons! {
    /// Why a record went to no engine.
    pub enum Undelivered {
        /// Its engine does not read fast enough.
        SlowEngine = "slow_engine",
        /// Its engine has gone, before or after the record was put into its buffer.
        EngineGone = "engine_gone",
    }
}

/// What the server counts. Records that cores batched = sent + dropped + those still in rings.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that were written to an engine's socket, or wait in an established link's buffer
    /// for it.
    pub records_sent: AtomicU64,
    /// Records that went to no engine, by [`Undelivered`].
    pub records_dropped: [AtomicU64; Undelivered::COUNT],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections that ended with an error.
    pub failed: AtomicU64,
    /// Engines connected now.
    pub engines: AtomicU64,
    /// Claims there are now.
    pub claims: AtomicU64,
    /// Claims that were not granted.
    pub claims_refused: AtomicU64,
}

impl Counters {
    const fn dropped(&self, reason: Undelivered) -> &AtomicU64 {
        &self.records_dropped[reason as usize]
    }
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
        Ok(Self {
            registry: Registry::new(settings.max_exact, settings.max_ranges),
            cores: cores
                .into_iter()
                .map(|core| (core, VecDeque::new()))
                .collect(),
            settings,
            listener,
            sleeper,
            clock,
            counters: Arc::default(),
            peers: BTreeMap::new(),
            last_peer: 0,
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
            self.accept();
            self.read();
            self.pass_commands();
            self.send_batches();
            self.write_and_poll();
        }
        self.finish();
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
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => {
                    if self.peers.len() >= MAX_PEERS {
                        warn!(
                            "engine {address}: refused, {MAX_PEERS} connections are open already"
                        );
                        continue;
                    }
                    let now = self.now();
                    match Peer::new(stream, address, &self.settings, now) {
                        Ok(peer) => {
                            add(&self.counters.accepted, 1);
                            // Numbers are never reused: after 2^32 connections no more are accepted
                            // rather than confused.
                            let Some(number) = self.last_peer.checked_add(1) else {
                                continue;
                            };
                            self.last_peer = number;
                            self.peers.insert(number, peer);
                        }
                        Err(e) => warn!("engine {address}: cannot be served: {e}"),
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is waiting, or the system is short of descriptors: either way later.
                Err(_) => return,
            }
        }
    }

    fn read(&mut self) {
        if !self.may_read() {
            return;
        }
        let clock = Arc::clone(&self.clock);
        let numbers: Vec<u32> = self.peers.keys().copied().collect();
        for number in numbers {
            let Some(peer) = self.peers.get_mut(&number) else {
                continue;
            };
            let result = peer.read(&mut self.buffer, &*clock);
            let (new, mut messages) = (peer.newly_established(), Vec::new());
            while let Some(message) = peer.next_message() {
                messages.push(message);
            }
            if new {
                self.welcome(number);
            }
            for message in messages {
                self.message(number, message);
            }
            if let Err(lost) = result {
                self.drop_peer(number, &lost);
            }
        }
    }

    /// A peer has said hello and has the key.
    fn welcome(&mut self, number: u32) {
        let Some(peer) = self.peers.get(&number) else {
            return;
        };
        info!("engine {peer} is connected");
        let same = |(n, other): &(&u32, &Peer)| **n != number && other.is_same_engine(peer);
        let older: Vec<u32> = self.peers.iter().filter(same).map(|(n, _)| *n).collect();
        for n in older {
            self.drop_peer(n, &Lost::Displaced);
        }
        self.count_engines();
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
                    warn!("engine {peer} refuses: {reason}");
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
        add(&self.counters.claims_refused, 1);
        let reason = match denied {
            Denied::Overlap(other) => match self.peers.get(&other) {
                Some(other) => format!(
                    "claim {claim}: engine {other} has claimed some of these responses already"
                ),
                None => format!(
                    "claim {claim}: another engine has claimed some of these responses already"
                ),
            },
            Denied::Full(limit) => format!(
                "claim {claim}: there are {limit} claims of its size already, which is the limit"
            ),
        };
        if let Some(peer) = self.peers.get_mut(&number) {
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
        let now = self.now();
        let mut lost = Vec::new();
        for (number, peer) in &mut self.peers {
            if let Err(e) = peer.poll(now).and_then(|()| peer.write()) {
                lost.push((*number, e));
            }
        }
        for (number, e) in lost {
            self.drop_peer(number, &e);
        }
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
        match why {
            Lost::Bye => info!("engine {peer} said goodbye"),
            why => {
                add(&self.counters.failed, 1);
                warn!("engine {peer} is gone: {why}");
            }
        }
        for claim in self.registry.remove(number) {
            self.command(&Command::Release(claim, number));
        }
        self.counters
            .claims
            .store(self.registry.len() as u64, Relaxed);
        self.count_engines();
    }

    fn count_engines(&self) {
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
