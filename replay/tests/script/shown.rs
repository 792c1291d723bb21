//! What the mirror showed of one client's stream: the first byte of each place.

use std::collections::BTreeMap;
use wire::Seq;

/// Bytes in a row.
enum Run {
    /// This byte so many times.
    Fill(u8, u64),
    Each(Vec<u8>),
}

impl Run {
    fn len(&self) -> u64 {
        match self {
            Self::Fill(_, len) => *len,
            Self::Each(bytes) => bytes.len() as u64,
        }
    }
}

/// See the module's documentation. Places are 64 bits wide: a stream may be longer than 4 GiB.
pub struct Shown {
    /// By their first place; none overlap.
    runs: BTreeMap<u64, Run>,
    /// The place that the next sequence number is taken to be near to.
    near: u64,
}

/// Why bytes cannot be what was shown: the place of the first, the byte that is there, if any is.
pub type Other = (u64, Option<u8>);

impl Shown {
    /// Nothing was shown; the stream begins at `isn`.
    pub fn new(isn: Seq) -> Self {
        Self {
            runs: BTreeMap::new(),
            near: 1 << 32 | u64::from(isn.0),
        }
    }

    /// The place of a sequence number.
    fn place(&self, seq: Seq) -> u64 {
        let away = seq.0.wrapping_sub(self.near as u32) as i32;
        self.near.wrapping_add_signed(i64::from(away))
    }

    /// The mirror shows `bytes` from `seq` on, all of them `fill` if that is some byte. What it
    /// showed before of a place stays.
    pub fn show(&mut self, seq: Seq, bytes: &[u8], fill: Option<u8>) {
        let mut at = self.place(seq);
        let (first, end) = (at, at + bytes.len() as u64);
        self.near = self.near.max(end);
        while at < end {
            let before = self.runs.range_mut(..=at).next_back();
            if let Some((start, run)) = before {
                let run_end = start + run.len();
                if run_end > at {
                    at = run_end;
                    continue;
                }
            }
            let free = self
                .runs
                .range(at..)
                .next()
                .map_or(end, |(s, _)| end.min(*s));
            self.insert(
                at,
                free,
                &bytes[(at - first) as usize..(free - first) as usize],
                fill,
            );
            at = free;
        }
    }

    fn insert(&mut self, at: u64, end: u64, bytes: &[u8], fill: Option<u8>) {
        let Some(byte) = fill else {
            self.runs.insert(at, Run::Each(bytes.to_vec()));
            return;
        };
        match self.runs.range_mut(..at).next_back() {
            Some((start, Run::Fill(b, len))) if *b == byte && start + *len == at => {
                *len += end - at;
            }
            _ => {
                self.runs.insert(at, Run::Fill(byte, end - at));
            }
        }
    }

    /// Whether `bytes` are what was shown from `seq` on.
    pub fn check(&self, seq: Seq, mut bytes: &[u8]) -> Result<(), Other> {
        let mut at = self.place(seq);
        while !bytes.is_empty() {
            let run = self.runs.range(..=at).next_back();
            let Some((start, run)) = run.filter(|(start, run)| *start + run.len() > at) else {
                return Err((at, None));
            };
            let skip = at - start;
            let n = bytes.len().min((run.len() - skip) as usize);
            let (here, rest) = bytes.split_at(n);
            let wrong = match run {
                // As fast as memory can be compared: a long stream is one fill.
                Run::Fill(b, _) if here[0] == *b && here[1..] == here[..n - 1] => None,
                Run::Fill(b, _) => here.iter().position(|x| x != b),
                Run::Each(all) => here
                    .iter()
                    .zip(&all[skip as usize..])
                    .position(|(x, y)| x != y),
            };
            if let Some(i) = wrong {
                let there = match run {
                    Run::Fill(b, _) => *b,
                    Run::Each(all) => all[skip as usize + i],
                };
                return Err((at + i as u64, Some(there)));
            }
            at += n as u64;
            bytes = rest;
        }
        Ok(())
    }
}
