//! The examples are what users start from: each must be accepted, and say what the documentation
//! says of it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::replay::{Files, Intercept, Shard, Source, Speed};
use config::{Idle, Memory};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
}

#[test]
fn replay_toml_is_accepted() {
    let replay = config::replay::load(&example("replay.toml")).unwrap();
    assert!(matches!(&replay.mirror.source, Source::Ports(ports) if ports.len() == 1));
    assert!(matches!(
        &replay.intercept,
        Intercept::Remote {
            key: None,
            insecure: false,
            ..
        }
    ));
    assert_eq!(replay.clients.pool[0].to_string(), "62.135.200.0/24");
    assert!(replay.warnings.is_empty(), "{:?}", replay.warnings);
}

/// What the example shows as defaults are the defaults.
#[test]
fn replay_toml_shows_the_defaults() {
    let replay = config::replay::load(&example("replay.toml")).unwrap();
    let text = "[mirror]\nports = [\"net_ring0\"]\n[replay]\nport = \"net_ring1\"\naddress = [\"10.20.0.9/24\"]\n\
                [[transfer]]\nfrom = \":80\"\nto = \"10.20.0.2:80\"\n";
    let minimal = config::replay::parse(text, "replay.toml").unwrap();
    assert_eq!(replay.traffic, minimal.traffic);
    assert_eq!(replay.limits, minimal.limits);
    assert_eq!(replay.report, minimal.report);
    assert_eq!(replay.eal, minimal.eal);
}

#[test]
fn offline_toml_is_accepted() {
    let replay = config::replay::load(&example("offline.toml")).unwrap();
    let source = Source::Files(Files {
        names: vec![example("online.pcap")],
        speed: Speed::Factor(1.0),
        loops: 1,
        max_idle: Some(Files::MAX_IDLE),
    });
    assert_eq!(replay.mirror.source, source);
    assert_eq!(replay.intercept, Intercept::Embedded);
    assert_eq!(
        (replay.eal.memory, replay.eal.idle),
        (Memory::NoHuge, Some(Idle::Sleep))
    );
}

/// What schedulers fill in is replaced as their scripts do it.
#[test]
fn the_configurations_of_schedulers_are_accepted() {
    let read = |name: &str| std::fs::read_to_string(example(name)).unwrap();
    let job = read("kubernetes-job.yaml");
    let (_, job) = job.split_once("replay.toml: |\n").unwrap();
    let (job, _) = job.split_once("\n---").unwrap();
    let array = read("slurm-array.sh");
    let (_, array) = array.split_once("<<TOML\n").unwrap();
    let (array, _) = array.split_once("\nTOML\n").unwrap();
    let cpus = array.split_once("lcores = [").unwrap().1;
    let (cpus, _) = cpus.split_once("]\nmemory").unwrap();
    let array = array.replace(cpus, "1");
    let shard = Shard { number: 3, of: 16 };
    for (name, text) in [
        (
            "kubernetes-job.yaml",
            job.replace("SHARD", "3/16").replace("INDEX", "2"),
        ),
        (
            "slurm-array.sh",
            array
                .replace("$SLURM_ARRAY_TASK_ID", "3")
                .replace("$SLURM_ARRAY_TASK_COUNT", "16")
                .replace("$archive", "/archive"),
        ),
    ] {
        let replay = config::replay::parse(&text, name).unwrap();
        assert_eq!(replay.traffic.shard, shard, "{name}");
        let Source::Files(files) = &replay.mirror.source else {
            panic!("{name} replays no files");
        };
        assert_eq!(files.names, [PathBuf::from("/archive/")], "{name}");
        assert_eq!(files.speed, Speed::Max, "{name}");
    }
}

#[test]
fn intercept_toml_is_accepted() {
    let intercept = config::intercept::load(&example("intercept.toml")).unwrap();
    assert_eq!(intercept.link.listen.port(), config::DEFAULT_LINK_PORT);
    assert_eq!(intercept.report.interval, Duration::from_secs(10));
    assert!(intercept.warnings.is_empty(), "{:?}", intercept.warnings);
}

/// Uncommenting any of the alternatives shown gives keys that exist.
#[test]
fn commented_out_keys_are_known() {
    for name in ["replay.toml", "offline.toml", "intercept.toml"] {
        let text = std::fs::read_to_string(example(name)).unwrap();
        for (number, line) in text.lines().enumerate() {
            let Some(shown) = line
                .strip_prefix("# ")
                .filter(|l| l.contains(" = ") && !l.contains(". "))
            else {
                continue;
            };
            // One of a table that is commented out as well is shown with its table.
            let above = text.lines().take(number).collect::<Vec<_>>();
            let commented = above.iter().rev().take_while(|l| l.starts_with("# "));
            let table = commented.clone().position(|l| l.starts_with("# [["));
            let table = table.map(|back| number - 1 - back);
            // Each alone, in place of its own line; only that the key is known is asked here.
            let changed: Vec<&str> = text
                .lines()
                .enumerate()
                .map(|(i, l)| match l.strip_prefix("# ") {
                    _ if i == number => shown,
                    Some(header) if Some(i) == table => header,
                    _ => l,
                })
                .collect();
            let result = match name {
                "intercept.toml" => config::intercept::parse(&changed.join("\n"), name).err(),
                _ => config::replay::parse(&changed.join("\n"), name).err(),
            };
            if let Some(error) = result {
                assert!(
                    !error.to_string().contains("unknown key"),
                    "{name}:{}: {error}",
                    number + 1
                );
            }
        }
    }
}
