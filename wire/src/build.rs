//! Building the frames that are sent: Ethernet, IPv4 or IPv6, TCP and its options, all checksums
//! complete.
//!
//! Headers are built anew for every frame and depend on nothing but the arguments.

use crate::checksum::Sum;
use crate::head::HeaderBuf;
use crate::ipv4::protocol;
use crate::{Flags, Head, ethernet, ipv4, ipv6, tcp};

/// The Ethernet addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHeader {
    /// The next hop.
    pub dst: [u8; 6],
    /// Ours.
    pub src: [u8; 6],
}

/// Builds the headers of a TCP segment in `out`, replacing what was there. `ttl` is also the hop
/// limit; `ident` is IPv4's identification. The frame is IPv4 if both addresses are, and IPv6
/// otherwise. Its lengths come from `payload`, which `head.payload_len` must agree with; "don't
/// fragment" is set.
#[inline]
pub fn tcp(
    out: &mut HeaderBuf,
    link: &LinkHeader,
    head: &Head,
    ttl: u8,
    ident: u16,
    payload: &[u8],
) {
    tcp_with_sum(
        out,
        link,
        head,
        ttl,
        ident,
        payload.len(),
        Sum::new().bytes(payload),
    );
}

/// [`tcp`] for a payload whose sum is known, because it was computed before or the payload is in
/// pieces.
#[inline]
pub fn tcp_with_sum(
    out: &mut HeaderBuf,
    link: &LinkHeader,
    head: &Head,
    ttl: u8,
    ident: u16,
    payload_len: usize,
    payload_sum: Sum,
) {
    let (src, dst) = (&head.flow.src.addr, &head.flow.dst.addr);
    let mut options = [0; tcp::MAX_OPTIONS_LEN];
    let options_len = tcp::emit_options(&head.options, head.flags.has(Flags::SYN), &mut options);
    let options = options.get(..options_len).unwrap_or(&[]);
    let tcp_len = tcp::MIN_HEADER_LEN + options_len;
    let mut t = tcp_header(head, tcp_len);
    let sum = payload_sum
        .plus(Sum::new().bytes(&t))
        .plus(Sum::new().bytes(options));
    let len = u32::try_from(tcp_len + payload_len).unwrap_or(u32::MAX);
    let sum = sum
        .pseudo_header(src, dst, protocol::TCP, len)
        .finish()
        .to_be_bytes();
    t[16] = sum[0];
    t[17] = sum[1];

    out.clear();
    // The buffer has room for the longest headers, so none of these can fail.
    if src.is_v4() && dst.is_v4() {
        let _ = out.try_extend_from_slice(&ethernet::header(
            link.dst,
            link.src,
            ethernet::ethertype::IPV4,
        ));
        let ip = ipv4::header(src, dst, protocol::TCP, ttl, ident, tcp_len + payload_len);
        let _ = out.try_extend_from_slice(&ip);
    } else {
        let _ = out.try_extend_from_slice(&ethernet::header(
            link.dst,
            link.src,
            ethernet::ethertype::IPV6,
        ));
        let ip = ipv6::header(src, dst, protocol::TCP, ttl, tcp_len + payload_len);
        let _ = out.try_extend_from_slice(&ip);
    }
    let _ = out.try_extend_from_slice(&t);
    let _ = out.try_extend_from_slice(options);
}

/// The fixed TCP header with its checksum zero.
#[inline]
fn tcp_header(head: &Head, tcp_len: usize) -> [u8; tcp::MIN_HEADER_LEN] {
    let (sp, dp) = (
        head.flow.src.port.to_be_bytes(),
        head.flow.dst.port.to_be_bytes(),
    );
    let (s, a, w) = (
        head.seq.0.to_be_bytes(),
        head.ack.0.to_be_bytes(),
        head.window.to_be_bytes(),
    );
    let u = head.urgent.to_be_bytes();
    let offset = ((tcp_len / 4) << 4) as u8;
    [
        sp[0],
        sp[1],
        dp[0],
        dp[1],
        s[0],
        s[1],
        s[2],
        s[3],
        a[0],
        a[1],
        a[2],
        a[3],
        offset,
        head.flags.0,
        w[0],
        w[1],
        0,
        0,
        u[0],
        u[1],
    ]
}

#[cfg(test)]
mod tests;
