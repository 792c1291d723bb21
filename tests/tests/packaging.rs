//! What the package brings: how much of the machine the units can reach, by systemd's own measure,
//! and that they start what there is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails ends its test"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// From 0, nothing, to 10, all of the machine.
const MOST: f64 = 3.0;
/// The first systemd that measures a unit that is not installed.
const OFFLINE: u32 = 250;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "service"))
        .collect();
    all.sort();
    assert_eq!(all.len(), 3, "{all:?}");
    all
}

/// The version of systemd-analyze, if it is there.
fn version() -> Option<u32> {
    let out = Command::new("systemd-analyze").arg("--version").output();
    let text = String::from_utf8(out.ok()?.stdout).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// The number in "Overall exposure level for NAME: 2.3 OK".
fn exposure(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|l| l.contains("Overall exposure level"))?;
    let (_, level) = line.rsplit_once(": ")?;
    level.split_whitespace().next()?.parse().ok()
}

#[test]
fn units_reach_little_of_the_machine() {
    if version().is_none_or(|v| v < OFFLINE) {
        eprintln!(
            "SKIPPED units_reach_little_of_the_machine: there is no systemd-analyze of version {OFFLINE} or newer; nothing was proved"
        );
        return;
    }
    for unit in units() {
        let out = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let errors = String::from_utf8_lossy(&out.stderr);
        let level = exposure(&text).unwrap_or_else(|| panic!("{}: {errors}", unit.display()));
        println!("{}: {level}", unit.display());
        assert!(level < MOST, "{}: {level}\n{text}", unit.display());
        // A key that it does not know is ignored, and protects from nothing.
        assert!(!errors.contains("nknown"), "{errors}");
    }
}

#[test]
fn the_measure_is_read() {
    let text = "x\n\u{2192} Overall exposure level for replay-engine.service: 2.3 OK \u{1f642}\n";
    assert_eq!(exposure(text), Some(2.3));
    assert_eq!(exposure("nothing"), None);
}

/// No unit runs a network's input as root, or starts what the package does not bring.
#[test]
fn units_start_what_the_package_brings() {
    let package = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/build-deb.sh"),
    )
    .unwrap();
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{}: no {key}", unit.display()))
        };
        let program = value("ExecStart=").split(' ').next().unwrap();
        let name = program
            .strip_prefix("/usr/libexec/replay-appliance/")
            .unwrap();
        assert!(package.contains(name), "{program}");
        if name == "hugepages.sh" {
            assert_eq!(value("CapabilityBoundingSet="), "");
        } else {
            assert_eq!(value("User="), "replay");
            assert_eq!(
                value("CapabilityBoundingSet="),
                value("AmbientCapabilities=")
            );
        }
    }
}
