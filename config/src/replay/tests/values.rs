//! Each key refuses what it cannot take.

use super::*;

#[test]
fn bad_values_are_refused_with_key_value_and_what_is_accepted() {
    let mirror = |more: &str| with(PORTS, &format!("{PORTS}\n{more}"));
    let cases: &[(String, &str, &[&str])] = &[
        (
            mirror("ip_in_udp = 9999"),
            "mirror.ip_in_udp",
            &["= 9999", "give a list", "[9999]"],
        ),
        (
            mirror("ip_in_udp = [9999, 0]"),
            "mirror.ip_in_udp[1]",
            &["= 0", "1 to 65535"],
        ),
        (
            mirror("ip_in_udp = [65536]"),
            "mirror.ip_in_udp[0]",
            &["65536", "1 to 65535"],
        ),
        (
            mirror("ip_in_udp = [\"9999\"]"),
            "mirror.ip_in_udp[0]",
            &["\"9999\"", "whole number"],
        ),
        (
            mirror("ip_in_udp = [7, 8, 7]"),
            "mirror.ip_in_udp[2]",
            &["= 7", "each port once"],
        ),
        (
            mirror("ip_in_udp = [1, 2, 3, 4, 5, 6, 7, 8, 9]"),
            "mirror.ip_in_udp",
            &["at most 8"],
        ),
        (
            mirror("mtu = 1279"),
            "mirror.mtu",
            &["= 1279", "1280 to 65535"],
        ),
        (
            mirror("mtu = \"9000\""),
            "mirror.mtu",
            &["whole number", "1280 to 65535"],
        ),
        (
            with(PORTS, "file = \"a.pcap\"\nmtu = 9000"),
            "mirror.mtu",
            &["= 9000", "is for mirror.ports"],
        ),
        (
            mirror("tunnels = \"10.9.0.5\""),
            "mirror.tunnels",
            &["= \"10.9.0.5\"", "give a list"],
        ),
        (
            mirror("tunnels = [\"\"]"),
            "mirror.tunnels[0]",
            &["an address or a prefix", "vni 77"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5\", \"gre.example.com\"]"),
            "mirror.tunnels[1]",
            &["gre.example.com", "an address or a prefix"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5/24\"]"),
            "mirror.tunnels[0]",
            &["beyond the prefix length", "\"10.9.0.0/24\""],
        ),
        (
            mirror("tunnels = [\"0.0.0.0\"]"),
            "mirror.tunnels[0]",
            &["unspecified", "\"0.0.0.0/0\""],
        ),
        (
            mirror("tunnels = [\"::ffff:10.9.0.5\"]"),
            "mirror.tunnels[0]",
            &["IPv4-mapped"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5 vni 16777216\"]"),
            "mirror.tunnels[0]",
            &["\"16777216\"", "0 to 16777215"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5 key -1\"]"),
            "mirror.tunnels[0]",
            &["\"-1\"", "0 to 4294967295"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5 key +1\"]"),
            "mirror.tunnels[0]",
            &["\"+1\""],
        ),
        (
            mirror("tunnels = [\"10.9.0.5 vni\"]"),
            "mirror.tunnels[0]",
            &["an address or a prefix"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5 vni 1 key 2\"]"),
            "mirror.tunnels[0]",
            &["an address or a prefix"],
        ),
        (
            mirror("tunnels = [\"10.9.0.5\", \"10.9.0.5/32\"]"),
            "mirror.tunnels[1]",
            &["mirror.tunnels[0]", "once"],
        ),
        (
            mirror(&format!(
                "tunnels = [{}]",
                (0..65).fold(String::new(), |t, i| t + &format!("\"10.9.0.{i}\",")),
            )),
            "mirror.tunnels",
            &["at most 64", "prefix"],
        ),
        (
            mirror("address = [\"10.9.0.5\"]"),
            "mirror.address[0]",
            &["10.9.0.5", "prefix length"],
        ),
        (
            mirror("verify_checksums = \"no\""),
            "mirror.verify_checksums",
            &["\"no\"", "true or false"],
        ),
        (
            and("[traffic]\npercent = 0"),
            "traffic.percent",
            &["= 0", "above 0 and at most 100"],
        ),
        (
            and("[traffic]\npercent = 100.5"),
            "traffic.percent",
            &["100.5", "at most 100"],
        ),
        (
            and("[traffic]\npercent = nan"),
            "traffic.percent",
            &["nan", "at most 100"],
        ),
        (
            and("[traffic]\npercent = \"50\""),
            "traffic.percent",
            &["\"50\"", "number"],
        ),
        (
            and("[traffic]\ncopies = 0"),
            "traffic.copies",
            &["= 0", "1 to 1023"],
        ),
        (
            and("[traffic]\ncopies = 1024"),
            "traffic.copies",
            &["1024", "1 to 1023"],
        ),
        (
            and("[traffic]\ncopies = -1"),
            "traffic.copies",
            &["-1", "1 to 1023"],
        ),
        (
            and("[traffic]\ncopies = 99999999999999999999999"),
            "traffic.copies",
            &["1 to 1023"],
        ),
        (
            and("[traffic]\nrtt = \"0s\""),
            "traffic.rtt",
            &["\"0s\"", "1us", "1m"],
        ),
        (
            with(TO, &format!("{TO}\nrtt = \"2m\"")),
            "transfer[0].rtt",
            &["\"2m\"", "1us", "1m"],
        ),
        (
            with(TO, &format!("{TO}\ngate_timeout = \"0s\"")),
            "transfer[0].gate_timeout",
            &["\"0s\"", "1ms"],
        ),
        (
            with(TO, &format!("{TO}\nwait_for_responses = 1")),
            "transfer[0].wait_for_responses",
            &["= 1", "true or false"],
        ),
        (
            with(TO, &format!("{TO}\nramp = \"2s\"")),
            "transfer[0].ramp",
            &["did you mean traffic.ramp?"],
        ),
        (
            and("[traffic]\nrtt = \"20\""),
            "traffic.rtt",
            &["\"20\"", "250ms"],
        ),
        (
            and("[traffic]\nrtt = 20"),
            "traffic.rtt",
            &["= 20", "in quotes"],
        ),
        (
            and("[traffic]\ngate_timeout = \"0s\""),
            "traffic.gate_timeout",
            &["\"0s\"", "1ms"],
        ),
        (
            and("[traffic]\nsession_timeout = \"2days\""),
            "traffic.session_timeout",
            &["2days", "1day"],
        ),
        (
            and("[traffic]\nkeepalive_timeout = \"-1s\""),
            "traffic.keepalive_timeout",
            &["-1s", "5s"],
        ),
        (
            and("[traffic]\nfull_sessions_only = 1"),
            "traffic.full_sessions_only",
            &["= 1", "true or false"],
        ),
        (
            and("[limits]\nsessions = 0"),
            "limits.sessions",
            &["= 0", "1 to 100000000"],
        ),
        (
            and("[limits]\nmbufs = \"1MiB\""),
            "limits.mbufs",
            &["\"1MiB\"", "8.0 MiB"],
        ),
        (
            and("[limits]\nmbufs = 64"),
            "limits.mbufs",
            &["= 64", "in quotes"],
        ),
        (
            and("[limits]\nmbufs = \"64 bananas\""),
            "limits.mbufs",
            &["64 bananas", "64MiB"],
        ),
        (
            and("[limits]\nsession_bytes = \"1KiB\""),
            "limits.session_bytes",
            &["1KiB", "64.0 KiB"],
        ),
        (
            and("[limits]\nmbufs = \"8MiB\"\nsession_bytes = \"9MiB\""),
            "limits.session_bytes",
            &["9MiB", "limits.mbufs", "8.0 MiB"],
        ),
        (
            and("[report]\ninterval = \"0s\""),
            "report.interval",
            &["0s", "100ms"],
        ),
        (
            and("[report]\njson = \"\""),
            "report.json",
            &["\"\"", "file name"],
        ),
        (
            and("[report]\njson = \"out/\""),
            "report.json",
            &["out/", "report.json"],
        ),
        (
            and("[report]\njson = \"a\\nb\""),
            "report.json",
            &["\"a\\nb\"", "file name"],
        ),
        (and("[eal]\nlcores = []"), "eal.lcores", &["[]", "[1, 2]"]),
        (
            and("[eal]\nlcores = 1"),
            "eal.lcores",
            &["= 1", "list of CPU numbers"],
        ),
        (
            and("[eal]\nlcores = [1, 2, 1]"),
            "eal.lcores[2]",
            &["= 1", "twice"],
        ),
        (
            and("[eal]\nlcores = [1024]"),
            "eal.lcores[0]",
            &["1024", "0 to 1023"],
        ),
        (
            and("[eal]\nmemory = \"huge\""),
            "eal.memory",
            &["\"huge\"", "\"hugepages\" or \"no-huge\""],
        ),
        (
            and("[eal]\nidle = \"nap\""),
            "eal.idle",
            &["\"nap\"", "\"spin\" or \"sleep\""],
        ),
        (
            and("[clients]\npool = [\"62.135.200.5/24\"]"),
            "clients.pool[0]",
            &["62.135.200.5/24", "\"62.135.200.0/24\""],
        ),
        (
            and("[clients]\npool = [\"62.135.200.0\"]"),
            "clients.pool[0]",
            &["62.135.200.0", "prefix"],
        ),
        (
            and("[clients]\npool = [\"0.0.0.0/0\"]"),
            "clients.pool[0]",
            &["0.0.0.0/0", "host addresses"],
        ),
        (
            and("[clients]\npool = [\"224.1.0.0/16\"]"),
            "clients.pool[0]",
            &["224.1.0.0/16", "224.0.0.0/4"],
        ),
        (
            and("[clients]\npool = \"62.135.200.0/24\""),
            "clients.pool",
            &["62.135.200.0/24", "list"],
        ),
        (
            with(PORTS, "ports = []"),
            "mirror.ports",
            &["[]", "at least one", "0000:01:00.0"],
        ),
        (
            with(PORTS, "ports = [\"eth1\"]"),
            "mirror.ports[0]",
            &["\"eth1\"", "PCI address", "vdev"],
        ),
        (
            with(PORTS, "ports = [\"net_af_packet0\"]"),
            "mirror.ports[0]",
            &["net_af_packet0,iface=NAME"],
        ),
        (
            with(PORTS, "ports = [\"net_af_packet0,iface=a-name-too-long0\"]"),
            "mirror.ports[0]",
            &["a-name-too-long0", "15"],
        ),
        (
            with(PORTS, "ports = [\"net_ring0, x\"]"),
            "mirror.ports[0]",
            &["blanks"],
        ),
        (with(PORTS, ""), "mirror.ports", &["missing", "mirror.file"]),
        (
            with(PORTS, &format!("{PORTS}\nfile = \"a.pcap\"")),
            "mirror.file",
            &["a.pcap", "mirror.ports"],
        ),
        (
            with(PORTS, &format!("{PORTS}\nspeed = 2.0")),
            "mirror.speed",
            &["2.0", "mirror.file"],
        ),
        (
            with(PORTS, &format!("{PORTS}\nloops = 2")),
            "mirror.loops",
            &["= 2", "mirror.file"],
        ),
        (
            with(PORTS, &format!("{PORTS}\nmax_idle = \"1s\"")),
            "mirror.max_idle",
            &["1s", "mirror.file"],
        ),
        (
            with(PORTS, "file = \"\""),
            "mirror.file",
            &["names no file", "\"-\" for standard input"],
        ),
        (
            with(PORTS, "file = []"),
            "mirror.file",
            &["names no file", "\"captures/\""],
        ),
        (
            with(PORTS, "file = [\"a\", \"b\", \"a\"]"),
            "mirror.file[2]",
            &["mirror.file[0]", "once"],
        ),
        (
            with(PORTS, "file = 7"),
            "mirror.file",
            &["list", "a capture file"],
        ),
        (
            with(PORTS, "file = \"-\"\nloops = 2"),
            "mirror.loops",
            &["= 2", "standard input"],
        ),
        (
            with(PORTS, "file = \"a\"\nmax_idle = \"never\""),
            "mirror.max_idle",
            &["never", "duration", "\"off\""],
        ),
        (
            and("[traffic]\nshard = \"0/16\""),
            "traffic.shard",
            &["0/16", "\"3/16\""],
        ),
        (
            and("[traffic]\nshard = \"17/16\""),
            "traffic.shard",
            &["17/16", "\"3/16\""],
        ),
        (
            and("[traffic]\nshard = \"+1/2\""),
            "traffic.shard",
            &["+1/2", "\"3/16\""],
        ),
        (
            and("[traffic]\nshard = \"1/70000\""),
            "traffic.shard",
            &["1/70000", "65536"],
        ),
        (
            with(PORTS, "file = \"a.pcap\"\nspeed = 0"),
            "mirror.speed",
            &["= 0", "0.001 to 1000", "\"max\""],
        ),
        (
            with(PORTS, "file = \"a.pcap\"\nspeed = \"fast\""),
            "mirror.speed",
            &["\"fast\"", "\"max\""],
        ),
        (
            with(PORTS, "file = \"a.pcap\"\nspeed = inf"),
            "mirror.speed",
            &["inf", "\"max\""],
        ),
        (
            with(PORTS, "file = \"a.pcap\"\nloops = 0"),
            "mirror.loops",
            &["= 0", "1 to 4294967295"],
        ),
        (with(PORT, ""), "replay.port", &["missing", "0000:01:00.0"]),
        (
            with(ADDRESS, ""),
            "replay.address",
            &["missing", "10.20.0.9/24"],
        ),
        (
            with(ADDRESS, "address = []"),
            "replay.address",
            &["empty", "10.20.0.9/24"],
        ),
        (
            with(ADDRESS, "address = [\"10.20.0.9\"]"),
            "replay.address[0]",
            &["10.20.0.9", "prefix length"],
        ),
        (
            with(ADDRESS, "address = [\"10.20.0.0/24\"]"),
            "replay.address[0]",
            &["10.20.0.0/24", "host's own"],
        ),
        (
            with(ADDRESS, "address = [\"10.20.0.9/0\"]"),
            "replay.address[0]",
            &["10.20.0.9/0", "1 to 32"],
        ),
        (
            with(ADDRESS, "address = [\"127.0.0.1/8\"]"),
            "replay.address[0]",
            &["127.0.0.1/8", "loopback"],
        ),
        (
            with(ADDRESS, "address = [\"10.20.0.9/24\", \"10.20.0.9/16\"]"),
            "replay.address[1]",
            &["10.20.0.9/16", "replay.address[0]"],
        ),
        (
            with(
                ADDRESS,
                &format!("{ADDRESS}\nnext_hop_mac = \"02:00:00:00:00\""),
            ),
            "replay.next_hop_mac",
            &["02:00:00:00:00:01"],
        ),
        (
            with(
                ADDRESS,
                &format!("{ADDRESS}\nnext_hop_mac = \"01:00:5e:00:00:01\""),
            ),
            "replay.next_hop_mac",
            &["01:00:5e:00:00:01", "unicast"],
        ),
        (
            with(FROM, ""),
            "transfer[0].from",
            &["missing", "10.10.0.2:80"],
        ),
        (
            with(TO, ""),
            "transfer[0].to",
            &["missing", "10.20.0.2:8080"],
        ),
        (
            with(FROM, "from = \"10.10.0.2\""),
            "transfer[0].from",
            &["\"10.10.0.2\"", "\":port\""],
        ),
        (
            with(FROM, "from = \":+80\""),
            "transfer[0].from",
            &["\":+80\"", "\":port\""],
        ),
        (
            with(FROM, "from = \":0\""),
            "transfer[0].from",
            &["\":0\"", "1 to 65535"],
        ),
        (
            with(TO, "to = \":80\""),
            "transfer[0].to",
            &["\":80\"", "address:port"],
        ),
        (
            with(TO, "to = \"target.example:80\""),
            "transfer[0].to",
            &["target.example:80", "names are not resolved"],
        ),
        (
            with(TO, "to = \"10.20.0.2:0\""),
            "transfer[0].to",
            &["10.20.0.2:0", "1 to 65535"],
        ),
        (
            with(TO, "to = \"224.0.0.1:80\""),
            "transfer[0].to",
            &["224.0.0.1:80", "multicast"],
        ),
        (
            with(TO, "to = \"[fe80::1%2]:80\""),
            "transfer[0].to",
            &["fe80::1%2", "scope"],
        ),
    ];
    for (text, key, parts) in cases {
        refused(text, key, parts);
    }
}
