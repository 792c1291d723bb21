//! Offline replay: a capture file, read through net_pcap, played at the pace it was recorded at, at
//! a multiple of that, or as fast as the target answers.
//!
//! net_pcap delivers as fast as it is asked, so the pace is made here from each frame's capture
//! time. Nothing of a file is ever dropped for lack of speed: when buffers or rings fill up,
//! reading waits.

use arrayvec::ArrayVec;
use config::replay::Speed;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use wire::Nanos;
use wire::decode::LinkType;
use wire::io::{BURST, Frame, Rx};

/// Polls in a row that must come back empty before the file counts as read: net_pcap returns
/// nothing only at its end, or for lack of mbufs.
const EMPTY_POLLS: u32 = 8;

/// Plays the frames of one queue.
pub struct Player<R: Rx> {
    queue: Option<R>,
    waiting: VecDeque<R::Frame>,
    speed: Speed,
    /// Capture time of the first frame, and when it was played.
    began: Option<(Nanos, Nanos)>,
    empty: u32,
}

impl<R: Rx> Player<R> {
    /// Plays `queue` at `speed`.
    pub fn new(queue: R, speed: Speed) -> Self {
        Self {
            queue: Some(queue),
            waiting: VecDeque::with_capacity(BURST),
            speed,
            began: None,
            empty: 0,
        }
    }

    /// Puts in the file once more, from its beginning.
    pub fn again(&mut self, queue: R) {
        self.queue = Some(queue);
        self.began = None;
        self.empty = 0;
    }

    /// The next frame, if it is due.
    pub fn next(&mut self, now: Nanos) -> Option<R::Frame> {
        if self.waiting.is_empty() {
            let queue = self.queue.as_mut()?;
            let mut frames = ArrayVec::<_, BURST>::new();
            self.empty = if queue.rx_burst(&mut frames) == 0 {
                self.empty + 1
            } else {
                0
            };
            self.waiting.extend(frames);
        }
        let captured = self.waiting.front()?.captured_at().unwrap_or(0);
        let (first, start) = *self.began.get_or_insert((captured, now));
        let due = match self.speed {
            Speed::Max => now,
            // Captures are not always in order; what lies before the first frame is due at once.
            Speed::Factor(f) => start + (captured.saturating_sub(first) as f64 / f) as Nanos,
        };
        if now >= due {
            self.waiting.pop_front()
        } else {
            None
        }
    }

    /// True when all of the file was played.
    pub fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.empty >= EMPTY_POLLS
    }

    /// The queue, when it is through: its port can be closed.
    pub fn take_spent(&mut self) -> Option<R> {
        if self.is_finished() {
            self.queue.take()
        } else {
            None
        }
    }

    /// True if it is to go as fast as the target answers.
    pub fn is_unpaced(&self) -> bool {
        self.speed == Speed::Max
    }
}

/// How the frames of a pcap or pcapng file begin, which net_pcap does not say. `Err` is a sentence.
pub fn link_type(path: &Path) -> Result<LinkType, String> {
    let name = path.display();
    let mut head = Vec::new();
    File::open(path)
        .and_then(|f| f.take(4_096).read_to_end(&mut head))
        .map_err(|e| format!("mirror.file: {name} cannot be read: {e}"))?;
    let number = pcap_link_type(&head).ok_or_else(|| {
        format!("mirror.file: {name} is no capture file: give a pcap or pcapng file")
    })?;
    LinkType::from_pcap(number).ok_or_else(|| {
        format!(
            "mirror.file: {name} has link type {number}, which is not understood: give a capture of Ethernet (1), raw IP (101), loopback (0) or Linux cooked (113, 276) frames"
        )
    })
}

/// The number of the (first) link type in a capture file's head.
fn pcap_link_type(head: &[u8]) -> Option<u16> {
    let word = |at: usize, big: bool| {
        let b: [u8; 4] = head.get(at..at + 4)?.try_into().ok()?;
        Some(if big {
            u32::from_be_bytes(b)
        } else {
            u32::from_le_bytes(b)
        })
    };
    match word(0, false)? {
        0xa1b2_c3d4 | 0xa1b2_3c4d => Some(word(20, false)? as u16),
        0xd4c3_b2a1 | 0x4d3c_b2a1 => Some(word(20, true)? as u16),
        // pcapng: a section header block, then an interface description block.
        0x0a0d_0d0a => {
            let big = word(8, true)? == 0x1a2b_3c4d;
            let mut at = word(4, big)? as usize;
            while word(at, big)? != 1 {
                at += (word(at + 4, big)? as usize).max(12);
            }
            Some((word(at + 8, big)? >> if big { 16 } else { 0 }) as u16)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_link_type_of_every_file_format() {
        let mut pcap = vec![0; 24];
        pcap[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        pcap[20] = 113;
        assert_eq!(pcap_link_type(&pcap), Some(113));
        let mut swapped = vec![0; 24];
        swapped[..4].copy_from_slice(&0xa1b2_3c4d_u32.to_be_bytes());
        swapped[23] = 101;
        assert_eq!(pcap_link_type(&swapped), Some(101));
        for big in [false, true] {
            let word = |v: u32| {
                if big {
                    v.to_be_bytes()
                } else {
                    v.to_le_bytes()
                }
            };
            let link: [u8; 4] = if big { [1, 20, 0, 0] } else { [20, 1, 0, 0] };
            let ng = [
                word(0x0a0d_0d0a),
                word(28),
                word(0x1a2b_3c4d),
                [0; 4],
                [0; 4],
                [0; 4],
                word(28),
                word(1),
                word(20),
                link,
                [0; 4],
                word(20),
            ];
            assert_eq!(pcap_link_type(&ng.concat()), Some(276), "big endian: {big}");
        }
        assert_eq!(pcap_link_type(b"not a capture at all"), None);
        assert_eq!(pcap_link_type(b""), None);
    }
}
