//! Ports that receive what a mirror shows, and cannot send.

use super::{Inner, PortInfo, PortOptions, PortStats};
use crate::answers::AnswerQueue;
use crate::eal::Eal;
use crate::error::Error;
use crate::mempool::Mempool;
use crate::rx::RxQueue;
use crate::tx::TxQueue;
use std::marker::PhantomData;
use std::sync::Arc;

/// A port that can only receive: there is no way to send through it.
///
/// ```compile_fail
/// fn send(p: &dpdk::MirrorPort, q: &mut dpdk::RxQueue) {
///     wire::io::Tx::flush(q);
/// }
/// ```
///
/// ```compile_fail
/// fn open(eal: &dpdk::Eal, pool: &dpdk::Mempool) -> Vec<dpdk::TxQueue> {
///     let cfg = Default::default();
///     let (_port, _rx, tx) = dpdk::MirrorPort::open(eal, "net_null0", &cfg, pool).unwrap();
///     tx
/// }
/// ```
#[derive(Debug)]
pub struct MirrorPort {
    inner: Arc<Inner>,
    _unsync: PhantomData<std::cell::Cell<()>>,
}

impl MirrorPort {
    /// Opens `device` for receiving alone, for frames to any address and, unless an MTU is asked
    /// for, of any length that it can, and starts it. Frames are received into `rx_pool`.
    pub fn open(
        eal: &Eal,
        device: &str,
        options: &PortOptions,
        rx_pool: &Mempool,
    ) -> Result<(Self, Vec<RxQueue>), Error> {
        let (port, rx, _) = Self::open_with(eal, device, options, 0, rx_pool)?;
        Ok((port, rx))
    }

    /// The same for a port that has addresses: with each receive queue comes one for answers to
    /// whoever asks for them. They are built in mbufs of `rx_pool`, too.
    pub fn open_answering(
        eal: &Eal,
        device: &str,
        options: &PortOptions,
        rx_pool: &Mempool,
    ) -> Result<(Self, Vec<RxQueue>, Vec<AnswerQueue>), Error> {
        Self::open_with(eal, device, options, options.rx_queues, rx_pool)
    }

    fn open_with(
        eal: &Eal,
        device: &str,
        options: &PortOptions,
        tx_queues: u16,
        rx_pool: &Mempool,
    ) -> Result<(Self, Vec<RxQueue>, Vec<AnswerQueue>), Error> {
        let options = PortOptions {
            promiscuous: true,
            all_multicast: true,
            longest: true,
            tx_queues,
            ..options.clone()
        };
        let inner = Arc::new(Inner::open(
            eal,
            "mirror port",
            device,
            &options,
            tx_queues,
            &[rx_pool],
        )?);
        let queues = inner.info.rx_queues;
        let rx = (0..queues)
            .map(|q| RxQueue::new(Arc::clone(&inner), q))
            .collect();
        let answer = |q| TxQueue::new(Arc::clone(&inner), q, rx_pool.clone(), rx_pool.clone());
        let answers = (0..tx_queues.min(queues))
            .map(|q| AnswerQueue::new(answer(q)))
            .collect();
        Ok((
            Self {
                inner,
                _unsync: PhantomData,
            },
            rx,
            answers,
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
