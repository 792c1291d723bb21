//! The lab by itself, without the appliance: what it promises to the end-to-end tests.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use std::time::Duration;
use tests::lab::capture::{self, Capture, Direction};
use tests::lab::process::wait_until;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, Span, skipped, sweep};
use tests::load::{Summary, Talk, Workload};
use tests::record::{End, Match, check_byte_exact};

fn workload(service: Service, family: Family, talk: Talk) -> Workload {
    Workload {
        to: service.on_production(family),
        from: Vec::new(),
        talk,
        connections: 20,
        requests: 4,
        concurrency: 4,
        rate: 2000,
        seed: 7,
    }
}

fn run(lab: &Lab, workload: &Workload) -> Summary {
    let summary = lab.load(workload).unwrap();
    assert_eq!(summary.first_error, None, "{workload:?}");
    assert_eq!(summary.connections, workload.connections as u64);
    summary
}

#[test]
fn servers_answer_clients_and_recorders_see_every_byte() {
    if skipped("servers_answer_clients_and_recorders_see_every_byte") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        more_clients: 3,
        ..LabOptions::default()
    })
    .unwrap();
    for (service, talk) in [
        (Service::Http, Talk::Post(vec![1, 1459, 70_000])),
        (
            Service::Redis,
            Talk::Redis {
                pipeline: 3,
                value: 100,
            },
        ),
        (Service::Smtp, Talk::Smtp),
    ] {
        let server = Server::start(&lab, Side::Production, service, true).unwrap();
        let mut sent = 0;
        for family in [Family::V4, Family::V6] {
            let mut w = workload(service, family, talk.clone());
            w.from = lab.client_addresses(family);
            sent += run(&lab, &w).sent;
        }
        let records = server.records_when(40, Duration::from_secs(10)).unwrap();
        assert_eq!(records.len(), 40, "{service:?}");
        assert!(records.iter().all(|r| r.end == End::Fin), "{service:?}");
        assert_eq!(
            records.iter().map(|r| r.bytes).sum::<u64>(),
            sent,
            "{service:?}"
        );
        let mut hashes: Vec<_> = records.iter().map(|r| &r.sha256).collect();
        hashes.sort();
        hashes.dedup();
        // The same seed is used for both families, so each connection's bytes come twice and no
        // more often.
        assert_eq!(
            hashes.len(),
            20,
            "{service:?}: connections differ from each other"
        );
        for family in [Family::V4, Family::V6] {
            for address in lab.client_addresses(family) {
                assert!(
                    records.iter().any(|r| r.peer.ip() == address),
                    "{service:?}: {address}"
                );
            }
        }
        check_byte_exact(&records, &server.stop().unwrap(), Match::Endpoint, 1).unwrap();
    }
}

#[test]
fn the_mirror_shows_what_was_on_the_cable_once() {
    if skipped("the_mirror_shows_what_was_on_the_cable_once") {
        return;
    }
    let _turn = Turn::take().unwrap();
    for span in [Span::Both, Span::ClientToServer] {
        let lab = Lab::start(LabOptions {
            span,
            ..LabOptions::default()
        })
        .unwrap();
        let _server = Server::start(&lab, Side::Production, Service::Http, false).unwrap();
        let mirror = Capture::start(&lab, Node::Appliance, "span0", Direction::Both).unwrap();
        let back = Capture::start(&lab, Node::Switch, "sp0", Direction::In).unwrap();
        run(
            &lab,
            &workload(Service::Http, Family::V4, Talk::Post(vec![100_000])),
        );
        let frames = mirror.stop().unwrap();
        capture::check_untouched(&lab, &frames).unwrap();
        assert!(
            frames.iter().all(|f| f.len <= 1514),
            "frames are cut to the cable's length"
        );
        let syn = |f: &&capture::Seen| f.tcp.is_some_and(|t| t.flags == 0x02);
        assert_eq!(frames.iter().filter(syn).count(), 20, "each SYN comes once");
        let answers = frames
            .iter()
            .filter(|f| f.tcp.is_some_and(|t| t.ports[0] == 80))
            .count();
        assert_eq!(answers > 0, span == Span::Both, "{span:?}");
        assert_eq!(
            back.stop().unwrap(),
            [],
            "nothing comes back from a mirror port"
        );
    }
}

#[test]
fn a_lab_takes_its_processes_with_it() {
    if skipped("a_lab_takes_its_processes_with_it") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let other = Lab::start(LabOptions::default()).unwrap();
    let mut server = lab.command(Node::Target, "sleep");
    server.arg("600");
    let process = lab.spawn("sleep", server).unwrap();
    // A grandchild that nobody waits for, in a session of its own.
    lab.run(
        Node::Client,
        "sh",
        &["-c", "setsid sleep 600 >/dev/null 2>&1 & echo $! >&2"],
    )
    .unwrap();
    let (name, dir, id) = (lab.name().to_owned(), lab.dir().to_owned(), process.id());
    drop((process, lab));
    let left = std::fs::read_dir("/run/netns")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap());
    let (mine, others): (Vec<_>, Vec<_>) = left.partition(|n| n.starts_with(&format!("{name}-")));
    assert_eq!(mine, Vec::<String>::new());
    assert!(
        others.contains(&other.namespace(Node::Lan)),
        "another lab is left alone"
    );
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn loss_on_the_replay_network_is_real_and_ends() {
    if skipped("loss_on_the_replay_network_is_real_and_ends") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let _server = Server::start(&lab, Side::Target, Service::Http, false).unwrap();
    // For once the appliance's and the assistant's kernels get an address, as somebody has to talk
    // to the target.
    lab.run(
        Node::Assistant,
        "ip",
        &["addr", "add", "10.20.0.77/24", "dev", "abs0"],
    )
    .unwrap();
    let get = [
        "-s",
        "-o",
        "/dev/null",
        "--max-time",
        "2",
        "http://10.20.0.2:8080/",
    ];
    lab.run(Node::Assistant, "curl", &get).unwrap();
    lab.lose_on_replay_network(100).unwrap();
    assert!(lab.run(Node::Assistant, "curl", &get).is_err());
    lab.lose_on_replay_network(0).unwrap();
    lab.run(Node::Assistant, "curl", &get).unwrap();
    assert!(lab.lose_on_replay_network(101).is_err());
}

#[test]
fn what_a_killed_owner_leaves_is_swept() {
    if skipped("what_a_killed_owner_leaves_is_swept") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let mut owner = std::process::Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["demo", "--seconds", "600"])
        .spawn()
        .unwrap();
    let prefix = format!("rl{}.", owner.id());
    let traces = || {
        let namespaces = std::fs::read_dir("/run/netns").unwrap().flatten();
        let folders = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let names = namespaces
            .chain(folders)
            .map(|e| e.file_name().into_string().unwrap());
        names
            .filter(|name| name.trim_start_matches("replay-lab-").starts_with(&prefix))
            .collect::<Vec<_>>()
    };
    // All seven namespaces and the folder, and the first server running in them.
    wait_until("the other lab", Duration::from_secs(20), || {
        Ok((traces().len() == 8).then_some(()))
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(traces().len(), 8, "a killed process removes nothing itself");
    assert!(sweep().unwrap() >= 1);
    assert_eq!(traces(), Vec::<String>::new());
}
