//! How the engine starts, what it says to bad input, and how it ends: exit codes, sentences, and
//! nothing left behind.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use rustix::process::Signal;
use std::time::Duration;
use tests::lab::appliance::{Engine, EngineOptions};
use tests::lab::report::Report;
use tests::lab::servers::{Server, Service, Side};
use tests::lab::traces::{Traces, run_to_end};
use tests::lab::turn::Turn;
use tests::lab::{Family, Lab, LabOptions, Node, skipped};
use tests::load::{Talk, Workload};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs the engine to its end. Returns exit code and last line.
fn run(lab: &Lab, options: &EngineOptions) -> (Option<i32>, String) {
    let command = Engine::command(lab, options).unwrap();
    run_to_end(lab, Node::Appliance, "engine", command).unwrap()
}

fn with(section: &'static str, line: &str) -> EngineOptions {
    EngineOptions {
        extra: vec![(section, line.to_owned())],
        ..EngineOptions::default()
    }
}

#[test]
fn a_bad_configuration_is_refused_in_a_sentence() {
    if skipped("a_bad_configuration_is_refused_in_a_sentence") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let good = EngineOptions::default().toml(&lab).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(good.contains(from), "{from:?} is not in:\n{good}");
        EngineOptions {
            verbatim: Some(good.replace(from, to)),
            ..EngineOptions::default()
        }
    };
    for (options, words) in [
        (with("traffic", "percnt = 5"), &["percnt", "percent"][..]),
        (
            edited("percent = 100", "percent = 0"),
            &["traffic.percent", "0"],
        ),
        (
            edited("copies = 1", "copies = 1024"),
            &["traffic.copies", "1024", "1023"],
        ),
        (
            edited("to = \"10.20.0.2:8080\"", "to = \"10.10.0.2:80\""),
            &["transfer[0].to", "production"],
        ),
        (
            edited("to = \"10.20.0.2:8080\"", "to = \"nowhere\""),
            &["transfer[0].to", "nowhere"],
        ),
        (edited("[mirror]", "[miror]"), &["miror", "mirror"]),
        (
            edited("mode = \"embedded\"", "mode = \"remote\""),
            &["intercept.servers"],
        ),
        (with("traffic", "rtt = \"soon\""), &["traffic.rtt", "soon"]),
        (edited("iface=replay0", "iface=span0"), &["span0", "mirror"]),
        (edited("lcores = [1]", "lcores = []"), &["eal.lcores"]),
    ] {
        let (code, last) = run(&lab, &options);
        assert_eq!(code, Some(2), "{last}");
        for word in words {
            assert!(last.contains(word), "{word:?} is not in {last:?}");
        }
    }
    let options = EngineOptions {
        args: vec!["--config".into(), "missing.toml".into()],
        ..EngineOptions::default()
    };
    let (code, _) = run(&lab, &options);
    assert_eq!(code, Some(2), "--config twice is refused");
}

#[test]
fn a_machine_that_does_not_fit_is_named() {
    if skipped("a_machine_that_does_not_fit_is_named") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let port = |mirror: &str| EngineOptions {
        mirror: mirror.to_owned(),
        ..EngineOptions::default()
    };
    let good = EngineOptions::default().toml(&lab).unwrap();
    let lcore = EngineOptions {
        verbatim: Some(good.replace("lcores = [1]", "lcores = [99]")),
        ..EngineOptions::default()
    };
    for (mut options, words) in [
        (port("net_af_packet0,iface=nosuch0"), &["nosuch0"][..]),
        (port("net_nosuchdriver0"), &["net_nosuchdriver0"]),
        (port("0000:ff:1f.7"), &["0000:ff:1f.7"]),
        (lcore, &["99"]),
    ] {
        for check in [false, true] {
            options.args = if check {
                vec!["--check".to_owned()]
            } else {
                Vec::new()
            };
            let (code, last) = run(&lab, &options);
            assert!(matches!(code, Some(1 | 2)), "{code:?}: {last}");
            for word in words {
                assert!(last.contains(word), "{word:?} is not in {last:?}");
            }
        }
    }
}

#[test]
fn check_says_yes_and_sends_nothing() {
    if skipped("check_says_yes_and_sends_nothing") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let _target = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let options = EngineOptions {
        args: vec!["--check".to_owned()],
        ..EngineOptions::default()
    };
    let (code, last) = run(&lab, &options);
    assert_eq!(code, Some(0), "{last}");
    assert!(
        !lab.file("report.json").exists(),
        "a check leaves no report"
    );
}

/// A configuration of the least that is needed runs without hugepages, and says what it takes.
#[test]
fn defaults_fit_without_hugepages_and_their_memory_is_told() {
    let name = "defaults_fit_without_hugepages_and_their_memory_is_told";
    if skipped(name) {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let limits = "sessions = 20_000\nmbufs = \"128MiB\"\nsession_bytes = \"4MiB\"\n";
    let options = EngineOptions {
        args: vec!["--check".to_owned()],
        edits: vec![(limits, String::new())],
        ..EngineOptions::default()
    };
    let (code, last) = run(&lab, &options);
    assert_eq!(code, Some(0), "{last}");
    let log = std::fs::read_to_string(lab.file("engine.log")).unwrap();
    // 512 MiB, and headers; pages of 4 KiB hold one frame each.
    let told = log.lines().find(|line| line.contains("memory: ")).unwrap();
    let words: Vec<&str> = told.split(' ').collect();
    let number_before = |next: &str| {
        let at = words.windows(2).position(|pair| pair == ["MiB", next]);
        words[at.unwrap() - 1].parse::<u64>().unwrap()
    };
    assert!((512..1_024).contains(&number_before("without")), "{told}");
    assert!((512..2_048).contains(&number_before("for")), "{told}");
    assert!(told.contains("1000000 sessions"), "{told}");
}

fn some_load(lab: &Lab) {
    let workload = Workload {
        to: Service::Http.on_production(Family::V4),
        from: Vec::new(),
        talk: Talk::Get,
        connections: 20,
        requests: 2,
        concurrency: 2,
        rate: 200,
        seed: 1,
    };
    assert_eq!(lab.load(&workload).unwrap().first_error, None);
}

#[test]
fn signals_end_it_in_order_with_a_report() {
    if skipped("signals_end_it_in_order_with_a_report") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let _servers = [Side::Production, Side::Target]
        .map(|side| Server::start(&lab, side, Service::Http, true).unwrap());
    for signal in [Signal::TERM, Signal::INT] {
        let _ = std::fs::remove_file(lab.file("report.json"));
        let folder = lab.file("run");
        std::fs::create_dir_all(&folder).unwrap();
        let before = Traces::of(&lab, Node::Appliance, &folder).unwrap();
        let mut command = Engine::command(&lab, &EngineOptions::default()).unwrap();
        command.env("RUNTIME_DIRECTORY", &folder);
        let mut process = lab.spawn("engine", command).unwrap();
        process.wait_for("ready", LIMIT).unwrap();
        some_load(&lab);
        process.signal(signal).unwrap();
        let status = process.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}: {}", process.tail());
        let after = Traces::of(&lab, Node::Appliance, &folder).unwrap();
        assert_eq!(after, before);
        let report = Report::read(&lab.file("report.json")).unwrap();
        report.check_books(1).unwrap();
        // What was still on its way is finished before it ends.
        assert_eq!(report.number("production.turns").unwrap(), 40, "{report}");
        report.check_nothing_lost().unwrap();
    }
}

#[test]
fn a_duration_ends_it_and_the_report_goes_where_it_is_told() {
    if skipped("a_duration_ends_it_and_the_report_goes_where_it_is_told") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let _target = Server::start(&lab, Side::Target, Service::Http, true).unwrap();
    let other = lab.file("other.json").display().to_string();
    let args = ["--duration", "1s", "--report", &other]
        .map(str::to_owned)
        .to_vec();
    let (code, last) = run(
        &lab,
        &EngineOptions {
            args,
            ..EngineOptions::default()
        },
    );
    assert_eq!(code, Some(0), "{last}");
    let report = Report::read(&lab.file("other.json")).unwrap();
    assert_eq!(report.number("production.sessions").unwrap(), 0);
    report.check_books(1).unwrap();
    // Nothing came, so it has waited: sleeps of 20 us alone make more than 10,000 turns in a second.
    let turns = report.number("cores.0.loops").unwrap();
    assert!(turns < 6_000, "{turns} turns of the loop without a frame");
    assert!(
        !lab.file("report.json").exists(),
        "--report overrides report.json"
    );
}

#[test]
fn a_report_without_a_place_costs_the_exit_code_and_no_session() {
    if skipped("a_report_without_a_place_costs_the_exit_code_and_no_session") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions::default()).unwrap();
    let _servers = [Side::Production, Side::Target]
        .map(|side| Server::start(&lab, side, Service::Http, true).unwrap());
    let folder = lab.file("later");
    let place = folder.join("report.json");
    let options = EngineOptions {
        args: vec!["--report".to_owned(), place.display().to_string()],
        ..EngineOptions::default()
    };
    for comes in [false, true] {
        let command = Engine::command(&lab, &options).unwrap();
        let mut process = lab.spawn("engine", command).unwrap();
        process.wait_for("ready", LIMIT).unwrap();
        some_load(&lab);
        if comes {
            std::fs::create_dir(&folder).unwrap();
        }
        process.signal(Signal::TERM).unwrap();
        let status = process.wait(LIMIT).unwrap();
        let log = process.tail();
        assert!(log.contains("the replay goes on"), "{log}");
        if comes {
            assert_eq!(status.code(), Some(0), "{log}");
            let report = Report::read(&place).unwrap();
            report.check_books(1).unwrap();
            assert!(report.number("failed_writes").unwrap() > 0, "{report}");
            assert_eq!(report.number("replayed.turns").unwrap(), 40, "{report}");
        } else {
            assert_eq!(status.code(), Some(1), "{log}");
            let last = log.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("engine: report ") && last.contains("cannot be written"),
                "{last}"
            );
        }
    }
}
