//! More about mirrored frames that decoding refused: which part of a datagram one is, and where a
//! tunnel leads that is not opened. Such frames are few, so they are walked through once more.

use super::{Checksum, Fragment, Layer, LinkType, MirrorOptions, Rules, Stop, walk};
use crate::Addr;

/// What [`mirrored`](super::mirrored) refused as [`Skip::Fragment`](super::Skip::Fragment): which
/// part of which datagram it is. `None` for every other frame. The fragmented datagram may be the
/// tunnel's own, outside of what it carries.
pub fn fragment(bytes: &[u8], frame_len: usize) -> Option<Fragment> {
    fragment_on(LinkType::Ethernet, bytes, frame_len)
}

/// [`fragment`] for a frame of another link type.
pub fn fragment_on(link: LinkType, bytes: &[u8], frame_len: usize) -> Option<Fragment> {
    fragment_with(&MirrorOptions::on(link), bytes, frame_len)
}

/// [`fragment`] for a frame that is read as `options` say.
pub fn fragment_with(options: &MirrorOptions, bytes: &[u8], frame_len: usize) -> Option<Fragment> {
    match stop(options, bytes, frame_len)? {
        Stop::Fragment(f) => Some(f),
        _ => None,
    }
}

/// The outer destination of a tunnel that was refused as
/// [`Skip::TunnelRefused`](super::Skip::TunnelRefused). `None` for every other frame.
pub fn refused_tunnel(options: &MirrorOptions, bytes: &[u8], frame_len: usize) -> Option<Addr> {
    match stop(options, bytes, frame_len)? {
        Stop::Refused(to) => Some(to),
        _ => None,
    }
}

fn stop(options: &MirrorOptions, bytes: &[u8], frame_len: usize) -> Option<Stop> {
    let rules = Rules::mirror(options, Checksum::Unknown);
    walk(Layer::Link(options.link), bytes, frame_len, &rules).ok()
}
