//! A mirror that comes through a tunnel of the kernel's to the appliance's own address, and a
//! stranger who sends tunnels with forged segments in them to production.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use std::time::Duration;
use tests::lab::appliance::EngineOptions;
use tests::lab::capture::{Capture, Direction, Segment};
use tests::lab::process::wait_until;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::trial::Trial;
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, skipped};
use tests::load::{Talk, Workload};
use tests::record::{Match, check_byte_exact};
use wire::build::{LinkHeader, tcp};
use wire::head::HeaderBuf;
use wire::{Addr, Endpoint, Flags, Flow, Head, Options, Seq};

const LIMIT: Duration = Duration::from_secs(30);

/// The appliance's addresses at the mirror, as the configuration has them.
const ADDRESS: &str = "address = [\"10.9.0.5/24\", \"fd09::5/64\"]";

/// Makes the switch mirror through a tunnel of this type to the appliance. False, and a word about
/// it, if this kernel has none.
fn mirror_through(lab: &Lab, tunnel: &str) -> bool {
    let add = format!("link add tun0 type {tunnel}");
    let words: Vec<&str> = add.split(' ').collect();
    let ready = "cd /proc/sys/net/ipv6/conf; echo 0 >sp0/disable_ipv6; echo 0 >sp0/dad_transmits\n\
        ip addr add 10.9.0.1/24 dev sp0; ip addr add fd09::1/64 dev sp0 nodad; ip link set sp0 mtu 1600";
    lab.run(Node::Switch, "sh", &["-ec", ready]).unwrap();
    lab.run(
        Node::Appliance,
        "ip",
        &["link", "set", "span0", "mtu", "1600"],
    )
    .unwrap();
    if let Err(e) = lab.run(Node::Switch, "ip", &words) {
        eprintln!("SKIPPED {tunnel}: {e:#}; nothing was proved");
        return false;
    }
    let script = "ip link set tun0 mtu 1500 up; ethtool -K tun0 tx off tso off gso off sg off\n\
        for d in egress ingress; do tc filter del dev swp $d\n\
        tc filter add dev swp $d protocol all pref 1 u32 match u32 0 0 action mirred egress mirror dev tun0; done";
    lab.run(Node::Switch, "sh", &["-ec", script]).unwrap();
    true
}

/// The kernel sends a tunnel's datagrams to who answers its ARP or neighbour discovery: without
/// answers not one would be sent.
fn arrives_through(test: &str, tunnel: &str, answered: &str) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    if !mirror_through(&lab, tunnel) {
        return;
    }
    let options = EngineOptions {
        workers: 2,
        extra: vec![("mirror", ADDRESS.to_owned())],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start_in(lab, options).unwrap();
    // The kernel may drop some of what it has for a neighbour that it has to ask for first.
    let there = answered.trim();
    let ask = format!("echo >/dev/udp/{there}/9");
    wait_until("an answer of the mirror's address", LIMIT, || {
        trial.lab.run(Node::Switch, "bash", &["-c", &ask])?;
        let known = trial
            .lab
            .run(Node::Switch, "ip", &["neigh", "show", "to", there])?;
        Ok(known.contains("lladdr").then_some(()))
    })
    .unwrap();
    for (seed, talk, connections, requests) in [
        (1, Talk::Get, 50, 5),
        (2, Talk::Post(vec![100, 1_460, 20_000]), 10, 3),
    ] {
        let workload = Workload {
            to: Service::Http.on_production(Family::V4),
            from: trial.lab.client_addresses(Family::V4),
            talk,
            connections,
            requests,
            concurrency: 5,
            rate: 100,
            seed,
        };
        trial.load(&workload).unwrap();
    }
    let neighbours = trial.lab.run(Node::Switch, "ip", &["neigh"]).unwrap();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 60);
    let line = neighbours.lines().find(|l| l.starts_with(answered));
    assert!(
        line.is_some_and(|l| l.contains("02:00:00:00:ff:09")),
        "{neighbours}"
    );
    assert!(outcome.report.number("mirror.answered").unwrap() >= 1);
}

#[test]
fn a_mirror_through_vxlan_is_answered_and_replayed() {
    arrives_through(
        "a_mirror_through_vxlan_is_answered_and_replayed",
        "vxlan id 77 local 10.9.0.1 remote 10.9.0.5 dstport 4789 dev sp0",
        "10.9.0.5 ",
    );
}

#[test]
fn a_mirror_through_vxlan_over_ipv6_is_answered_and_replayed() {
    arrives_through(
        "a_mirror_through_vxlan_over_ipv6_is_answered_and_replayed",
        "vxlan id 77 local fd09::1 remote fd09::5 dstport 4789 dev sp0",
        "fd09::5 ",
    );
}

#[test]
fn a_mirror_through_gre_is_answered_and_replayed() {
    arrives_through(
        "a_mirror_through_gre_is_answered_and_replayed",
        "gretap local 10.9.0.1 remote 10.9.0.5",
        "10.9.0.5 ",
    );
}

/// The reset that would end a client's connection after what it has sent.
fn reset(last: &Segment) -> Vec<u8> {
    let end = |family: std::net::IpAddr, port| Endpoint::new(Addr::from(family), port);
    let head = Head {
        flow: Flow {
            src: end(Family::V4.client(), last.ports[0]),
            dst: end(Family::V4.production(), last.ports[1]),
        },
        seq: Seq(last.seq.wrapping_add(last.payload_len)),
        ack: Seq(last.ack),
        flags: Flags::RST.with(Flags::ACK),
        window: 0,
        urgent: 0,
        options: Options::default(),
        payload_len: 0,
    };
    let mut frame = HeaderBuf::new();
    let link = LinkHeader {
        dst: [2; 6],
        src: [4; 6],
    };
    tcp(&mut frame, &link, &head, 64, 1, &[]);
    frame.to_vec()
}

/// A connection with two requests; before the second one a stranger resets it, as far as the mirror
/// shows.
fn stranger(test: &str, through: Option<&str>) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    if through.is_some_and(|tunnel| !mirror_through(&lab, tunnel)) {
        return;
    }
    let extra = match through {
        Some(_) => vec![("mirror", ADDRESS.to_owned())],
        None => Vec::new(),
    };
    let production = Server::start(&lab, Side::Production, Service::Http, true).unwrap();
    let target = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let options = EngineOptions {
        extra,
        ..EngineOptions::default()
    };
    let mut engine = tests::lab::appliance::Engine::start(&lab, &options).unwrap();

    let to = Service::Http.on_production(Family::V4);
    let script = format!(
        "exec 3<>/dev/tcp/{}/{}\n\
         printf 'GET /first HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' >&3; head -c 1 <&3 >/dev/null; echo answered\n\
         until [ -e go ]; do sleep 0.02; done\n\
         printf 'GET /second HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3 >/dev/null",
        to.ip(),
        to.port()
    );
    let capture = Capture::start(&lab, Node::Client, "eth0", Direction::Both).unwrap();
    let mut command = lab.command(Node::Client, "bash");
    command.args(["-ec", &script]).current_dir(lab.dir());
    let mut client = lab.spawn("client", command).unwrap();
    client.wait_for("answered", LIMIT).unwrap();
    let seen = capture.stop().unwrap();
    let ours = |s: &&Segment| s.ports[1] == to.port();
    let last = seen.iter().filter_map(|f| f.tcp.as_ref()).filter(ours);
    let last = *last.max_by_key(|s| s.seq).unwrap();
    engine.settle(1, 1, LIMIT).unwrap();

    let frame = reset(&last);
    let packet = &frame[14..];
    for (port, forged) in [
        // GRE in UDP names no network: the segment would be the connection's own.
        (4754, [&[0, 0, 8, 0], packet].concat()),
        (4789, [&[8, 0, 0, 0, 0, 0, 0, 0], &frame[..]].concat()),
    ] {
        std::fs::write(lab.file("forged"), forged).unwrap();
        let send = format!("cat forged >/dev/udp/{}/{port}", to.ip());
        let mut command = lab.command(Node::Client, "bash");
        command.args(["-ec", &send]).current_dir(lab.dir());
        let mut sent = lab.spawn("stranger", command).unwrap();
        assert!(sent.wait(LIMIT).unwrap().success());
    }
    let report = wait_until("both are refused", LIMIT, || {
        let report = engine.report()?;
        Ok(report.filter(|r| {
            r.number("mirror.dropped.tunnel_refused")
                .is_ok_and(|n| n >= 2)
        }))
    })
    .unwrap_or_else(|e| panic!("{e:#}\n{:?}", engine.report()));
    let refused = report.value("mirror.refused_tunnels").unwrap();
    assert_eq!(refused[0]["to"], "10.10.0.2", "{refused}");
    assert_eq!(refused[0]["frames"], 2, "{refused}");
    let log = engine.process().log();
    assert!(log.contains("add \"10.10.0.2\" to mirror.tunnels"), "{log}");

    std::fs::write(lab.file("go"), "").unwrap();
    assert!(client.wait(LIMIT).unwrap().success());
    engine.settle(2, 1, LIMIT).unwrap();
    target.records_when(1, LIMIT).unwrap();
    let report = engine.stop().unwrap();
    report.check_nothing_lost().unwrap();
    assert_eq!(report.number("production.sessions").unwrap(), 1);
    let (production, target) = (production.stop().unwrap(), target.stop().unwrap());
    assert_eq!(production.len(), 1);
    check_byte_exact(&production, &target, Match::Bytes, 1).unwrap();
}

#[test]
fn a_strangers_tunnel_to_production_ends_no_session() {
    stranger("a_strangers_tunnel_to_production_ends_no_session", None);
}

/// The switch's own tunnel is opened, and in it is what the stranger has sent.
#[test]
fn a_strangers_tunnel_within_the_mirrors_ends_no_session() {
    stranger(
        "a_strangers_tunnel_within_the_mirrors_ends_no_session",
        Some("vxlan id 77 local 10.9.0.1 remote 10.9.0.5 dstport 4789 dev sp0"),
    );
}
