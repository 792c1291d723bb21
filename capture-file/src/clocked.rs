//! What a file says of time, put in order.
//!
//! Clocks are set while a capture runs, interfaces disagree, a record may be damaged, some frames
//! have no time at all. A frame far from its neighbours in time is taken to be of their time; frame
//! after frame of another time is a clock that was set, and time goes on from where it was.
//!
//! Holds always: the times that come out of it lie at most [`NEAR`] before the latest so far.

use crate::reader::Reader;
use crate::{Error, Frame, Nanos};

/// Frames may be this much out of order, as where several queues or interfaces are captured.
const NEAR: Nanos = 1_000_000_000;
/// A clock that shows a time before this (1990) was never set. A file's first frame with such a
/// time is of the time of the second, if that has another.
const NEVER_SET: Nanos = 631_152_000_000_000_000;
/// So many frames in a row, near one another and far from those before, are a clock that was set.
const SET: u32 = 8;

/// Frames whose times were not in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disorder {
    /// A little before the frame before them, and left there.
    pub out_of_order: u64,
    /// Far from all around them: they were given the time of the frame before.
    pub restamped: u64,
    /// Times that the clock was found to be set back.
    pub clock_set: u64,
}

impl Disorder {
    /// Adds another file's.
    pub fn add(&mut self, other: Self) {
        self.out_of_order += other.out_of_order;
        self.restamped += other.restamped;
        self.clock_set += other.clock_set;
    }
}

/// What is to become of a frame's time.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is this.
    Is(Nanos),
    /// The next frame's time is needed to tell.
    Ask,
}

/// Corrects times, one after the other.
#[derive(Default)]
struct Corrector {
    /// The latest time so far, as the file has it and as it comes out.
    latest: Option<(Nanos, Nanos)>,
    /// Frames in a row that were far behind, and the time of the last.
    astray: (u32, Nanos),
    found: Disorder,
}

impl Corrector {
    #[inline]
    fn see(&mut self, at: Option<Nanos>) -> Verdict {
        let (Some(at), Some((raw, time))) = (at, self.latest) else {
            return match (at, self.latest) {
                (None, latest) => Verdict::Is(latest.map_or(0, |l| l.1)),
                (Some(_), _) => Verdict::Ask,
            };
        };
        if at >= raw {
            if at - raw > NEAR {
                return Verdict::Ask;
            }
            self.astray.0 = 0;
            let time = time.saturating_add(at - raw);
            self.latest = Some((at, time));
            return Verdict::Is(time);
        }
        if raw - at <= NEAR {
            self.found.out_of_order += 1;
            return Verdict::Is(time.saturating_sub(raw - at));
        }
        self.far_behind(at, time)
    }

    #[cold]
    fn far_behind(&mut self, at: Nanos, time: Nanos) -> Verdict {
        let (n, last) = self.astray;
        self.astray = match n > 0 && at.abs_diff(last) <= NEAR {
            true => (n + 1, at),
            false => (1, at),
        };
        if self.astray.0 < SET {
            self.found.restamped += 1;
        } else {
            self.astray.0 = 0;
            self.found.clock_set += 1;
            self.latest = Some((at, time));
        }
        Verdict::Is(time)
    }

    /// Tells the time of a frame that [`Corrector::see`] has asked about; `next` is that of the
    /// frame behind it, if there is one with a time.
    fn decide(&mut self, at: Nanos, next: Option<Nanos>) -> Nanos {
        let Some((raw, time)) = self.latest else {
            let set = next.filter(|next| at < NEVER_SET && *next >= NEVER_SET);
            self.found.restamped += u64::from(set.is_some());
            let begin = set.unwrap_or(at);
            self.latest = Some((begin, begin));
            return begin;
        };
        // It is ahead of the frame before; the one behind is nearer to which?
        let alone = next.is_some_and(|next| next.abs_diff(raw) < at.abs_diff(next));
        if alone {
            self.found.restamped += 1;
            return time;
        }
        self.astray.0 = 0;
        let time = time.saturating_add(at - raw);
        self.latest = Some((at, time));
        time
    }
}

/// A file whose frames have times that go on.
pub struct Clocked {
    reader: Reader,
    corrector: Corrector,
    time: Nanos,
    /// The current frame, if the reader is one ahead of it.
    held: Option<Held>,
    /// What going on to the next frame came to, if the reader is ahead.
    ahead: Option<Result<bool, Error>>,
    spare: Vec<u8>,
}

struct Held {
    bytes: Vec<u8>,
    link: u16,
    interface: u32,
    len: u32,
}

impl Clocked {
    /// Reads times of `reader` in order.
    pub fn new(reader: Reader) -> Self {
        Self {
            reader,
            corrector: Corrector::default(),
            time: 0,
            held: None,
            ahead: None,
            spare: Vec::new(),
        }
    }

    /// Goes on to the next frame. See [`Reader::advance`].
    ///
    /// # Errors
    /// The file is damaged or cut here.
    #[inline]
    pub fn advance(&mut self) -> Result<bool, Error> {
        if let Some(held) = self.held.take() {
            self.spare = held.bytes;
        }
        let more = match self.ahead.take() {
            Some(more) => more?,
            None => self.reader.advance()?,
        };
        if !more {
            return Ok(false);
        }
        let at = self.reader.frame().at;
        match self.corrector.see(at) {
            Verdict::Is(time) => self.time = time,
            Verdict::Ask => self.look_ahead(at.unwrap_or(0)),
        }
        Ok(true)
    }

    #[cold]
    fn look_ahead(&mut self, at: Nanos) {
        let frame = self.reader.frame();
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes.extend_from_slice(frame.bytes);
        self.held = Some(Held {
            bytes,
            link: frame.link,
            interface: frame.interface,
            len: frame.len,
        });
        let ahead = self.reader.advance();
        let next = match ahead {
            Ok(true) => self.reader.frame().at,
            _ => None,
        };
        self.ahead = Some(ahead);
        self.time = self.corrector.decide(at, next);
    }

    /// The frame that [`Clocked::advance`] went on to. Its time is always there, and is
    /// [`Clocked::time`].
    #[inline]
    pub fn frame(&self) -> Frame<'_> {
        match &self.held {
            None => Frame {
                at: Some(self.time),
                ..self.reader.frame()
            },
            Some(held) => Frame {
                at: Some(self.time),
                link: held.link,
                interface: held.interface,
                len: held.len,
                bytes: &held.bytes,
            },
        }
    }

    /// When the frame was captured.
    #[inline]
    pub const fn time(&self) -> Nanos {
        self.time
    }

    /// The file.
    pub const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Frames whose times were not in order, so far.
    pub const fn disorder(&self) -> Disorder {
        self.corrector.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;
    const DAY: Nanos = 86_400 * S;
    const T: Nanos = 1_700_000_000 * S;

    /// What times come out as, less [`T`] in ms, and how many were not in order.
    fn corrected(times: &[Option<Nanos>]) -> (Vec<i64>, [u64; 3]) {
        let mut c = Corrector::default();
        let mut out = Vec::new();
        for (i, at) in times.iter().enumerate() {
            let time = match c.see(*at) {
                Verdict::Is(time) => time,
                Verdict::Ask => c.decide(at.unwrap(), times.get(i + 1).copied().flatten()),
            };
            out.push((time as i64 - T as i64) / 1_000_000);
        }
        let f = c.found;
        (out, [f.out_of_order, f.restamped, f.clock_set])
    }

    fn at_ms(ms: &[i64]) -> Vec<Option<Nanos>> {
        let at = |ms: &i64| Some(T.saturating_add_signed(ms * 1_000_000));
        ms.iter().map(at).collect()
    }

    #[test]
    fn times_in_order_stay_as_they_are() {
        let ms = [0, 1, 1, 500, 60_000, 86_400_000 * 3, 86_400_000 * 3 + 1];
        assert_eq!(corrected(&at_ms(&ms)), (ms.to_vec(), [0, 0, 0]));
    }

    #[test]
    fn a_little_out_of_order_is_counted_and_stays() {
        assert_eq!(
            corrected(&at_ms(&[0, 10, 7, 12, 11])),
            (vec![0, 10, 7, 12, 11], [2, 0, 0])
        );
    }

    #[test]
    fn a_frame_of_another_time_is_of_the_time_around_it() {
        let day = 86_400_000;
        for away in [day, -day, 400 * day, -5_000, 5_000] {
            assert_eq!(
                corrected(&at_ms(&[0, 10, 20 + away, 30, 40])),
                (vec![0, 10, 10, 30, 40], [0, 1, 0]),
                "{away}"
            );
        }
        // At 0, at the largest number, and at the beginning.
        let mut times = at_ms(&[0, 10, 20, 30, 40]);
        times[1] = Some(0);
        times[3] = Some(Nanos::MAX);
        assert_eq!(corrected(&times), (vec![0, 0, 20, 20, 40], [0, 2, 0]));
        let mut times = at_ms(&[0, 10, 20]);
        times[0] = Some(0);
        assert_eq!(corrected(&times), (vec![10, 10, 20], [0, 1, 0]));
    }

    #[test]
    fn an_interface_without_a_clock_does_not_set_ours() {
        let times: Vec<_> = (0..40)
            .map(|i| {
                if i % 2 == 0 {
                    Some(T + i * 1_000_000)
                } else {
                    Some(0)
                }
            })
            .collect();
        let (out, found) = corrected(&times);
        assert_eq!(found, [0, 20, 0]);
        for (i, at) in (0i64..).zip(out) {
            assert_eq!(at, i / 2 * 2);
        }
        let times = [None, Some(T), None, Some(T + S), None];
        let (out, found) = corrected(&times);
        assert_eq!((&out[1..], found), (&[0, 0, 1_000, 1_000][..], [0, 0, 0]));
    }

    #[test]
    fn a_clock_that_was_set_goes_on_from_where_it_was() {
        let mut ms: Vec<i64> = vec![0, 10, 20];
        ms.extend((0..20).map(|i| -3_600_000 + i * 10));
        let (out, found) = corrected(&at_ms(&ms));
        assert_eq!(found, [0, 7, 1]);
        assert_eq!(out[2..11], [20; 9]);
        assert_eq!(out[11..14], [30, 40, 50]);
    }

    #[test]
    fn the_last_frame_may_come_late() {
        let day = DAY as i64 / 1_000_000;
        assert_eq!(
            corrected(&at_ms(&[0, 10, day])),
            (vec![0, 10, day], [0, 0, 0])
        );
    }
}
