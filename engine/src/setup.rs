//! From the configuration to a machine that is ready to run: EAL, buffers, ports, links, and one
//! worker for each lcore.

use crate::egress::Outlet;
use crate::lcore::{Orders, Phase};
use crate::links::{Clock as LinkClock, Links, Settings as LinkSettings, WorkerEnd};
use crate::offline::{self, Player};
use crate::worker::{ResponseOwner, Ring, Worker};
use anyhow::{Context, Result, bail};
use config::replay::{Intercept, Replay, Source};
use config::{Idle, Memory};
use crossbeam::queue::ArrayQueue;
use dpdk::{
    Clock, DATA_ROOM, Eal, EalOptions, HEADER_ROOM, Mempool, MirrorPort, Port, PortInfo,
    PortOptions, Reassembly, RxQueue, TxQueue,
};
use ipnet::IpNet;
use link::Claim;
use replay::slots::Slice;
use replay::{Core, HashBy, Origin, Ownership, Params, Transfer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wire::decode::LinkType;
use wire::defragment::MAX_PARTS;
use wire::host::{Host, HostConfig, Route};
use wire::{Addr, Endpoint, Nanos};

/// Bytes an mbuf takes beside its data room: `struct rte_mbuf` and the mempool's object header.
const MBUF_OVERHEAD: u64 = 128 + 64;
/// Mbufs for headers and references of each worker: what a NIC may hold of them at a time, several
/// times over.
const HEADER_MBUFS: u32 = 16_384;
/// Mbufs that each lcore keeps to itself.
const CACHE: u32 = 256;
/// A page without hugepages. No mbuf crosses one (rte_mempool.c, rte_mempool_get_page_size).
const PAGE: u64 = 4_096;
/// Memory without hugepages beyond the buffers, in MiB: queues and DPDK's own.
const SLACK_MIB: usize = 96;
/// Parcels one core may leave for another.
const RING: usize = 4_096;
/// Client ports of a pool begin above the well-known ones.
const FIRST_PORT: u16 = 1_024;
/// How long a datagram's fragments wait for the rest, in ns. On the mirror they are microseconds
/// apart; an end system would wait for 60 s (RFC 8200 section 4.5), with memory of its own.
const FRAGMENT_TIME: Nanos = 2_000_000_000;
/// How long to wait for the control links at start.
const LINK_TIME: Duration = Duration::from_secs(5);

/// A worker and what it needs beside itself.
pub struct Job {
    /// The worker.
    pub worker: Worker<RxQueue, TxQueue, Reassembly>,
    /// The capture file, if this worker plays one.
    pub player: Option<Player<RxQueue>>,
    /// Its orders.
    pub orders: Arc<Orders<RxQueue>>,
}

/// A capture file that can be opened again.
pub struct Tape {
    path: PathBuf,
    opened: u32,
    /// Times it is still to be played.
    pub left: u32,
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
    /// The capture file, offline.
    pub tape: Option<Tape>,
    /// Buffers that frames are received into.
    pub pool: Mempool,
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
    let (data, headers) = (buffers(config), HEADER_MBUFS * workers as u32);
    let eal = start_eal(config, headers)?;
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let clock = eal.clock();
    let now = Now {
        epoch: unix.as_nanos() as Nanos - clock.now(),
        clock,
    };
    let cache = CACHE.min(data / 2 / (workers as u32 + 1));
    let pool = Mempool::new(&eal, "mirror", data, DATA_ROOM, cache, None)?;
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
    let mut link_type = LinkType::Ethernet;
    let (mut mirrors, mut queues, mut tape, mut player) = (Vec::new(), Vec::new(), None, None);
    match &config.mirror.source {
        Source::Ports(devices) => {
            for (i, device) in devices.iter().enumerate() {
                let (port, rx) = MirrorPort::open(&eal, device, &options, &pool)
                    .with_context(|| format!("mirror.ports[{i}]"))?;
                mirrors.push(port);
                queues.push(rx);
            }
        }
        Source::File { path, speed, loops } => {
            link_type = offline::link_type(path).map_err(anyhow::Error::msg)?;
            let mut file = Tape {
                path: path.clone(),
                opened: 0,
                left: *loops,
            };
            let (port, queue) = file.open(&eal, &pool)?;
            mirrors.push(port);
            player = Some(Player::new(queue, *speed));
            tape = Some(file);
        }
    }
    let sleep = sleeps(
        config,
        mirrors.iter().map(MirrorPort::info).chain([replay.info()]),
    );
    let (links, ends) = start_links(config, workers, now)?;
    let plan = Plan::new(config, &mirrors, replay.info(), now.get(), data);
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
    let mut jobs = plan.workers(config, replay.info(), replay_queues, reassemblies, ends);
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
    for job in &mut jobs {
        job.worker.link_type = link_type;
    }
    if let Some(first) = jobs.first_mut() {
        first.player = player;
    }
    log::info!(
        "{workers} worker{} on CPU {:?}; mirror frames reach their owner by {}",
        if workers == 1 { "" } else { "s" },
        config.eal.lcores,
        match (plan.ownership.cores, plan.ownership.by) {
            (1, _) => "being the only one there",
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
            now,
            sleep,
            eal,
        },
        jobs,
    ))
}

/// Incomplete datagrams that each worker may hold: so many that the workers' fragments together
/// take no more than a quarter of the buffers, if each is in a buffer of its own.
fn fragmented(mbufs: u32, workers: usize) -> u32 {
    (mbufs / (4 * MAX_PARTS * workers.max(1)) as u32).clamp(1, 4_096)
}

/// How many mbufs `limits.mbufs` buys.
fn buffers(config: &Replay) -> u32 {
    (config.limits.mbufs_bytes / (u64::from(DATA_ROOM) + MBUF_OVERHEAD))
        .clamp(512, u64::from(u32::MAX / 2)) as u32
}

/// Bytes of the pages that mbufs with so much room lie in without hugepages. What of a page is not
/// used is not touched either.
fn on_pages(mbufs: u32, room: u16) -> u64 {
    let size = u64::from(room) + MBUF_OVERHEAD;
    if size > PAGE {
        return u64::from(mbufs) * size.next_multiple_of(PAGE);
    }
    u64::from(mbufs).div_ceil(PAGE / size) * PAGE
}

fn start_eal(config: &Replay, headers: u32) -> Result<Eal> {
    let memory = match config.eal.memory {
        Memory::Hugepages => dpdk::Memory::Hugepages,
        Memory::NoHuge => {
            let bytes = on_pages(buffers(config), DATA_ROOM) + on_pages(headers, HEADER_ROOM);
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
        Source::File { .. } => vec![&config.replay.port],
    };
    let options = EalOptions {
        workers: config.eal.lcores.clone(),
        memory,
        // The PCI bus is looked at only if a port is on it; a virtual device's name begins with its
        // driver's.
        pci: devices.iter().any(|d| !d.starts_with("net_")),
        ..EalOptions::default()
    };
    options.check()?;
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

impl Tape {
    /// Opens the file from its beginning, as a device of its own.
    pub fn open(&mut self, eal: &Eal, pool: &Mempool) -> Result<(MirrorPort, RxQueue)> {
        let device = format!("net_pcap{},rx_pcap={}", self.opened, self.path.display());
        let (port, mut queues) =
            MirrorPort::open(eal, &device, &PortOptions::default(), pool).context("mirror.file")?;
        let Some(queue) = queues.pop() else {
            bail!("mirror.file: net_pcap gave no queue")
        };
        self.opened += 1;
        self.left -= 1;
        Ok((port, queue))
    }
}

/// What all workers share of their parameters.
struct Plan {
    ownership: Ownership,
    params: Params,
    slices: Vec<Vec<Slice>>,
}

impl Plan {
    fn new(
        config: &Replay,
        mirrors: &[MirrorPort],
        replay: &PortInfo,
        now: Nanos,
        mbufs: u32,
    ) -> Self {
        let cores = config.eal.lcores.len() as u16;
        let transfers: Vec<_> = config
            .transfers
            .iter()
            .map(|t| Transfer {
                from: Origin {
                    addr: t.from.addr.map(Addr::from),
                    port: t.from.port,
                },
                to: t.to.into(),
            })
            .collect();
        // RSS hashes both ends of the production flow; a response shows production's end only if
        // its target stands for exactly one.
        let one_each = transfers.iter().enumerate().all(|(i, t)| {
            t.from.addr.is_some() && transfers.iter().skip(i + 1).all(|other| other.to != t.to)
        });
        let rss = !mirrors.is_empty() && mirrors.iter().all(|m| m.info().rss);
        let by = if rss && one_each {
            HashBy::Flow
        } else {
            HashBy::Client
        };
        let slices = (0..cores)
            .map(|core| pool_slices(&config.clients.pool, core, cores))
            .collect();
        let ns = |d: Duration| d.as_nanos() as Nanos;
        let (traffic, limits) = (&config.traffic, &config.limits);
        let per_core = |n: usize| n.div_ceil(usize::from(cores));
        let params = Params {
            transfers,
            copies: traffic.copies,
            percent: traffic.percent,
            ramp: ns(traffic.ramp),
            full_sessions_only: traffic.full_sessions_only,
            wait_for_responses: traffic.wait_for_responses,
            rtt: traffic.rtt.map(ns),
            gate_timeout: ns(traffic.gate_timeout),
            session_timeout: ns(traffic.session_timeout),
            keepalive_timeout: ns(traffic.keepalive_timeout),
            // Clients are dealt out by a hash: a core gets a little more than its share now and
            // then.
            max_sessions: per_core(limits.sessions) + per_core(limits.sessions) / 8 + 1,
            // A quarter of the buffers is never held, so that receive does not starve.
            max_segments: per_core(mbufs as usize / 4 * 3),
            session_bytes: limits.session_bytes,
            mtu: replay.mtu,
            pool: Vec::new(),
            ownership: Ownership { cores, me: 0, by },
            seed: now ^ u64::from(std::process::id()).rotate_left(40),
            start: now,
        };
        Self {
            ownership: params.ownership,
            params,
            slices,
        }
    }

    /// Every target can be reached from the replay port.
    fn check_routes(&self, config: &Replay) -> Result<()> {
        let host = Host::new(host_config(config, [2, 0, 0, 0, 0, 0]));
        if config.replay.next_hop_mac.is_some() {
            return Ok(());
        }
        for (i, t) in self.params.transfers.iter().enumerate() {
            if host.route(&t.to.addr) == Route::None {
                bail!(
                    "transfer[{i}].to = {}: it is in no network of replay.address and there is no replay.gateway to it",
                    t.to
                );
            }
        }
        Ok(())
    }

    fn workers(
        &self,
        config: &Replay,
        port: &PortInfo,
        (rx, tx): (Vec<RxQueue>, Vec<TxQueue>),
        reassemblies: Vec<Reassembly>,
        ends: Vec<Option<WorkerEnd>>,
    ) -> Vec<Job> {
        let cores = usize::from(self.ownership.cores);
        let rings: Vec<Vec<Ring<dpdk::Mbuf>>> = (0..cores)
            .map(|_| {
                (0..cores)
                    .map(|_| Arc::new(ArrayQueue::new(RING)))
                    .collect()
            })
            .collect();
        let targets: Vec<Endpoint> = self.params.transfers.iter().map(|t| t.to).collect();
        let any = Addr::v4([0; 4]);
        let production = |t: &Transfer| Endpoint::new(t.from.addr.unwrap_or(any), t.from.port);
        let owner = ResponseOwner {
            slices: self.slices.clone(),
            ownership: self.ownership,
            targets: self
                .params
                .transfers
                .iter()
                .map(|t| (t.to, production(t)))
                .collect(),
        };
        let mut jobs = Vec::with_capacity(cores);
        let queues = rx.into_iter().zip(tx);
        for (i, (((rx, tx), reassembly), end)) in queues.zip(reassemblies).zip(ends).enumerate() {
            let me = i as u16;
            let pool = self.slices[i].clone();
            let params = Params {
                pool: pool.clone(),
                ownership: Ownership {
                    me,
                    ..self.ownership
                },
                seed: self.params.seed.wrapping_add(u64::from(me) << 32),
                ..self.params.clone()
            };
            let host = Host::new(host_config(config, port.mac));
            let mut out = Outlet::new(tx, host, port.mac, targets.clone(), end, me);
            for claim in slice_claims(&config.clients.pool, &pool, &targets, me) {
                out.claim_slice(claim);
            }
            let core = Core::new(params, self.params.start);
            let mut worker = Worker::new(me, core, out, owner.clone()).reassembling(reassembly);
            worker.replay = Some(rx);
            worker.to = rings.iter().map(|from| Arc::clone(&from[i])).collect();
            worker.from = rings[i].iter().map(Arc::clone).collect();
            jobs.push(Job {
                worker,
                player: None,
                orders: Orders::new(),
            });
        }
        jobs
    }
}

fn host_config(config: &Replay, mac: [u8; 6]) -> HostConfig {
    HostConfig {
        mac,
        addresses: config
            .replay
            .addresses
            .iter()
            .map(|n| (n.addr().into(), n.prefix_len()))
            .collect(),
        gateways: config.replay.gateways.iter().map(|g| (*g).into()).collect(),
        next_hop_mac: config.replay.next_hop_mac,
    }
}

/// The part of the pool that belongs to one core: all its addresses, and a range of ports.
fn pool_slices(pool: &[IpNet], core: u16, cores: u16) -> Vec<Slice> {
    let ports = (u32::from(u16::MAX) - u32::from(FIRST_PORT) + 1) / u32::from(cores);
    let low = u32::from(FIRST_PORT) + ports * u32::from(core);
    let slice = |net: &IpNet| {
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        // The first and the last address of an IPv4 network are not a host's; the first of an IPv6
        // one is its routers'.
        let (skip, keep) = match net {
            IpNet::V4(_) if bits >= 2 => (1, (1u64 << bits) - 2),
            IpNet::V4(_) => (0, 1 << bits),
            IpNet::V6(_) if bits >= 1 => (1, (1u64 << bits.min(32)) - 1),
            IpNet::V6(_) => (0, 1),
        };
        let first = u128::from_be_bytes(*Addr::from(net.network()).bytes()) + skip;
        Slice {
            first: Addr::v6(first.to_be_bytes()),
            addresses: keep.min(u64::from(u32::MAX)) as u32,
            low: low as u16,
            high: (low + ports - 1) as u16,
        }
    };
    pool.iter().map(slice).collect()
}

/// What a core claims of the pool, once: every prefix with its range of ports, for every target of
/// the same family.
fn slice_claims(pool: &[IpNet], slices: &[Slice], targets: &[Endpoint], owner: u16) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (net, slice) in pool.iter().zip(slices) {
        for target in targets
            .iter()
            .filter(|t| t.addr.is_v4() == slice.first.is_v4())
        {
            let prefix = (net.network().into(), net.prefix_len());
            let claim = Claim {
                prefix,
                ports: slice.low..=slice.high,
                target: *target,
                owner,
            };
            if !claims.contains(&claim) {
                claims.push(claim);
            }
        }
    }
    claims
}

/// Tells all workers to go on to `phase`.
pub fn order_all(orders: &[Arc<Orders<RxQueue>>], phase: Phase) {
    for o in orders {
        o.set(phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mbufs_without_hugepages_lie_on_pages_of_their_own() {
        assert_eq!(on_pages(1_000, DATA_ROOM), 1_000 * PAGE);
        assert_eq!(on_pages(1_001, 1_000), 334 * PAGE);
        assert_eq!(on_pages(10, 9_000), 30 * PAGE);
    }

    #[test]
    fn the_cores_slices_cover_the_pool_and_do_not_meet() {
        let pool: Vec<IpNet> = vec![
            "62.135.200.0/24".parse().unwrap(),
            "fd62::/64".parse().unwrap(),
            "10.9.9.9/32".parse().unwrap(),
        ];
        let all: Vec<_> = (0..3).map(|core| pool_slices(&pool, core, 3)).collect();
        assert_eq!(all[0][0].first, Addr::v4([62, 135, 200, 1]));
        assert_eq!(all[0][0].addresses, 254);
        assert_eq!(
            (all[0][2].first, all[0][2].addresses),
            (Addr::v4([10, 9, 9, 9]), 1)
        );
        assert_eq!(all[0][0].low, FIRST_PORT);
        for pair in all.windows(2) {
            assert_eq!(u32::from(pair[0][0].high) + 1, u32::from(pair[1][0].low));
        }
        let v6 = Endpoint::new(
            Addr::from("fd62::1".parse::<std::net::IpAddr>().unwrap()),
            2_000,
        );
        assert!(all[0][1].contains(&v6));
        let targets = [Endpoint::new(Addr::v4([10, 20, 0, 2]), 80)];
        let claims = slice_claims(&pool, &all[1], &targets, 1);
        assert_eq!(claims.len(), 2, "IPv4 prefixes alone for an IPv4 target");
        assert_eq!(claims[0].ports, all[1][0].low..=all[1][0].high);
    }
}
