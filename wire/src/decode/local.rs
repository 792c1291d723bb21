//! Frames on a port of our own.

use super::{Layer, Local, Rules, Skip, Stop, packet, plain, tcp_segment, walk};
use crate::io::Frame;

/// Decodes a frame received on a port of our own: no encapsulation, at most one VLAN tag. One that
/// is corrupt is refused as [`Skip::BadChecksum`], so that its sender sends it again.
#[inline]
pub fn local(bytes: &[u8], frame_len: usize) -> Local {
    on_local(bytes, frame_len, &Rules::LOCAL)
}

/// [`local`] for a whole frame: what its driver knows of the checksum spares summing it up.
#[inline]
pub fn local_frame<F: Frame>(frame: &F) -> Local {
    let rules = Rules {
        known: frame.checksum(),
        ..Rules::LOCAL
    };
    on_local(frame.bytes(), frame.frame_len(), &rules)
}

#[inline]
fn on_local(bytes: &[u8], frame_len: usize, rules: &Rules) -> Local {
    if let Some(plain) = plain::segment(bytes, frame_len, rules) {
        return if plain.place.is_sound(bytes) {
            Local::Tcp(packet(&plain.place, &plain.tcp, plain.flow()))
        } else {
            Local::Skip(Skip::BadChecksum)
        };
    }
    match walk(Layer::Ethernet, bytes, frame_len, rules) {
        Ok(Stop::Tcp(place)) => match tcp_segment(bytes, frame_len, &place) {
            Ok(packet) if place.is_sound(bytes) => Local::Tcp(packet),
            Ok(_) => Local::Skip(Skip::BadChecksum),
            Err(skip) => Local::Skip(skip),
        },
        Ok(Stop::Control) => Local::Control,
        Ok(Stop::Fragment(_)) => Local::Skip(Skip::Fragment),
        Ok(Stop::Refused(_)) => Local::Skip(Skip::TunnelRefused),
        Err(skip) => Local::Skip(skip),
    }
}
