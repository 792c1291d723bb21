//! Segments as scripts write them: `P. 1:101(100) ack 1 win 65535 <TS 1000 5>`.
//!
//! Numbers in a script count from the initial sequence numbers, so that a script reads the same
//! wherever they lie on the circle.

use std::fmt::Write;
use wire::{Flags, Head, Options, Seq};

/// The window field where a script does not name one.
pub const WINDOW: u16 = u16::MAX;

/// One of the two values of a timestamps option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// `*`: whatever it is.
    Any,
    /// This.
    Is(u32),
}

impl Stamp {
    fn matches(self, value: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Is(v) => v == value,
        }
    }

    fn value(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Is(v) => v,
        }
    }
}

/// The options in angle brackets.
#[derive(Clone, Debug, Default)]
pub struct OptionSpec {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<(Stamp, Stamp)>,
    /// Edges of blocks, relative to the stream they tell of.
    pub sack: Vec<(u32, u32)>,
    /// `...`: those not named are not looked at.
    pub others: bool,
}

/// A segment without its connection.
#[derive(Clone, Debug)]
pub struct Spec {
    pub flags: Flags,
    /// Relative, as all of them.
    pub seq: u32,
    pub len: u32,
    pub ack: Option<u32>,
    pub window: Option<u16>,
    pub urgent: Option<u16>,
    pub options: OptionSpec,
}

/// Where the numbers of one direction count from.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// Of the sender's sequence numbers.
    pub seq: Seq,
    /// Of its acknowledgment numbers.
    pub ack: Seq,
}

impl Spec {
    /// The header that it stands for.
    pub fn head(&self, flow: wire::Flow, base: Base) -> Head {
        let mut options = Options {
            mss: self.options.mss,
            window_scale: self.options.window_scale,
            sack_permitted: self.options.sack_permitted,
            timestamps: self.options.timestamps.map(|(a, b)| (a.value(), b.value())),
            ..Options::default()
        };
        for &(left, right) in &self.options.sack {
            options.push_sack(base.ack + left, base.ack + right);
        }
        Head {
            flow,
            seq: base.seq + self.seq,
            ack: self.ack.map_or(Seq(0), |a| base.ack + a),
            flags: self.flags,
            window: self.window.unwrap_or(WINDOW),
            urgent: self.urgent.unwrap_or(0),
            options,
            payload_len: self.len,
        }
    }

    /// Says what of `head` is another than this; `None` if nothing is.
    pub fn difference(&self, head: &Head, base: Base) -> Option<&'static str> {
        let want = self.head(head.flow, base);
        let o = &self.options;
        let stamps = match (o.timestamps, head.options.timestamps) {
            (Some((a, b)), Some((value, echo))) => a.matches(value) && b.matches(echo),
            (None, found) => o.others || found.is_none(),
            (Some(_), None) => false,
        };
        let checks = [
            ("flags", want.flags == head.flags),
            ("sequence number", want.seq == head.seq),
            ("length", want.payload_len == head.payload_len),
            ("acknowledgment number", want.ack == head.ack),
            ("window", want.window == head.window),
            ("urgent pointer", want.urgent == head.urgent),
            (
                "MSS",
                want.options.mss == head.options.mss || (o.others && o.mss.is_none()),
            ),
            (
                "window scale",
                want.options.window_scale == head.options.window_scale
                    || (o.others && o.window_scale.is_none()),
            ),
            (
                "SACK permitted",
                want.options.sack_permitted == head.options.sack_permitted
                    || (o.others && !o.sack_permitted),
            ),
            ("timestamps", stamps),
            (
                "SACK blocks",
                want.options.sack_blocks() == head.options.sack_blocks()
                    || (o.others && o.sack.is_empty()),
            ),
        ];
        checks.iter().find(|c| !c.1).map(|c| c.0)
    }
}

/// A header in the script's own words.
pub fn describe(head: &Head, base: Base) -> String {
    let place = |s: Seq, from: Seq| i64::from(s.0.wrapping_sub(from.0) as i32);
    let (seq, len) = (place(head.seq, base.seq), i64::from(head.payload_len));
    let mut text = format!("{:?} ", head.flags);
    let _ = if len == 0 {
        write!(text, "{seq}(0)")
    } else {
        write!(text, "{seq}:{}({len})", seq + len)
    };
    if head.flags.has(Flags::ACK) {
        let _ = write!(text, " ack {}", place(head.ack, base.ack));
    }
    if head.window != WINDOW {
        let _ = write!(text, " win {}", head.window);
    }
    if head.urgent != 0 {
        let _ = write!(text, " urg {}", head.urgent);
    }
    let mut options = Vec::new();
    let o = &head.options;
    options.extend(o.mss.map(|m| format!("mss {m}")));
    options.extend(o.sack_permitted.then(|| "sackOK".to_owned()));
    options.extend(o.timestamps.map(|(a, b)| format!("TS {a} {b}")));
    options.extend(o.window_scale.map(|w| format!("wscale {w}")));
    if !o.sack_blocks().is_empty() {
        let mut blocks = "sack".to_owned();
        for &(left, right) in o.sack_blocks() {
            let _ = write!(
                blocks,
                " {}:{}",
                place(left, base.ack),
                place(right, base.ack)
            );
        }
        options.push(blocks);
    }
    if !options.is_empty() {
        let _ = write!(text, " <{}>", options.join(","));
    }
    text
}
