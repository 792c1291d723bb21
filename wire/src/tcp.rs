//! TCP headers (RFC 9293 section 3.1) and their options, read and written.

use crate::{Flags, Options, Seq, Skip};

/// Length of the header without options.
pub const MIN_HEADER_LEN: usize = 20;
/// Most bytes that options can take.
pub const MAX_OPTIONS_LEN: usize = 40;
/// Where the checksum stands in the header.
pub const CHECKSUM: std::ops::Range<usize> = 16..18;

/// Option kinds (IANA).
mod kind {
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
}

/// The largest shift count; a larger one counts as this (RFC 7323 section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// A header that is complete, options included.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    fixed: &'a [u8; MIN_HEADER_LEN],
    options: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Checks the data offset and that the options are there.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Skip> {
        let (fixed, rest) = bytes
            .split_first_chunk::<MIN_HEADER_LEN>()
            .ok_or(Skip::TooShort)?;
        let len = usize::from(fixed[12] >> 4) * 4;
        let options = len
            .checked_sub(MIN_HEADER_LEN)
            .ok_or(Skip::BadHeaderLength)?;
        let options = rest.get(..options).ok_or(Skip::TooShort)?;
        Ok(Self { fixed, options })
    }

    /// The source port.
    #[inline]
    pub const fn src_port(&self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// The destination port.
    #[inline]
    pub const fn dst_port(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// The sequence number.
    #[inline]
    pub const fn seq(&self) -> Seq {
        let f = self.fixed;
        Seq(u32::from_be_bytes([f[4], f[5], f[6], f[7]]))
    }

    /// The acknowledgment number.
    #[inline]
    pub const fn ack(&self) -> Seq {
        let f = self.fixed;
        Seq(u32::from_be_bytes([f[8], f[9], f[10], f[11]]))
    }

    /// Length of the header with its options, in bytes.
    #[inline]
    pub const fn header_len(&self) -> usize {
        MIN_HEADER_LEN + self.options.len()
    }

    /// All eight control bits.
    #[inline]
    pub const fn flags(&self) -> Flags {
        Flags(self.fixed[13])
    }

    /// The window, not scaled.
    #[inline]
    pub const fn window(&self) -> u16 {
        u16::from_be_bytes([self.fixed[14], self.fixed[15]])
    }

    /// The urgent pointer; meaningful with [`Flags::URG`].
    #[inline]
    pub const fn urgent(&self) -> u16 {
        u16::from_be_bytes([self.fixed[18], self.fixed[19]])
    }

    /// The bytes of the options.
    #[inline]
    pub const fn option_bytes(&self) -> &'a [u8] {
        self.options
    }

    /// The options that are understood.
    #[inline]
    pub fn options(&self) -> Options {
        parse_options(self.options, self.flags().has(Flags::SYN))
    }
}

/// Two 32-bit numbers in network order that are all there is.
#[inline]
fn two_words(bytes: &[u8]) -> Option<(u32, u32)> {
    let n = u64::from_be_bytes(bytes.try_into().ok()?);
    Some(((n >> 32) as u32, n as u32))
}

/// Reads options. One whose length is below two or goes past the end ends the list; one whose
/// length does not fit its kind is passed over, as are unknown ones. Without `syn` those that only
/// a SYN may carry are passed over too (RFC 7323 section 2.2, RFC 2018 section 2, RFC 9293 section
/// 3.7.1).
#[inline(always)]
pub fn parse_options(bytes: &[u8], syn: bool) -> Options {
    // What nearly every segment after the handshake carries: NOP, NOP, timestamps.
    if let Some((&[kind::NOP, kind::NOP, kind::TIMESTAMPS, 10], stamps)) = bytes.split_first_chunk()
        && let Some(t) = two_words(stamps)
    {
        return Options {
            timestamps: Some(t),
            ..Options::default()
        };
    }
    other_options(bytes, syn)
}

#[inline(never)]
fn other_options(bytes: &[u8], syn: bool) -> Options {
    let mut o = Options::default();
    // What Linux puts on a SYN.
    if let Ok(
        &[
            kind::MSS,
            4,
            m,
            n,
            kind::SACK_PERMITTED,
            2,
            kind::TIMESTAMPS,
            10,
            ref stamps @ ..,
            kind::NOP,
            kind::WINDOW_SCALE,
            3,
            scale,
        ],
    ) = <&[u8; 20]>::try_from(bytes)
        && syn
    {
        o.mss = Some(u16::from_be_bytes([m, n]));
        o.sack_permitted = true;
        o.timestamps = two_words(stamps);
        o.window_scale = Some(scale.min(MAX_WINDOW_SCALE));
    } else {
        each_option(bytes, syn, &mut o);
    }
    o
}

/// Reads options one by one.
fn each_option(bytes: &[u8], syn: bool, o: &mut Options) {
    let mut rest = bytes;
    loop {
        let (this, len) = match *rest {
            [] | [kind::END, ..] => return,
            [kind::NOP, ref tail @ ..] => {
                rest = tail;
                continue;
            }
            [k, len, ..] => (k, usize::from(len)),
            [_] => return,
        };
        let Some((body, tail)) = rest.split_at_checked(len) else {
            return;
        };
        let [_, _, body @ ..] = body else { return };
        rest = tail;
        match (this, body) {
            (kind::MSS, [a, b]) if syn => o.mss = Some(u16::from_be_bytes([*a, *b])),
            (kind::WINDOW_SCALE, [s]) if syn => o.window_scale = Some((*s).min(MAX_WINDOW_SCALE)),
            (kind::SACK_PERMITTED, []) if syn => o.sack_permitted = true,
            (kind::TIMESTAMPS, [a, b, c, d, e, f, g, h]) => {
                o.timestamps = Some((
                    u32::from_be_bytes([*a, *b, *c, *d]),
                    u32::from_be_bytes([*e, *f, *g, *h]),
                ));
            }
            (kind::SACK, blocks) if blocks.len().is_multiple_of(8) => {
                for b in blocks.as_chunks::<8>().0 {
                    let left = Seq(u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
                    o.push_sack(left, Seq(u32::from_be_bytes([b[4], b[5], b[6], b[7]])));
                }
            }
            _ => {}
        }
    }
}

/// Appends `N` bytes at `at`; the caller has made sure that they fit, otherwise they are left out.
#[inline]
fn put<const N: usize>(out: &mut [u8; MAX_OPTIONS_LEN], at: usize, bytes: [u8; N]) -> usize {
    match out.get_mut(at..at + N) {
        Some(slot) => {
            slot.copy_from_slice(&bytes);
            at + N
        }
        None => at,
    }
}

/// Writes options as Linux lays them out and returns their length, a multiple of four: MSS, SACK
/// permitted, timestamps, NOP and window scale on a SYN; NOP, NOP, timestamps and NOP, NOP, SACK
/// otherwise. Options that only a SYN may carry are left out without `syn`; of the SACK blocks as
/// many are written as there is room for, which is three beside timestamps (RFC 2018 section 3).
#[inline]
pub fn emit_options(o: &Options, syn: bool, out: &mut [u8; MAX_OPTIONS_LEN]) -> usize {
    let mut n = 0;
    let stamp = |(val, ecr): (u32, u32)| {
        let (v, e) = (val.to_be_bytes(), ecr.to_be_bytes());
        [
            kind::TIMESTAMPS,
            10,
            v[0],
            v[1],
            v[2],
            v[3],
            e[0],
            e[1],
            e[2],
            e[3],
        ]
    };
    if syn {
        if let Some(mss) = o.mss {
            let m = mss.to_be_bytes();
            n = put(out, n, [kind::MSS, 4, m[0], m[1]]);
        }
        n = match (o.sack_permitted, o.timestamps.is_some()) {
            (true, true) => put(out, n, [kind::SACK_PERMITTED, 2]),
            (true, false) => put(out, n, [kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]),
            (false, true) => put(out, n, [kind::NOP, kind::NOP]),
            (false, false) => n,
        };
    } else if o.timestamps.is_some() {
        n = put(out, n, [kind::NOP, kind::NOP]);
    }
    if let Some(t) = o.timestamps {
        n = put(out, n, stamp(t));
    }
    if let (true, Some(scale)) = (syn, o.window_scale) {
        n = put(
            out,
            n,
            [
                kind::NOP,
                kind::WINDOW_SCALE,
                3,
                scale.min(MAX_WINDOW_SCALE),
            ],
        );
    }
    let fit = (MAX_OPTIONS_LEN - n).saturating_sub(4) / 8;
    let blocks = o.sack_blocks();
    let blocks = blocks.get(..fit).unwrap_or(blocks);
    if !blocks.is_empty() {
        n = put(
            out,
            n,
            [kind::NOP, kind::NOP, kind::SACK, 2 + 8 * blocks.len() as u8],
        );
        for (left, right) in blocks {
            let (l, r) = (left.0.to_be_bytes(), right.0.to_be_bytes());
            n = put(out, n, [l[0], l[1], l[2], l[3], r[0], r[1], r[2], r[3]]);
        }
    }
    n
}

#[cfg(test)]
mod tests;
