//! Links that must not come up and intercepts that cannot run: exit codes, sentences, and nothing
//! left behind.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

use tests::lab::appliance::{Engine, EngineOptions, Intercept, InterceptOptions};
use tests::lab::traces::run_to_end;
use tests::lab::turn::Turn;
use tests::lab::{Lab, LabOptions, Node, Responses, Span, skipped};

const LISTEN: &str = "10.30.0.3:36524";

fn run_engine(lab: &Lab, options: &EngineOptions) -> (Option<i32>, String) {
    let command = Engine::command(lab, options).unwrap();
    run_to_end(lab, Node::Appliance, "engine-run", command).unwrap()
}

fn run_intercept(lab: &Lab, options: &InterceptOptions) -> (Option<i32>, String) {
    let command = Intercept::command(lab, options).unwrap();
    run_to_end(lab, Node::Assistant, "intercept-run", command).unwrap()
}

fn write_private(lab: &Lab, name: &str, bytes: &[u8]) {
    let path = lab.file(name);
    std::fs::write(&path, bytes).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).unwrap();
}

const KEY: &str = "key_file = \"link.key\"";

/// Both ways to start the engine say the same, end with 1, and name the server.
fn refused(lab: &Lab, edits: &[(&'static str, &str)], words: &[&str]) {
    for args in [vec![], vec!["--check".to_owned()]] {
        let options = EngineOptions {
            edits: edits
                .iter()
                .map(|(from, to)| (*from, (*to).to_owned()))
                .collect(),
            args,
            ..EngineOptions::default()
        };
        let (code, last) = run_engine(lab, &options);
        assert_eq!(code, Some(1), "{last}");
        for word in [LISTEN].iter().chain(words) {
            assert!(last.contains(word), "{word:?} is not in {last:?}");
        }
    }
}

fn remote() -> Lab {
    Lab::start(LabOptions {
        responses: Responses::Remote,
        ..LabOptions::default()
    })
    .unwrap()
}

#[test]
fn a_link_to_nobody_is_said() {
    if skipped("a_link_to_nobody_is_said") {
        return;
    }
    let _turn = Turn::take().unwrap();
    refused(&remote(), &[], &["refused"]);
}

#[test]
fn an_engine_without_the_key_is_refused_and_the_next_one_served() {
    if skipped("an_engine_without_the_key_is_refused_and_the_next_one_served") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = remote();
    let other: Vec<u8> = (1..=32).map(|n: u8| n.wrapping_mul(167)).collect();
    write_private(&lab, "other.key", &other);
    let intercept = Intercept::start(&lab, &InterceptOptions::default()).unwrap();
    refused(&lab, &[(KEY, "key_file = \"other.key\"")], &["same key"]);
    refused(&lab, &[(KEY, "insecure = true")], &["requires a key"]);
    let check = EngineOptions {
        args: vec!["--check".to_owned()],
        ..EngineOptions::default()
    };
    let (code, last) = run_engine(&lab, &check);
    assert_eq!(code, Some(0), "{last}");
    let report = intercept.stop().unwrap();
    let number = |path| report.number(path).unwrap();
    // However often the others tried: they failed, all of them, and this one alone did not.
    assert!(number("link.accepted") >= 5, "{report}");
    assert_eq!(number("link.failed"), number("link.accepted") - 1);
    assert_eq!(number("link.engines") + number("link.claims"), 0);
}

#[test]
fn an_intercept_without_the_key_is_refused() {
    if skipped("an_intercept_without_the_key_is_refused") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = remote();
    let open = InterceptOptions {
        edits: vec![(KEY, "insecure = true".to_owned())],
        ..InterceptOptions::default()
    };
    let _intercept = Intercept::start(&lab, &open).unwrap();
    refused(&lab, &[], &["key"]);
}

#[test]
fn an_intercept_that_cannot_run_says_so() {
    if skipped("an_intercept_that_cannot_run_says_so") {
        return;
    }
    let _turn = Turn::take().unwrap();
    let lab = Lab::start(LabOptions {
        second: Some(Span::Both),
        ..LabOptions::default()
    })
    .unwrap();
    write_private(&lab, "short.key", &[7; 31]);
    let edit = |from: &'static str, to: &str| InterceptOptions {
        edits: vec![(from, to.to_owned())],
        ..InterceptOptions::default()
    };
    let extra = |section: &'static str, line: &str| InterceptOptions {
        extra: vec![(section, line.to_owned())],
        ..InterceptOptions::default()
    };
    // The port of the one that runs.
    let first = Intercept::start(&lab, &InterceptOptions::default()).unwrap();
    let taken = {
        let mut second = InterceptOptions::second();
        second.edits.retain(|(from, _)| *from != LISTEN);
        second
    };
    for (options, expected, words) in [
        (extra("link", "lisen = 1"), 2, &["link.lisen", "listen"][..]),
        (edit("[report]", "[raport]"), 2, &["raport", "report"]),
        (
            edit(KEY, ""),
            2,
            &["link.listen", "10.30.0.3", "key_file", "insecure"],
        ),
        (
            edit(KEY, "key_file = \"short.key\""),
            2,
            &["key_file", "short.key", "32"],
        ),
        (
            edit(KEY, "key_file = \"none.key\""),
            2,
            &["key_file", "none.key"],
        ),
        (extra("link", "insecure = true"), 2, &["link.insecure"]),
        (
            extra("link", "payload_prefix = 5000"),
            2,
            &["link.payload_prefix", "1024"],
        ),
        (edit(LISTEN, "somewhere"), 2, &["link.listen", "somewhere"]),
        (edit("iface=abs0", "iface=nosuch0"), 1, &["nosuch0"]),
        (
            edit("net_af_packet0,iface=abs0", "net_nosuch0,iface=abs0"),
            1,
            &["net_nosuch0"],
        ),
        (edit("lcores = [1]", "lcores = [99]"), 1, &["99"]),
        (taken, 1, &["link.listen", LISTEN, "in use"]),
        (
            InterceptOptions {
                name: "intercept-c",
                ..edit(LISTEN, "10.99.0.1:36524")
            },
            1,
            &["link.listen", "10.99.0.1:36524"],
        ),
    ] {
        for check in [false, true] {
            let mut options = options.clone();
            if check {
                options.args.push("--check".to_owned());
            }
            let (code, last) = run_intercept(&lab, &options);
            assert_eq!(code, Some(expected), "{last}");
            for word in words {
                assert!(last.contains(word), "{word:?} is not in {last:?}");
            }
        }
    }
    first.stop().unwrap();
    let check = InterceptOptions {
        args: vec!["--check".to_owned()],
        ..InterceptOptions::default()
    };
    let (code, last) = run_intercept(&lab, &check);
    assert_eq!(code, Some(0), "{last}");
}
