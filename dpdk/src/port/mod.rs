//! Ports (rte_ethdev.h): opening, what they say of themselves, and closing.
//!
//! Opening a port yields its control handle and one handle per queue. Each queue handle exists
//! once, so no queue is ever used by two threads. The port is stopped, closed and, if its driver
//! made it, removed when the last of these handles is dropped. A port that is opened as a
//! [`MirrorPort`] has no transmit queue handle at all; one that is opened to answer has handles
//! that take answers alone.

mod af_packet;
mod device;
mod longest;
mod mirror;
mod options;
mod probed;
mod ring;
mod setup;
mod spread;

pub use af_packet::data_room;
pub use mirror::MirrorPort;
pub use options::{FrameClock, PortInfo, PortOptions, PortStats};

use crate::clock::Clock;
use crate::eal::Eal;
use crate::error::{Error, reason};
use crate::frames::FrameMaker;
use crate::mbuf::{Mbuf, find_timestamp, register_captured_at};
use crate::mempool::{HEADROOM, Mempool};
use crate::packet_ring::{Ring, RingCounters};
use crate::rx::RxQueue;
use crate::tx::TxQueue;
use device::Device;
use dpdk_sys as sys;
use probed::Probed;
use setup::Setup;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Drivers that end in the kernel, a file or memory. All of them send chained frames, whether they
/// say so or not.
const SOFTWARE: [&str; 6] = [
    "net_af_packet",
    "net_pcap",
    "net_ring",
    "net_null",
    "net_tap",
    "net_af_xdp",
];
/// Of these, the ones whose transmit function follows a chain.
const SENDS_CHAINS: [&str; 4] = ["net_af_packet", "net_pcap", "net_ring", "net_null"];
/// Ethernet header, two VLAN tags and nothing more: what comes on top of the MTU.
const LINK_HEADERS: u32 = 14 + 8;
const DEFAULT_MTU: u16 = 1500;

/// A port that receives and sends.
#[derive(Debug)]
pub struct Port {
    inner: Arc<Inner>,
    /// Control calls of a port must not run at the same time (rte_ethdev.h): not `Sync`.
    _unsync: PhantomData<std::cell::Cell<()>>,
}

impl Port {
    /// Opens `device` for receiving and sending and starts it.
    ///
    /// Frames are received into `rx_pool`. `header_pool` gives the small mbufs that headers are
    /// built in and that refer to shared payloads, two per frame at most;
    /// [`HEADER_ROOM`](crate::HEADER_ROOM) is the size for them.
    pub fn open(
        eal: &Eal,
        device: &str,
        options: &PortOptions,
        rx_pool: &Mempool,
        header_pool: &Mempool,
    ) -> Result<(Self, Vec<RxQueue>, Vec<TxQueue>), Error> {
        let least = HEADROOM + wire::head::MAX_HEADERS as u16;
        if header_pool.data_room() < least {
            return Err(Error::Option {
                port: format!("port {device}"),
                option: "the header pool's data room",
                value: header_pool.data_room().into(),
                accepted: format!("at least {least} bytes"),
            });
        }
        let inner = Arc::new(Inner::open(
            eal,
            "port",
            device,
            options,
            options.tx_queues,
            &[rx_pool, header_pool],
        )?);
        let rx = (0..inner.info.rx_queues)
            .map(|q| RxQueue::new(Arc::clone(&inner), q))
            .collect();
        let tx = (0..options.tx_queues)
            .map(|q| TxQueue::new(Arc::clone(&inner), q, header_pool.clone(), rx_pool.clone()))
            .collect();
        Ok((
            Self {
                inner,
                _unsync: PhantomData,
            },
            rx,
            tx,
        ))
    }

    /// What the port is and can do.
    pub fn info(&self) -> &PortInfo {
        &self.inner.info
    }

    /// What it has counted.
    pub fn stats(&self) -> PortStats {
        self.inner.stats()
    }

    /// Whether the link is up.
    pub fn is_link_up(&self) -> bool {
        self.inner.is_link_up()
    }
}

/// A started port. Dropped when no handle of it is left.
#[derive(Debug)]
pub(crate) struct Inner {
    info: PortInfo,
    /// The interface to take out of promiscuous mode again.
    promiscuous: bool,
    /// DPDK's number of the counter of frames that were too long.
    too_long: Option<u64>,
    device: Probed,
    /// The clock by which the driver's times are told, if it has the kernel's.
    stamped: Option<Clock>,
    /// The sockets to receive from instead of the driver, for the queues' handles.
    rings: Mutex<Vec<Option<Ring>>>,
    counters: Vec<Arc<RingCounters>>,
    /// The driver holds mbufs of these until the port is closed.
    _pools: Vec<Mempool>,
}

impl Inner {
    fn open(
        eal: &Eal,
        role: &str,
        text: &str,
        options: &PortOptions,
        tx_queues: u16,
        pools: &[&Mempool],
    ) -> Result<Self, Error> {
        let mut device = Device::parse(role, text)?;
        let port = format!("{role} {}", device.name());
        device.check(&port)?;
        let Some(rx_pool) = pools.first() else {
            return Err(Error::Device {
                port,
                what: "it has no pool to receive into".to_owned(),
            });
        };
        let interface_mtu = device.interface().and_then(device::interface_mtu);
        let room = rx_pool.data_room().saturating_sub(HEADROOM);
        let wanted = options.mtu.or(interface_mtu).unwrap_or(DEFAULT_MTU);
        let queues = options.rx_queues.max(tx_queues);
        let ring = device.complete(
            &port,
            queues,
            rx_pool.data_room(),
            options.mtu,
            wanted,
            !options.longest,
        )?;
        let wanted = ring.map_or(wanted, |(_, most)| most.min(wanted));

        let mut probed = Probed::probe(eal, &device, &port)?;
        let raw = probed.raw_info(&port)?;
        let driver = if raw.driver_name.is_null() {
            String::new()
        } else {
            // SAFETY: a driver's name is a static C string.
            unsafe { CStr::from_ptr(raw.driver_name) }
                .to_string_lossy()
                .into_owned()
        };
        if options.rx_queues == 0 {
            return Err(Error::Option {
                port,
                option: "rx_queues",
                value: 0,
                accepted: "at least 1".to_owned(),
            });
        }
        let rx_queues = options.rx_queues.min(raw.max_rx_queues);
        // A mirror port answers on as many queues as it receives on.
        let tx_queues = tx_queues.min(if options.longest { rx_queues } else { u16::MAX });
        if tx_queues > raw.max_tx_queues {
            return Err(Error::Queues {
                port,
                asked: tx_queues,
                most: raw.max_tx_queues,
            });
        }
        let software = SOFTWARE.contains(&driver.as_str());
        let chains = options.chains
            && (raw.tx_offload_capa & sys::SHIM_TX_OFFLOAD_MULTI_SEGS != 0
                || SENDS_CHAINS.contains(&driver.as_str()));
        if !chains && tx_queues > 0 && u32::from(room) < u32::from(wanted) + LINK_HEADERS {
            return Err(Error::Option {
                port,
                option: "mtu",
                value: wanted.into(),
                accepted: format!(
                    "at most {}, since it cannot send chained mbufs",
                    u32::from(room).saturating_sub(LINK_HEADERS)
                ),
            });
        }
        let mut info = PortInfo {
            name: device.name().to_owned(),
            driver,
            interface: device.receives_from().map(str::to_owned),
            number: probed.number,
            mac: probed.mac(&port)?,
            mtu: wanted,
            rx_queues,
            max_rx_queues: raw.max_rx_queues,
            max_tx_queues: raw.max_tx_queues,
            rx_checksum: !software && raw.rx_offload_capa & sys::SHIM_RX_OFFLOAD_TCP_CKSUM != 0,
            tx_offloads: raw.tx_offload_capa,
            rss_types: raw.flow_type_rss_offloads,
            rss: false,
            table: 0,
            chains,
            software,
            clock: FrameClock::Poll,
            // SAFETY: the port exists.
            socket: u32::try_from(unsafe { sys::rte_eth_dev_socket_id(probed.number) }).ok(),
        };
        let set_up = |mtu| {
            let setup = Setup {
                port: &port,
                options,
                raw: &raw,
                rx_pool,
                software,
                mtu,
                rx_queues,
            };
            match setup.run(probed.number, tx_queues) {
                // Not every driver does without a transmit queue. Then it gets one that nobody has
                // a handle of.
                Err(_) if tx_queues == 0 && raw.max_tx_queues > 0 => setup.run(probed.number, 1),
                other => other,
            }
        };
        let mtus = if software {
            vec![wanted]
        } else {
            longest::candidates(&longest::Can::of(&raw), options, room, &port)?
        };
        let mut spread = Ok(None);
        for mtu in mtus {
            info.mtu = mtu;
            spread = set_up(mtu);
            if spread.is_ok() {
                break;
            }
        }
        let spread = spread?;
        (info.rss, info.table) = (spread.is_some(), spread.unwrap_or_default());
        find_timestamp();
        let too_long = counter(probed.number, &TOO_LONG);
        let stamped = info.interface.is_some() && ring.is_none() && register_captured_at();
        let index = device.interface().and_then(device::interface_index);
        let (mut rings, mut counters) = (Vec::new(), Vec::new());
        if let (Some((size, _)), Some(index)) = (ring, index) {
            let outgoing = options.tells_sent;
            let maker = || FrameMaker::of(rx_pool, false);
            let clock = eal.clock();
            rings = Ring::open(&port, index, size, rx_queues, outgoing, clock, maker)?;
            let sockets = rings.iter().map(|r| Arc::clone(r.socket())).collect();
            counters = rings.iter().map(|r| Arc::clone(r.counters())).collect();
            probed.rings.mute(sockets);
        }
        info.clock = match (rings.is_empty(), stamped) {
            (true, false) => FrameClock::Poll,
            _ => FrameClock::Kernel,
        };
        let was_promiscuous = probed.was_promiscuous;
        let mut inner = Self {
            info,
            promiscuous: false,
            too_long,
            device: probed,
            stamped: stamped.then(|| eal.clock()),
            rings: Mutex::new(rings.into_iter().map(Some).collect()),
            counters,
            _pools: pools.iter().map(|p| (*p).clone()).collect(),
        };
        // Starting a port ends its interface's promiscuous mode, whoever had wanted it
        // (rte_ethdev.c, eth_dev_config_restore).
        let mut promiscuous = options.promiscuous || was_promiscuous;
        if options.all_multicast {
            // SAFETY: the port is started.
            let result = unsafe { sys::rte_eth_allmulticast_enable(inner.number()) };
            promiscuous |= result < 0;
        }
        if promiscuous {
            crate::logging::clear();
            // SAFETY: the port is started.
            let result = unsafe { sys::rte_eth_promiscuous_enable(inner.number()) };
            if result < 0 && !software {
                return Err(Error::Port {
                    port,
                    step: "enabling promiscuous mode",
                    reason: reason(result),
                });
            }
            inner.promiscuous = result == 0 && !was_promiscuous;
        }
        Ok(inner)
    }

    pub(crate) fn number(&self) -> u16 {
        self.device.number
    }

    pub(crate) fn info(&self) -> &PortInfo {
        &self.info
    }

    fn stats(&self) -> PortStats {
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: the port is started and the structure is writable; integers alone, so all-zero is
        // a value of it.
        let raw = unsafe {
            sys::rte_eth_stats_get(self.number(), raw.as_mut_ptr());
            raw.assume_init()
        };
        let rings = self.device.rings.counts();
        let sum = |of: fn(&RingCounters) -> &AtomicU64| -> u64 {
            self.counters
                .iter()
                .map(|c| of(c).load(Ordering::Relaxed))
                .sum()
        };
        let (frames, no_mbuf) = (sum(|c| &c.frames), sum(|c| &c.no_mbuf));
        let taken = frames + sum(|c| &c.sent) + no_mbuf;
        PortStats {
            rx_frames: raw.ipackets + frames,
            rx_bytes: raw.ibytes + sum(|c| &c.bytes),
            rx_missed: raw.imissed + rings.dropped,
            rx_waiting: (rings.frames - rings.dropped).saturating_sub(raw.ipackets + taken),
            rx_errors: raw.ierrors,
            rx_too_long: self.too_long.and_then(|id| counted(self.number(), id)),
            rx_no_mbuf: raw.rx_nombuf + no_mbuf,
            tx_frames: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        }
    }

    /// What the queue receives from, if not from the driver. Once.
    pub(crate) fn take_ring(&self, queue: u16) -> Option<Ring> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.get_mut(usize::from(queue))?.take()
    }

    /// The clock by which the driver's times are to be told.
    pub(crate) fn stamping_clock(&self) -> Option<Clock> {
        self.stamped
    }

    fn is_link_up(&self) -> bool {
        let mut raw = MaybeUninit::<sys::rte_eth_link>::zeroed();
        // SAFETY: the port is started and the structure is writable; integers alone, so all-zero is
        // a value of it.
        unsafe {
            let result = sys::rte_eth_link_get_nowait(self.number(), raw.as_mut_ptr());
            result == 0 && sys::shim_link_is_up(raw.as_ptr()) != 0
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let number = self.number();
        // net_ring forgets the mbufs in its rings when it frees these.
        if self.info.driver == "net_ring" {
            let mut left = u32::from(self.info.rx_queues) * (1 << 16);
            for queue in 0..self.info.rx_queues {
                let mut raw: sys_mbuf = std::ptr::null_mut();
                // SAFETY: the port is started, and no queue handle is left: this is the only user
                // of its queues. Each mbuf that comes out is ours.
                while left > 0 && unsafe { sys::shim_rx_burst(number, queue, &mut raw, 1) } == 1 {
                    left -= 1;
                    // SAFETY: as above.
                    drop(NonNull::new(raw).map(|m| unsafe { Mbuf::from_raw(m) }));
                }
            }
        }
        if self.promiscuous {
            // SAFETY: the port is started.
            unsafe { sys::rte_eth_promiscuous_disable(number) };
        }
        // Stopped, closed and removed by the drop of `device`, before the pools are let go.
    }
}

#[allow(non_camel_case_types, reason = "stands beside DPDK's names")]
type sys_mbuf = *mut sys::rte_mbuf;

/// What drivers call the counter of frames that were longer than they take.
const TOO_LONG: [&CStr; 4] = [
    c"rx_oversize_errors",
    c"rx_oversize_packets",
    c"rx_oversize",
    c"rx_ovrsz_frames",
];

/// DPDK's number of a port's extended counter with one of these names (rte_ethdev.h, "xstats").
fn counter(number: u16, names: &[&CStr]) -> Option<u64> {
    names.iter().find_map(|name| {
        let mut id = 0;
        // SAFETY: the port exists, a C string and a writable number.
        let result = unsafe { sys::rte_eth_xstats_get_id_by_name(number, name.as_ptr(), &mut id) };
        (result == 0).then_some(id)
    })
}

/// The value of such a counter.
fn counted(number: u16, id: u64) -> Option<u64> {
    let mut value = 0;
    // SAFETY: the port exists; one number to read and one to write.
    let result = unsafe { sys::rte_eth_xstats_get_by_id(number, &id, &mut value, 1) };
    (result == 1).then_some(value)
}
