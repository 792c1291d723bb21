//! Where frames come from and where they go: pools, routes, mirror ports, memory, and what the
//! interfaces are like afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on is to fail there"
)]

use anyhow::bail;
use rustix::process::Signal;
use std::time::Duration;
use tests::lab::appliance::{Engine, EngineOptions, Intercept, InterceptOptions};
use tests::lab::capture::{Capture, Direction};
use tests::lab::hugepages::{Reserved, free};
use tests::lab::process::wait_until;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::trial::{Trial, turns};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Responses, Span, skipped};
use tests::load::{Talk, Workload};

const LIMIT: Duration = Duration::from_secs(30);

/// Short HTTP connections and some that are kept alive, of all families. Returns how many turns it
/// is.
fn run_http(trial: &mut Trial, families: &[Family]) -> u64 {
    let mut all = 0;
    for family in families {
        for (seed, connections, requests) in [(1, 200, 1), (2, 10, 30)] {
            let workload = Workload {
                to: Service::Http.on_production(*family),
                from: trial.lab.client_addresses(*family),
                talk: Talk::Get,
                connections,
                requests,
                concurrency: 10,
                rate: 300,
                seed,
            };
            trial.load(&workload).unwrap();
            all += turns(&workload);
        }
    }
    all
}

/// The pool is a part of the target's own subnet: no route leads to it, somebody has to answer ARP
/// and ND for it.
fn pool_on_the_wire(test: &str, responses: Responses) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        responses,
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    for (option, prefix) in [
        ("-4", "62.135.200.0/24"),
        ("-4", "10.10.0.0/24"),
        ("-6", "fd62::/64"),
        ("-6", "fd10::/64"),
    ] {
        lab.run(Node::Target, "ip", &[option, "route", "del", prefix])
            .unwrap();
    }
    let options = EngineOptions {
        families: vec![Family::V4, Family::V6],
        edits: vec![
            ("62.135.200.0/24", "10.20.0.64/28".to_owned()),
            ("fd62::/120", "fd20::100/124".to_owned()),
        ],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start_in(lab, options).unwrap();
    run_http(&mut trial, &[Family::V4, Family::V6]);
    let neighbours = trial.lab.run(Node::Target, "ip", &["neigh"]).unwrap();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{test}: {e:#}"));
    assert_eq!(outcome.connections, 420);
    // Each address of the pool that was used was asked for, and the one answered who takes the
    // responses.
    let mac = match responses {
        Responses::Embedded => "02:00:00:00:20:09",
        Responses::Remote => "02:00:00:00:20:03",
    };
    for pool in ["10.20.0.7", "fd20::10"] {
        let of_pool: Vec<&str> = neighbours.lines().filter(|l| l.starts_with(pool)).collect();
        assert!(of_pool.len() >= 5, "{neighbours}");
        assert!(of_pool.iter().all(|l| l.contains(mac)), "{neighbours}");
    }
}

#[test]
fn a_pool_on_the_targets_own_wire_embedded() {
    pool_on_the_wire(
        "a_pool_on_the_targets_own_wire_embedded",
        Responses::Embedded,
    );
}

#[test]
fn a_pool_on_the_targets_own_wire_remote() {
    pool_on_the_wire("a_pool_on_the_targets_own_wire_remote", Responses::Remote);
}

#[test]
fn a_target_behind_a_router() {
    if skipped("a_target_behind_a_router") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    // The assistant is a router between the target's networks and two others, in which the
    // appliance is.
    let script = "cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 0 >ipv6/conf/all/disable_ipv6; echo 0 >ipv6/conf/abs0/disable_ipv6\n\
        echo 1 >ipv6/conf/all/forwarding; for i in all abs0; do echo 0 >ipv4/conf/$i/send_redirects; done\n\
        ip addr add 10.20.0.3/24 dev abs0; ip addr add 10.50.0.1/24 dev abs0\n\
        ip addr add fd20::3/64 dev abs0 nodad; ip addr add fd50::1/64 dev abs0 nodad\n\
        ip route add 62.135.200.0/24 via 10.50.0.9; ip route add fd62::/64 via fd50::9\n";
    lab.run(Node::Assistant, "sh", &["-ec", script]).unwrap();
    lab.run(
        Node::Target,
        "sh",
        &[
            "-ec",
            "ip route replace 62.135.200.0/24 via 10.20.0.3; ip route replace fd62::/64 via fd20::3",
        ],
    )
    .unwrap();
    let options = EngineOptions {
        families: vec![Family::V4, Family::V6],
        edits: vec![
            ("10.20.0.9/24", "10.50.0.9/24".to_owned()),
            ("fd20::9/64", "fd50::9/64".to_owned()),
        ],
        extra: vec![(
            "replay",
            "gateway = [\"10.50.0.1\", \"fd50::1\"]".to_owned(),
        )],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start_in(lab, options).unwrap();
    run_http(&mut trial, &[Family::V4, Family::V6]);
    let hops = trial
        .lab
        .run(Node::Assistant, "ip", &["-s", "neigh"])
        .unwrap();
    let outcome = trial
        .finish()
        .unwrap_or_else(|e| panic!("{e:#}; the router's neighbours:\n{hops}"));
    assert_eq!(outcome.connections, 420);
    // The router knows both: what reached the target went through it.
    assert!(
        hops.contains("10.50.0.9") && hops.contains("10.20.0.2"),
        "{hops}"
    );
    assert!(
        hops.contains("fd50::9") && hops.contains("fd20::2"),
        "{hops}"
    );
}

/// Between the appliance and the target a router whose further link carries smaller packets only:
/// it says so to the client addresses, so to whoever absorbs the responses.
fn narrow_path(test: &str, responses: Responses) {
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        responses,
        ..LabOptions::default()
    })
    .unwrap();
    // The appliance's own kernel is the router: the engine's port is one end of a wire to it. It
    // must not route what arrives at that end once more.
    let script = "ip link add rv0 type veth peer name rv1\n\
        cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 0 >ipv4/conf/rv0/forwarding; for i in all rv0 rv1 replay0; do echo 0 >ipv4/conf/$i/rp_filter; done\n\
        for i in all rv1 replay0; do echo 0 >ipv6/conf/$i/disable_ipv6; done; echo 1 >ipv6/conf/all/forwarding\n\
        for i in rv0 rv1 replay0; do ip link set $i up; done\n\
        ip addr add 10.50.0.1/24 dev rv1; ip addr add 10.20.0.9/24 dev replay0\n\
        ip addr add fd50::1/64 dev rv1 nodad; ip addr add fd20::9/64 dev replay0 nodad\n\
        ip route add 10.20.0.2 dev replay0 mtu lock 1000; ip route add fd20::2 dev replay0 mtu lock 1280\n";
    lab.run(Node::Appliance, "sh", &["-ec", script]).unwrap();
    let (v4, v6) = match responses {
        Responses::Embedded => ("10.50.0.9 dev rv1", "fd50::9 dev rv1"),
        Responses::Remote => ("10.20.0.3 dev replay0", "fd20::3 dev replay0"),
    };
    let script = format!("ip route add 62.135.200.0/24 via {v4}; ip route add fd62::/64 via {v6}");
    lab.run(Node::Appliance, "sh", &["-ec", &script]).unwrap();
    let options = EngineOptions {
        families: vec![Family::V4, Family::V6],
        port: "net_af_packet1,iface=rv0,framecnt=4096".to_owned(),
        edits: vec![
            ("10.20.0.9/24", "10.50.0.9/24".to_owned()),
            ("fd20::9/64", "fd50::9/64".to_owned()),
        ],
        extra: vec![(
            "replay",
            "gateway = [\"10.50.0.1\", \"fd50::1\"]".to_owned(),
        )],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start_in(lab, options).unwrap();
    for family in [Family::V4, Family::V6] {
        let workload = Workload {
            to: Service::Http.on_production(family),
            from: trial.lab.client_addresses(family),
            talk: Talk::Post(vec![900, 1400, 30_000]),
            connections: 10,
            requests: 3,
            concurrency: 2,
            rate: 50,
            seed: 3,
        };
        trial.load(&workload).unwrap();
    }
    let report = trial
        .finish()
        .unwrap_or_else(|e| panic!("{test}: {e:#}"))
        .report;
    // Each connection learns it once.
    let (lowered, told) = ("target.path_mtu_lowered", "target.icmp_errors");
    assert_eq!(report.number(lowered).unwrap(), 20, "{test}");
    assert!(report.number(told).unwrap() >= 20, "{test}");
}

#[test]
fn a_narrow_path_is_told_to_the_engine() {
    narrow_path("a_narrow_path_is_told_to_the_engine", Responses::Embedded);
}

#[test]
fn a_narrow_path_is_told_through_the_intercept() {
    narrow_path(
        "a_narrow_path_is_told_through_the_intercept",
        Responses::Remote,
    );
}

#[test]
fn two_mirror_ports_with_a_direction_each() {
    if skipped("two_mirror_ports_with_a_direction_each") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = LabOptions {
        span: Span::ClientToServer,
        second: Some(Span::ServerToClient),
        more_clients: 4,
        ..LabOptions::default()
    };
    let first = EngineOptions::default().mirror;
    let second = first.replace("net_af_packet0,iface=span0", "net_af_packet2,iface=span1");
    let options = EngineOptions {
        workers: 2,
        edits: vec![(
            "ports = [\"net_af_packet0,iface=span0,framecnt=8192\"]",
            format!("ports = [{first:?}, {second:?}]"),
        )],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(lab, options).unwrap();
    let turns = run_http(&mut trial, &[Family::V4]);
    let report = trial.finish().unwrap().report;
    assert_eq!(report.number("production.turns").unwrap(), turns);
    let ports = report.value("mirror.ports").unwrap().as_array().unwrap();
    assert_eq!(ports.len(), 2);
    for port in ports {
        let frames = port.get("frames").unwrap().as_u64().unwrap();
        assert!(frames > turns, "{port}");
    }
    // With the server's direction there is a latency to measure for each turn.
    let measured = report.number("latency.production.count").unwrap();
    assert_eq!(measured, turns);
}

/// Targets in two networks that know nothing of each other, with a replay port in each: the IPv6
/// ones move to the second.
#[test]
fn a_replay_port_for_each_of_two_networks() {
    if skipped("a_replay_port_for_each_of_two_networks") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        second: Some(Span::Both),
        more_clients: 4,
        ..LabOptions::default()
    })
    .unwrap();
    let script = format!(
        "ip link add br1 type bridge forward_delay 0 mcast_snooping 0\n\
         ip link add lt1 type veth peer name eth1 netns {}\n\
         for i in lr1 lt1; do ip link set $i master br1 up; done; ip link set br1 up\n",
        lab.namespace(Node::Target)
    );
    lab.run(Node::Lan, "sh", &["-ec", &script]).unwrap();
    let script = "ip -6 addr flush dev eth0 scope global; ip link set eth1 up\n\
        ip addr add fd20::2/64 dev eth1 nodad\n\
        ip -6 route replace fd62::/64 via fd20::9 dev eth1\n";
    lab.run(Node::Target, "sh", &["-ec", script]).unwrap();
    let over = |to: &str, wire: &str| format!("{to}wire = \"{wire}\"\n");
    let mut edits =
        vec![
        (
            "[replay]\n",
            "[[wire]]\nname = \"second\"\nport = \"net_af_packet2,iface=replay1,framecnt=4096\"\n\
             address = [\"fd20::9/64\"]\n[[wire]]\nname = \"first\"\n"
                .to_owned(),
        ),
        ("\"10.20.0.9/24\", \"fd20::9/64\"", "\"10.20.0.9/24\"".to_owned()),
    ];
    for (to, wire) in [
        ("to = \"10.20.0.2:8080\"\n", "first"),
        ("to = \"10.20.0.2:6379\"\n", "first"),
        ("to = \"[fd20::2]:8080\"\n", "second"),
        ("to = \"[fd20::2]:6379\"\n", "second"),
    ] {
        edits.push((to, over(to, wire)));
    }
    let options = EngineOptions {
        families: vec![Family::V4, Family::V6],
        services: vec![Service::Http, Service::Redis],
        workers: 2,
        edits,
        ..EngineOptions::default()
    };
    let mut trial = Trial::start_in(lab, options).unwrap();
    run_http(&mut trial, &[Family::V4, Family::V6]);
    let workload = Workload {
        to: Service::Redis.on_production(Family::V6),
        from: trial.lab.client_addresses(Family::V6),
        talk: Talk::Redis {
            pipeline: 4,
            value: 100,
        },
        connections: 10,
        requests: 40,
        concurrency: 5,
        rate: 300,
        seed: 3,
    };
    trial.load(&workload).unwrap();
    let outcome = trial.finish().unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(outcome.connections, 430);
    let report = outcome.report;
    let ports = report
        .value("replay_port.ports")
        .unwrap()
        .as_array()
        .unwrap();
    let sent: Vec<u64> = ports
        .iter()
        .map(|p| p.get("sent_frames").unwrap().as_u64().unwrap())
        .collect();
    // Each connection takes a few frames, on its target's wire.
    assert!(sent[0] > 4 * 220 && sent[1] > 4 * 210, "{report}");
    let all = report.number("replay_port.sent_frames").unwrap();
    assert_eq!(sent.iter().sum::<u64>(), all, "{report}");
    assert_eq!(report.number("replay_port.strays").unwrap(), 0, "{report}");
}

#[test]
fn hugepages_hold_the_buffers() {
    if skipped("hugepages_hold_the_buffers") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let Some(_reserved) = Reserved::more(160) else {
        eprintln!(
            "SKIPPED hugepages_hold_the_buffers: 160 pages of 2 MiB cannot be had here; nothing was proved"
        );
        return;
    };
    let unused = free();
    let options = EngineOptions {
        edits: vec![("memory = \"no-huge\"", "memory = \"hugepages\"".to_owned())],
        ..EngineOptions::default()
    };
    let mut trial = Trial::start(LabOptions::default(), options).unwrap();
    let used = unused - free();
    assert!(used >= 64, "128 MiB of buffers take {used} pages of 2 MiB");
    run_http(&mut trial, &[Family::V4]);
    trial.finish().unwrap();
    assert_eq!(free(), unused, "all pages are given back");
}

#[test]
fn a_check_sends_no_frame() {
    if skipped("a_check_sends_no_frame") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        responses: Responses::Remote,
        ..LabOptions::default()
    })
    .unwrap();
    let _target = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let check = vec!["--check".to_owned()];
    // What a switch receives on these ports is what the engine and the intercept have sent.
    let captures = [(Node::Lan, "lr"), (Node::Lan, "la"), (Node::Switch, "sp0")]
        .map(|(node, port)| Capture::start(&lab, node, port, Direction::In).unwrap());
    let intercept_check = InterceptOptions {
        args: check.clone(),
        ..InterceptOptions::default()
    };
    let mut process = lab
        .spawn(
            "intercept-check",
            Intercept::command(&lab, &intercept_check).unwrap(),
        )
        .unwrap();
    assert_eq!(process.wait(LIMIT).unwrap().code(), Some(0));
    let intercept = Intercept::start(&lab, &InterceptOptions::default()).unwrap();
    let engine_check = EngineOptions {
        args: check,
        ..EngineOptions::default()
    };
    let mut process = lab
        .spawn(
            "engine-check",
            Engine::command(&lab, &engine_check).unwrap(),
        )
        .unwrap();
    assert_eq!(process.wait(LIMIT).unwrap().code(), Some(0));
    for capture in captures {
        assert_eq!(capture.stop().unwrap(), [], "a check sent something");
    }
    intercept.stop().unwrap();
}

#[test]
fn interfaces_stay_promiscuous_if_they_were() {
    if skipped("interfaces_stay_promiscuous_if_they_were") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let flag = |interface: &str| {
        let text = lab
            .run(Node::Appliance, "ip", &["link", "show", interface])
            .unwrap();
        text.contains("PROMISC")
    };
    for promiscuous in [false, true] {
        let word = if promiscuous { "on" } else { "off" };
        for interface in ["span0", "replay0"] {
            lab.run(
                Node::Appliance,
                "ip",
                &["link", "set", interface, "promisc", word],
            )
            .unwrap();
        }
        let engine = Engine::start(&lab, &EngineOptions::default()).unwrap();
        assert!(flag("span0"), "a mirror port takes frames for any address");
        assert_eq!(flag("replay0"), promiscuous);
        engine.stop().unwrap();
        for interface in ["span0", "replay0"] {
            assert_eq!(flag(interface), promiscuous, "{interface}");
        }
    }
}

/// What a mirror port missed is told whatever it receives through, and not told any more when its
/// interface is gone. The engine goes on.
#[test]
fn a_mirror_port_tells_what_it_missed_as_long_as_it_can() {
    let test = "a_mirror_port_tells_what_it_missed_as_long_as_it_can";
    if skipped(test) {
        return;
    }
    let _turn = Turn::take().unwrap();
    for mirror in [
        "net_af_packet0,iface=span0,framecnt=8192",
        "net_pcap0,rx_iface=span0",
    ] {
        let lab = Lab::start(LabOptions::default()).unwrap();
        let _production = Server::start(&lab, Side::Production, Service::Http, false).unwrap();
        let options = EngineOptions {
            mirror: mirror.to_owned(),
            ..EngineOptions::default()
        };
        let mut engine = Engine::start(&lab, &options).unwrap();
        // It stands still while more comes than any buffer holds.
        engine.process().signal(Signal::STOP).unwrap();
        let workload = Workload {
            to: Service::Http.on_production(Family::V4),
            from: Vec::new(),
            talk: Talk::Get,
            connections: 2_000,
            requests: 1,
            concurrency: 10,
            rate: 0,
            seed: 1,
        };
        lab.load(&workload).unwrap();
        engine.process().signal(Signal::CONT).unwrap();
        let came = 10 * workload.connections as u64;
        wait_until("all frames seen or missed", LIMIT, || {
            let Some(report) = engine.report()? else {
                return Ok(None);
            };
            let missed = report.number("mirror.missed")?;
            let known = report.number("mirror.frames")? + missed;
            if known > came + 100 {
                bail!("{known} frames are seen or missed, but {came} came");
            }
            Ok((known >= came && missed > 0).then_some(()))
        })
        .unwrap_or_else(|e| panic!("{mirror}: {e:#}\n{:?}", engine.report()));

        lab.run(Node::Appliance, "ip", &["link", "del", "span0"])
            .unwrap();
        let report = wait_until("nobody can say", LIMIT, || {
            let report = engine.report()?;
            Ok(report.filter(|r| r.value("mirror.missed").is_ok_and(|m| m.is_null())))
        })
        .unwrap_or_else(|e| panic!("{mirror}: {e:#}\n{:?}", engine.report()));
        assert!(report.value("production.unseen.turns").unwrap().is_null());
        engine.stop().unwrap();
    }
}
