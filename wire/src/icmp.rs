//! ICMP (RFC 792) and ICMPv6 (RFC 4443) as far as a host needs them: echo, neighbour discovery (RFC
//! 4861), and the two errors that say something about a connection of ours.
//!
//! Checksums are verified here: unlike mirrored TCP, these messages are acted upon.

use crate::checksum::{Sum, checksum};
use crate::ipv4::{self, protocol};
use crate::{Addr, Endpoint, Flow, Seq, Skip, ipv6};

/// The all-nodes multicast address, ff02::1.
pub const ALL_NODES: Addr = Addr::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// An echo request.
    EchoRequest {
        /// Identifier, sequence number and data, which the reply repeats.
        body: &'a [u8],
    },
    /// An echo reply.
    EchoReply {
        /// Identifier, sequence number and data.
        body: &'a [u8],
    },
    /// Who has `target`? (RFC 4861 section 4.3)
    Solicitation {
        /// The address that is asked for.
        target: Addr,
        /// The asker's Ethernet address, if it says so.
        link: Option<[u8; 6]>,
    },
    /// I have `target` (RFC 4861 section 4.4).
    Advertisement {
        /// The address that is spoken of.
        target: Addr,
        /// Its Ethernet address, if it says so.
        link: Option<[u8; 6]>,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what is known.
        overrides: bool,
    },
    /// A segment did not get there.
    Unreachable {
        /// Why: the code of ICMP type 3 or of ICMPv6 type 1.
        code: u8,
        /// The connection, in the direction of the lost segment.
        flow: Option<Flow>,
    },
    /// A segment was too long for a link on its way.
    TooBig {
        /// The link's MTU in bytes; 0 if an old router did not say.
        mtu: u32,
        /// The connection, in the direction of the lost segment, and that one's sequence number.
        segment: Option<(Flow, Seq)>,
    },
    /// Anything else.
    Other,
}

/// Reads an ICMP message, which `bytes` hold from its type to its end.
pub fn parse_v4(bytes: &[u8]) -> Result<Message<'_>, Skip> {
    let (h, rest) = bytes.split_first_chunk::<8>().ok_or(Skip::TooShort)?;
    if checksum(bytes) != 0 {
        return Err(Skip::BadEncapsulation);
    }
    let body = bytes.get(4..).unwrap_or(&[]);
    Ok(match (h[0], h[1]) {
        (8, 0) => Message::EchoRequest { body },
        (0, 0) => Message::EchoReply { body },
        // RFC 1191 section 4: code 4 carries the next hop's MTU.
        (3, 4) => Message::TooBig {
            mtu: u32::from(u16::from_be_bytes([h[6], h[7]])),
            segment: quoted_v4(rest),
        },
        (3, code) => Message::Unreachable {
            code,
            flow: quoted_v4(rest).map(|(flow, _)| flow),
        },
        _ => Message::Other,
    })
}

/// Reads an ICMPv6 message, which `bytes` hold from its type to its end. The caller checks the hop
/// limit of neighbour discovery.
pub fn parse_v6<'a>(bytes: &'a [u8], src: &Addr, dst: &Addr) -> Result<Message<'a>, Skip> {
    let (h, rest) = bytes.split_first_chunk::<8>().ok_or(Skip::TooShort)?;
    let len = u32::try_from(bytes.len()).map_err(|_| Skip::BadLength)?;
    if Sum::new()
        .bytes(bytes)
        .pseudo_header(src, dst, protocol::ICMPV6, len)
        .finish()
        != 0
    {
        return Err(Skip::BadEncapsulation);
    }
    let body = bytes.get(4..).unwrap_or(&[]);
    Ok(match (h[0], h[1]) {
        (128, 0) => Message::EchoRequest { body },
        (129, 0) => Message::EchoReply { body },
        (135, 0) => {
            let (target, options) = nd_target(rest)?;
            Message::Solicitation {
                target,
                link: link_option(options, 1)?,
            }
        }
        (136, 0) => {
            let (target, options) = nd_target(rest)?;
            let (solicited, overrides) = (h[4] & 0x40 != 0, h[4] & 0x20 != 0);
            Message::Advertisement {
                target,
                link: link_option(options, 2)?,
                solicited,
                overrides,
            }
        }
        (1, code) => Message::Unreachable {
            code,
            flow: quoted_v6(rest).map(|(flow, _)| flow),
        },
        (2, 0) => Message::TooBig {
            mtu: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            segment: quoted_v6(rest),
        },
        _ => Message::Other,
    })
}

/// The target address, which must be one host's (RFC 4861 section 7.1), and the options behind it.
fn nd_target(rest: &[u8]) -> Result<(Addr, &[u8]), Skip> {
    let (target, options) = rest.split_first_chunk::<16>().ok_or(Skip::TooShort)?;
    if target[0] == 0xff {
        return Err(Skip::BadEncapsulation);
    }
    let target = Addr::v6(*target);
    if target.is_v4() {
        Err(Skip::MappedAddress)
    } else {
        Ok((target, options))
    }
}

/// The link-layer address option of this type. An option of length zero or past the end spoils the
/// message (RFC 4861 section 7.1).
fn link_option(mut options: &[u8], kind: u8) -> Result<Option<[u8; 6]>, Skip> {
    let mut found = None;
    while let [this, units, ..] = *options {
        let len = usize::from(units) * 8;
        let (option, rest) = options
            .split_at_checked(len)
            .ok_or(Skip::BadEncapsulation)?;
        match option {
            [] => return Err(Skip::BadEncapsulation),
            [_, 1, a, b, c, d, e, f] if this == kind => found = Some([*a, *b, *c, *d, *e, *f]),
            _ => {}
        }
        options = rest;
    }
    Ok(found)
}

/// Ports and sequence number: an error quotes eight bytes at least (RFC 792).
fn ports(bytes: &[u8]) -> Option<(u16, u16, Seq)> {
    let p = bytes.first_chunk::<8>()?;
    Some((
        u16::from_be_bytes([p[0], p[1]]),
        u16::from_be_bytes([p[2], p[3]]),
        Seq(u32::from_be_bytes([p[4], p[5], p[6], p[7]])),
    ))
}

/// The TCP connection of the segment that an error quotes, and its sequence number.
fn quoted_v4(bytes: &[u8]) -> Option<(Flow, Seq)> {
    let h = ipv4::Header::new_checked(bytes).ok()?;
    if h.protocol() != protocol::TCP || h.fragment_offset() != 0 {
        return None;
    }
    let (sp, dp, seq) = ports(bytes.get(h.header_len()..)?)?;
    let flow = Flow {
        src: Endpoint::new(h.src(), sp),
        dst: Endpoint::new(h.dst(), dp),
    };
    Some((flow, seq))
}

fn quoted_v6(bytes: &[u8]) -> Option<(Flow, Seq)> {
    let h = ipv6::Header::new_checked(bytes).ok()?;
    let rest = bytes.get(ipv6::HEADER_LEN..)?;
    let e = ipv6::extensions(h.next_header(), rest).ok()?;
    if e.protocol != protocol::TCP || e.fragment.is_some_and(|f| f.offset != 0) {
        return None;
    }
    let (sp, dp, seq) = ports(rest.get(e.len..)?)?;
    let flow = Flow {
        src: Endpoint::new(h.src(), sp),
        dst: Endpoint::new(h.dst(), dp),
    };
    Some((flow, seq))
}

/// The solicited-node multicast address of an IPv6 address (RFC 4291 section 2.7.1).
pub fn solicited_node(a: &Addr) -> Addr {
    let [.., x, y, z] = *a.bytes();
    Addr::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z])
}

/// The Ethernet address of an IPv6 multicast address (RFC 2464 section 7).
pub fn multicast_mac(a: &Addr) -> [u8; 6] {
    let [.., w, x, y, z] = *a.bytes();
    [0x33, 0x33, w, x, y, z]
}

/// The link-local address that belongs to an Ethernet address (RFC 4291 appendix A).
pub fn link_local(mac: [u8; 6]) -> Addr {
    let [a, b, c, d, e, f] = mac;
    Addr::v6([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// A neighbour solicitation (type 135) or advertisement (type 136) with one link-layer address
/// option, checksum complete. `flags` are an advertisement's: 0x40 solicited, 0x20 override.
pub fn discovery(
    kind: u8,
    flags: u8,
    target: &Addr,
    link: Option<[u8; 6]>,
    src: &Addr,
    dst: &Addr,
) -> ([u8; 32], usize) {
    let mut b = [0; 32];
    b[0] = kind;
    b[4] = flags;
    b[8..24].copy_from_slice(target.bytes());
    let len = match link {
        Some(mac) => {
            b[24] = if kind == 135 { 1 } else { 2 };
            b[25] = 1;
            b[26..32].copy_from_slice(&mac);
            32
        }
        None => 24,
    };
    let sum = Sum::new().bytes(b.get(..len).unwrap_or(&[])).pseudo_header(
        src,
        dst,
        protocol::ICMPV6,
        len as u32,
    );
    let c = sum.finish().to_be_bytes();
    b[2] = c[0];
    b[3] = c[1];
    (b, len)
}

/// The first four bytes of the echo reply to a request with this body: type, code, checksum.
pub fn echo_reply_head(body: &[u8], src: &Addr, dst: &Addr) -> [u8; 4] {
    let v4 = src.is_v4();
    let kind = if v4 { 0u8 } else { 129 };
    let mut sum = Sum::new().word(u16::from(kind) << 8).bytes(body);
    if !v4 {
        sum = sum.pseudo_header(src, dst, protocol::ICMPV6, (body.len() + 4) as u32);
    }
    let c = sum.finish().to_be_bytes();
    [kind, 0, c[0], c[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::HeaderBuf;
    use crate::{Flags, Head, Options, Seq, build};

    fn a6(last: u8) -> Addr {
        Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    }

    #[test]
    fn addresses_derived_from_addresses() {
        let a = link_local([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(a.to_string(), "fe80::11:22ff:fe33:4455");
        assert_eq!(solicited_node(&a).to_string(), "ff02::1:ff33:4455");
        assert_eq!(
            multicast_mac(&solicited_node(&a)),
            [0x33, 0x33, 0xff, 0x33, 0x44, 0x55]
        );
    }

    #[test]
    fn discovery_round_trip_and_damage() {
        let mac = [2, 0, 0, 0, 0, 9];
        let (b, n) = discovery(136, 0x60, &a6(7), Some(mac), &a6(1), &a6(2));
        let want = Message::Advertisement {
            target: a6(7),
            link: Some(mac),
            solicited: true,
            overrides: true,
        };
        assert_eq!(parse_v6(&b[..n], &a6(1), &a6(2)), Ok(want));
        for i in 0..n {
            let mut bad = b;
            bad[i] ^= 0x10;
            assert!(
                parse_v6(&bad[..n], &a6(1), &a6(2)).is_err(),
                "byte {i} damaged"
            );
        }
        let (b, n) = discovery(135, 0, &a6(7), None, &a6(1), &a6(2));
        assert_eq!(
            parse_v6(&b[..n], &a6(1), &a6(2)),
            Ok(Message::Solicitation {
                target: a6(7),
                link: None
            })
        );
    }

    #[test]
    fn an_option_of_length_zero_spoils_the_message() {
        assert_eq!(
            link_option(&[1, 0, 0, 0, 0, 0, 0, 0], 1),
            Err(Skip::BadEncapsulation)
        );
        assert_eq!(
            link_option(&[1, 2, 0, 0, 0, 0, 0, 0], 1),
            Err(Skip::BadEncapsulation)
        );
        assert_eq!(
            link_option(&[14, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6], 1),
            Ok(Some([1, 2, 3, 4, 5, 6]))
        );
    }

    #[test]
    fn errors_name_the_connection() {
        for (src, dst) in [
            (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2])),
            (a6(1), a6(2)),
        ] {
            let flow = Flow {
                src: Endpoint::new(src, 40000),
                dst: Endpoint::new(dst, 80),
            };
            let head = Head {
                flow,
                seq: Seq(1),
                ack: Seq(2),
                flags: Flags::ACK,
                window: 1,
                urgent: 0,
                options: Options::default(),
                payload_len: 0,
            };
            let mut frame = HeaderBuf::new();
            build::tcp(
                &mut frame,
                &build::LinkHeader {
                    dst: [0; 6],
                    src: [0; 6],
                },
                &head,
                64,
                1,
                &[],
            );
            let mut m = if src.is_v4() {
                vec![3, 4, 0, 0, 0, 0, 0x05, 0x14]
            } else {
                vec![2, 0, 0, 0, 0, 0, 0x05, 0x14]
            };
            m.extend(&frame[14..]);
            let sum = Sum::new().bytes(&m);
            let c = if src.is_v4() {
                sum
            } else {
                sum.pseudo_header(&dst, &src, 58, m.len() as u32)
            };
            m[2..4].copy_from_slice(&c.finish().to_be_bytes());
            let got = if src.is_v4() {
                parse_v4(&m)
            } else {
                parse_v6(&m, &dst, &src)
            };
            assert_eq!(
                got,
                Ok(Message::TooBig {
                    mtu: 1300,
                    segment: Some((flow, head.seq))
                })
            );
        }
    }
}
