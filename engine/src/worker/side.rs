//! Whose a frame of the mirror is: which transfer wants it, which end has sent it, which core it
//! belongs to. All of it is looked up once.

use super::Worker;
use replay::Side;
use wire::decode::{MirrorOptions, Packet, Use, mirrored_frame};
use wire::defragment::Defragment;
use wire::io::{Checksum, Frame, Rx, Tx};
use wire::{Flow, Skip};

/// Bytes of a cache line, as a rule.
const LINE: usize = 64;

impl<R, T, D> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    /// Decodes a frame of the mirror. What no transfer wants is not verified, and nobody reads the
    /// payload of production's server. Of a segment `whose` is what `transfer_of` tells.
    #[inline]
    pub(super) fn decode(
        &self,
        options: &MirrorOptions,
        frame: &R::Frame,
        whose: &mut Option<(u16, bool)>,
    ) -> Result<Packet, Skip> {
        let params = self.core.params();
        mirrored_frame(options, frame, |flow| {
            *whose = params.transfer_of(flow);
            match whose {
                Some((_, true)) => Use::All,
                Some((_, false)) => Use::Headers,
                None => Use::Nothing,
            }
        })
    }

    /// The core that a decoded frame belongs to: this one, if it is of no use. If it is this one:
    /// what its flow tells.
    #[inline]
    pub(super) fn place_of(
        &self,
        packet: &Result<Packet, Skip>,
        whose: Option<(u16, bool)>,
    ) -> (u16, Option<Side>) {
        let (Ok(packet), Some(whose)) = (packet, whose) else {
            return (self.index, None);
        };
        let owner = self.mirror_owner(&packet.head.flow, whose.1);
        let ours = owner == self.index;
        let side = ours.then(|| self.core.side(&packet.head.flow, whose));
        (owner, side)
    }

    #[inline]
    fn mirror_owner(&self, flow: &Flow, of_client: bool) -> u16 {
        let params = self.core.params();
        match (params.ownership.cores, of_client) {
            (0 | 1, _) => self.index,
            (_, true) => params.ownership.owner(&flow.src, &flow.dst),
            (_, false) => params.ownership.owner(&flow.dst, &flow.src),
        }
    }
}

/// Asks for the bytes of a frame that is to be summed up.
#[inline]
pub(super) fn ask_for_bytes<R: Rx>(frame: &R::Frame) {
    if frame.checksum() == Checksum::Unknown {
        frame.bytes().iter().step_by(LINE).for_each(R::prefetch);
    }
}
