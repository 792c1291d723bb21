//! The mirror: what of production it shows the core, and when.

use crate::packet;
use crate::plan::{End, MANY, Strays};
use crate::script::{Part, Script, Shot, byte_at};
use crate::world::{Event, MS, SECOND, World};
use replay::Pace;
use tests::memory::MemoryFrame;
use wire::decode::{LinkType, verified_on};
use wire::io::Frame;
use wire::{Flags, Head, Nanos};

/// When the capture began, on the clock that stamps its frames.
const EPOCH: Nanos = 1_700_000_000 * SECOND;
/// How much faster than production a recording without a pace is taken to come.
const UNPACED: Nanos = 4_000;
/// Stamped frames are taken from the wire so many nanoseconds' worth at a time.
const TOGETHER: Nanos = 100_000;

/// A frame on the mirror.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// When it is captured.
    pub seen: Nanos,
    pub talk: usize,
    pub shot: usize,
    /// So many bytes at its end are not.
    pub cut: usize,
    pub damaged: bool,
}

impl World {
    /// When the core is shown what happens at `at` in production.
    fn ours(&self, at: Nanos) -> Nanos {
        match self.plan.pace {
            Pace::Live if self.plan.stamped => at.next_multiple_of(TOGETHER),
            Pace::Unpaced => at / UNPACED,
            pace => pace.ours(at),
        }
    }

    fn show_at(&mut self, at: Nanos, mut shown: Shown) {
        // Of two queues each may have its own order.
        if self.plan.pace == Pace::Live || self.rng.percent(70) {
            shown.seen = at;
        }
        self.at(self.ours(at), Event::Mirror(shown));
    }

    /// Puts all of the scripts on the mirror, with the mirror's faults.
    pub fn show_scripts(&mut self) {
        for talk in 0..self.scripts.len() {
            // A port that is used again is told from what it was used for by the SYN.
            let alone = self.plan.talks[talk].port.is_some();
            let first = if alone { self.plan.late } else { 0 };
            for shot in first..self.scripts[talk].shots.len() {
                self.show(talk, shot);
            }
        }
        let limited = self.plan.max_segments != MANY;
        // A stray may end a conversation, which begins anew without an end; and one whose SYN comes
        // late may begin behind its end.
        let ends = self.plan.talks.iter().all(|t| t.end != End::Never)
            && self.plan.strays != Strays::Within
            && !self.plan.loses_handshakes();
        if self.plan.pace != Pace::Live || !ends || limited || !self.plan.mirror_is_whole() {
            let last = self.scripts.iter().map(Script::end).max().unwrap_or(0);
            self.at(self.ours(last + 5 * SECOND), Event::End);
        }
    }

    fn show(&mut self, talk: usize, shot: usize) {
        let faults = self.plan.mirror;
        let Shot { at, head, part } = self.scripts[talk].shots[shot];
        let whole = part != Part::Talk && !self.plan.lossy_handshakes;
        if !whole && self.rng.percent(faults.loss) {
            return;
        }
        let late = if !whole && self.rng.percent(faults.reorder) {
            self.rng.range(0, faults.jitter)
        } else {
            0
        };
        let cut = if head.payload_len > 0 && self.rng.percent(faults.cut) {
            self.rng.range(1, u64::from(head.payload_len)) as usize
        } else {
            0
        };
        let shown = |cut, damaged| Shown {
            seen: at,
            talk,
            shot,
            cut,
            damaged,
        };
        // What was damaged before production got it, the client sends again.
        let damaged = !whole && self.rng.percent(faults.damage);
        if damaged && self.rng.percent(50) {
            let later = self.rng.range(0, faults.jitter);
            self.show_at(at + later, shown(0, false));
        }
        // Another frame of a stray might come when its session is over, and begin one.
        if part != Part::Stray && self.rng.percent(faults.duplicate) {
            let spoilt = damaged || cut > 0;
            let most = if spoilt { faults.jitter } else { 3 * MS };
            let later = self.rng.range(0, most);
            self.show_at(at + later, shown(0, false));
            if !whole && cut == 0 && faults.reorder > 0 && self.rng.percent(50) {
                return;
            }
        }
        self.show_at(at + late, shown(cut, damaged));
    }

    /// The core is shown a frame.
    pub fn mirror(&mut self, shown: &Shown) {
        let Shown {
            seen,
            talk,
            shot,
            cut,
            damaged,
        } = *shown;
        let script = &self.scripts[talk];
        let Shot { head, part, .. } = script.shots[shot];
        let to_production = head.flow.src == script.client;
        // Nobody of the conversation has said what a stray says.
        let other = if part == Part::Stray { 0xff } else { 0 };
        let payload: Vec<u8> = (0..head.payload_len)
            .map(|i| byte_at(head.seq + i) ^ other)
            .collect();
        let vlan = self.plan.vlan(talk, !to_production);
        let mut bytes = packet::tagged(&head, &payload, vlan);
        if damaged {
            bytes = self.damaged(&bytes, packet::ip_at(vlan));
        } else {
            bytes.truncate(bytes.len() - cut);
        }
        // A checksum can be verified where all it covers is at hand.
        let buffer = if self.plan.mirror.damage > 0 {
            usize::MAX
        } else {
            self.rng.pick(&[100, 2048, usize::MAX])
        };
        let mut frame = MemoryFrame::chained(&bytes, buffer);
        if self.plan.stamped || self.plan.pace != Pace::Live {
            // Of a live mirror the times are told by our own clock.
            let epoch = if self.plan.pace == Pace::Live {
                0
            } else {
                EPOCH
            };
            frame = frame.captured_at(epoch + seen);
        }
        let packet = match verified_on(LinkType::Ethernet, frame.bytes(), frame.frame_len()) {
            Ok(packet) => packet,
            Err(skip) => {
                assert!(damaged, "{head:?} is refused: {skip}");
                return self.tell("mirror", &head, &format!("damaged: {skip}"));
            }
        };
        if damaged {
            // What no checksum covers makes no difference.
            assert_eq!(packet.head, head, "damage was not noticed");
        }
        if part != Part::Stray {
            self.note(talk, &head, packet.captured);
        }
        let result = self.core.mirror(self.now, &packet, frame, &mut self.out);
        let network = vlan.map_or(String::new(), |v| format!(" in VLAN {v}"));
        self.tell(
            "mirror",
            &head,
            &format!("{part:?}{network} cut {cut}: {result:?}"),
        );
    }

    /// A frame of the mirror with damage. An IPv6 length that is larger than the frame is not told
    /// from a frame that was cut, nor a right checksum that has become the sum of the
    /// pseudo-header from one that hardware was to finish.
    fn damaged(&mut self, sound: &[u8], ip_at: usize) -> Vec<u8> {
        loop {
            let mut bytes = sound.to_vec();
            packet::damage(&mut bytes[ip_at..], &mut self.rng);
            let decoded = verified_on(LinkType::Ethernet, &bytes, bytes.len());
            if !decoded
                .is_ok_and(|p| p.is_truncated() || packet::is_unfinished(&p, &bytes[ip_at..]))
            {
                return bytes;
            }
        }
    }

    /// What the mirror told by a frame with this head, of whose payload so much was captured.
    fn note(&mut self, talk: usize, head: &Head, captured: usize) {
        let script = &self.scripts[talk];
        let to_production = head.flow.src == script.client;
        self.fins[talk] |= to_production && head.flags.has(Flags::FIN);
        if to_production && head.payload_len > 0 {
            let from = head.seq.since(script.first) as usize;
            self.out.captured[talk][from..from + captured].fill(true);
        }
        let tells = if to_production {
            head.seq + head.payload_len
        } else {
            head.ack
        };
        let mut tells = script.offset(tells).unwrap_or(0);
        if head.flags.has(Flags::RST) && !head.flags.has(Flags::ACK) {
            // A reset without an acknowledgment is not believed beyond what is known.
            tells = 0;
        }
        self.told[talk] = self.told[talk].max(tells);
    }
}
