mod between;
mod paths;
mod targets;
mod values;

use std::io;
use std::path::{Path, PathBuf};
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
    assert!(replay.mirror.ip_in_udp.is_empty() && replay.mirror.verify_checksums);
    assert!(replay.mirror.addresses.is_empty() && replay.mirror.tunnels.is_none());
    assert_eq!(replay.transfers[0].sources(), "10.10.0.2:80");
    assert!(replay.clients.pool.is_empty() && replay.warnings.is_empty());
    let traffic = Traffic {
        copies: 1,
        percent: 100.0,
        ramp: Duration::ZERO,
        shard: Shard::ALL,
        full_sessions_only: false,
        pace: Pace {
            wait_for_responses: true,
            rtt: None,
            gate_timeout: Duration::from_secs(5),
        },
        session_timeout: Duration::from_secs(600),
        keepalive_timeout: Duration::from_secs(7_200),
    };
    assert_eq!(replay.traffic, traffic);
    let [target] = replay.transfers[0].to[..] else {
        panic!()
    };
    assert_eq!(target.to_string(), "10.20.0.2:8080");
    assert_eq!((target.copies, target.percent), (1, 100.0));
    assert_eq!(target.pace, traffic.pace);
    assert_eq!(replay.intercept, Intercept::Embedded);
    assert_eq!(
        replay.limits,
        Limits {
            sessions: 1_000_000,
            mbufs_bytes: 512 << 20,
            session_bytes: 4 << 20
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
file = ["caps/online.pcap", "ring.pcap*", "/captures/"]
speed = "max"
loops = 3
max_idle = "off"
ip_in_udp = [9999, 40_001]
verify_checksums = false
tunnels = ["10.9.0.5", "10.9.1.0/24 vni 77", "2001:db8:9::/64  key 0x4d", "0.0.0.0/0"]
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
copies = 7
percent = 12.5
wait_for_responses = true
gate_timeout = "4s"
[clients]
pool = ["62.135.200.0/24", "2001:db8:3::/64"]
[traffic]
copies = 1023
percent = 0.5
ramp = "1m 30s"
shard = "3/16"
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
    let source = Source::Files(Files {
        names: ["caps/online.pcap", "ring.pcap*", "/captures/"]
            .map(PathBuf::from)
            .to_vec(),
        speed: Speed::Max,
        loops: 3,
        max_idle: None,
    });
    assert_eq!(replay.mirror.source, source);
    assert_eq!(replay.mirror.ip_in_udp, [9999, 40_001]);
    let end = |to: &str, network| TunnelEnd {
        to: to.parse().unwrap(),
        network,
    };
    assert_eq!(
        replay.mirror.tunnels.as_deref().unwrap(),
        [
            end("10.9.0.5/32", None),
            end("10.9.1.0/24", Some(TunnelNetwork::Vni(77))),
            end("2001:db8:9::/64", Some(TunnelNetwork::Key(77))),
            end("0.0.0.0/0", None),
        ]
    );
    assert!(!replay.mirror.verify_checksums);
    assert_eq!(replay.replay.port, "01:00.0");
    assert_eq!(replay.replay.addresses[1].to_string(), "2001:db8::9/64");
    assert_eq!(replay.replay.gateways[1].to_string(), "fe80::1");
    assert_eq!(replay.replay.next_hop_mac, Some([2, 0xab, 0, 0, 0, 1]));
    let any = Origin {
        net: None,
        low: 80,
        high: 80,
    };
    assert_eq!(replay.transfers[0].from, [any]);
    let to = |i: usize| replay.transfers[i].to[0];
    assert_eq!(to(1).to_string(), "[2001:db8:2::2]:443");
    assert_eq!(replay.clients.pool[1].to_string(), "2001:db8:3::/64");
    assert_eq!((replay.traffic.copies, replay.traffic.percent), (1023, 0.5));
    assert_eq!(replay.traffic.ramp, Duration::from_secs(90));
    assert!(replay.traffic.full_sessions_only && !replay.traffic.pace.wait_for_responses);
    let timeouts = [
        replay.traffic.pace.gate_timeout,
        replay.traffic.session_timeout,
        replay.traffic.keepalive_timeout,
    ];
    assert_eq!(timeouts, [1, 2, 3].map(Duration::from_secs));
    let rtt = Some(Duration::from_millis(20));
    assert_eq!(replay.traffic.pace.rtt, rtt);
    assert_eq!(to(0).pace, replay.traffic.pace);
    assert_eq!((to(0).copies, to(0).percent), (1023, 0.5));
    let second = Pace {
        wait_for_responses: true,
        rtt,
        gate_timeout: Duration::from_secs(4),
    };
    assert_eq!(to(1).pace, second);
    assert_eq!((to(1).copies, to(1).percent), (7, 12.5));
    assert_eq!(replay.traffic.shard, Shard { number: 3, of: 16 });
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
fn a_capture_file_is_played_once_at_its_own_pace() {
    let replay = ok(&with(PORTS, "file = \"a,b.pcap\""));
    let files = Files {
        names: vec!["a,b.pcap".into()],
        speed: Speed::Factor(1.0),
        loops: 1,
        max_idle: Some(Duration::from_secs(10)),
    };
    assert_eq!(replay.mirror.source, Source::Files(files));
    assert_eq!(replay.traffic.shard, Shard::ALL);
    // Standard input is in no folder.
    let text = with(PORTS, "file = [\"-\", \"a.pcap\"]\nmax_idle = \"1m\"");
    let replay = parse_with(&text, "/etc/replay.toml", &no_keys).unwrap();
    let Source::Files(files) = replay.mirror.source else {
        panic!()
    };
    let names: Vec<PathBuf> = vec!["-".into(), "/etc/a.pcap".into()];
    assert_eq!(
        (files.names, files.max_idle),
        (names, Some(Duration::from_secs(60)))
    );
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
    // Nesting without end must not exhaust the stack.
    for deeper in ["[".repeat(100_000), "{a=".repeat(100_000)] {
        let error = parse_with(&format!("x = {deeper}"), "replay.toml", &no_keys).unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
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
            Ok(replay) => for (_, to) in replay.targets() {
                let mut origins = replay.transfers.iter().flat_map(|t| &t.from);
                assert!(origins.all(|o| o.net.is_none_or(|n| !n.contains(&to.addr))), "{text}");
            },
        }
    }
}
