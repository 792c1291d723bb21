//! Whose a frame of the mirror is: which transfer wants it, which end has sent it, which core it
//! belongs to. All of it is looked up once, and what will be summed up is asked for ahead.

use super::Worker;
use replay::Side;
use wire::decode::{Check, MirrorOptions, Packet, Use, mirrored_headers};
use wire::defragment::Defragment;
use wire::io::{Frame, Rx, Tx};
use wire::{Flow, Skip};

/// Bytes of a cache line, as a rule.
const LINE: usize = 64;

/// What is known of a frame beside its headers.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// The core that it belongs to: this one, if it is of no use.
    pub(super) owner: u16,
    /// If it is this one: what its flow tells.
    pub(super) side: Option<Side>,
    /// Its checksum is to be verified.
    pub(super) check: Option<Check>,
}

/// A frame of a capture file that was looked at.
#[derive(Clone, Copy)]
pub struct Decoded {
    /// What it is, or why it is of no use.
    pub packet: Result<Packet, Skip>,
    /// Whose it is.
    pub(super) place: Place,
}

impl Decoded {
    /// A frame of no use, on this worker.
    pub(super) fn of(packet: Result<Packet, Skip>, owner: u16) -> Self {
        let place = Place {
            owner,
            ..Place::default()
        };
        Self { packet, place }
    }
}

impl<R, T, D> Worker<R, T, D>
where
    R: Rx,
    R::Frame: Frame<Payload = T::Payload>,
    T: Tx,
    D: Defragment<R::Frame>,
{
    /// Reads the headers of a frame of the mirror, and what they tell into `place`. What no transfer
    /// wants is not verified, and nobody reads the payload of production's server.
    #[inline]
    pub(super) fn decode(
        &self,
        options: &MirrorOptions,
        frame: &R::Frame,
        place: &mut Place,
    ) -> Result<Packet, Skip> {
        let sources = self.core.sources();
        let mut whose = None;
        let used = |flow: &Flow| {
            whose = sources.transfer_of(flow);
            match whose {
                Some((_, true)) => Use::All,
                Some((_, false)) => Use::Headers,
                None => Use::Nothing,
            }
        };
        let packet = mirrored_headers(options, frame, used, &mut place.check);
        place.owner = self.index;
        if let (Ok(packet), Some(whose)) = (&packet, whose) {
            let flow = &packet.head.flow;
            place.owner = self.mirror_owner(flow, whose.1);
            let ours = place.owner == self.index;
            place.side = ours.then(|| self.core.side(flow, whose));
        }
        packet
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

/// Asks for bytes that will be summed up.
#[inline]
pub(super) fn ask_for<R: Rx>(bytes: &[u8]) {
    bytes.iter().step_by(LINE).for_each(R::prefetch);
}
