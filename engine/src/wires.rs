//! The replay ports: opening them, and what each worker has of them.
//!
//! Every worker sends on every wire, by a queue of its own. Receive queues a device may have fewer
//! than there are workers; the rest get their answers from the others.

use crate::egress::{Target, Wire};
use crate::plan::prefix;
use anyhow::{Context, Result, bail};
use config::replay::Replay;
use dpdk::{Eal, Mempool, Port, PortInfo, PortOptions, RxQueue, TxQueue};
use wire::Endpoint;
use wire::host::{Host, HostConfig, Route};

/// The queues of a replay port, by worker.
pub struct Queues {
    rx: Vec<RxQueue>,
    tx: Vec<TxQueue>,
}

/// What one worker has of the replay ports.
#[derive(Default)]
pub struct Share {
    /// Its transmit sides, of all wires.
    pub wires: Vec<Wire<TxQueue>>,
    /// Its receive queues, each with the place of its wire.
    pub replay: Vec<(usize, RxQueue)>,
}

/// Opens the replay ports.
///
/// # Errors
/// The first that cannot be opened, by its key.
pub fn open(
    eal: &Eal,
    config: &Replay,
    options: &PortOptions,
    pool: &Mempool,
    headers: &Mempool,
) -> Result<(Vec<Port>, Vec<Queues>)> {
    let mut ports = Vec::with_capacity(config.wires.len());
    let mut queues = Vec::with_capacity(config.wires.len());
    for wire in &config.wires {
        let opened = Port::open(eal, &wire.port, options, pool, headers);
        let (port, rx, tx) = opened.with_context(|| format!("{}.port", wire.table))?;
        ports.push(port);
        queues.push(Queues { rx, tx });
    }
    Ok((ports, queues))
}

/// The longest IP packet that all wires carry.
pub fn mtu(ports: &[Port]) -> u16 {
    ports.iter().map(|p| p.info().mtu).min().unwrap_or_default()
}

/// Every target can be reached from its replay port.
///
/// # Errors
/// The first that cannot.
pub fn check_routes(config: &Replay) -> Result<()> {
    for (i, transfer) in config.transfers.iter().enumerate() {
        for to in &transfer.to {
            let table = &config.wires[to.wire].table;
            if config.wires[to.wire].next_hop_mac.is_some() {
                continue;
            }
            let host = Host::new(host_config(config, to.wire, [2, 0, 0, 0, 0, 0], 0));
            if host.route(&to.addr.into()) == Route::None {
                bail!(
                    "transfer[{i}].to = {to}: it is in no network of {table}.address and there is no {table}.gateway to it"
                );
            }
        }
    }
    Ok(())
}

/// Deals the queues out to the workers, whose hosts have these seeds.
pub fn shares<'a>(
    config: &Replay,
    ports: impl Iterator<Item = &'a PortInfo>,
    queues: Vec<Queues>,
    seeds: &[u64],
) -> Vec<Share> {
    let mut shares: Vec<Share> = seeds.iter().map(|_| Share::default()).collect();
    for (wire, (port, queues)) in ports.zip(queues).enumerate() {
        for ((share, tx), seed) in shares.iter_mut().zip(queues.tx).zip(seeds) {
            let host = Host::new(host_config(config, wire, port.mac, *seed));
            share.wires.push(Wire::new(tx, host));
        }
        for (share, rx) in shares.iter_mut().zip(queues.rx) {
            share.replay.push((wire, rx));
        }
    }
    shares
}

/// All targets by number, each with its wire.
pub fn targets(config: &Replay) -> Vec<Target> {
    let targets = config.targets();
    targets
        .map(|(_, t)| Target {
            to: Endpoint::new(t.addr.into(), t.port.unwrap_or(0)),
            wire: t.wire,
        })
        .collect()
}

fn host_config(config: &Replay, wire: usize, mac: [u8; 6], seed: u64) -> HostConfig {
    let wire = &config.wires[wire];
    HostConfig {
        mac,
        addresses: wire.addresses.iter().map(prefix).collect(),
        gateways: wire.gateways.iter().map(|g| (*g).into()).collect(),
        next_hop_mac: wire.next_hop_mac,
        seed,
    }
}
