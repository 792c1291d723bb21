//! The engine's ends of the control links: one thread for each intercept server.
//!
//! A thread connects, says hello, claims what its workers claim, and puts the records that come
//! back on the rings of the workers that own them. It keeps the set of live claims, so that after a
//! reconnect everything is claimed again. What always holds: workers only push to and pop
//! from bounded rings and never wait; a record that finds its ring full is dropped and counted.

mod thread;

pub use wake::Waker;

use anyhow::{Context, bail};
use crossbeam::queue::ArrayQueue;
use link::{Message, Record};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thread::LinkThread;
use wire::Nanos;

/// The time, from an arbitrary start that all threads of the process share.
pub type Clock = Arc<dyn Fn() -> Nanos + Send + Sync>;

/// Claims and releases of one worker that may wait for one link.
pub const COMMANDS: usize = 16 * 1024;

/// Records that may wait for one worker.
const RESPONSES: usize = 16 * 1024;

/// How long [`Links::check`] waits for a server.
const CHECK_TIME: Duration = Duration::from_secs(3);

/// Which servers, and how to speak to them.
#[derive(Clone)]
pub struct Settings {
    /// The intercept servers.
    pub servers: Vec<SocketAddr>,
    /// The key that engine and intercepts share. Without one only loopback addresses are allowed,
    /// unless `insecure`.
    pub key: Option<[u8; 32]>,
    /// Links without a key beyond loopback are wanted.
    pub insecure: bool,
    /// What the engine calls itself in its hello.
    pub name: String,
    /// Claims and releases of one worker that may wait for one link, at least 1: [`COMMANDS`]
    /// unless something speaks against it.
    pub commands: usize,
    /// Wakes each worker, by index, when records have come for it; none if they do not sleep.
    pub wakers: Vec<Waker>,
}

/// What one worker core holds of the links.
pub struct WorkerEnd {
    /// One ring for each server, in the order of the settings: claims and releases of this worker.
    /// A claim belongs on all of them: any server may get the responses. Nothing but
    /// [`Message::Claim`] and [`Message::Release`] is taken from it.
    pub commands: Vec<Arc<ArrayQueue<Message>>>,
    /// Records of responses that this worker owns, from all servers. `received_at` is on the
    /// engine's clock, as wrong as [`Stats::clock_error_us`] says, and never in the future.
    pub responses: Arc<ArrayQueue<Record>>,
    /// How many links are up.
    pub up: Arc<AtomicUsize>,
    /// Makes the links look at `commands` at once. A system call if they sleep, so it is for
    /// workers that are about to sleep themselves; without it they look every 100 µs while
    /// claims come, every ms otherwise.
    pub waker: Vec<Waker>,
}

impl WorkerEnd {
    /// Wakes all links; see [`WorkerEnd::waker`].
    pub fn wake(&self) {
        self.waker.iter().for_each(Waker::wake);
    }
}

/// What happened on the link to one server.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stats {
    /// The server.
    pub address: SocketAddr,
    /// The link is established now.
    pub up: bool,
    /// How often it was established again after the first time.
    pub reconnects: u64,
    /// Records that workers got.
    pub records: u64,
    /// Records that were dropped here: a worker's ring was full, or it has no such worker.
    pub records_dropped: u64,
    /// Records that the server says it dropped on this link because it was too slow; since the
    /// last connect.
    pub server_dropped: u64,
    /// Frames that the server missed on its port, or had to drop, while links to it were up; `None`
    /// if it does not tell.
    pub answers_missed: Option<u64>,
    /// Bytes received.
    pub bytes: u64,
    /// Claims that are live.
    pub claims: u64,
    /// Refusals of the server, in most cases of claims.
    pub refusals: u64,
    /// Shortest round trip of the last heartbeats, in ns.
    pub round_trip_ns: Option<u64>,
    /// How wrong the times of its responses may be on the engine's clock, in µs. None while the
    /// link is down, or the clocks have not been compared yet.
    pub clock_error_us: Option<u64>,
    /// How far the times at which the server received responses can be told apart, in µs; `None` if
    /// it does not tell.
    pub resolution_us: Option<u64>,
    /// Why the link was lost or could not be had the last time.
    pub last_error: Option<String>,
}

/// What a link's thread and the rest of the engine share.
struct Shared {
    address: SocketAddr,
    stop: AtomicBool,
    up: AtomicBool,
    /// It is asked for that claims are confirmed, and they are.
    confirm: AtomicBool,
    confirmed: AtomicBool,
    connects: AtomicU64,
    records: AtomicU64,
    records_dropped: AtomicU64,
    server_dropped: AtomicU64,
    /// [`u64::MAX`]: the server does not tell.
    answers_missed: AtomicU64,
    bytes: AtomicU64,
    claims: AtomicU64,
    refusals: AtomicU64,
    round_trip: AtomicU64,
    /// In ns; [`u64::MAX`]: not known.
    clock_error: AtomicU64,
    /// Of the server's times, in ns; [`u64::MAX`]: not known.
    resolution: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stop: AtomicBool::new(false),
            up: AtomicBool::new(false),
            confirm: AtomicBool::new(false),
            confirmed: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            records: AtomicU64::new(0),
            records_dropped: AtomicU64::new(0),
            server_dropped: AtomicU64::new(0),
            answers_missed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            claims: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            round_trip: AtomicU64::new(u64::MAX),
            clock_error: AtomicU64::new(u64::MAX),
            resolution: AtomicU64::new(u64::MAX),
            last_error: Mutex::new(None),
        }
    }

    fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_error(&self, e: String) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(e);
    }

    fn stats(&self) -> Stats {
        let known = |value: &AtomicU64| Some(value.load(Relaxed)).filter(|v| *v != u64::MAX);
        Stats {
            address: self.address,
            up: self.up.load(Relaxed),
            reconnects: self.connects.load(Relaxed).saturating_sub(1),
            records: self.records.load(Relaxed),
            records_dropped: self.records_dropped.load(Relaxed),
            server_dropped: self.server_dropped.load(Relaxed),
            answers_missed: known(&self.answers_missed),
            bytes: self.bytes.load(Relaxed),
            claims: self.claims.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            round_trip_ns: known(&self.round_trip),
            clock_error_us: known(&self.clock_error).map(|ns| ns.div_ceil(1_000)),
            resolution_us: known(&self.resolution).map(|ns| ns.div_ceil(1_000)),
            last_error: self.last_error(),
        }
    }
}

struct Link {
    shared: Arc<Shared>,
    waker: Waker,
    handle: JoinHandle<()>,
}

/// The links to all servers.
pub struct Links {
    threads: Vec<Link>,
}

impl Links {
    /// Starts a thread for each server and returns at once; see [`Links::wait_up`]. The worker ends
    /// are in the order of the workers' indices, which are the owners of their claims.
    ///
    /// # Errors
    /// No server, a server named twice, a link beyond loopback with neither key nor `insecure`, or
    /// the system gives no thread or descriptor.
    pub fn start(
        settings: Settings,
        workers: usize,
        clock: Clock,
    ) -> Result<(Self, Vec<WorkerEnd>), anyhow::Error> {
        validate(&settings)?;
        let up = Arc::new(AtomicUsize::new(0));
        let responses: Vec<_> = (0..workers)
            .map(|_| Arc::new(ArrayQueue::new(RESPONSES)))
            .collect();
        let mut ends: Vec<WorkerEnd> = responses
            .iter()
            .map(|ring| WorkerEnd {
                commands: Vec::new(),
                responses: Arc::clone(ring),
                up: Arc::clone(&up),
                waker: Vec::new(),
            })
            .collect();
        let instance = instance()?;
        let mut links = Self {
            threads: Vec::new(),
        };
        for address in &settings.servers {
            let commands: Vec<_> = (0..workers)
                .map(|_| Arc::new(ArrayQueue::new(settings.commands.max(1))))
                .collect();
            let (waker, sleeper) =
                wake::pair().context("no file descriptor for a control link is left")?;
            for (end, ring) in ends.iter_mut().zip(&commands) {
                end.commands.push(Arc::clone(ring));
                end.waker.push(waker.clone());
            }
            let shared = Arc::new(Shared::new(*address));
            let with_wakers = responses.iter().enumerate();
            let with_wakers =
                with_wakers.map(|(i, ring)| (Arc::clone(ring), settings.wakers.get(i).cloned()));
            let link = LinkThread::new(
                connection_settings(&settings, instance),
                Arc::clone(&shared),
                commands,
                with_wakers.collect(),
                Arc::clone(&up),
                sleeper,
                Arc::clone(&clock),
            );
            let spawned = std::thread::Builder::new()
                .name("link".into())
                .spawn(move || link.run());
            match spawned {
                Ok(handle) => links.threads.push(Link {
                    shared,
                    waker,
                    handle,
                }),
                Err(e) => {
                    links.stop();
                    return Err(e).with_context(|| {
                        format!("no thread for the control link to {address} can be had")
                    });
                }
            }
        }
        Ok((links, ends))
    }

    /// Waits until all links are up.
    ///
    /// # Errors
    /// After `timeout`, a sentence that names the servers whose links are not, and why. Their
    /// threads keep trying.
    pub fn wait_up(&self, timeout: Duration) -> Result<(), anyhow::Error> {
        let start = Instant::now();
        loop {
            let down: Vec<Stats> = self.stats().into_iter().filter(|s| !s.up).collect();
            if down.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= timeout {
                let each = down.iter().map(|s| {
                    let why = s.last_error.as_deref().unwrap_or("no answer yet");
                    format!("{}: {why}", s.address)
                });
                bail!(
                    "no control link after {timeout:?} to intercept {}",
                    each.collect::<Vec<_>>().join("; ")
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until all servers have granted what workers have claimed so far. To be called before
    /// workers run.
    ///
    /// # Errors
    /// A server refused a claim: its sentence says why. Or it did not answer within `timeout`.
    pub fn confirm_claims(&self, timeout: Duration) -> Result<(), anyhow::Error> {
        for t in &self.threads {
            t.shared.confirm.store(true, Relaxed);
            t.waker.wake();
        }
        let start = Instant::now();
        for t in &self.threads {
            let shared = &t.shared;
            while !shared.confirmed.load(Relaxed) {
                if start.elapsed() >= timeout {
                    bail!(
                        "intercept {} did not answer claims of client addresses within {timeout:?}",
                        shared.address
                    );
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            if shared.refusals.load(Relaxed) > 0 {
                bail!(
                    "intercept {} refused {}",
                    shared.address,
                    shared.last_error().unwrap_or_default()
                );
            }
        }
        Ok(())
    }

    /// Connects to each server once, and ends the link when it is established: for a check of the
    /// configuration.
    ///
    /// # Errors
    /// The first server with which this fails, and why.
    pub fn check(settings: &Settings, clock: &Clock) -> Result<(), anyhow::Error> {
        validate(settings)?;
        for address in &settings.servers {
            thread::check(
                connection_settings(settings, instance()?),
                *address,
                CHECK_TIME,
                clock,
            )
            .map_err(|e| anyhow::anyhow!("no control link to intercept {address}: {e}"))?;
        }
        Ok(())
    }

    /// What happened so far, for each server in the order of the settings.
    pub fn stats(&self) -> Vec<Stats> {
        self.threads.iter().map(|t| t.shared.stats()).collect()
    }

    /// Says goodbye to all servers and ends the threads. Claims and releases that wait are still
    /// sent.
    pub fn stop(self) {
        for t in &self.threads {
            t.shared.stop.store(true, Relaxed);
            t.waker.wake();
        }
        for t in self.threads {
            if t.handle.join().is_err() {
                log::error!(
                    "the thread of the control link to {} has panicked",
                    t.shared.address
                );
            }
        }
    }
}

fn validate(settings: &Settings) -> Result<(), anyhow::Error> {
    if settings.servers.is_empty() {
        bail!("intercept.servers is empty: at least one server is needed for mode = \"remote\"");
    }
    for (n, server) in settings.servers.iter().enumerate() {
        if settings.servers.iter().take(n).any(|s| s == server) {
            bail!("intercept.servers names {server} twice: each server may be named once");
        }
        if settings.key.is_none() && !settings.insecure && !server.ip().is_loopback() {
            bail!(
                "intercept.servers: {server} is not a loopback address and there is no key: set intercept.key_file, or intercept.insecure = true"
            );
        }
    }
    Ok(())
}

fn connection_settings(settings: &Settings, instance: u64) -> link::Settings {
    link::Settings {
        role: link::Role::Engine,
        name: settings.name.clone(),
        instance,
        payload_prefix: 0,
        key: settings.key,
    }
}

/// A number that another run of the engine, on this machine or another, does not have.
fn instance() -> Result<u64, anyhow::Error> {
    getrandom::u64().context("the system gives no random numbers")
}
