//! From a script's text to its events. A line that cannot be read is named with what would be right
//! in its place.

use crate::segment::{OptionSpec, Spec, Stamp};
use crate::settings::{Settings, duration, endpoint};
use replay::Refused;
use wire::{Endpoint, Flags, Nanos};

/// When an event happens, counted from the event before it.
#[derive(Clone, Copy, Debug)]
pub struct When {
    pub from: Nanos,
    /// Only `sent` may have a range.
    pub to: Nanos,
}

/// How a frame reaches the mirror.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Payload bytes missing at its end.
    pub cut: usize,
    /// Bytes in each of the buffers it is chained of.
    pub buffers: Option<usize>,
    /// It is a datagram put together from IP fragments of this size, the way the reassembler hands
    /// it on.
    pub fragments: Option<usize>,
    /// All of its payload is this byte.
    pub fill: Option<u8>,
    /// The VLANs it is tagged with, the outermost first.
    pub vlans: Vec<u16>,
    /// When it was captured, counted from the beginning of the recording.
    pub at: Option<Nanos>,
    /// A bit of it was damaged on its way to the mirror: its checksum is wrong.
    pub damaged: bool,
    /// The check of what is sent is not told of it: it takes these bytes for never captured. A
    /// test of that check.
    pub unlisted: bool,
}

/// What a line says.
#[derive(Clone, Debug)]
pub enum Event {
    Mirror {
        from_client: bool,
        name: String,
        spec: Spec,
        shape: Shape,
    },
    Sent {
        name: String,
        spec: Spec,
        from: Option<Endpoint>,
        /// All of its payload is this byte.
        fill: Option<u8>,
    },
    Target {
        name: String,
        spec: Spec,
        /// How long before it was handed on it had been received.
        earlier: Nanos,
    },
    /// The kernel tells that a segment of ours left now.
    Left(String, Spec),
    TooBig {
        name: String,
        mtu: u32,
        /// Counted from the initial sequence number; that of the latest payload if it is not said.
        seq: Option<u32>,
    },
    Quiet,
    /// For the transfer of which family, if not for both.
    Queue(Option<Refused>, Option<Family>),
    Intercept(bool),
    Drain,
    EndAll,
    Abandon,
    Expect(Vec<(String, u64)>),
    End,
}

/// Which of the two transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// By how much everything moves on in each further round of a repeated block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Numbers of the clients.
    pub client: u64,
    /// Numbers of the servers and of the targets.
    pub server: u64,
    /// The clients' ports.
    pub port: u64,
}

/// Lines that are played several times.
#[derive(Clone, Debug)]
pub struct Block {
    /// How often.
    pub times: u64,
    pub step: Step,
    pub lines: Vec<Line>,
}

/// What a script consists of.
#[derive(Clone, Debug)]
pub enum Item {
    Line(Line),
    Block(Block),
}

/// One event and where it stands.
#[derive(Clone, Debug)]
pub struct Line {
    pub number: usize,
    pub text: String,
    pub when: When,
    pub event: Event,
}

/// A script that could be read.
#[derive(Clone, Debug)]
pub struct Script {
    pub settings: Settings,
    pub items: Vec<Item>,
}

impl Script {
    /// Its lines in the order in which they stand.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.items.iter().flat_map(|item| match item {
            Item::Line(line) => std::slice::from_ref(line),
            Item::Block(block) => &block.lines,
        })
    }
}

const EVENTS: &str = "mirror, sent, target, icmp, quiet, queue, intercept, drain, end-all, abandon";

/// Reads a script. The error says which line is wrong (counted from 1) and what would be right.
pub fn read(text: &str) -> Result<Script, (usize, String)> {
    let mut settings = Settings::default();
    let mut items: Vec<Item> = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    let mut ended = false;
    for (i, raw) in text.lines().enumerate() {
        let number = i + 1;
        let line = raw.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        if matches!(word, "set" | "client" | "isn") {
            if !items.is_empty() || open.is_some() {
                let e = format!("'{word}' must stand before the first event");
                return Err((number, e));
            }
            settings.read(word, rest).map_err(|e| (number, e))?;
            continue;
        }
        if ended && word != "expect" {
            return Err((number, "only 'expect' may follow 'end'".into()));
        }
        if word == "repeat" {
            if let Some((began, _)) = open {
                let e = format!("the block of line {began} has no 'again' yet");
                return Err((number, e));
            }
            open = Some((number, repeat(rest).map_err(|e| (number, e))?));
            continue;
        }
        if word == "again" {
            let Some((_, block)) = open.take() else {
                return Err((number, "'again' without a 'repeat' before it".into()));
            };
            items.push(Item::Block(block));
            continue;
        }
        let now = When { from: 0, to: 0 };
        let (when, event) = match word {
            "end" if open.is_some() => {
                return Err((number, "'end' in a block without its 'again'".into()));
            }
            "expect" => (now, Event::Expect(pairs(rest).map_err(|e| (number, e))?)),
            "end" if rest.is_empty() => {
                ended = true;
                (now, Event::End)
            }
            _ => timed(word, rest).map_err(|e| (number, e))?,
        };
        let line = Line {
            number,
            text: line.split_whitespace().collect::<Vec<_>>().join(" "),
            when,
            event,
        };
        match &mut open {
            Some((_, block)) => block.lines.push(line),
            None => items.push(Item::Line(line)),
        }
    }
    if !ended {
        let e = "the script has no 'end', which checks that nothing is left over".into();
        return Err((text.lines().count(), e));
    }
    Ok(Script { settings, items })
}

/// `repeat 49152 client 65000 server 0`.
fn repeat(rest: &str) -> Result<Block, String> {
    let words: Vec<_> = rest.split_whitespace().collect();
    let wrong = || {
        "'repeat' is followed by how often, and by client, server or port with a step".to_owned()
    };
    let (times, steps) = words.split_first().ok_or_else(wrong)?;
    let mut step = Step::default();
    for pair in steps.chunks(2) {
        let [what, n] = pair else { return Err(wrong()) };
        let n = n.parse().map_err(|_| format!("'{n}' is no step"))?;
        match *what {
            "client" => step.client = n,
            "server" => step.server = n,
            "port" => step.port = n,
            _ => return Err(wrong()),
        }
    }
    Ok(Block {
        times: times.parse().map_err(|_| wrong())?,
        step,
        lines: Vec::new(),
    })
}

fn timed(word: &str, rest: &str) -> Result<(When, Event), String> {
    let Some(time) = word.strip_prefix('+') else {
        return Err(format!(
            "unknown word '{word}': a line begins with set, client, isn, repeat, again, expect, end, or a time such as +10ms"
        ));
    };
    let when = match time.split_once("..") {
        None => {
            let t = duration(time)?;
            When { from: t, to: t }
        }
        Some((from, to)) => When {
            from: duration(from)?,
            to: duration(to)?,
        },
    };
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let event = event(word, rest.trim())?;
    if when.from > when.to || (when.from < when.to && !matches!(event, Event::Sent { .. })) {
        return Err(format!(
            "'+{time}' is no time for '{word}': only 'sent' may have a range, its shorter end first"
        ));
    }
    Ok((when, event))
}

fn event(word: &str, rest: &str) -> Result<Event, String> {
    let bare = |event: Event| {
        if rest.is_empty() {
            Ok(event)
        } else {
            Err(format!("'{rest}' after '{word}', which stands alone"))
        }
    };
    match word {
        "mirror" => mirror(rest),
        "sent" => {
            let (name, rest) = name(rest);
            let (spec, left) = segment(rest)?;
            let (mut from, mut fill) = (None, None);
            match left[..] {
                [] => {}
                ["from", at] => from = Some(endpoint(at)?),
                ["fill", hex] => fill = Some(byte(hex)?),
                [word, ..] => {
                    return Err(format!(
                        "unknown word '{word}': a sent segment may have ack, win, urg, <options>, from ADDRESS.PORT, fill BYTE"
                    ));
                }
            }
            Ok(Event::Sent {
                name,
                spec,
                from,
                fill,
            })
        }
        "target" => {
            let (name, rest) = name(rest);
            let (spec, left) = segment(rest)?;
            let (earlier, left) = match left[..] {
                ["received", time, "earlier", ..] => (duration(time)?, &left[3..]),
                _ => (0, &left[..]),
            };
            nothing(left, "a segment of the target's")?;
            Ok(Event::Target {
                name,
                spec,
                earlier,
            })
        }
        "left" => {
            let (name, rest) = name(rest);
            let (spec, left) = segment(rest)?;
            nothing(&left, "a segment that left")?;
            Ok(Event::Left(name, spec))
        }
        "icmp" => {
            let words: Vec<_> = rest.split_whitespace().collect();
            let (name, words) = match words[..] {
                ["too-big", ..] => (String::new(), &words[1..]),
                [name, "too-big", ..] => (name.to_owned(), &words[2..]),
                _ => return Err("'icmp' is followed by 'too-big' and an MTU in bytes".into()),
            };
            let (mtu, seq) = match *words {
                [mtu] => (mtu, None),
                [mtu, "seq", seq] => (mtu, Some(number(seq, "a sequence number")?)),
                _ => {
                    return Err(
                        "'too-big' is followed by an MTU in bytes, and 'seq N' or nothing".into(),
                    );
                }
            };
            let mtu = number(mtu, "an MTU in bytes")?;
            Ok(Event::TooBig { name, mtu, seq })
        }
        "quiet" => bare(Event::Quiet),
        "drain" => bare(Event::Drain),
        "end-all" => bare(Event::EndAll),
        "abandon" => bare(Event::Abandon),
        "queue" => {
            let wrong = || {
                format!(
                    "'queue {rest}': 'queue' is followed by free, full or unreachable, and by v4 or v6"
                )
            };
            let (word, family) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let family = match family.trim() {
                "" => None,
                "v4" => Some(Family::V4),
                "v6" => Some(Family::V6),
                _ => return Err(wrong()),
            };
            let refused = match word {
                "free" => None,
                "full" => Some(Refused::Busy),
                "unreachable" => Some(Refused::Unreachable),
                _ => return Err(wrong()),
            };
            Ok(Event::Queue(refused, family))
        }
        "intercept" => match rest {
            "up" => Ok(Event::Intercept(true)),
            "down" => Ok(Event::Intercept(false)),
            _ => Err(format!(
                "'intercept {rest}': 'intercept' is followed by up or down"
            )),
        },
        _ => Err(format!("unknown event '{word}': one of {EVENTS}")),
    }
}

fn mirror(rest: &str) -> Result<Event, String> {
    let (side, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let from_client = match side {
        ">" => true,
        "<" => false,
        _ => {
            return Err(format!(
                "'mirror {side}': 'mirror' is followed by > (the client sent it) or < (the server did)"
            ));
        }
    };
    let (name, rest) = name(rest.trim());
    let (spec, left) = segment(rest)?;
    let mut shape = Shape::default();
    let mut words = left.iter();
    while let Some(&word) = words.next() {
        if word == "unlisted" || word == "damaged" {
            shape.unlisted = true;
            shape.damaged |= word == "damaged";
            continue;
        }
        let value = words.next().copied().unwrap_or("");
        let bytes = |what| number(value, what).map(|n| n as usize);
        match word {
            "cut" => shape.cut = bytes("bytes that are missing at the end")?,
            "buffers" => shape.buffers = Some(bytes("bytes of each buffer")?),
            "fragments" => shape.fragments = Some(bytes("bytes of each fragment")?),
            "fill" => shape.fill = Some(byte(value)?),
            "at" => shape.at = Some(duration(value)?),
            "vlan" => {
                let id = number(value, "a VLAN").ok().filter(|id| *id < 4_096);
                let id = id.ok_or_else(|| format!("'{value}' is no VLAN from 0 to 4095"))?;
                shape.vlans.push(id as u16);
            }
            _ => {
                return Err(format!(
                    "unknown word '{word}': a mirrored segment may have ack, win, urg, <options>, cut, buffers, fragments, fill, vlan, at, damaged, unlisted"
                ));
            }
        }
    }
    if shape.cut > spec.len as usize {
        let e = format!("{} bytes are cut off a payload of {}", shape.cut, spec.len);
        return Err(e);
    }
    Ok(Event::Mirror {
        from_client,
        name,
        spec,
        shape,
    })
}

/// The name of a connection, if there is one: it begins with a small letter, flags never do.
fn name(rest: &str) -> (String, &str) {
    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if word.starts_with(|c: char| c.is_ascii_lowercase()) {
        (word.to_owned(), after.trim())
    } else {
        (String::new(), rest)
    }
}

/// A segment, and the words behind it.
fn segment(text: &str) -> Result<(Spec, Vec<&str>), String> {
    let (text, options, behind) = match text.split_once('<') {
        None => (text, OptionSpec::default(), ""),
        Some((before, rest)) => {
            let Some((inside, behind)) = rest.split_once('>') else {
                return Err(format!("'<{rest}' has no closing >"));
            };
            (before, option_list(inside)?, behind)
        }
    };
    let mut words = text.split_whitespace();
    let flags = flags(words.next().unwrap_or(""))?;
    let (seq, len) = range(words.next().unwrap_or(""))?;
    let mut spec = Spec {
        flags,
        seq,
        len,
        ack: None,
        window: None,
        urgent: None,
        options,
    };
    let mut left = Vec::new();
    let mut words = words.chain(behind.split_whitespace());
    while let Some(word) = words.next() {
        let mut value = |what| number(words.next().unwrap_or(""), what);
        match word {
            "ack" => {
                let word = words.next().unwrap_or("");
                let ack: Result<u64, _> = word.parse();
                let ack = ack.map_err(|_| format!("'{word}' is not an acknowledgment number"))?;
                spec.ack = Some(ack as u32);
            }
            "win" => spec.window = Some(small(value("a window field")?, "a window field")?),
            "urg" => spec.urgent = Some(small(value("an urgent pointer")?, "an urgent pointer")?),
            _ => {
                left.push(word);
                left.extend(words.by_ref());
            }
        }
    }
    if spec.ack.is_some() != flags.has(Flags::ACK) {
        let e = "a segment has 'ack' and a number if its flags have '.', and only then";
        return Err(e.into());
    }
    if spec.urgent.is_some() && !flags.has(Flags::URG) {
        return Err("an urgent pointer needs the flag U".into());
    }
    Ok((spec, left))
}

fn flags(word: &str) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for c in word.chars() {
        flags = flags.with(match c {
            'F' => Flags::FIN,
            'S' => Flags::SYN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            '.' => Flags::ACK,
            'U' => Flags::URG,
            _ => return Err(format!("'{word}' are no flags: some of F S R P . U")),
        });
    }
    if word.is_empty() {
        return Err("a segment begins with its flags: some of F S R P . U".into());
    }
    Ok(flags)
}

/// `1:101(100)` or `1(0)`.
fn range(word: &str) -> Result<(u32, u32), String> {
    let wrong = || {
        format!(
            "'{word}' is no sequence range: 1(0) without payload, 1:101(100) with 100 bytes of it"
        )
    };
    let (places, len) = word
        .strip_suffix(')')
        .and_then(|w| w.split_once('('))
        .ok_or_else(wrong)?;
    let parse = |s: &str| s.parse::<u64>().map_err(|_| wrong());
    let (len, (from, to)) = (parse(len)?, places.split_once(':').unwrap_or((places, "")));
    let from = parse(from)?;
    let to = if to.is_empty() { from } else { parse(to)? };
    if from.checked_add(len) != Some(to) || u32::try_from(len).is_err() {
        return Err(format!("'{word}': {from} and {len} bytes do not make {to}"));
    }
    // Numbers count on beyond 4 GiB; those of a segment wrap.
    Ok((from as u32, len as u32))
}

fn option_list(text: &str) -> Result<OptionSpec, String> {
    let mut spec = OptionSpec::default();
    for option in text.split(',') {
        let words: Vec<_> = option.split_whitespace().collect();
        match words[..] {
            ["..."] => spec.others = true,
            ["sackOK"] => spec.sack_permitted = true,
            ["mss", n] => spec.mss = Some(small(number(n, "an MSS")?, "an MSS")?),
            ["wscale", n] => {
                let shift = number(n, "a shift count")?;
                spec.window_scale = Some(small(shift, "a shift count")?);
            }
            ["TS", value, echo] => spec.timestamps = Some((stamp(value)?, stamp(echo)?)),
            ["sack", ref blocks @ ..] if (1..=4).contains(&blocks.len()) => {
                for block in blocks {
                    let (left, right) = block.split_once(':').unwrap_or((block, ""));
                    let what = "a SACK block such as 101:201";
                    spec.sack.push((number(left, what)?, number(right, what)?));
                }
            }
            _ => {
                return Err(format!(
                    "unknown option '{}': one of mss N, wscale N, sackOK, TS N N, sack L:R, or ... for others",
                    option.trim()
                ));
            }
        }
    }
    Ok(spec)
}

fn stamp(word: &str) -> Result<Stamp, String> {
    if word == "*" {
        return Ok(Stamp::Any);
    }
    number(word, "a timestamp or *").map(Stamp::Is)
}

fn number(word: &str, what: &str) -> Result<u32, String> {
    word.parse().map_err(|_| format!("'{word}' is not {what}"))
}

fn byte(word: &str) -> Result<u8, String> {
    let hex = word.strip_prefix("0x").unwrap_or(word);
    u8::from_str_radix(hex, 16).map_err(|_| format!("'{word}' is no byte like 0xee"))
}

fn small<T: TryFrom<u32>>(n: u32, what: &str) -> Result<T, String> {
    T::try_from(n).map_err(|_| format!("{n} is too large for {what}"))
}

fn nothing(left: &[&str], what: &str) -> Result<(), String> {
    match left.first() {
        None => Ok(()),
        Some(word) => Err(format!("unknown word '{word}' behind {what}")),
    }
}

fn pairs(text: &str) -> Result<Vec<(String, u64)>, String> {
    text.split(',')
        .map(|pair| {
            let words: Vec<_> = pair.split_whitespace().collect();
            let wrong = || format!("'{}' is no counter with its value", pair.trim());
            match words[..] {
                [name, value] => Ok((name.to_owned(), value.parse().map_err(|_| wrong())?)),
                _ => Err(wrong()),
            }
        })
        .collect()
}
