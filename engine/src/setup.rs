//! From the configuration to a machine that is ready to run: EAL, buffers, ports, links, and one
//! worker for each lcore.

use crate::answering::Answering;
use crate::buffers::{Buffers, devices};
use crate::lcore::{EMPTY_ROUNDS, NAP, Orders, RunPhase};
use crate::links::{COMMANDS, Clock as LinkClock, Links, Settings as LinkSettings, WorkerEnd};
use crate::offline::{Ahead, Player, Reading, Ring, Tape};
use crate::plan::{Plan, prefix};
use crate::spread::Spread;
use crate::tunnels;
use crate::wires;
use crate::worker::Worker;
use anyhow::{Context, Result};
use config::replay::{Files, Intercept, Replay, Source, Speed};
use config::{Idle, Memory};
use dpdk::{
    Clock, Eal, EalOptions, FrameMaker, HEADER_ROOM, Mbuf, Mempool, MirrorPort, Port, PortInfo,
    PortOptions, Reassembly, RxQueue, SMALL_ROOM, TxQueue,
};
use std::sync::Arc;
use std::time::Duration;
use wake::{Rest, Sleeper, Waker};
use wire::decode::{LinkType, MirrorOptions, UdpPorts};
use wire::defragment::MAX_PARTS;
use wire::host::Responder;
use wire::{Nanos, Prefix};

/// Mbufs for headers and references of each worker: what a NIC may hold of them at a time, several
/// times over.
const HEADER_MBUFS: u32 = 16_384;
/// Mbufs that each lcore keeps to itself.
const CACHE: u32 = 256;
/// Memory without hugepages beyond the buffers, in MiB: queues and DPDK's own.
const SLACK_MIB: usize = 96;
/// How long a datagram's fragments wait for the rest, in ns. On the mirror they are microseconds
/// apart; an end system would wait for 60 s (RFC 8200 section 4.5), with memory of its own.
const FRAGMENT_TIME: Nanos = 2_000_000_000;
/// Frames of capture files that are read ahead for a worker at most.
const AHEAD: usize = 4_096;
/// How long to wait for the links of NICs at start.
const UP_TIME: Duration = Duration::from_secs(5);
/// Longest IP packet of what is called jumbo frames.
const JUMBO: u16 = 9_000;
/// How long to wait for the control links at start.
const LINK_TIME: Duration = Duration::from_secs(5);

/// A worker and what it needs beside itself.
pub struct Job {
    /// The worker.
    pub worker: Worker<RxQueue, TxQueue, Reassembly>,
    /// Its part of the capture files, offline.
    pub player: Option<Player<Mbuf>>,
    /// How it gives its core back; `None`: never.
    pub rest: Option<Rest>,
    /// Its orders.
    pub orders: Arc<Orders>,
}

/// The machine, ready to run. Fields go in this order: ports before the pools they fill, all of it
/// before the EAL.
pub struct Machine {
    /// The mirror ports.
    pub mirrors: Vec<MirrorPort>,
    /// The replay ports.
    pub replay: Vec<Port>,
    /// Control links, in remote mode.
    pub links: Option<Links>,
    /// The capture files, offline.
    pub tape: Option<Tape>,
    /// Buffers that frames are received into.
    pub pool: Mempool,
    /// Buffers that short payloads are copied to.
    pub small: Mempool,
    /// How the mirror's frames come to their owner.
    pub spread: Spread,
    /// The time.
    pub now: Now,
    /// The EAL.
    pub eal: Eal,
}

/// The engine's time: nanoseconds since 1970, which never runs back while the engine runs, and not
/// across a restart either, so that neither do the TCP timestamps that are made of it (RFC 7323
/// section 5.4).
#[derive(Clone, Copy)]
pub struct Now {
    clock: Clock,
}

impl Now {
    /// The time.
    #[inline]
    pub fn get(&self) -> Nanos {
        self.clock.now()
    }
}

/// Brings everything up.
pub fn start(config: &Replay) -> Result<(Machine, Vec<Job>)> {
    let workers = config.eal.lcores.len();
    // What is wrong with a file is said before anything is set up.
    let mut tape = match &config.mirror.source {
        Source::Files(files) => Some(Tape::find(files)?),
        Source::Ports(_) => None,
    };
    let buffers = Buffers::of(config);
    let (data, headers) = (buffers.frames, HEADER_MBUFS * workers as u32);
    let eal = start_eal(config, buffers, headers)?;
    let now = Now { clock: eal.clock() };
    let cache = |count: u32| CACHE.min(count / 2 / (workers as u32 + 1));
    // Where the first NIC is that receives.
    let devices = devices(config);
    let node = devices.iter().find_map(|device| dpdk::nic_node(device));
    let make =
        |name, mbufs: (u32, u16), cache| Mempool::near(&eal, name, mbufs.0, mbufs.1, cache, node);
    let pool = make("mirror", (data, buffers.room), cache(data))?;
    let count = buffers.small;
    let small = make("payloads", (count, SMALL_ROOM), cache(count))?;
    let header_pool = make("headers", (headers, HEADER_ROOM), CACHE)?;

    let descriptors = buffers.descriptors(workers * devices.len());
    let options = PortOptions {
        rx_queues: workers as u16,
        tx_queues: workers as u16,
        rx_desc: descriptors,
        tx_desc: descriptors,
        rss: true,
        tells_sent: true,
        cores: workers as u16,
        // Whoever looks for an IPv6 address asks a multicast address for it (RFC 4861).
        all_multicast: has_ipv6(config),
        ..PortOptions::default()
    };
    let (replay, replay_queues) = wires::open(&eal, config, &options, &pool, &header_pool)?;
    let options = PortOptions {
        mtu: config.mirror.mtu,
        tells_sent: false,
        ..options
    };
    let (mut mirrors, mut queues, mut answering) = (Vec::new(), Vec::new(), Vec::new());
    if let Source::Ports(devices) = &config.mirror.source {
        for (i, device) in devices.iter().enumerate() {
            let (port, rx, answers) = open_mirror(&eal, config, device, &options, &pool)
                .with_context(|| format!("mirror.ports[{i}]"))?;
            look_at_mirror(i, port.info(), config);
            answering.push(answers);
            mirrors.push(port);
            queues.push(rx);
        }
    }
    let sleep = sleeps(
        config,
        mirrors
            .iter()
            .map(MirrorPort::info)
            .chain(replay.iter().map(Port::info)),
    );
    for down in without_link(&mirrors, &replay, UP_TIME) {
        log::warn!("{down} has no link: see its cable and what is at the other end");
    }
    let (mut wakers, mut sleepers) = (Vec::new(), Vec::new());
    for _ in 0..if sleep { workers } else { 0 } {
        let (waker, sleeper) = wake::pair().context("no file descriptor for a worker is left")?;
        wakers.push(waker);
        sleepers.push(sleeper);
    }
    let (links, ends) = start_links(config, workers, now, &wakers)?;
    let seed = getrandom::u64().context("the system gives no random numbers")?;
    let plan = Plan::new(config, &mirrors, &replay, now.get(), buffers, seed);
    wires::check_routes(config)?;
    tell_memory(config, buffers, headers, plan.most_bytes());

    let mut reassemblies = Vec::with_capacity(workers);
    for _ in 0..workers {
        reassemblies.push(Reassembly::new(
            &eal,
            fragmented(data, workers),
            FRAGMENT_TIME,
            None,
        )?);
    }
    let mut jobs = match plan.workers(config, &replay, replay_queues, reassemblies, ends) {
        Ok(jobs) => jobs,
        Err(e) => {
            if let Some(links) = links {
                links.stop();
            }
            return Err(e);
        }
    };
    // With a pool all claims there will ever be are made by now. Without these responses the engine
    // would only disturb another.
    if let Some(waiting) = links.as_ref().filter(|_| !config.clients.pool.is_empty())
        && let Err(e) = waiting.confirm_claims(LINK_TIME)
    {
        if let Some(links) = links {
            links.stop();
        }
        return Err(e.context("clients.pool"));
    }
    for queues in queues {
        for (job, queue) in jobs.iter_mut().zip(queues) {
            job.worker.mirrors.push(queue);
        }
    }
    for answers in answering {
        for (job, answers) in jobs.iter_mut().zip(answers) {
            job.worker.answering.push(answers);
        }
    }
    let mirror_options = MirrorOptions {
        verify_checksums: config.mirror.verify_checksums,
        // As many fit as the configuration accepts.
        ip_in_udp: UdpPorts::new(&config.mirror.ip_in_udp).unwrap_or_default(),
        // Once, for as long as the process lives.
        tunnels: Box::leak(Box::new(tunnels::ends(config))),
        ..MirrorOptions::on(LinkType::Ethernet)
    };
    for job in &mut jobs {
        job.worker.mirror_options = mirror_options;
        job.worker.core.copy_short_to(small.clone());
        job.worker.wakers.clone_from(&wakers);
    }
    if let (Source::Files(files), Some(tape)) = (&config.mirror.source, &mut tape) {
        let rings = read_ahead(&mut jobs, files, data);
        let mut maker = FrameMaker::new(&eal, &pool).context("mirror.file")?;
        tape.thread(Reading {
            pushed: vec![0; rings.len()],
            rings,
            make: Box::new(move |bytes, at| maker.make(bytes, at)),
            owner: plan.reader_owner(mirror_options),
            clock: Box::new(move || now.get()),
            speed: files.speed,
            max_idle: files.max_idle.map(|most| most.as_nanos() as Nanos),
        });
    }
    for (job, sleeper) in jobs.iter_mut().zip(sleepers) {
        job.rest = Some(rest(job, sleeper));
    }
    let spread = Spread::of(&config.mirror.source, plan.ownership, &mirrors);
    log::info!(
        "{workers} worker{} on CPU {:?}; mirror frames reach their owner by {}",
        if workers == 1 { "" } else { "s" },
        config.eal.lcores,
        spread.words()
    );
    Ok((
        Machine {
            mirrors,
            replay,
            links,
            tape,
            pool,
            small,
            spread,
            now,
            eal,
        },
        jobs,
    ))
}

/// Says how much memory this configuration takes, of which kind, and by which keys.
fn tell_memory(config: &Replay, buffers: Buffers, headers: u32, sessions: u64) {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (bytes, kind) = match config.eal.memory {
        Memory::Hugepages => (buffers.in_hugepages(headers), "of hugepages"),
        Memory::NoHuge => (buffers.without_hugepages(headers), "without hugepages"),
    };
    log::info!(
        "memory: {} MiB {kind} for packet buffers (limits.mbufs: {} of {} bytes for frames, {} for short payloads), and up to {} MiB for {} sessions with what they hold (limits.sessions, traffic.copies), taken as they come",
        mib(bytes),
        buffers.frames,
        buffers.room,
        buffers.small,
        mib(sessions),
        config.limits.sessions,
    );
}

/// The replay ports are to answer for IPv6 addresses.
fn has_ipv6(config: &Replay) -> bool {
    let own = config.wires.iter().flat_map(|wire| &wire.addresses);
    let mut nets = config.clients.pool.iter().chain(own);
    nets.any(|net| net.addr().is_ipv6())
}

/// The ports whose links are not up, in words. Those of NICs are waited for.
pub fn without_link(mirrors: &[MirrorPort], replay: &[Port], limit: Duration) -> Vec<String> {
    let until = std::time::Instant::now() + limit;
    let is_down = |info: &PortInfo, is_up: &dyn Fn() -> bool| {
        let left = until.saturating_duration_since(std::time::Instant::now());
        !info.software && !dpdk::wait_for_link(left, is_up)
    };
    let mut down: Vec<String> = mirrors
        .iter()
        .filter(|m| is_down(m.info(), &|| m.is_link_up()))
        .map(|m| format!("mirror port {}", m.info().name))
        .collect();
    down.extend(
        replay
            .iter()
            .filter(|p| is_down(p.info(), &|| p.is_link_up()))
            .map(|p| format!("replay port {}", p.info().name)),
    );
    down
}

/// Says what of the mirror a NIC does not take, and what its queues cost.
fn look_at_mirror(i: usize, info: &PortInfo, config: &Replay) {
    let name = format!("mirror.ports[{i}], {}", info.name);
    if !info.software && info.mtu < JUMBO && config.mirror.mtu.is_none() {
        log::warn!(
            "{name}: it takes IP packets of up to {} bytes; longer ones, as of jumbo frames or in tunnels, are not received",
            info.mtu
        );
    }
    let workers = config.eal.lcores.len();
    if usize::from(info.rx_queues) < workers {
        log::warn!(
            "{name}: it has receive queues for {} of the {workers} workers of eal.lcores; the others get frames from these",
            info.rx_queues
        );
    }
}

/// Opens a mirror port. If the mirror has addresses, each of its queues has what answers for them.
fn open_mirror(
    eal: &Eal,
    config: &Replay,
    device: &str,
    options: &PortOptions,
    pool: &Mempool,
) -> Result<(MirrorPort, Vec<RxQueue>, Vec<Answering>)> {
    let addresses: Vec<Prefix> = config.mirror.addresses.iter().map(prefix).collect();
    if addresses.is_empty() {
        let (port, rx) = MirrorPort::open(eal, device, options, pool)?;
        return Ok((port, rx, Vec::new()));
    }
    let (port, rx, answers) = MirrorPort::open_answering(eal, device, options, pool)?;
    let mac = port.info().mac;
    let seed = getrandom::u64().context("the system gives no random numbers")?;
    let answering = answers
        .into_iter()
        .map(|queue| Answering::new(Responder::new(mac, addresses.clone(), seed), queue))
        .collect();
    Ok((port, rx, answering))
}

/// Gives each worker its part of the capture files. The rings together hold a sixteenth of the
/// buffers at most, so that reading ahead leaves them to sessions.
fn read_ahead(jobs: &mut [Job], files: &Files, mbufs: u32) -> Vec<Ahead<Mbuf>> {
    let len = (mbufs as usize / 16 / jobs.len().max(1)).clamp(32, AHEAD);
    let unpaced = files.speed == Speed::Max;
    let give = |job: &mut Job| {
        let ring: Ahead<Mbuf> = Arc::new(Ring::new(len));
        job.player = Some(Player::new(Arc::clone(&ring), unpaced));
        ring
    };
    jobs.iter_mut().map(give).collect()
}

/// Incomplete datagrams that each worker may hold: so many that the workers' fragments together
/// take no more than a quarter of the buffers, if each is in a buffer of its own.
fn fragmented(mbufs: u32, workers: usize) -> u32 {
    (mbufs / (4 * MAX_PARTS * workers.max(1)) as u32).clamp(1, 4_096)
}

fn start_eal(config: &Replay, buffers: Buffers, headers: u32) -> Result<Eal> {
    let memory = match config.eal.memory {
        Memory::Hugepages => dpdk::Memory::Hugepages,
        Memory::NoHuge => {
            let bytes = buffers.without_hugepages(headers);
            dpdk::Memory::NoHuge {
                mib: (bytes >> 20) as usize + SLACK_MIB,
            }
        }
    };
    let options = EalOptions {
        workers: config.eal.lcores.clone(),
        memory,
        nics: devices(config)
            .into_iter()
            .filter(|d| dpdk::pci_address(d).is_some())
            .map(str::to_owned)
            .collect(),
        ..EalOptions::default()
    };
    Ok(options.start()?)
}

/// How a worker rests: it listens on the sockets of its queues. The reader of capture files does
/// not wake it, nor does a driver.
fn rest(job: &Job, sleeper: Sleeper) -> Rest {
    let worker = &job.worker;
    let replay = || worker.replay.iter().map(|(_, queue)| queue);
    let queues = || worker.mirrors.iter().chain(replay());
    let sockets: Vec<_> = queues().filter_map(RxQueue::socket).collect();
    let all = job.player.is_none() && sockets.len() == queues().count();
    Rest::new(sleeper, sockets, all, EMPTY_ROUNDS, NAP)
}

fn sleeps<'a>(config: &Replay, mut ports: impl Iterator<Item = &'a PortInfo>) -> bool {
    match config.eal.idle {
        Some(idle) => idle == Idle::Sleep,
        None => ports.all(|p| p.software),
    }
}

fn link_settings(config: &Replay, wakers: &[Waker]) -> Option<LinkSettings> {
    match &config.intercept {
        Intercept::Embedded => None,
        Intercept::Remote {
            servers,
            key,
            insecure,
        } => Some(LinkSettings {
            servers: servers.clone(),
            key: *key,
            insecure: *insecure,
            name: format!("engine {}", std::process::id()),
            commands: COMMANDS,
            wakers: wakers.to_vec(),
        }),
    }
}

fn start_links(
    config: &Replay,
    workers: usize,
    now: Now,
    wakers: &[Waker],
) -> Result<(Option<Links>, Vec<Option<WorkerEnd>>)> {
    let Some(settings) = link_settings(config, wakers) else {
        return Ok((None, (0..workers).map(|_| None).collect()));
    };
    let clock: LinkClock = Arc::new(move || now.get());
    let (links, ends) = Links::start(settings, workers, clock)?;
    if let Err(e) = links.wait_up(LINK_TIME) {
        links.stop();
        return Err(e);
    }
    Ok((Some(links), ends.into_iter().map(Some).collect()))
}

/// Tells all workers to go on to `phase`.
pub fn order_all(orders: &[Arc<Orders>], phase: RunPhase) {
    for o in orders {
        o.set(phase);
    }
}
