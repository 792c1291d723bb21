//! From the configuration to a machine that is ready to run: EAL, buffers, ports, links, and one
//! worker for each lcore.

use crate::answering::Answering;
use crate::lcore::{Orders, RunPhase};
use crate::links::{COMMANDS, Clock as LinkClock, Links, Settings as LinkSettings, WorkerEnd};
use crate::offline::{Ahead, Player, Reading, Ring, Tape};
use crate::plan::{Plan, prefix};
use crate::tunnels;
use crate::worker::Worker;
use anyhow::{Context, Result};
use config::replay::{Files, Intercept, Replay, Source, Speed};
use config::{Idle, Memory};
use dpdk::{
    Clock, DATA_ROOM, Eal, EalOptions, FrameMaker, HEADER_ROOM, MBUF_OVERHEAD, Mbuf, Mempool,
    MirrorPort, Port, PortInfo, PortOptions, Reassembly, RxQueue, SMALL_ROOM, TxQueue,
};
use replay::HashBy;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::decode::{LinkType, MirrorOptions, UdpPorts};
use wire::defragment::MAX_PARTS;
use wire::host::Responder;
use wire::{Nanos, Prefix};

/// Mbufs for headers and references of each worker: what a NIC may hold of them at a time, several
/// times over.
const HEADER_MBUFS: u32 = 16_384;
/// Mbufs that each lcore keeps to itself.
const CACHE: u32 = 256;
/// A page without hugepages. No mbuf crosses one (rte_mempool.c, rte_mempool_get_page_size).
const PAGE: u64 = 4_096;
/// Memory without hugepages beyond the buffers, in MiB: queues and DPDK's own.
const SLACK_MIB: usize = 96;
/// How long a datagram's fragments wait for the rest, in ns. On the mirror they are microseconds
/// apart; an end system would wait for 60 s (RFC 8200 section 4.5), with memory of its own.
const FRAGMENT_TIME: Nanos = 2_000_000_000;
/// Frames of capture files that are read ahead for a worker at most.
const AHEAD: usize = 4_096;
/// How long to wait for the control links at start.
const LINK_TIME: Duration = Duration::from_secs(5);

/// A worker and what it needs beside itself.
pub struct Job {
    /// The worker.
    pub worker: Worker<RxQueue, TxQueue, Reassembly>,
    /// Its part of the capture files, offline.
    pub player: Option<Player<Mbuf>>,
    /// Its orders.
    pub orders: Arc<Orders>,
}

/// The machine, ready to run. Fields go in this order: ports before the pools they fill, all of it
/// before the EAL.
pub struct Machine {
    /// The mirror ports.
    pub mirrors: Vec<MirrorPort>,
    /// The replay port.
    pub replay: Port,
    /// Control links, in remote mode.
    pub links: Option<Links>,
    /// The capture files, offline.
    pub tape: Option<Tape>,
    /// Buffers that frames are received into.
    pub pool: Mempool,
    /// Buffers that short payloads are copied to.
    pub small: Mempool,
    /// The time.
    pub now: Now,
    /// Workers sleep when they have nothing to do.
    pub sleep: bool,
    /// The EAL.
    pub eal: Eal,
}

/// The engine's time: nanoseconds since 1970, which never runs back while the engine runs, and not
/// across a restart either, so that neither do the TCP timestamps that are made of it (RFC 7323
/// section 5.4).
#[derive(Clone, Copy)]
pub struct Now {
    epoch: Nanos,
    clock: Clock,
}

impl Now {
    /// The time.
    #[inline]
    pub fn get(&self) -> Nanos {
        self.epoch + self.clock.now()
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
    let buffers = Buffers::of(config.limits.mbufs_bytes);
    let (data, headers) = (buffers.frames, HEADER_MBUFS * workers as u32);
    let eal = start_eal(config, headers)?;
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let clock = eal.clock();
    let now = Now {
        epoch: unix.as_nanos() as Nanos - clock.now(),
        clock,
    };
    let cache = |count: u32| CACHE.min(count / 2 / (workers as u32 + 1));
    let pool = Mempool::new(&eal, "mirror", data, DATA_ROOM, cache(data), None)?;
    let (room, count) = (SMALL_ROOM, buffers.small);
    let small = Mempool::new(&eal, "payloads", count, room, cache(count), None)?;
    let header_pool = Mempool::new(&eal, "headers", headers, HEADER_ROOM, CACHE, None)?;

    let options = PortOptions {
        rx_queues: workers as u16,
        tx_queues: workers as u16,
        rss: true,
        ..PortOptions::default()
    };
    let (replay, replay_rx, replay_tx) =
        Port::open(&eal, &config.replay.port, &options, &pool, &header_pool)
            .context("replay.port")?;
    let (mut mirrors, mut queues, mut answering) = (Vec::new(), Vec::new(), Vec::new());
    if let Source::Ports(devices) = &config.mirror.source {
        for (i, device) in devices.iter().enumerate() {
            let (port, rx, answers) = open_mirror(&eal, config, device, &options, &pool)
                .with_context(|| format!("mirror.ports[{i}]"))?;
            answering.push(answers);
            mirrors.push(port);
            queues.push(rx);
        }
    }
    let sleep = sleeps(
        config,
        mirrors.iter().map(MirrorPort::info).chain([replay.info()]),
    );
    let (links, ends) = start_links(config, workers, now)?;
    let seed = getrandom::u64().context("the system gives no random numbers")?;
    let plan = Plan::new(config, &mirrors, replay.info(), now.get(), buffers, seed);
    plan.check_routes(config)?;

    let mut reassemblies = Vec::with_capacity(workers);
    for _ in 0..workers {
        reassemblies.push(Reassembly::new(
            &eal,
            fragmented(data, workers),
            FRAGMENT_TIME,
            None,
        )?);
    }
    let replay_queues = (replay_rx, replay_tx);
    let mut jobs = match plan.workers(config, replay.info(), replay_queues, reassemblies, ends) {
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
    log::info!(
        "{workers} worker{} on CPU {:?}; mirror frames reach their owner by {}",
        if workers == 1 { "" } else { "s" },
        config.eal.lcores,
        match (plan.ownership.cores, plan.ownership.by) {
            (1, _) => "being the only one there",
            _ if tape.is_some() => "the thread that reads the capture files",
            (_, HashBy::Flow) => "the NIC's symmetric RSS",
            (_, HashBy::Client) => "ring hand-over between the cores",
        }
    );
    Ok((
        Machine {
            mirrors,
            replay,
            links,
            tape,
            pool,
            small,
            now,
            sleep,
            eal,
        },
        jobs,
    ))
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

/// The mbufs that `limits.mbufs` buys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Those that frames are received into.
    pub frames: u32,
    /// Those that short payloads are copied to.
    pub small: u32,
}

impl Buffers {
    /// Three quarters of the memory are for frames, the rest is for payloads.
    fn of(bytes: u64) -> Self {
        let buys = |bytes: u64, room| {
            let count = bytes / (u64::from(room) + MBUF_OVERHEAD as u64);
            count.clamp(512, u64::from(u32::MAX / 4)) as u32
        };
        Self {
            frames: buys(bytes / 4 * 3, DATA_ROOM),
            small: buys(bytes / 4, SMALL_ROOM),
        }
    }
}

/// Bytes of the pages that mbufs with so much room lie in without hugepages. What of a page is not
/// used is not touched either.
fn on_pages(mbufs: u32, room: u16) -> u64 {
    let size = u64::from(room) + MBUF_OVERHEAD as u64;
    if size > PAGE {
        return u64::from(mbufs) * size.next_multiple_of(PAGE);
    }
    u64::from(mbufs).div_ceil(PAGE / size) * PAGE
}

fn start_eal(config: &Replay, headers: u32) -> Result<Eal> {
    let memory = match config.eal.memory {
        Memory::Hugepages => dpdk::Memory::Hugepages,
        Memory::NoHuge => {
            let buffers = Buffers::of(config.limits.mbufs_bytes);
            let bytes = on_pages(buffers.frames, DATA_ROOM)
                + on_pages(buffers.small, SMALL_ROOM)
                + on_pages(headers, HEADER_ROOM);
            dpdk::Memory::NoHuge {
                mib: (bytes >> 20) as usize + SLACK_MIB,
            }
        }
    };
    let devices: Vec<&str> = match &config.mirror.source {
        Source::Ports(ports) => ports
            .iter()
            .chain([&config.replay.port])
            .map(String::as_str)
            .collect(),
        Source::Files(_) => vec![&config.replay.port],
    };
    let options = EalOptions {
        workers: config.eal.lcores.clone(),
        memory,
        nics: devices
            .iter()
            .filter(|d| dpdk::pci_address(d).is_some())
            .map(|d| (*d).to_owned())
            .collect(),
        ..EalOptions::default()
    };
    Ok(options.start()?)
}

fn sleeps<'a>(config: &Replay, mut ports: impl Iterator<Item = &'a PortInfo>) -> bool {
    match config.eal.idle {
        Some(idle) => idle == Idle::Sleep,
        None => ports.all(|p| p.software),
    }
}

fn link_settings(config: &Replay) -> Option<LinkSettings> {
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
        }),
    }
}

fn start_links(
    config: &Replay,
    workers: usize,
    now: Now,
) -> Result<(Option<Links>, Vec<Option<WorkerEnd>>)> {
    let Some(settings) = link_settings(config) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_mbufs_is_shared_by_frames_and_short_payloads() {
        let all = Buffers::of(512 << 20);
        assert_eq!((all.frames, all.small), (170_039, 233_016));
        let least = Buffers::of(0);
        assert_eq!((least.frames, least.small), (512, 512));
    }

    #[test]
    fn mbufs_without_hugepages_lie_on_pages_of_their_own() {
        assert_eq!(on_pages(1_000, DATA_ROOM), 1_000 * PAGE);
        assert_eq!(on_pages(1_001, 1_000), 334 * PAGE);
        assert_eq!(on_pages(10, 9_000), 30 * PAGE);
    }
}
