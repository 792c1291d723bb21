//! The names of link types, for what cannot be replayed.

/// What a link type is called, if it has a name here.
pub const fn name(link: u16) -> Option<&'static str> {
    Some(match link {
        0 => "BSD loopback",
        1 => "Ethernet",
        6 => "Token Ring",
        7 => "ARCNET",
        8 => "SLIP",
        9 => "PPP",
        10 => "FDDI",
        12 | 14 | 101 => "raw IP",
        50 => "PPP in HDLC framing",
        51 => "PPPoE",
        100 => "ATM with LLC",
        104 => "Cisco HDLC",
        105 => "IEEE 802.11",
        107 => "Frame Relay",
        108 => "OpenBSD loopback",
        113 => "Linux cooked capture",
        117 => "PFLOG",
        119 => "IEEE 802.11 with a Prism header",
        122 => "IP over Fibre Channel",
        123 => "SunATM",
        127 => "IEEE 802.11 with radiotap",
        129 => "ARCNET",
        138 => "IP over FireWire",
        140 => "SS7 MTP2 with pseudo-header",
        141 => "SS7 MTP2",
        142 => "SS7 MTP3",
        143 => "DOCSIS",
        147..=162 => "for private use",
        163 => "IEEE 802.11 with an AVS header",
        177 => "Linux LAPD",
        187 => "Bluetooth HCI",
        189 | 220 => "Linux USB",
        190 | 227 => "CAN bus",
        192 => "PPI",
        195 | 230 | 215 | 283 => "IEEE 802.15.4",
        197 => "ERF",
        201 => "Bluetooth HCI with a direction",
        203 => "LAPD",
        228 => "raw IPv4",
        229 => "raw IPv6",
        231 => "D-Bus",
        239 => "NFLOG",
        240 | 241 => "Hilscher netANALYZER",
        242 => "IP over InfiniBand",
        243 => "MPEG-2 transport stream",
        245 => "NFC LLCP",
        247 => "InfiniBand",
        248 => "SCTP",
        249 => "USBPcap",
        251 | 256 => "Bluetooth Low Energy",
        252 => "Wireshark's upper layers",
        253 => "Netlink",
        258 => "PKTAP",
        259 => "Ethernet passive optical network",
        265 => "RTAC serial",
        266 => "macOS USB",
        270 => "LoRaTap",
        276 => "Linux cooked capture v2",
        279 => "Elektron USB",
        280 => "Z-Wave",
        281 => "NFLOG of ETW",
        282 => "ETW events",
        285 => "Vaisala radar",
        289 => "wireless SUN",
        _ => return None,
    })
}

/// Says why frames of a link type are not replayed and what to do, behind a file's name.
pub fn refusal(link: u16) -> String {
    let called = name(link).map(|n| format!(" ({n})")).unwrap_or_default();
    let why = match link {
        // These carry IP in principle, but behind a header that is not read.
        6 | 7 | 8 | 107 | 119 | 122 | 123 | 129 | 138 | 143 | 163 | 197 | 242 | 259 => {
            "which is not read: capture on an Ethernet, Linux cooked (-i any) or raw IP interface"
        }
        195 | 230 | 215 | 283 => {
            "which carries 6LoWPAN at best: capture behind the border router, where it is Ethernet"
        }
        252 => {
            "in which the headers of TCP are gone: save the packets themselves (tcpdump -w), not exported PDUs"
        }
        147..=162 => {
            "whose meaning is known to its maker alone: convert it to Ethernet or raw IP (editcap -T, after cutting its header with -C)"
        }
        _ => {
            "which carries no TCP that could be replayed: give a capture of the network, such as of Ethernet"
        }
    };
    format!("has frames of link type {link}{called}, {why}")
}
