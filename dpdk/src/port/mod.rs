//! Ports (rte_ethdev.h): opening, what they say of themselves, and closing.
//!
//! Opening a port yields its control handle and one handle per queue. Each queue handle exists
//! once, so no queue is ever used by two threads. The port is stopped, closed and, if its driver
//! made it, removed when the last of these handles is dropped. A port that is opened as a
//! [`MirrorPort`] has no transmit queue handle at all; one that is opened to answer has handles
//! that take answers alone.

mod device;
mod longest;
mod mirror;
mod options;
mod ring;
mod setup;
mod spread;

pub use device::data_room;
pub use mirror::MirrorPort;
pub use options::{PortInfo, PortOptions, PortStats};

use crate::eal::Eal;
use crate::error::{Error, reason};
use crate::mbuf::{Mbuf, find_timestamp};
use crate::mempool::{HEADROOM, Mempool};
use crate::rx::RxQueue;
use crate::tx::TxQueue;
use device::Device;
use dpdk_sys as sys;
use ring::Rings;
use setup::Setup;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Ports that have been opened here, so that none is opened twice.
static OPEN: Mutex<[bool; sys::RTE_MAX_ETHPORTS as usize]> =
    Mutex::new([false; sys::RTE_MAX_ETHPORTS as usize]);

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
    /// The driver holds mbufs of these until the port is closed.
    _pools: Vec<Mempool>,
}

/// A port that exists and is ours; set up or not.
#[derive(Debug)]
struct Probed {
    number: u16,
    /// The virtual device to remove.
    virtual_name: Option<CString>,
    /// What it receives from, if these are packet sockets.
    rings: Rings,
    /// The kernel's interface under it was in promiscuous mode before, and is to be afterwards.
    was_promiscuous: bool,
    eal: Eal,
}

fn lock(eal: &Eal) -> MutexGuard<'_, ()> {
    eal.inner
        .control
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
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
        let carried = device.complete(&port, queues, rx_pool.data_room(), options.mtu, wanted)?;
        let wanted = carried.map_or(wanted, |most| most.min(wanted));

        let probed = Probed::probe(eal, &device, &port)?;
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
        let was_promiscuous = probed.was_promiscuous;
        let mut inner = Self {
            info,
            promiscuous: false,
            too_long,
            device: probed,
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
        PortStats {
            rx_frames: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed + rings.dropped,
            rx_waiting: (rings.frames - rings.dropped).saturating_sub(raw.ipackets),
            rx_errors: raw.ierrors,
            rx_too_long: self.too_long.and_then(|id| counted(self.number(), id)),
            rx_no_mbuf: raw.rx_nombuf,
            tx_frames: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        }
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

impl Probed {
    fn probe(eal: &Eal, device: &Device, port: &str) -> Result<Self, Error> {
        let _guard = lock(eal);
        crate::logging::clear();
        let was_promiscuous = device
            .interface()
            .and_then(device::interface_flags)
            .is_some_and(|f| f & sys::SHIM_IFF_PROMISC != 0);
        let others = Rings::open_files(device);
        let bad_name = |_| Error::Device {
            port: port.to_owned(),
            what: "its name has a NUL byte".to_owned(),
        };
        let name = CString::new(device.name()).map_err(bad_name)?;
        let virtual_name = match device {
            Device::Existing(_) => None,
            Device::Virtual { .. } => {
                if find(&name).is_some() {
                    return Err(Error::Duplicate {
                        port: port.to_owned(),
                    });
                }
                let args = CString::new(device.args()).map_err(bad_name)?;
                // SAFETY: two C strings that live during the call, which copies them.
                let result = unsafe { sys::rte_vdev_init(name.as_ptr(), args.as_ptr()) };
                if result < 0 {
                    let port = port.to_owned();
                    // A driver that refuses says why in its log; without one, the bus says nothing.
                    return Err(match (result, crate::logging::said()) {
                        // net_af_packet's words where the kernel says EAGAIN (mmap(2)).
                        (_, Some(said)) if said.contains("call to mmap failed on AF_PACKET") => {
                            Error::LockedMemory { port }
                        }
                        (-1, None) => Error::UnknownDriver { port },
                        (-1, Some(reason)) => Error::Port {
                            port,
                            step: "making the virtual device",
                            reason,
                        },
                        (_, said) => {
                            let said = said.map(|s| format!(" ({s})")).unwrap_or_default();
                            Error::Port {
                                port,
                                step: "making the virtual device",
                                reason: reason(result) + &said,
                            }
                        }
                    });
                }
                Some(name.clone())
            }
        };
        let Some(number) = find(&name) else {
            if let Some(name) = &virtual_name {
                // SAFETY: the device was made above.
                unsafe { sys::rte_vdev_uninit(name.as_ptr()) };
            }
            return Err(Error::NoPort {
                port: port.to_owned(),
                reason: said_of(&eal.inner.said, device.name()),
            });
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(usize::from(number)) {
            Some(slot) if !*slot => *slot = true,
            _ => {
                return Err(Error::Duplicate {
                    port: port.to_owned(),
                });
            }
        }
        Ok(Self {
            number,
            virtual_name,
            rings: Rings::find(device, &others),
            was_promiscuous,
            eal: eal.clone(),
        })
    }

    fn raw_info(&self, port: &str) -> Result<sys::rte_eth_dev_info, Error> {
        let mut raw = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
        // SAFETY: the port exists and the structure is writable.
        let result = unsafe { sys::rte_eth_dev_info_get(self.number, raw.as_mut_ptr()) };
        if result < 0 {
            return Err(Error::Port {
                port: port.to_owned(),
                step: "asking what the device can do",
                reason: reason(result),
            });
        }
        // SAFETY: filled in by DPDK; it has integers and pointers alone, so all-zero would be a
        // value of it, too.
        Ok(unsafe { raw.assume_init() })
    }

    fn mac(&self, port: &str) -> Result<[u8; 6], Error> {
        let mut raw = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port exists and the structure is writable.
        let result = unsafe { sys::rte_eth_macaddr_get(self.number, &mut raw) };
        if result < 0 {
            return Err(Error::Port {
                port: port.to_owned(),
                step: "reading the Ethernet address",
                reason: reason(result),
            });
        }
        Ok(raw.addr_bytes)
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        let _guard = lock(&self.eal);
        // SAFETY: the port exists and is ours alone. Stopping one that was never started does
        // nothing, nor does asking for promiscuous mode where it is on.
        unsafe {
            if self.was_promiscuous {
                sys::rte_eth_promiscuous_enable(self.number);
            }
            sys::rte_eth_dev_stop(self.number);
            sys::rte_eth_dev_close(self.number);
            if let Some(name) = &self.virtual_name {
                sys::rte_vdev_uninit(name.as_ptr());
            }
        }
        if let Some(slot) = OPEN
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(usize::from(self.number))
        {
            *slot = false;
        }
    }
}

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

/// Number of the port with this name.
fn find(name: &CStr) -> Option<u16> {
    let mut number = 0;
    // SAFETY: a C string and a writable number.
    (unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut number) } == 0)
        .then_some(number)
}

/// What DPDK said of a device while it started: lines that name it, or else those of a fault on the
/// way to it.
fn said_of(said: &[String], device: &str) -> String {
    let is_of = |line: &&String| line.contains(device);
    let is_fault = |line: &&String| {
        ["VFIO", "vfio", "PCI", "probe", "IOVA", "uio"]
            .iter()
            .any(|word| line.contains(word))
    };
    let mut told: Vec<&str> = said.iter().filter(is_of).map(String::as_str).collect();
    if told.is_empty() {
        told = said.iter().filter(is_fault).map(String::as_str).collect();
    }
    told.truncate(crate::logging::TOLD);
    if told.is_empty() {
        "it gives no reason".to_owned()
    } else {
        told.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpdk_said_of_a_device_at_start_is_quoted() {
        let said: Vec<String> = [
            "EAL: No free 1048576 kB hugepages reported on node 0",
            "EAL: Cannot open /dev/vfio/12: Device or resource busy",
            "EAL: Requested device 0000:01:00.0 cannot be used",
        ]
        .map(String::from)
        .into();
        assert_eq!(said_of(&said, "0000:01:00.0"), said[2]);
        assert_eq!(said_of(&said, "0000:02:00.0"), said[1]);
        assert_eq!(said_of(&said[..1], "0000:02:00.0"), "it gives no reason");
    }
}
