//! Two targets without state: each segment of a client says itself where both streams stand. What
//! they make of it depends on their mood, which changes by the minute.

use crate::frame::build;
use crate::rng::Rng;
use crate::{MS, TARGETS};
use wire::decode::{Local, local};
use wire::{Flags, Head, Nanos, Options, Seq};

/// How a target behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moods {
    /// As it should.
    Well,
    /// It answers nothing.
    Silent,
    /// It refuses connections.
    Closed,
    /// It resets one connection in some.
    Rude,
    /// It closes after each answer.
    Hasty,
    /// Its window is closed now and then.
    Full,
    /// It acknowledges nothing and claims, by SACK, to have anything.
    Confused,
    /// It acknowledges a byte at a time.
    Petty,
}

const ILL: [Moods; 7] = [
    Moods::Silent,
    Moods::Closed,
    Moods::Rude,
    Moods::Hasty,
    Moods::Full,
    Moods::Confused,
    Moods::Petty,
];

/// See the module's documentation.
pub struct Targets {
    /// Of each target.
    pub moods: [Moods; 2],
}

impl Targets {
    /// Both are well.
    pub fn new() -> Self {
        Self {
            moods: [Moods::Well; 2],
        }
    }

    /// A new minute begins: in one of four a target is ill.
    pub fn change(&mut self, minute: u64, rng: &mut Rng) {
        for mood in &mut self.moods {
            *mood = if minute > 0 && rng.per_mille(250) {
                ILL[rng.range(0, ILL.len() as u64 - 1) as usize]
            } else {
                Moods::Well
            };
        }
    }

    /// What a target sends for this frame of ours, each with its delay.
    pub fn answers(&self, now: Nanos, sent: &[u8], rng: &mut Rng) -> Vec<(Nanos, Vec<u8>)> {
        let Local::Tcp(packet) = local(sent, sent.len()) else {
            panic!("what is sent is a sound TCP segment: {sent:02x?}");
        };
        let head = &packet.head;
        let Some(i) = TARGETS.iter().position(|t| *t == head.flow.dst) else {
            panic!("it goes to no target: {:?}", head.flow);
        };
        if rng.per_mille(5) || head.flags.has(Flags::RST) {
            return Vec::new();
        }
        let mood = self.moods[i];
        let mut replies = Vec::new();
        self.reply(mood, now, head, rng, &mut replies);
        replies.retain(|_| !rng.per_mille(5));
        replies
            .into_iter()
            .map(|(head, len)| (rng.range(MS / 20, 20 * MS), build(&head, &vec![b'a'; len])))
            .collect()
    }

    fn reply(
        &self,
        mood: Moods,
        now: Nanos,
        head: &Head,
        rng: &mut Rng,
        out: &mut Vec<(Head, usize)>,
    ) {
        let syn = head.flags.has(Flags::SYN);
        let back = |flags: Flags, seq: Seq, ack: Seq| Head {
            flow: head.flow.reversed(),
            seq,
            ack,
            flags: flags.with(Flags::ACK),
            window: 60_000,
            urgent: 0,
            options: Options {
                timestamps: head
                    .options
                    .timestamps
                    .map(|(value, _)| ((now / MS) as u32, value)),
                ..Options::default()
            },
            payload_len: 0,
        };
        let reset = || back(Flags::RST, head.ack, head.end());
        match mood {
            Moods::Silent => return,
            Moods::Closed if syn => return out.push((reset(), 0)),
            Moods::Rude if rng.per_mille(100) => return out.push((reset(), 0)),
            _ => {}
        }
        if syn {
            let mut accepts = back(Flags::SYN, Seq(!head.seq.0), head.seq + 1);
            accepts.options.mss = Some([1_460, 536, 1][rng.range(0, 2) as usize]);
            accepts.options.window_scale = Some(rng.range(0, 14) as u8);
            accepts.options.sack_permitted = true;
            return out.push((accepts, 0));
        }
        if head.payload_len == 0 && !head.flags.has(Flags::FIN) {
            return;
        }
        let mut reply = back(Flags::ACK, head.ack, head.end());
        match mood {
            Moods::Full if rng.per_mille(300) => reply.window = 0,
            Moods::Confused => {
                reply.ack = head.seq;
                for block in &mut reply.options.sack[..3] {
                    let left = head.seq + rng.range(0, 5_000) as u32;
                    *block = (left, left + rng.range(0, 3_000) as u32);
                }
                reply.options.sack_count = 3;
                return out.push((reply, 0));
            }
            Moods::Petty => reply.ack = head.seq + 1,
            _ => {}
        }
        let len = if head.payload_len > 0 {
            rng.range(0, 1_200) as usize
        } else {
            0
        };
        if head.flags.has(Flags::FIN) || mood == Moods::Hasty {
            reply.flags = reply.flags.with(Flags::FIN);
        }
        if len > 0 {
            reply.flags = reply.flags.with(Flags::PSH);
        }
        reply.payload_len = len as u32;
        out.push((reply, len));
    }
}
