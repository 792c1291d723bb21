//! The encapsulations that are opened, each around a given frame.

use crate::scope::{Network, fold};
use crate::{Addr, Head, ipv4, ipv6};

/// The UDP port that a test configures for IP packets.
pub const IP_IN_UDP: u16 = 40_001;

/// An encapsulated frame.
pub struct Sample {
    /// What it is called where a test fails.
    pub name: &'static str,
    /// The whole frame.
    pub frame: Vec<u8>,
    /// The scope of what it carries.
    pub scope: u32,
}

pub fn eth(t: u16, inner: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &t.to_be_bytes(), inner].concat()
}

pub fn ip4(protocol: u8, inner: &[u8]) -> Vec<u8> {
    let h = ipv4::header(
        &Addr::v4([172, 16, 0, 1]),
        &Addr::v4([172, 16, 0, 2]),
        protocol,
        64,
        1,
        inner.len(),
    );
    [&h[..], inner].concat()
}

pub fn ip6(next: u8, inner: &[u8]) -> Vec<u8> {
    let a = Addr::v6([0xfd; 16]);
    [&ipv6::header(&a, &a, next, 64, inner.len())[..], inner].concat()
}

pub fn udp(port: u16, inner: &[u8]) -> Vec<u8> {
    let len = (inner.len() as u16 + 8).to_be_bytes();
    let [hi, lo] = port.to_be_bytes();
    let head = [0x9c, 0x40, hi, lo, len[0], len[1], 0, 0];
    ip4(17, &[&head[..], inner].concat())
}

pub fn gre(head: &[u8], inner: &[u8]) -> Vec<u8> {
    ip4(47, &[head, inner].concat())
}

/// The frame with an authentication header between IP and TCP.
fn ah(frame: &[u8], head: &Head) -> Vec<u8> {
    let (ip_len, proto_at, len_at) = if head.flow.src.addr.is_v4() {
        (20, 23, 17)
    } else {
        (40, 20, 19)
    };
    let ah = [
        6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut f = [&frame[..14 + ip_len], &ah, &frame[14 + ip_len..]].concat();
    f[proto_at] = 51;
    let len = u16::from_be_bytes([f[len_at - 1], f[len_at]]) + 24;
    f[len_at - 1..=len_at].copy_from_slice(&len.to_be_bytes());
    if head.flow.src.addr.is_v4() {
        f[24..26].fill(0);
        let sum = crate::checksum::checksum(&f[14..34]).to_be_bytes();
        f[24..26].copy_from_slice(&sum);
    }
    f
}

/// Every encapsulation around an Ethernet frame of `head`'s family.
pub fn around(head: &Head, inner: &[u8]) -> Vec<Sample> {
    let ip = &inner[14..];
    let [t0, t1] = [inner[12], inner[13]];
    let v4 = head.flow.src.addr.is_v4();
    let (proto, next, ppp) = if v4 { (4, 1, 0x21) } else { (41, 2, 0x57) };
    let mut all = Vec::new();
    let mut add = |name, outer: Vec<u8>, networks: &[Network]| {
        let scope = networks.iter().fold(0, |scope, n| fold(scope, *n));
        all.push(Sample {
            name,
            frame: outer,
            scope,
        });
    };
    let over4 = |packet: Vec<u8>| eth(0x0800, &packet);
    let in_gre = |head: &[u8], inner: &[u8]| over4(gre(head, inner));
    let in_udp = |port, head: &[u8], inner: &[u8]| over4(udp(port, &[head, inner].concat()));
    let behind = |t, head: &[u8], inner: &[u8]| eth(t, &[head, inner].concat());
    let vni = [Network::Virtual(0x0a_0b_0c)];
    let key = [Network::Key(7)];

    add("IP in IPv4", over4(ip4(proto, ip)), &[]);
    add("IP in IPv6", eth(0x86dd, &ip6(proto, ip)), &[]);
    add("GRE", in_gre(&[0, 0, t0, t1], ip), &[]);
    let in6 = ip6(47, &[&[0, 0, t0, t1], ip].concat());
    add("GRE in IPv6", eth(0x86dd, &in6), &[]);
    let full = [0xb0, 0, t0, t1, 9, 9, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
    add(
        "GRE with checksum, key and sequence",
        in_gre(&full, ip),
        &key,
    );
    let nvgre = [0x20, 0, 0x65, 0x58, 0, 0, 0, 7];
    add("NVGRE", in_gre(&nvgre, inner), &key);
    add("ERSPAN I", in_gre(&[0, 0, 0x88, 0xbe], inner), &[]);
    let two = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 1, 0, 1, 0, 0, 0, 0];
    add("ERSPAN II", in_gre(&two, inner), &[]);
    let three = [
        0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    add("ERSPAN III", in_gre(&three, inner), &[]);
    let mut sub = [0; 28];
    sub[..20].copy_from_slice(&three);
    sub[19] = 1;
    add("ERSPAN III with subheader", in_gre(&sub, inner), &[]);
    let mut packet = three;
    packet[18] = 2 << 2;
    add("ERSPAN III with an IP packet", in_gre(&packet, ip), &[]);
    let vxlan = [8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0];
    add("VXLAN", in_udp(4789, &vxlan, inner), &vni);
    let gpe = [0x0c, 0, 0, next, 0x0a, 0x0b, 0x0c, 0];
    add("VXLAN-GPE", in_udp(4790, &gpe, ip), &vni);
    let geneve = [0, 0, 0x65, 0x58, 0x0a, 0x0b, 0x0c, 0];
    add("GENEVE", in_udp(6081, &geneve, inner), &vni);
    let options = [2, 0, t0, t1, 0x0a, 0x0b, 0x0c, 0, 0, 0, 0, 1, 5, 5, 5, 5];
    add("GENEVE with options", in_udp(6081, &options, ip), &vni);
    add("GRE in UDP", in_udp(4754, &[0, 0, t0, t1], ip), &[]);
    add("MPLS in UDP", in_udp(6635, &[0, 1, 1, 64], ip), &[]);
    let labels = [0, 1, 0, 64, 0, 2, 1, 64];
    add("MPLS", behind(0x8847, &labels, ip), &[]);
    let mpls = ip4(137, &[&[0, 1, 1, 64], ip].concat());
    add("MPLS in IP", over4(mpls), &[]);
    let ether_ip = ip4(97, &[&[0x30, 0], inner].concat());
    add("EtherIP", over4(ether_ip), &[]);
    let pbb = [0xe0, 5, 0x88, 0xe7, 0x60, 0x0a, 0x0b, 0x0c];
    let service = [Network::Vlan(5), vni[0]];
    add("PBB", behind(0x88a8, &pbb, inner), &service);
    let session = [0x11, 0, 0, 1, 0, 99, 0, ppp];
    add("PPPoE", behind(0x8864, &session, ip), &[]);
    let snap = [0xaa, 0xaa, 3, 0, 0, 0, t0, t1];
    add("LLC/SNAP", behind(60, &snap, ip), &[]);
    add("AH in front of TCP", ah(inner, head), &[]);

    let vn_tag = [0x80, 1, 0x00, 0x42, 0x81, 0, 0x20, 9, t0, t1];
    add(
        "VN-Tag and VLAN",
        behind(0x8926, &vn_tag, ip),
        &[Network::Vlan(9)],
    );
    let e_tag = [0x10, 0, 0x00, 0x42, 0, 0, t0, t1];
    add("E-tag", behind(0x893f, &e_tag, ip), &[]);
    let sgt = [1, 1, 0, 1, 0x12, 0x34, t0, t1];
    add("Cisco MetaData", behind(0x8909, &sgt, ip), &[]);
    let vlan = [0, 7, 0x89, 0x09, 1, 1, 0, 1, 0x12, 0x34, t0, t1];
    add(
        "VLAN and Cisco MetaData",
        behind(0x8100, &vlan, ip),
        &[Network::Vlan(7)],
    );

    let len = ((ip.len() + 12) as u16).to_be_bytes();
    let plain = [0x30, 255, len[0], len[1], 1, 2, 3, 4];
    add("GTP-U", in_udp(2152, &plain, ip), &[]);
    let numbered = [0x32, 255, len[0], len[1], 1, 2, 3, 4, 0, 9, 0, 0x85];
    add(
        "GTP-U with a sequence number",
        in_udp(2152, &numbered, ip),
        &[],
    );
    let extended = [
        0x34, 255, len[0], len[1], 1, 2, 3, 4, 0, 0, 0, 0x85, 1, 0x10, 9, 0x40, 2, 0, 0, 0, 0, 0,
        0, 0,
    ];
    add(
        "GTP-U with extension headers",
        in_udp(2152, &extended, ip),
        &[],
    );
    let tags = [1, 0, 0, 1, 0, 10, 1, 0xc4, 41, 2, 0, 99, 1];
    add("TZSP", in_udp(37008, &tags, inner), &[]);
    let radio = [&[1, 0, 0, 18, 18, 1, 6, 1, 0x08, 2][..], &[0; 22], &snap].concat();
    add("TZSP with 802.11", in_udp(37008, &radio, ip), &[]);
    add("HP ERM", in_udp(7932, &[9; 12], inner), &[]);
    add("IP in UDP", in_udp(IP_IN_UDP, &[], ip), &[]);
    all
}
