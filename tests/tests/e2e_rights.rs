//! The engine as an ordinary user, with the capabilities that its ports take and no other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use std::time::Duration;
use tests::lab::appliance::{Engine, EngineOptions, ORDINARY_USER};
use tests::lab::hugepages::{Reserved, free};
use tests::lab::servers::Service;
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, skipped};
use tests::load::{Talk, Workload};

/// Mirror and replay port, the capabilities they take, and these as `CapEff` of proc_pid_status(5).
type Case = (&'static str, &'static str, &'static [&'static str], u64);

/// Rings as small as an ordinary user may lock without more (8 MiB).
const AF_PACKET: Case = (
    "net_af_packet0,iface=span0,framecnt=1024",
    "net_af_packet1,iface=replay0,framecnt=512",
    &["net_raw", "net_admin"],
    1 << 12 | 1 << 13,
);
const PCAP: Case = (
    "net_pcap0,rx_iface=span0",
    "net_pcap1,iface=replay0",
    &["net_raw"],
    1 << 13,
);

fn options((mirror, port, capabilities, _): Case) -> EngineOptions {
    EngineOptions {
        mirror: mirror.to_owned(),
        port: port.to_owned(),
        capabilities: Some(capabilities),
        ..EngineOptions::default()
    }
}

fn replays(test: &str, case: Case) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    replays_as(test, case, options(case));
}

fn replays_as(test: &str, case: Case, options: EngineOptions) {
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    let status = format!("/proc/{}/status", trial.engine().process().id());
    let status = std::fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(field("Name:"), "engine");
    let ids = format!("{ORDINARY_USER}\t").repeat(4);
    assert_eq!(
        (field("Uid:"), field("Gid:")),
        (ids.trim().into(), ids.trim().into())
    );
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(
            u64::from_str_radix(&field(set), 16).unwrap(),
            case.3,
            "{set}"
        );
    }
    for (seed, talk) in [(1, Talk::Get), (2, Talk::Post(vec![100, 5_000]))] {
        let workload = Workload {
            to: Service::Http.on_production(Family::V4),
            from: Vec::new(),
            talk,
            connections: 20,
            requests: 2,
            concurrency: 2,
            rate: 50,
            seed,
        };
        trial.load(&workload).unwrap();
    }
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 40);
}

#[test]
fn an_ordinary_user_replays_over_packet_sockets() {
    replays("an_ordinary_user_replays_over_packet_sockets", AF_PACKET);
}

#[test]
fn an_ordinary_user_replays_over_libpcap_with_one_capability() {
    replays(
        "an_ordinary_user_replays_over_libpcap_with_one_capability",
        PCAP,
    );
}

/// No mount is needed, and no right.
#[test]
fn an_ordinary_user_takes_hugepages() {
    let test = "an_ordinary_user_takes_hugepages";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let Some(_reserved) = Reserved::more(160) else {
        eprintln!("SKIPPED {test}: 160 pages of 2 MiB cannot be had here; nothing was proved");
        return;
    };
    let unused = free();
    let options = EngineOptions {
        edits: vec![("memory = \"no-huge\"", "memory = \"hugepages\"".to_owned())],
        ..options(PCAP)
    };
    replays_as(test, PCAP, options);
    assert_eq!(free(), unused, "all pages are given back");
}

#[test]
fn what_is_missing_is_said_in_a_sentence() {
    if skipped("what_is_missing_is_said_in_a_sentence") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let said = |case: Case, name: &str| {
        let mut options = options(case);
        options.args.push("--check".to_owned());
        let command = Engine::command(&lab, &options).unwrap();
        let mut process = lab.spawn(name, command).unwrap();
        let code = process.wait(Duration::from_secs(30)).unwrap().code();
        assert_eq!(code, Some(1), "{}", process.log());
        process.log().lines().last().unwrap().to_owned()
    };
    for (case, has, words) in [
        (
            AF_PACKET,
            &[][..],
            "takes CAP_NET_RAW and CAP_NET_ADMIN, which",
        ),
        (AF_PACKET, &["net_raw"], "takes CAP_NET_ADMIN, which"),
        (PCAP, &["net_admin"], "takes CAP_NET_RAW, which"),
    ] {
        let last = said((case.0, case.1, has, 0), "lacking");
        assert!(last.contains(words), "{last}");
    }
    // The driver's rings, of 4 MiB, are larger than the limit on locked memory that this process is
    // given.
    let (mirror, _, capabilities, _) = AF_PACKET;
    let large = (
        mirror,
        "net_af_packet1,iface=replay0,framecnt=16384",
        capabilities,
        0,
    );
    let mut options = options(large);
    options.args.push("--check".to_owned());
    let command = Engine::command(&lab, &options).unwrap();
    let script = "ulimit -l 2048; exec \"$@\"";
    let mut limited = lab.command(Node::Appliance, "bash");
    limited.args(["-c", script, "bash"]);
    // Not through the namespace twice: what comes behind its name.
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let at = words.iter().position(|w| w == "setpriv").unwrap();
    limited.args(&words[at..]).current_dir(lab.dir());
    let mut process = lab.spawn("limited", limited).unwrap();
    let code = process.wait(Duration::from_secs(30)).unwrap().code();
    let log = process.log();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.lines().last().unwrap().contains("LimitMEMLOCK"),
        "{log}"
    );
}
