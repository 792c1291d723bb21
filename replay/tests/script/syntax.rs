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
    },
    TooBig {
        name: String,
        mtu: u32,
        /// Counted from the initial sequence number; that of the latest payload if it is not said.
        seq: Option<u32>,
    },
    Quiet,
    Queue(Option<Refused>),
    Intercept(bool),
    Drain,
    EndAll,
    Abandon,
    Expect(Vec<(String, u64)>),
    End,
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
    pub lines: Vec<Line>,
}

const EVENTS: &str = "mirror, sent, target, icmp, quiet, queue, intercept, drain, end-all, abandon";

/// Reads a script. The error says which line is wrong (counted from 1) and what would be right.
pub fn read(text: &str) -> Result<Script, (usize, String)> {
    let mut settings = Settings::default();
    let mut lines: Vec<Line> = Vec::new();
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
            if !lines.is_empty() {
                let e = format!("'{word}' must stand before the first event");
                return Err((number, e));
            }
            settings.read(word, rest).map_err(|e| (number, e))?;
            continue;
        }
        if ended && word != "expect" {
            return Err((number, "only 'expect' may follow 'end'".into()));
        }
        let now = When { from: 0, to: 0 };
        let (when, event) = match word {
            "expect" => (now, Event::Expect(pairs(rest).map_err(|e| (number, e))?)),
            "end" if rest.is_empty() => {
                ended = true;
                (now, Event::End)
            }
            _ => timed(word, rest).map_err(|e| (number, e))?,
        };
        lines.push(Line {
            number,
            text: line.split_whitespace().collect::<Vec<_>>().join(" "),
            when,
            event,
        });
    }
    if !ended {
        let e = "the script has no 'end', which checks that nothing is left over".into();
        return Err((text.lines().count(), e));
    }
    Ok(Script { settings, lines })
}

fn timed(word: &str, rest: &str) -> Result<(When, Event), String> {
    let Some(time) = word.strip_prefix('+') else {
        return Err(format!(
            "unknown word '{word}': a line begins with set, client, isn, expect, end, or a time such as +10ms"
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
            nothing(&left, "a segment of the target's")?;
            Ok(Event::Target { name, spec })
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
        "queue" => match rest {
            "free" => Ok(Event::Queue(None)),
            "full" => Ok(Event::Queue(Some(Refused::Busy))),
            "unreachable" => Ok(Event::Queue(Some(Refused::Unreachable))),
            _ => Err(format!(
                "'queue {rest}': 'queue' is followed by free, full or unreachable"
            )),
        },
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
        if word == "unlisted" {
            shape.unlisted = true;
            continue;
        }
        let value = words.next().copied().unwrap_or("");
        let bytes = |what| number(value, what).map(|n| n as usize);
        match word {
            "cut" => shape.cut = bytes("bytes that are missing at the end")?,
            "buffers" => shape.buffers = Some(bytes("bytes of each buffer")?),
            "fragments" => shape.fragments = Some(bytes("bytes of each fragment")?),
            "fill" => shape.fill = Some(byte(value)?),
            _ => {
                return Err(format!(
                    "unknown word '{word}': a mirrored segment may have ack, win, urg, <options>, cut, buffers, fragments, fill, unlisted"
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
            "ack" => spec.ack = Some(value("an acknowledgment number")?),
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
    let parse = |s: &str| s.parse::<u32>().map_err(|_| wrong());
    let (len, (from, to)) = (parse(len)?, places.split_once(':').unwrap_or((places, "")));
    let from = parse(from)?;
    let to = if to.is_empty() { from } else { parse(to)? };
    if to.wrapping_sub(from) != len {
        return Err(format!("'{word}': {from} and {len} bytes do not make {to}"));
    }
    Ok((from, len))
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
