use std::io;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::{Idle, KeyFile, Memory};

const MINIMAL: &str = r#"
[mirror]
ports = ["net_af_packet0,iface=span0"]
[replay]
port = "net_af_packet1,iface=replay0"
address = ["10.20.0.9/24"]
[[transfer]]
from = "10.10.0.2:80"
to = "10.20.0.2:8080"
"#;

fn no_keys(_: &Path) -> io::Result<KeyFile> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn ok(text: &str) -> Replay {
    match parse_with(text, "replay.toml", &no_keys) {
        Ok(replay) => replay,
        Err(e) => panic!("{e}\n{text}"),
    }
}

/// Asserts that the text is refused for this key, in one line that has all the parts.
#[track_caller]
fn refused(text: &str, key: &str, parts: &[&str]) -> crate::Error {
    let Err(error) = parse_with(text, "replay.toml", &no_keys) else {
        panic!("accepted:\n{text}")
    };
    let shown = error.to_string();
    assert_eq!(error.key(), Some(key), "{shown}");
    assert!(
        shown.starts_with("replay.toml:") && !shown.contains('\n'),
        "{shown}"
    );
    for part in [key].iter().chain(parts) {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
    error
}

/// The minimal file with one line replaced by others.
fn with(line: &str, by: &str) -> String {
    assert!(MINIMAL.contains(line), "{line}");
    MINIMAL.replacen(line, by, 1)
}

/// The minimal file and more.
fn and(more: &str) -> String {
    format!("{MINIMAL}{more}\n")
}

const PORTS: &str = r#"ports = ["net_af_packet0,iface=span0"]"#;
const PORT: &str = r#"port = "net_af_packet1,iface=replay0""#;
const ADDRESS: &str = r#"address = ["10.20.0.9/24"]"#;
const FROM: &str = r#"from = "10.10.0.2:80""#;
const TO: &str = r#"to = "10.20.0.2:8080""#;

#[test]
fn defaults_are_the_documented_ones() {
    let replay = ok(MINIMAL);
    assert_eq!(
        replay.mirror.source,
        Source::Ports(vec!["net_af_packet0,iface=span0".into()])
    );
    assert_eq!(replay.transfers[0].from.to_string(), "10.10.0.2:80");
    assert!(replay.clients.pool.is_empty() && replay.warnings.is_empty());
    let traffic = Traffic {
        copies: 1,
        percent: 100.0,
        ramp: Duration::ZERO,
        full_sessions_only: false,
        wait_for_responses: true,
        rtt: None,
        gate_timeout: Duration::from_secs(5),
        session_timeout: Duration::from_secs(600),
        keepalive_timeout: Duration::from_secs(720),
    };
    assert_eq!(replay.traffic, traffic);
    assert_eq!(replay.intercept, Intercept::Embedded);
    assert_eq!(
        replay.limits,
        Limits {
            sessions: 1_000_000,
            mbufs_bytes: 512 << 20,
            session_bytes: 1 << 20
        }
    );
    assert_eq!(replay.report.interval, Duration::from_secs(10));
    assert_eq!(replay.report.json, Path::new("report.json"));
    assert_eq!(
        (replay.eal.lcores, replay.eal.memory, replay.eal.idle),
        (vec![1], Memory::Hugepages, None)
    );
}

#[test]
fn every_key_arrives() {
    let replay = ok(r#"
[mirror]
file = "caps/online.pcap"
speed = "max"
loops = 3
[replay]
port = "01:00.0"
address = ["10.20.0.9/24", "2001:db8::9/64"]
gateway = ["10.20.0.1", "fe80::1"]
next_hop_mac = "02:aB:00:00:00:01"
[[transfer]]
from = ":80"
to = "192.0.2.1:80"
[[transfer]]
from = "[2001:db8:1::2]:443"
to = "[2001:db8:2::2]:443"
[clients]
pool = ["62.135.200.0/24", "2001:db8:3::/64"]
[traffic]
copies = 1023
percent = 0.5
ramp = "1m 30s"
full_sessions_only = true
wait_for_responses = false
rtt = "20ms"
gate_timeout = "1s"
session_timeout = "2s"
keepalive_timeout = "3s"
[intercept]
mode = "remote"
servers = ["127.0.0.1:36524", "10.30.0.3:36525"]
insecure = true
[limits]
sessions = 1_000
mbufs = "64MiB"
session_bytes = "64KiB"
[report]
interval = "250ms"
json = "/tmp/r.json"
[eal]
lcores = [3, 1]
memory = "no-huge"
idle = "sleep"
"#);
    let source = Source::File {
        path: "caps/online.pcap".into(),
        speed: Speed::Max,
        loops: 3,
    };
    assert_eq!(replay.mirror.source, source);
    assert_eq!(replay.replay.port, "01:00.0");
    assert_eq!(replay.replay.addresses[1].to_string(), "2001:db8::9/64");
    assert_eq!(replay.replay.gateways[1].to_string(), "fe80::1");
    assert_eq!(replay.replay.next_hop_mac, Some([2, 0xab, 0, 0, 0, 1]));
    assert_eq!(
        replay.transfers[0].from,
        Origin {
            addr: None,
            port: 80
        }
    );
    assert_eq!(replay.transfers[1].to.to_string(), "[2001:db8:2::2]:443");
    assert_eq!(replay.clients.pool[1].to_string(), "2001:db8:3::/64");
    assert_eq!((replay.traffic.copies, replay.traffic.percent), (1023, 0.5));
    assert_eq!(replay.traffic.ramp, Duration::from_secs(90));
    assert!(replay.traffic.full_sessions_only && !replay.traffic.wait_for_responses);
    assert_eq!(replay.traffic.rtt, Some(Duration::from_millis(20)));
    let timeouts = [
        replay.traffic.gate_timeout,
        replay.traffic.session_timeout,
        replay.traffic.keepalive_timeout,
    ];
    assert_eq!(timeouts, [1, 2, 3].map(Duration::from_secs));
    let Intercept::Remote {
        servers,
        key: None,
        insecure: true,
    } = replay.intercept
    else {
        panic!()
    };
    assert_eq!(servers[1].to_string(), "10.30.0.3:36525");
    assert_eq!(
        replay.limits,
        Limits {
            sessions: 1000,
            mbufs_bytes: 64 << 20,
            session_bytes: 64 << 10
        }
    );
    assert_eq!(replay.report.interval, Duration::from_millis(250));
    assert_eq!(
        (replay.eal.lcores, replay.eal.idle),
        (vec![3, 1], Some(Idle::Sleep))
    );
    assert!(
        replay.warnings[0].contains("insecure"),
        "{:?}",
        replay.warnings
    );
}

#[test]
fn bad_values_are_refused_with_key_value_and_what_is_accepted() {
    let cases: &[(String, &str, &[&str])] = &[
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
            with(PORTS, "file = \"a,b.pcap\""),
            "mirror.file",
            &["a,b.pcap", "comma"],
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
        (
            with(TO, "to = [\"10.20.0.2:80\"]"),
            "transfer[0].to",
            &["[\"10.20.0.2:80\"]", "in quotes"],
        ),
    ];
    for (text, key, parts) in cases {
        refused(text, key, parts);
    }
}

#[test]
fn the_line_is_named() {
    assert_eq!(
        refused(&with(TO, "to = \"x\""), "transfer[0].to", &[]).line(),
        Some(9)
    );
    assert_eq!(
        refused(&and("[traffic]\n\nspeeed = 1"), "traffic.speeed", &[]).line(),
        Some(12)
    );
    assert_eq!(
        refused(&with(FROM, ""), "transfer[0].from", &[]).line(),
        Some(7)
    );
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    refused(
        &and("[traffic]\npercnt = 5"),
        "traffic.percnt",
        &["= 5", "did you mean traffic.percent?"],
    );
    refused(
        &and("[clients]\ncopies = 5"),
        "clients.copies",
        &["did you mean traffic.copies?"],
    );
    refused(
        &and("[trafic]\npercent = 5"),
        "trafic",
        &["did you mean [traffic]?"],
    );
    refused(
        &format!("copies = 2\n{MINIMAL}"),
        "copies",
        &["= 2", "did you mean traffic.copies?"],
    );
    refused(
        &and("[eal]\nhugepage_dir = 5"),
        "eal.hugepage_dir",
        &["lcores, memory, idle"],
    );
    refused(
        &and("[[transfer]]\nfrm = \":1\""),
        "transfer[1].frm",
        &["\":1\"", "did you mean transfer[1].from?"],
    );
    refused(
        &and("[qqqqqqqqqqqq]"),
        "qqqqqqqqqqqq",
        &["mirror, replay, transfer"],
    );
    refused(
        &and("[traffic.percent]\nx = 1"),
        "traffic.percent",
        &["{…}", "number"],
    );
}

#[test]
fn the_shape_of_tables_is_checked() {
    refused(
        &with("[[transfer]]", "[transfer]"),
        "transfer",
        &["[[transfer]]"],
    );
    refused(
        &with(
            "[[transfer]]\nfrom = \"10.10.0.2:80\"\nto = \"10.20.0.2:8080\"",
            "",
        ),
        "transfer",
        &["at least one"],
    );
    refused(
        &format!("traffic = 5\n{MINIMAL}"),
        "traffic",
        &["= 5", "[traffic]"],
    );
    refused(&and("[[transfer]]"), "transfer[1].from", &["missing"]);
    let error = parse("[mirror\nports = 1", "replay.toml").unwrap_err();
    assert_eq!((error.line(), error.key()), (Some(1), None));
    assert!(
        error
            .to_string()
            .starts_with("replay.toml:1: not valid TOML: "),
        "{error}"
    );
    let error = parse("[mirror]\nports = []\nports = []", "replay.toml").unwrap_err();
    assert_eq!(error.line(), Some(3), "{error}");
    refused("", "mirror.ports", &["missing"]);
}

#[test]
fn replaying_to_production_is_refused() {
    let parts = &["production", "transfer[0].from", "refused"];
    refused(&with(TO, "to = \"10.10.0.2:80\""), "transfer[0].to", parts);
    // Another port of a production address is production, too.
    refused(
        &with(TO, "to = \"10.10.0.2:8080\""),
        "transfer[0].to",
        parts,
    );
    // And so is the address of another transfer, whichever comes first.
    let second = "[[transfer]]\nfrom = \"10.20.0.2:81\"\nto = \"10.20.0.4:81\"";
    refused(
        &and(second),
        "transfer[0].to",
        &["10.20.0.2:8080", "transfer[1].from"],
    );
    // Nor does another spelling get around it.
    refused(
        &with(TO, "to = \"[::ffff:10.10.0.2]:80\""),
        "transfer[0].to",
        &["IPv4-mapped"],
    );
    let v6 = with(ADDRESS, "address = [\"2001:db8::9/64\"]")
        .replace(FROM, "from = \"[2001:db8:0:0::2]:80\"");
    refused(
        &v6.replace(TO, "to = \"[2001:0db8::2]:80\""),
        "transfer[0].to",
        parts,
    );
}

#[test]
fn a_target_is_never_taken_for_production() {
    let text = with(FROM, "from = \":80\"").replace(TO, "to = \"10.20.0.2:80\"");
    let text = format!("{text}[[transfer]]\nfrom = \"10.10.0.7:80\"\nto = \"10.20.0.3:81\"\n");
    let replay = ok(&text);
    let find = |server: &str| replay.transfer_for(server.parse().unwrap());
    assert_eq!(find("10.10.0.2:80"), Some(0));
    assert_eq!(
        find("10.10.0.7:80"),
        Some(1),
        "an exact origin wins over a wildcard"
    );
    assert_eq!(
        find("10.20.0.2:80"),
        None,
        "a target would be replayed forever"
    );
    assert_eq!(find("10.20.0.3:80"), Some(0));
    assert_eq!(find("10.10.0.2:81"), None);
    assert_eq!(
        find("[2001:db8::1]:80"),
        None,
        "the client's IPv6 address cannot be kept towards an IPv4 target"
    );
    let pooled = ok(&format!("{text}[clients]\npool = [\"62.135.200.0/24\"]\n"));
    assert_eq!(
        pooled.transfer_for("[2001:db8::1]:80".parse().unwrap()),
        Some(0)
    );
}

#[test]
fn transfers_are_distinct_and_not_the_box_itself() {
    let again = "[[transfer]]\nfrom = \"10.10.0.2:80\"\nto = \"10.20.0.3:8080\"";
    refused(
        &and(again),
        "transfer[1].from",
        &["10.10.0.2:80", "transfer[0].from"],
    );
    let wild = with(FROM, "from = \":80\"");
    refused(
        &format!("{wild}[[transfer]]\nfrom = \":80\"\nto = \"10.20.0.3:1\"\n"),
        "transfer[1].from",
        &["transfer[0].from"],
    );
    refused(
        &with(TO, "to = \"10.20.0.9:80\""),
        "transfer[0].to",
        &["own address", "replay.address[0]"],
    );
    refused(
        &with(FROM, "from = \"10.20.0.9:80\""),
        "transfer[0].from",
        &["own address", "replay.address[0]"],
    );
    let gateway = with(ADDRESS, &format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]"));
    refused(
        &gateway.replace(FROM, "from = \"10.20.0.1:80\""),
        "transfer[0].from",
        &["gateway"],
    );
}

#[test]
fn every_target_can_be_reached() {
    let far = with(TO, "to = \"192.0.2.1:80\"");
    refused(
        &far,
        "transfer[0].to",
        &["192.0.2.1:80", "replay.gateway", "replay.next_hop_mac"],
    );
    ok(&far.replace(ADDRESS, &format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]")));
    ok(&far.replace(ADDRESS, "next_hop_mac = \"02:00:00:00:00:01\""));
    let v6 = with(FROM, "from = \":80\"").replace(TO, "to = \"[2001:db8::2]:80\"");
    refused(
        &v6,
        "transfer[0].to",
        &["2001:db8::2", "IPv6 address in replay.address"],
    );
    ok(&v6.replace(ADDRESS, "address = [\"10.20.0.9/24\", \"2001:db8::9/64\"]"));
    // A gateway of the other family doesn't help.
    let both = "address = [\"10.20.0.9/24\", \"2001:db8:1::9/64\"]\ngateway = [\"10.20.0.1\"]";
    refused(
        &v6.replace(ADDRESS, both),
        "transfer[0].to",
        &["IPv6 replay.gateway"],
    );
    refused(
        &with(TO, "to = \"10.20.0.255:80\""),
        "transfer[0].to",
        &["broadcast"],
    );
}

#[test]
fn gateways_are_on_the_wire_and_one_a_family() {
    let gateways = |list: &str| with(ADDRESS, &format!("{ADDRESS}\ngateway = [{list}]"));
    refused(
        &gateways("\"10.21.0.1\""),
        "replay.gateway[0]",
        &["10.21.0.1", "not on the wire", "replay.address"],
    );
    refused(
        &gateways("\"10.20.0.9\""),
        "replay.gateway[0]",
        &["10.20.0.9", "own address"],
    );
    refused(
        &gateways("\"10.20.0.1\", \"10.20.0.2\""),
        "replay.gateway[1]",
        &["10.20.0.2", "one a family"],
    );
    refused(
        &gateways("\"10.20.0.1/24\""),
        "replay.gateway[0]",
        &["10.20.0.1/24", "without prefix length"],
    );
    refused(
        &gateways("\"fe80::1\""),
        "replay.gateway[0]",
        &["fe80::1", "not on the wire"],
    );
}

#[test]
fn pools_have_the_targets_family_and_nobody_elses_address() {
    let pool = |list: &str| and(&format!("[clients]\npool = [{list}]"));
    refused(
        &pool("\"2001:db8::/64\""),
        "transfer[0].to",
        &["10.20.0.2:8080", "no IPv4 prefix", "clients.pool"],
    );
    refused(
        &pool("\"10.20.0.0/29\""),
        "clients.pool[0]",
        &["10.20.0.0/29", "10.20.0.2", "transfer[0].to"],
    );
    refused(
        &pool("\"10.10.0.0/16\""),
        "clients.pool[0]",
        &["10.10.0.2", "production", "transfer[0].from"],
    );
    refused(
        &pool("\"10.20.0.8/31\""),
        "clients.pool[0]",
        &["10.20.0.9", "own address", "replay.address[0]"],
    );
    let gateway = format!("{ADDRESS}\ngateway = [\"10.20.0.1\"]");
    let text = pool("\"10.20.0.0/31\"").replace(ADDRESS, &gateway);
    refused(
        &text,
        "clients.pool[0]",
        &["10.20.0.1", "gateway", "replay.gateway[0]"],
    );
    refused(
        &pool("\"62.1.0.0/16\", \"62.1.2.0/24\""),
        "clients.pool[1]",
        &["62.1.2.0/24", "overlaps clients.pool[0]"],
    );
    let mixed = with(FROM, "from = \"[2001:db8::2]:80\"");
    refused(
        &mixed,
        "transfer[0].to",
        &["10.20.0.2:8080", "same family", "clients.pool"],
    );
    ok(&format!("{mixed}[clients]\npool = [\"62.135.200.0/24\"]\n"));
}

#[test]
fn ports_are_distinct() {
    let ports = |list: &str| with(PORTS, &format!("ports = [{list}]"));
    refused(
        &ports("\"net_af_packet1,iface=span0\""),
        "replay.port",
        &["net_af_packet1", "mirror.ports[0]", "no mirror"],
    );
    refused(
        &ports("\"net_af_xdp0,iface=replay0\""),
        "replay.port",
        &["uses replay0", "mirror.ports[0]"],
    );
    refused(
        &ports("\"net_pcap0,rx_iface=replay0,tx_iface=x\""),
        "replay.port",
        &["uses replay0"],
    );
    let twice = "\"net_af_packet0,iface=s\", \"net_af_packet5,iface=s\"";
    refused(
        &ports(twice),
        "mirror.ports[1]",
        &["uses s", "mirror.ports[0]", "once"],
    );
    let pci = ports("\"0000:0A:00.0\"").replace(PORT, "port = \"0a:00.0\"");
    refused(&pci, "replay.port", &["0a:00.0", "mirror.ports[0]"]);
    ok(&ports(
        "\"0000:0A:00.0\", \"0a:00.1\", \"net_ring0\", \"net_null0\"",
    ));
}

#[test]
fn the_intercepts_mode_decides_which_keys_it_takes() {
    let intercept = |keys: &str| and(&format!("[intercept]\n{keys}"));
    refused(
        &intercept("mode = \"local\""),
        "intercept.mode",
        &["\"local\"", "\"embedded\" or \"remote\""],
    );
    refused(
        &intercept("mode = \"remote\""),
        "intercept.servers",
        &["needs", "10.30.0.3:36524"],
    );
    refused(
        &intercept("mode = \"remote\"\nservers = []"),
        "intercept.servers",
        &["[]", "at least one"],
    );
    for key in [
        "servers = [\"127.0.0.1:1\"]",
        "key_file = \"k\"",
        "insecure = true",
    ] {
        let name = format!("intercept.{}", key.split(' ').next().unwrap());
        refused(&intercept(key), &name, &["intercept.mode = \"remote\""]);
    }
    let servers = |list: &str| intercept(&format!("mode = \"remote\"\nservers = [{list}]"));
    refused(
        &servers("\"10.30.0.3\""),
        "intercept.servers[0]",
        &["10.30.0.3", "address:port"],
    );
    refused(
        &servers("\"127.0.0.1:1\", \"127.0.0.1:1\""),
        "intercept.servers[1]",
        &["intercept.servers[0]"],
    );
    let open = refused(
        &servers("\"127.0.0.1:1\", \"10.30.0.3:1\""),
        "intercept.servers[1]",
        &["10.30.0.3:1", "key_file"],
    );
    assert!(open.to_string().contains("insecure = true"));
    ok(&servers("\"127.0.0.1:36524\", \"[::1]:36524\""));
}

#[test]
fn the_key_comes_from_a_file_beside_the_configuration_and_is_not_shown() {
    let text =
        and("[intercept]\nmode = \"remote\"\nservers = [\"10.30.0.3:1\"]\nkey_file = \"link.key\"");
    let secret: [u8; 32] = std::array::from_fn(|i| i as u8);
    let reader = |path: &Path| {
        assert_eq!(path, Path::new("/etc/box/link.key"));
        Ok(KeyFile {
            bytes: secret.to_vec(),
            world_readable: true,
        })
    };
    let replay = parse_with(&text, "/etc/box/replay.toml", &reader).unwrap();
    assert!(replay.warnings[0].contains("link.key") && replay.warnings[0].contains("chmod 600"));
    let Intercept::Remote { key, .. } = &replay.intercept else {
        panic!()
    };
    assert_eq!(*key, Some(secret));
    let shown = format!("{replay:?}");
    assert!(
        shown.contains("(hidden)") && !shown.contains("30, 31"),
        "{shown}"
    );
    refused(
        &text,
        "intercept.key_file",
        &["link.key", "cannot be read", "32 random bytes"],
    );
    let both = parse_with(
        &format!("{text}insecure = true\n"),
        "/etc/box/replay.toml",
        &reader,
    )
    .unwrap_err();
    assert!(
        both.key() == Some("intercept.insecure") && both.to_string().contains("one of the two"),
        "{both}"
    );
}

#[test]
fn long_and_strange_values_stay_one_short_line() {
    let long = "x".repeat(10_000);
    let error = refused(
        &and(&format!("[eal]\nmemory = \"{long}\"")),
        "eal.memory",
        &["…"],
    );
    assert!(error.to_string().len() < 300);
    refused(
        &and("[eal]\nmemory = \"a\\nb\\u001b[31m\""),
        "eal.memory",
        &["\\n", "\\u{1b}"],
    );
    let error = parse_with(&and("[eal]\n\"a\\nb\" = 1"), "replay.toml", &no_keys).unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    let deep = format!("[eal]\nmemory = {}{}", "[".repeat(50), "]".repeat(50));
    refused(&and(&deep), "eal.memory", &["\"hugepages\""]);
}

proptest::proptest! {
    /// Whatever is in a file, the answer is a configuration or one line.
    #[test]
    fn any_text_gives_an_answer(text in ".{0,400}") {
        if let Err(e) = parse_with(&text, "replay.toml", &no_keys) {
            assert!(!e.to_string().contains('\n'), "{e:?}");
        }
    }

    /// The same for files that are nearly right.
    #[test]
    fn any_damage_gives_an_answer(at in 0..MINIMAL.len(), by in "[\\[\\]\"=.:/0-9a-z\n]{0,6}", cut in 0..8usize) {
        let end = (at + cut).min(MINIMAL.len());
        let text = format!("{}{by}{}", &MINIMAL[..at], &MINIMAL[end..]);
        match parse_with(&text, "replay.toml", &no_keys) {
            Err(e) => assert!(!e.to_string().contains('\n'), "{e:?}"),
            Ok(replay) => for t in &replay.transfers {
                assert!(replay.transfers.iter().all(|o| o.from.addr != Some(t.to.ip())), "{text}");
            },
        }
    }
}
