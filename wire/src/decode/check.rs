//! Whether a segment's checksum is sound, once it is known where the segment stands.

use super::Place;
use super::verify::{self, Unfinished};
use crate::io::Frame;

/// The checksum of a segment whose headers were read is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Where its IP header begins in the frame, its TCP header, and where it ends, in bytes.
    ip: u32,
    tcp: u32,
    end: u32,
    /// Which unfinished checksums pass.
    passes: Unfinished,
}

impl Check {
    /// What is to be done for a segment that stands there, if anything is.
    #[inline]
    pub(super) fn of(place: &Place) -> Option<Self> {
        // No frame is as long as a number of 32 bits can say.
        Some(Self {
            ip: place.ip as u32,
            tcp: place.tcp as u32,
            end: place.stated as u32,
            passes: place.verify?,
        })
    }

    /// Whether the checksum is sound; true if that cannot be said. `frame` is the very frame whose
    /// headers were read.
    #[inline]
    pub fn is_sound<F: Frame>(&self, frame: &F) -> bool {
        let first = frame.bytes();
        match first.get(self.tcp as usize..self.end as usize) {
            Some(segment) => verify::segment_is_sound(self.ip(first), segment, self.passes),
            None => self.goes_on_soundly(frame),
        }
    }

    /// What it reads of the frame's first buffer segment.
    #[inline]
    pub fn reads<'a>(&self, first: &'a [u8]) -> &'a [u8] {
        let ip = self.ip(first);
        ip.get(..(self.end - self.ip) as usize).unwrap_or(ip)
    }

    #[inline]
    fn ip<'a>(&self, first: &'a [u8]) -> &'a [u8] {
        first.get(self.ip as usize..).unwrap_or(&[])
    }

    /// The same for a segment that goes on from buffer segment to buffer segment.
    #[cold]
    fn goes_on_soundly<F: Frame>(&self, frame: &F) -> bool {
        let first = frame.bytes();
        let segment = self.tcp as usize..self.end as usize;
        verify::chain_is_sound(self.ip(first), first, segment, self.passes, |visit| {
            frame.visit_rest(visit)
        })
    }
}
