//! The life of the process: machine, port, cores, server, reports, and the end in order.
//!
//! At the end the cores stop first, then the server sends what they have batched, so the last
//! report has nothing in flight.

use crate::args::Args;
use crate::claims::Claims;
use crate::counters::{Counters, Published};
use crate::port::Watched;
use crate::receive::{NAP, Parts, ReceiveCore};
use crate::report::Report;
use crate::rings::{ServerEnd, rings};
use crate::server::{self, Clock, Limits, Running, Server};
use anyhow::{Context, bail};
use config::Idle;
use config::intercept::Intercept;
use dpdk::{Eal, EalOptions, LcoreHandle, Mempool, Port, PortOptions, RxQueue, TxQueue};
use log::{info, warn};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use wake::{Rest, Waker};
use wire::Prefix;
use wire::host::{Host, HostConfig};

/// How many claims there may be. One engine may claim as many connections as it can have at a time,
/// and leaves a fifth of the room to others. Every response without a claim of size one is compared
/// with the other claims of its target.
const LIMITS: Limits = Limits {
    exact: (1 << 20) + (1 << 18),
    ranges: 8_192,
    exact_a_link: 1 << 20,
    ranges_a_link: 6_144,
};

/// Buffers for records of each core: 8 MiB.
const BATCHES: usize = 512;

/// Receive buffers of each core.
const MBUFS: u32 = 8191;

/// Descriptors of each receive queue: half of its core's buffers.
const RX_DESC: u16 = 4096;

/// Descriptors of each transmit queue: fewer than there are buffers for answers.
const TX_DESC: u16 = 512;

/// How long to wait for the port's link at start.
const UP_TIME: Duration = Duration::from_secs(5);

/// How often the port is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Buffers for the headers of answers.
const HEADER_MBUFS: u32 = 1023;

/// How often the main thread looks at signals and cores.
const LOOK: Duration = Duration::from_millis(20);

/// Why the process ends with an error.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong: exit code 2.
    Config(anyhow::Error),
    /// Anything else: exit code 1.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(e: anyhow::Error) -> Self {
        Self::Other(e)
    }
}

/// Runs until `stop` is set or the time of `--duration` is over; with `--check` only until
/// everything is set up.
///
/// # Errors
/// The configuration is wrong, the machine lacks something, a core has died, or the report cannot
/// be written.
pub fn run(args: &Args, stop: &AtomicBool) -> Result<(), Failure> {
    let config = config::intercept::load(&args.config).map_err(|e| Failure::Config(e.into()))?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let json = args.report.as_deref().unwrap_or(&config.report.json);
    let machine = Machine::start(&config)?;
    if args.check {
        let port = &machine.port;
        let but = if port.info().software || port.is_link_up() {
            ""
        } else {
            ", but there is no link at the port"
        };
        info!(
            "{}: the configuration and the machine are in order{but}",
            args.config.display()
        );
        return Ok(());
    }
    let end = args.duration.and_then(|d| Instant::now().checked_add(d));
    let report = machine.run(config.report.interval, json, stop, end)?;
    info!("ended: {report}");
    Ok(())
}

/// Everything that is set up, and not yet running.
struct Machine {
    eal: Eal,
    port: Port,
    cores: Vec<ReceiveCore<RxQueue, TxQueue>>,
    published: Vec<Arc<Published>>,
    /// How each core gives itself back; `None`: never.
    rests: Vec<Option<Rest>>,
    server: Server,
    waker: Waker,
}

impl Machine {
    fn start(config: &Intercept) -> anyhow::Result<Self> {
        let lcores = &config.eal.lcores;
        let mib = 64 + 32 * lcores.len();
        let memory = match config.eal.memory {
            config::Memory::Hugepages => dpdk::Memory::Hugepages,
            config::Memory::NoHuge => dpdk::Memory::NoHuge { mib },
        };
        let options = EalOptions {
            workers: lcores.clone(),
            memory,
            nics: Some(&config.port.device)
                .filter(|d| dpdk::pci_address(d).is_some())
                .cloned()
                .into_iter()
                .collect(),
            ..EalOptions::default()
        };
        let eal = options.start()?;
        let (port, rx, tx) = open_port(&eal, config)?;
        let software = port.info().software;
        if !software && !dpdk::wait_for_link(UP_TIME, || port.is_link_up()) {
            warn!(
                "port {} has no link: see its cable and what is at the other end",
                port.info().name
            );
        }
        let sleep = match config.eal.idle {
            Some(idle) => idle == Idle::Sleep,
            None => software,
        };
        let (waker, sleeper) =
            wake::pair().context("no file descriptor for the link's server is left")?;
        let addresses: Vec<Prefix> = config
            .port
            .addresses
            .iter()
            .map(|net| Prefix::new(net.addr().into(), net.prefix_len()))
            .collect();
        let (mut cores, mut published, mut ends): (Vec<_>, Vec<_>, Vec<ServerEnd>) =
            Default::default();
        let mut rests = Vec::new();
        for (rx, tx) in rx.into_iter().zip(tx) {
            let seed = getrandom::u64().context("the system gives no random numbers")?;
            let (core_waker, core_sleeper) =
                wake::pair().context("no file descriptor for a receive core is left")?;
            rests.push(sleep.then(|| {
                let sockets: Vec<_> = rx.socket().into_iter().collect();
                let all = !sockets.is_empty();
                Rest::new(core_sleeper, sockets, all, 0, NAP)
            }));
            let (core, end) = rings(BATCHES, waker.clone(), core_waker);
            let counters = Arc::new(Published::default());
            cores.push(ReceiveCore::new(Parts {
                rx,
                tx,
                host: Host::new(HostConfig {
                    mac: port.info().mac,
                    addresses: addresses.clone(),
                    gateways: vec![],
                    next_hop_mac: None,
                    seed: seed.rotate_left(16),
                }),
                claims: Claims::new(LIMITS.exact, LIMITS.ranges, addresses.clone(), seed),
                out: core,
                payload_prefix: config.link.payload_prefix,
                published: Arc::clone(&counters),
                seed: seed.rotate_left(32),
            }));
            published.push(counters);
            ends.push(end);
        }
        let clock = eal.clock();
        let clock: Clock = Arc::new(move || clock.now());
        let settings = server::Settings {
            listen: config.link.listen,
            key: config.link.key,
            payload_prefix: config.link.payload_prefix,
            name: host_name(),
            limits: LIMITS,
        };
        let server = Server::bind(settings, ends, sleeper, clock).with_context(|| {
            format!("link.listen = {}: cannot listen there", config.link.listen)
        })?;
        Ok(Self {
            eal,
            port,
            cores,
            published,
            rests,
            server,
            waker,
        })
    }

    /// Runs, and returns the last report.
    fn run(
        self,
        interval: Duration,
        json: &Path,
        stop: &AtomicBool,
        end: Option<Instant>,
    ) -> anyhow::Result<Report> {
        let info = self.port.info();
        info!(
            "absorbing responses on {} ({}) with {} receive cores",
            info.name,
            info.driver,
            self.cores.len()
        );
        let server = self
            .server
            .spawn(self.waker)
            .context("no thread for the link's server can be had")?;
        info!("listening for engines on {}", server.address());
        let cores_stop = Arc::new(AtomicBool::new(false));
        let clock = self.eal.clock();
        let mut port = Watched::new(&self.port);
        let counters = server.counters();
        port.look(&[], &counters);
        let mut handles = Vec::new();
        let mut failed = None;
        for (n, (core, rest)) in self.cores.into_iter().zip(self.rests).enumerate() {
            let stop = Arc::clone(&cores_stop);
            match self
                .eal
                .launch(n, move || core.run(&stop, rest, || clock.now()))
            {
                Ok(handle) => handles.push(handle),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        if failed.is_none() {
            info!(
                "ready: responses on {} go to engines on {}",
                info.name,
                server.address()
            );
            watch(
                &handles,
                &self.published,
                &server,
                &mut port,
                interval,
                json,
                stop,
                end,
            );
        }
        cores_stop.store(true, Relaxed);
        let (mut last, mut died) = (Vec::new(), None);
        for handle in handles {
            match handle.join() {
                Ok(counters) => last.push(counters),
                Err(e) => died = Some(e),
            }
        }
        let server_ended = server.stop();
        let report = Report::new(&last, &counters, port.counters(), port.missed());
        report
            .write(json)
            .with_context(|| format!("report {}: cannot be written", json.display()))?;
        if let Some(e) = failed.or(died) {
            return Err(e).context("a receive core has ended");
        }
        if !server_ended {
            bail!("the link's server has ended with a panic");
        }
        if !report.adds_up() {
            bail!("the counters do not add up: see {}", json.display());
        }
        Ok(report)
    }
}

/// Reports from time to time, until it is time to end or a core has.
#[expect(
    clippy::too_many_arguments,
    reason = "what runs, how it is told, and when it ends; a struct for one call says no more"
)]
fn watch(
    handles: &[LcoreHandle<Counters>],
    published: &[Arc<Published>],
    server: &Running,
    port: &mut Watched<'_>,
    interval: Duration,
    json: &Path,
    stop: &AtomicBool,
    end: Option<Instant>,
) {
    let counters = server.counters();
    let (mut next, mut next_look) = (Instant::now() + interval, Instant::now());
    while !stop.load(Relaxed) && handles.iter().all(|h| !h.is_finished()) {
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            return;
        }
        let cores = || -> Vec<Counters> { published.iter().map(|p| p.load()).collect() };
        if now >= next_look {
            next_look = now + LOOK_INTERVAL;
            port.look(&cores(), &counters);
        }
        if now >= next {
            next += interval;
            let report = Report::new(&cores(), &counters, port.counters(), port.missed());
            info!("{report}");
            if let Err(e) = report.write(json) {
                warn!("report {}: cannot be written: {e}", json.display());
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Opens the port with a queue for each core, or with one queue if the device has no more.
fn open_port(eal: &Eal, config: &Intercept) -> anyhow::Result<(Port, Vec<RxQueue>, Vec<TxQueue>)> {
    let cores = u16::try_from(config.eal.lcores.len()).unwrap_or(u16::MAX);
    let count = MBUFS * u32::from(cores);
    let room = dpdk::data_room(&config.port.device);
    let node = dpdk::nic_node(&config.port.device);
    let rx_pool = Mempool::near(eal, "responses", count, room, 256, node)?;
    let header_pool = Mempool::near(eal, "answers", HEADER_MBUFS, dpdk::HEADER_ROOM, 32, node)?;
    let all_multicast = config.port.addresses.iter().any(|net| net.addr().is_ipv6());
    let open = |queues| {
        let options = PortOptions {
            cores: queues,
            // Many drivers hand sent buffers back only when they need the room.
            tx_desc: TX_DESC,
            rx_desc: RX_DESC,
            all_multicast,
            rx_queues: queues,
            tx_queues: queues,
            // Responses come for many addresses, and switches may not know them all.
            promiscuous: true,
            rss: queues > 1,
            ..PortOptions::default()
        };
        Port::open(eal, &config.port.device, &options, &rx_pool, &header_pool)
    };
    let (port, rx, tx) = match open(cores) {
        Err(dpdk::Error::Queues { most, .. }) if most > 0 => open(most)?,
        Err(_) if cores > 1 => open(1)?,
        opened => opened?,
    };
    let receiving = rx.len().min(tx.len());
    if receiving < usize::from(cores) {
        warn!(
            "{}: it has not a queue for each of the {cores} CPUs of eal.lcores: only {:?} receive",
            config.port.device,
            config.eal.lcores.get(..receiving).unwrap_or_default()
        );
    }
    Ok((port, rx, tx))
}

/// What the machine calls itself, for hellos.
fn host_name() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().to_owned(),
        Err(_) => "intercept".to_owned(),
    }
}
