//! One EAL per test process, pools that are checked for leaks, and capture files.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(dead_code, reason = "each test file uses its own part")]

use arrayvec::ArrayVec;
use dpdk::{
    DATA_ROOM, Eal, EalOptions, HEADER_ROOM, Mbuf, Memory, Mempool, Port, PortOptions, RxQueue,
    TxQueue,
};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use wire::io::BURST;

/// The process's EAL, with two workers on CPU 0.
///
/// It is started on a thread of its own, which then stays: the main lcore must not be a test's
/// thread, since that ends with the test.
pub fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    EAL.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            sender.send(options().start()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap().unwrap()
    })
    .clone()
}

/// What the tests' EAL is started with.
pub fn options() -> EalOptions {
    EalOptions {
        workers: vec![0, 0],
        memory: Memory::NoHuge { mib: 96 },
        ..EalOptions::default()
    }
}

/// A number that no other call in this process got.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A pool that fails the test if mbufs of it are out when it is dropped. Declare it before whatever
/// holds its mbufs.
pub struct Pool(pub Mempool);

impl Pool {
    pub fn new(count: u32, data_room: u16) -> Self {
        Self(Mempool::new(&eal(), &format!("p{}", unique()), count, data_room, 0, None).unwrap())
    }
}

impl std::ops::Deref for Pool {
    type Target = Mempool;
    fn deref(&self) -> &Mempool {
        &self.0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.0.in_use(), 0, "mbufs of {:?} leaked", self.0);
        }
    }
}

/// A port whose transmit queue leads back to its receive queue. The fields drop in order: queues
/// before the pools.
pub struct Loop {
    pub rx: RxQueue,
    pub tx: TxQueue,
    pub port: Port,
    pub packets: Pool,
    pub headers: Pool,
}

impl Loop {
    pub fn new() -> Self {
        let packets = Pool::new(2047, DATA_ROOM);
        let headers = Pool::new(2047, HEADER_ROOM);
        let device = format!("net_ring{}", unique());
        let (port, mut rx, mut tx) =
            Port::open(&eal(), &device, &PortOptions::default(), &packets, &headers).unwrap();
        Self {
            rx: rx.remove(0),
            tx: tx.remove(0),
            port,
            packets,
            headers,
        }
    }

    /// Frames that arrive now.
    pub fn receive(&mut self) -> ArrayVec<Mbuf, BURST> {
        let mut frames = ArrayVec::new();
        self.rx.rx_burst(&mut frames);
        frames
    }

    /// A frame with these bytes.
    pub fn frame(&self, bytes: &[u8]) -> Mbuf {
        frame(&self.packets, bytes)
    }
}

/// A frame with these bytes.
pub fn frame(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut m = pool.alloc().unwrap();
    assert!(m.append(bytes));
    m
}

/// All bytes of a frame, segment after segment.
pub fn flatten(mut frame: Mbuf) -> Vec<u8> {
    let total = frame.frame_len();
    let mut bytes = frame.bytes().to_vec();
    while let Some(rest) = frame.split_rest() {
        assert_eq!(frame.frame_len(), frame.bytes().len());
        frame = rest;
        bytes.extend_from_slice(frame.bytes());
    }
    assert_eq!(bytes.len(), total);
    bytes
}

/// Bytes that show where they come from.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

/// Headers that look like an untagged IPv4 TCP frame's.
pub fn headers(seed: u8) -> Vec<u8> {
    let mut h = pattern(54, seed);
    h[12..14].copy_from_slice(&[0x08, 0x00]);
    h
}

/// A classic pcap file with these frames (draft-ietf-opsawg-pcap), each with its time in
/// microseconds.
pub fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![];
    file.extend(0xa1b2_c3d4u32.to_le_bytes());
    file.extend(2u16.to_le_bytes());
    file.extend(4u16.to_le_bytes());
    file.extend([0; 8]);
    file.extend(262_144u32.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for (micros, bytes) in frames {
        file.extend(((micros / 1_000_000) as u32).to_le_bytes());
        file.extend(((micros % 1_000_000) as u32).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend(bytes);
    }
    file
}
