//! From the configuration to the workers: who owns what, the session core's parameters, client
//! addresses, and the claims that follow from them.

use crate::buffers::Buffers;
use crate::claims::Claims;
use crate::egress::Outlet;
use crate::lcore::Orders;
use crate::links::{COMMANDS, WorkerEnd};
use crate::offline::{Owner, Whose};
use crate::setup::Job;
use crate::worker::{ResponseOwner, Ring, Worker, session_owner};
use anyhow::{Result, bail};
use config::replay::{Intercept, Replay, Source, Speed};
use crossbeam::queue::ArrayQueue;
use dpdk::{DATA_ROOM, HEADROOM, MirrorPort, PortInfo, Reassembly, RxQueue, TxQueue};
use ipnet::IpNet;
use link::Claim;
use replay::slots::Slice;
use replay::{Core, HashBy, Origin, Ownership, Pace, Params, Shard, Sources, Target, Transfer};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use wire::decode::{MirrorOptions, Skip, fragment_with, mirrored_with};
use wire::defragment::datagram_hash;
use wire::host::{Host, HostConfig, Route};
use wire::{Addr, Endpoint, Nanos, Prefix};

/// Parcels one core may leave for another.
const RING: usize = 4_096;
/// Client ports of a pool begin above the well-known ones.
const FIRST_PORT: u16 = 1_024;
/// Connections that one worker claims at a time: as many as an intercept grants to one engine.
const MAX_CLAIMS: usize = 1 << 20;

/// Slices of the pool, each for one target's port, that all workers claim: as many as an intercept
/// grants to one engine.
const MAX_SLICES: usize = 6_144;
const _: () = assert!(MAX_SLICES <= COMMANDS, "no ring is full of them");

/// Bytes of a frame that lie in its first buffer: what a worker decodes.
const FIRST_BYTES: usize = (DATA_ROOM - HEADROOM) as usize;

/// What all workers share of their parameters.
pub struct Plan {
    /// Which core owns a session.
    pub ownership: Ownership,
    params: Params,
    slices: Vec<Vec<Slice>>,
}

impl Plan {
    /// The plan of this configuration, for these ports. `now` is the time, `buffers` are those there
    /// are, `seed` makes hashes unpredictable.
    pub fn new(
        config: &Replay,
        mirrors: &[MirrorPort],
        replay: &PortInfo,
        now: Nanos,
        buffers: Buffers,
        seed: u64,
    ) -> Self {
        let cores = config.eal.lcores.len() as u16;
        let transfers: Vec<_> = config.transfers.iter().map(transfer).collect();
        let one_each = stand_for_one_each(&transfers);
        let table = mirrors.iter().map(MirrorPort::info).filter(|i| i.rss);
        let by = match table.map(|i| i.table).min() {
            Some(table) if one_each => HashBy::Flow { table },
            _ => HashBy::Client,
        };
        let slices = (0..cores)
            .map(|core| pool_slices(&config.clients.pool, core, cores))
            .collect();
        let (traffic, limits) = (&config.traffic, &config.limits);
        let per_core = |n: usize| n.div_ceil(usize::from(cores));
        let params = Params {
            transfers,
            copies: traffic.copies,
            percent: traffic.percent,
            ramp: ns(traffic.ramp),
            shard: Shard {
                index: traffic.shard.number - 1,
                of: traffic.shard.of,
            },
            full_sessions_only: traffic.full_sessions_only,
            session_timeout: ns(traffic.session_timeout),
            keepalive_timeout: ns(traffic.keepalive_timeout),
            // Clients are dealt out by a hash: a core gets a little more than its share now and
            // then.
            max_sessions: per_core(limits.sessions) + per_core(limits.sessions) / 8 + 1,
            // A quarter of the buffers for frames is never held, so that receive does not starve.
            max_segments: per_core(buffers.frames as usize / 4 * 3 + buffers.small as usize),
            max_frames: per_core(buffers.frames as usize / 4 * 3),
            session_bytes: limits.session_bytes,
            mtu: replay.mtu,
            pool: Vec::new(),
            ownership: Ownership { cores, me: 0, by },
            answers: answers(config, replay, cores),
            canaries: Params::CANARIES,
            seed,
            pace: match &config.mirror.source {
                Source::Ports(_) => Pace::Live,
                Source::Files(files) => match files.speed {
                    Speed::Factor(factor) => Pace::Recorded(factor),
                    Speed::Max => Pace::Unpaced,
                },
            },
            start: now,
        };
        Self {
            ownership: params.ownership,
            params,
            slices,
        }
    }

    /// Bytes that the workers' sessions take when there are as many as there may be.
    pub fn most_bytes(&self) -> u64 {
        u64::from(self.params.ownership.cores) * Core::<dpdk::Payload>::most_bytes(&self.params)
    }

    /// Who owns a frame of a capture file, by its first bytes. What belongs to no session goes to
    /// the first worker; parts of a datagram meet on one.
    pub fn reader_owner(&self, mirror: MirrorOptions) -> Owner {
        let (sources, ownership) = (Sources::new(&self.params), self.ownership);
        Box::new(move |link, bytes| {
            let cores = usize::from(ownership.cores);
            let Some(link) = link.filter(|_| cores > 1) else {
                return Whose::Owner(0);
            };
            let options = MirrorOptions {
                link,
                // The worker verifies.
                verify_checksums: false,
                ..mirror
            };
            let first = bytes.get(..FIRST_BYTES).unwrap_or(bytes);
            match mirrored_with(&options, first, bytes.len()) {
                Ok(packet) => {
                    let owner = session_owner(&sources, &ownership, &packet.head.flow);
                    Whose::Owner(owner.unwrap_or(0).into())
                }
                Err(Skip::Fragment) => fragment_with(&options, first, bytes.len())
                    .map_or(Whose::Owner(0), |part| {
                        Whose::Part(datagram_hash(&part) as usize % cores)
                    }),
                Err(_) => Whose::Owner(0),
            }
        })
    }

    /// Every target can be reached from the replay port.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check_routes(&self, config: &Replay) -> Result<()> {
        let host = Host::new(host_config(config, [2, 0, 0, 0, 0, 0], 0));
        if config.replay.next_hop_mac.is_some() {
            return Ok(());
        }
        for (i, transfer) in config.transfers.iter().enumerate() {
            for to in &transfer.to {
                if host.route(&to.addr.into()) == Route::None {
                    bail!(
                        "transfer[{i}].to = {to}: it is in no network of replay.address and there is no replay.gateway to it"
                    );
                }
            }
        }
        Ok(())
    }

    /// The workers, each with its queues of the replay port, and what it has of the links.
    ///
    /// # Errors
    /// The pool is too large to be claimed.
    pub fn workers(
        &self,
        config: &Replay,
        port: &PortInfo,
        (rx, tx): (Vec<RxQueue>, Vec<TxQueue>),
        reassemblies: Vec<Reassembly>,
        ends: Vec<Option<WorkerEnd>>,
    ) -> Result<Vec<Job>> {
        let cores = usize::from(self.ownership.cores);
        let rings: Vec<Vec<Ring<dpdk::Mbuf>>> = (0..cores)
            .map(|_| {
                (0..cores)
                    .map(|_| Arc::new(ArrayQueue::new(RING)))
                    .collect()
            })
            .collect();
        let transfers = self.params.transfers.iter();
        let targets: Vec<Endpoint> = transfers.flat_map(|t| &t.to).map(|t| t.to).collect();
        let claimed = claimed_ends(&self.params.transfers);
        let owner = ResponseOwner::new(&self.params, self.slices.clone());
        let mut jobs = Vec::with_capacity(cores);
        // A device with fewer receive queues than workers: the rest get responses from the others.
        let mut rx = rx.into_iter();
        for (i, ((tx, reassembly), end)) in tx.into_iter().zip(reassemblies).zip(ends).enumerate() {
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
            let host = Host::new(host_config(config, port.mac, params.seed.rotate_left(16)));
            let claims = end
                .map(|end| self.claims(config, end, &claimed, me))
                .transpose()?;
            let out = Outlet::new(tx, host, port.mac, targets.clone(), claims, me);
            let core = Core::new(params, self.params.start);
            let mut worker = Worker::new(me, core, out, owner.clone()).reassembling(reassembly);
            worker.replay = rx.next();
            worker.to = rings.iter().map(|from| Arc::clone(&from[i])).collect();
            worker.from = rings[i].iter().map(Arc::clone).collect();
            jobs.push(Job {
                worker,
                player: None,
                rest: None,
                orders: Orders::new(),
            });
        }
        Ok(jobs)
    }

    /// A worker's claims. With a pool it claims its slices now; without, each connection when it
    /// opens it.
    fn claims(
        &self,
        config: &Replay,
        end: WorkerEnd,
        targets: &[Endpoint],
        me: u16,
    ) -> Result<Claims> {
        let pool = &self.slices[usize::from(me)];
        let copies = config.transfers.iter().map(|t| {
            let copies = t.to.iter().map(|to| usize::from(to.copies));
            copies.sum::<usize>()
        });
        let connections = self.params.max_sessions * copies.max().unwrap_or(1);
        let limit = if pool.is_empty() {
            connections.min(MAX_CLAIMS)
        } else {
            0
        };
        let mut claims = Claims::new(end, me, limit);
        let slices = slice_claims(&config.clients.pool, pool, targets, me);
        let all = slices.len() * usize::from(self.ownership.cores);
        let made = all <= MAX_SLICES && slices.into_iter().all(|claim| claims.claim_slice(claim));
        if !made {
            bail!(
                "clients.pool: its prefixes times the targets' ports times the workers are more than {MAX_SLICES}, which is as many as an intercept grants; give fewer of them, or no pool"
            );
        }
        Ok(claims)
    }
}

/// The redirection table by which the replay port brings responses to cores, if they all come
/// there. A capture file's sessions take whatever address is free, so that none is missing.
fn answers(config: &Replay, replay: &PortInfo, cores: u16) -> Option<u16> {
    let come_here = matches!(config.intercept, Intercept::Embedded);
    let live = matches!(config.mirror.source, Source::Ports(_));
    let spread = replay.rss && replay.rx_queues >= cores;
    (come_here && live && spread).then_some(replay.table)
}

/// Whether every target stands for exactly one production address, as far as a response shows: RSS
/// hashes both ends of the production flow.
fn stand_for_one_each(transfers: &[Transfer]) -> bool {
    // The ports of each host that stand for something; 0: all.
    let mut ports: HashMap<Addr, HashSet<u16>> = HashMap::new();
    transfers.iter().all(|transfer| {
        let [origin] = transfer.from[..] else {
            return false;
        };
        origin.addr().is_some()
            && transfer.to.iter().all(|target| {
                let Endpoint { addr, port } = target.to;
                let taken = ports.entry(addr).or_default();
                let free = if port == 0 {
                    taken.is_empty()
                } else {
                    origin.low == origin.high && !taken.contains(&0)
                };
                free && taken.insert(port)
            })
    })
}

const fn ns(time: Duration) -> Nanos {
    time.as_nanos() as Nanos
}

/// A transfer, as the session core has it.
fn transfer(t: &config::replay::Transfer) -> Transfer {
    let origin = |o: &config::replay::Origin| Origin {
        net: o.net.as_ref().map(prefix),
        low: o.low,
        high: o.high,
    };
    let target = |to: &config::replay::Target| Target {
        to: Endpoint::new(to.addr.into(), to.port.unwrap_or(0)),
        copies: Some(to.copies),
        percent: Some(to.percent),
        wait_for_responses: to.pace.wait_for_responses,
        gate_timeout: ns(to.pace.gate_timeout),
        rtt: to.pace.rtt.map(ns),
    };
    Transfer {
        from: t.from.iter().map(origin).collect(),
        to: t.to.iter().map(target).collect(),
    }
}

/// An interface's address, as packets are compared with it.
pub fn prefix(net: &IpNet) -> Prefix {
    Prefix::new(net.addr().into(), net.prefix_len())
}

fn host_config(config: &Replay, mac: [u8; 6], seed: u64) -> HostConfig {
    HostConfig {
        mac,
        addresses: config.replay.addresses.iter().map(prefix).collect(),
        gateways: config.replay.gateways.iter().map(|g| (*g).into()).collect(),
        next_hop_mac: config.replay.next_hop_mac,
        seed,
    }
}

/// The part of the pool that belongs to one core: all its addresses, and a range of ports.
fn pool_slices(pool: &[IpNet], core: u16, cores: u16) -> Vec<Slice> {
    let ports = (u32::from(u16::MAX) - u32::from(FIRST_PORT) + 1) / u32::from(cores);
    let low = u32::from(FIRST_PORT) + ports * u32::from(core);
    let slice = |net: &IpNet| {
        let prefix = Prefix::new(net.network().into(), net.prefix_len());
        // The first and the last address of an IPv4 network are not a host's; the first of an IPv6
        // one is its routers'.
        let (skip, keep) = match (net, prefix.count()) {
            (IpNet::V4(_), n) if n >= 4 => (1, n - 2),
            (IpNet::V6(_), n) if n >= 2 => (1, n - 1),
            (_, n) => (0, n),
        };
        Slice {
            first: Addr::from_number(prefix.first().number() + skip),
            addresses: keep.min(u128::from(u32::MAX)) as u32,
            low: low as u16,
            high: (low + ports - 1) as u16,
        }
    };
    pool.iter().map(slice).collect()
}

/// Where responses come from: every target, with each port that it may have. Of more than can be
/// claimed the first.
fn claimed_ends(transfers: &[Transfer]) -> Vec<Endpoint> {
    let mut ends = Vec::new();
    let mut known = HashSet::new();
    for transfer in transfers {
        for Target { to, .. } in &transfer.to {
            let fixed = (to.port != 0).then_some(to.port..=to.port);
            let same = transfer.from.iter().filter(|_| to.port == 0);
            let ports = fixed.into_iter().chain(same.map(|o| o.low..=o.high));
            for port in ports.flatten() {
                let end = Endpoint { port, ..*to };
                if ends.len() <= COMMANDS && known.insert(end) {
                    ends.push(end);
                }
            }
        }
    }
    ends
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
            let prefix = Prefix::new(net.network().into(), net.prefix_len());
            let claim = Claim {
                prefix,
                ports: slice.low..=slice.high,
                target: *target,
                owner,
            };
            claims.push(claim);
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_that_a_target_may_have_is_claimed_once() {
        let host = |port| Endpoint::new(Addr::v4([10, 20, 0, 2]), port);
        let from = Origin {
            low: 80,
            high: 82,
            ..Origin::any(80)
        };
        let mut transfers = vec![
            Transfer::new(from, host(0)),
            Transfer::new(Origin::any(443), host(81)),
            Transfer::new(Origin::any(444), host(9_000)),
        ];
        let ends = claimed_ends(&transfers);
        assert_eq!(ends, [host(80), host(81), host(82), host(9_000)]);
        transfers[0].from[0].high = u16::MAX;
        assert!(
            claimed_ends(&transfers).len() > COMMANDS,
            "more than can be"
        );
    }

    #[test]
    fn a_target_that_stands_for_several_production_addresses_is_found_out() {
        let server = |last, port| Endpoint::new(Addr::v4([10, 10, 0, last]), port);
        let host = |last, port| Endpoint::new(Addr::v4([10, 20, 0, last]), port);
        let range = |last| Origin {
            high: 89,
            ..server(last, 80).into()
        };
        let net = Origin {
            net: Some(Prefix::new(Addr::v4([10, 10, 0, 0]), 24)),
            ..Origin::any(80)
        };
        let two = |a, b| {
            let mut transfer = Transfer::new(server(2, 80), a);
            transfer.to.push(Target::new(b));
            transfer
        };
        let other = |to| Transfer::new(server(3, 81), to);
        for (transfers, right) in [
            (vec![two(host(2, 80), host(3, 80))], true),
            (vec![two(host(2, 80), host(3, 0)), other(host(2, 81))], true),
            (
                vec![two(host(2, 80), host(3, 0)), other(host(3, 81))],
                false,
            ),
            (
                vec![two(host(2, 80), host(3, 80)), other(host(3, 80))],
                false,
            ),
            (vec![Transfer::new(range(2), host(2, 0))], true),
            (vec![Transfer::new(range(2), host(2, 80))], false),
            (vec![Transfer::new(net, host(2, 80))], false),
            (vec![Transfer::new(Origin::any(80), host(2, 80))], false),
        ] {
            assert_eq!(stand_for_one_each(&transfers), right, "{transfers:?}");
        }
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
