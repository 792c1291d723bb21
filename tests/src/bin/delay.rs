//! A delay line: takes the frames of each of two interfaces, keeps them for a time, and sends them
//! out of the other.
//!
//! It stands for the distance to a target. The kernel here has no queueing discipline that delays,
//! so the frames go through DPDK's af_packet driver. Frames keep their order, unless a share of
//! them is to overtake others; one that comes when the line is full is lost, as on any long line.
#![forbid(unsafe_code)]

use anyhow::{Result, anyhow};
use arrayvec::ArrayVec;
use clap::Parser;
use dpdk::{
    DATA_ROOM, Eal, EalOptions, HEADER_ROOM, Memory, Mempool, Payload, Port, PortOptions, RxQueue,
    TxQueue,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use wire::io::{BURST, Rx, TxError};

/// Delays frames between two interfaces.
#[derive(Parser)]
struct Args {
    /// The two interfaces.
    #[arg(long, num_args = 2, required = true)]
    between: Vec<String>,
    /// Time that each frame takes from one to the other, in milliseconds.
    #[arg(long)]
    ms: u64,
    /// Share of the frames, in thousandths, that overtake others which are in the line.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    early: u64,
    /// How many of them at most.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    past: u64,
}

/// Bytes of a frame that go before its payload: the Ethernet header.
const HEADER: usize = 14;
/// Frames that each direction holds at most.
const LINE: usize = 8_192;
const NAP: Duration = Duration::from_micros(200);

struct Held {
    due: Instant,
    header: [u8; HEADER],
    payload: Payload,
}

/// One direction.
struct Line {
    rx: RxQueue,
    tx: TxQueue,
    held: VecDeque<Held>,
    delay: Duration,
    overtaking: Overtaking,
}

/// Which frames overtake how many: pseudo-random (xorshift), and the same in each run.
#[derive(Clone, Copy)]
struct Overtaking {
    early: u64,
    past: u64,
    state: u64,
}

impl Overtaking {
    fn draw(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state >> 11
    }

    /// How many frames the next one overtakes.
    fn next(&mut self) -> usize {
        if self.draw() % 1000 < self.early {
            (1 + self.draw() % self.past) as usize
        } else {
            0
        }
    }
}

impl Line {
    /// Takes what has come and sends what is due. Returns how many frames moved.
    fn step(&mut self, burst: &mut ArrayVec<<RxQueue as Rx>::Frame, BURST>) -> usize {
        let mut moved = self.rx.rx_burst(burst);
        let now = Instant::now();
        for frame in burst.drain(..) {
            let bytes = frame.bytes();
            let (Some(header), n) = (bytes.first_chunk::<HEADER>().copied(), bytes.len()) else {
                continue;
            };
            if self.held.len() < LINE {
                let at = self.held.len().saturating_sub(self.overtaking.next());
                // With the time of those it overtakes they all leave in one burst: the order
                // changes, and hardly the time.
                let due = self.held.get(at).map_or(now + self.delay, |h| h.due);
                let held = Held {
                    due,
                    header,
                    payload: frame.into_payload(HEADER..n),
                };
                self.held.insert(at, held);
            }
        }
        while let Some(held) = self.held.front_mut() {
            if held.due > now {
                break;
            }
            let n = held.payload.len();
            match self.tx.send(&held.header, Some((&mut held.payload, 0..n))) {
                Err(TxError::Full | TxError::NoBuffer) => break,
                Ok(()) | Err(TxError::TooLong) => {
                    moved += 1;
                    self.held.pop_front();
                }
            }
        }
        self.tx.flush();
        moved
    }
}

/// A port with its pools, the queues apart.
fn open(eal: &Eal, number: usize, interface: &str) -> Result<(Port, RxQueue, TxQueue)> {
    let frames = 2 * LINE as u32;
    let packets = Mempool::new(eal, &format!("packets{number}"), frames, DATA_ROOM, 0, None)?;
    let headers = Mempool::new(
        eal,
        &format!("headers{number}"),
        4_095,
        HEADER_ROOM,
        0,
        None,
    )?;
    let device = format!("net_af_packet{number},iface={interface},framecnt=4096");
    let options = PortOptions {
        promiscuous: true,
        ..PortOptions::default()
    };
    let (port, rx, tx) = Port::open(eal, &device, &options, &packets, &headers)?;
    let queue = |what: &str| anyhow!("{interface}: has no {what} queue");
    let rx = rx.into_iter().next().ok_or_else(|| queue("receive"))?;
    let tx = tx.into_iter().next().ok_or_else(|| queue("transmit"))?;
    Ok((port, rx, tx))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let [a, b] = args.between.as_slice() else {
        return Err(anyhow!("--between: two interfaces are needed"));
    };
    let eal = EalOptions {
        memory: Memory::NoHuge { mib: 192 },
        ..EalOptions::default()
    }
    .start()?;
    let (_port_a, rx_a, tx_a) = open(&eal, 0, a)?;
    let (_port_b, rx_b, tx_b) = open(&eal, 1, b)?;
    let delay = Duration::from_millis(args.ms);
    let line = |rx, tx| Line {
        rx,
        tx,
        held: VecDeque::with_capacity(LINE),
        delay,
        overtaking: Overtaking {
            early: args.early,
            past: args.past,
            state: 0x9e37_79b9_7f4a_7c15,
        },
    };
    let mut lines = [line(rx_a, tx_b), line(rx_b, tx_a)];
    eprintln!("ready: {} ms between {a} and {b}", args.ms);
    let mut burst = ArrayVec::new();
    loop {
        let moved: usize = lines.iter_mut().map(|l| l.step(&mut burst)).sum();
        if moved == 0 {
            std::thread::sleep(NAP);
        }
    }
}
