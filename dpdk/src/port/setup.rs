//! The steps that make a probed port run (rte_ethdev.h): configure, set up every queue, start.

use super::{LINK_HEADERS, PortOptions, spread};
use crate::error::{Error, errno, reason};
use crate::mempool::{HEADROOM, Mempool};
use dpdk_sys as sys;
use std::mem::MaybeUninit;

/// What the steps of a set-up need.
pub(super) struct Setup<'a> {
    pub(super) port: &'a str,
    pub(super) options: &'a PortOptions,
    pub(super) raw: &'a sys::rte_eth_dev_info,
    pub(super) rx_pool: &'a Mempool,
    pub(super) software: bool,
    pub(super) mtu: u16,
    pub(super) rx_queues: u16,
}

/// How the NIC spreads flows; by how many values of the hash, if it does.
pub(super) type Spread = Option<u16>;

impl Setup<'_> {
    /// Configures, sets up all queues and starts. Returns how the NIC spreads flows.
    pub(super) fn run(&self, number: u16, tx_queues: u16) -> Result<Spread, Error> {
        crate::logging::clear();
        let step = |step: &'static str, result: i32| {
            if result < 0 {
                let result = if result == -1 { errno() } else { result };
                return Err(Error::Port {
                    port: self.port.to_owned(),
                    step,
                    reason: reason(result),
                });
            }
            Ok(())
        };
        // SAFETY: a structure of integers and pointers: all-zero is a value of it, and is how DPDK
        // wants it to begin.
        let mut conf: sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        // Not MBUF_FAST_FREE: mbufs of several pools are sent, and some have other holders.
        conf.txmode.offloads = self.raw.tx_offload_capa & sys::SHIM_TX_OFFLOAD_MULTI_SEGS;
        if !self.software {
            // A software driver would sum up in its turn what the decoder sums up anyway.
            conf.rxmode.offloads |= self.raw.rx_offload_capa & sys::SHIM_RX_OFFLOAD_TCP_CKSUM;
            conf.rxmode.mtu = self.mtu.into();
            let room = u32::from(self.rx_pool.data_room().saturating_sub(HEADROOM));
            if u32::from(self.mtu) + LINK_HEADERS > room {
                conf.rxmode.offloads |= self.raw.rx_offload_capa & sys::SHIM_RX_OFFLOAD_SCATTER;
            }
        }
        let types = spread::types(self.raw.flow_type_rss_offloads);
        let rss = self.options.rss && self.rx_queues > 1 && types != 0;
        let mut key = spread::key(self.raw.hash_key_size);
        if rss {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as _;
            conf.rx_adv_conf.rss_conf.rss_hf = types;
        }
        // SAFETY: the port exists and is stopped; `conf` and `key` live during the calls, and the
        // pool longer than the port.
        unsafe {
            step(
                "configuring",
                sys::rte_eth_dev_configure(number, self.rx_queues, tx_queues, &conf),
            )?;
            let (mut rx_desc, mut tx_desc) = (self.options.rx_desc, self.options.tx_desc);
            step(
                "fixing the descriptors",
                sys::rte_eth_dev_adjust_nb_rx_tx_desc(number, &mut rx_desc, &mut tx_desc),
            )?;
            let socket = sys::rte_eth_dev_socket_id(number).cast_unsigned();
            for queue in 0..self.rx_queues {
                let pool = self.rx_pool.as_ptr();
                let result = sys::rte_eth_rx_queue_setup(
                    number,
                    queue,
                    rx_desc,
                    socket,
                    std::ptr::null(),
                    pool,
                );
                step("setting up a receive queue", result)?;
            }
            for queue in 0..tx_queues {
                let result =
                    sys::rte_eth_tx_queue_setup(number, queue, tx_desc, socket, std::ptr::null());
                step("setting up a transmit queue", result)?;
            }
            step("starting", sys::rte_eth_dev_start(number))?;
        }
        // Many drivers fill the table anew when a port is started.
        Ok(rss.then(|| {
            let (size, cores) = (self.raw.reta_size, self.options.cores);
            spread::fill(number, size, self.rx_queues, cores)
        }))
    }
}
