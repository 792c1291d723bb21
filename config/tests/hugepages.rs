//! `scripts/hugepages.sh` against a sysfs tree in a temporary folder. The files there are ordinary
//! ones, so the "kernel" gives what was asked for, unless a test makes it a stingy one.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const ALL: &str = "kernel/mm/hugepages";

/// A machine with these NUMA nodes, and no pages reserved.
fn machine(nodes: &[u32]) -> TempDir {
    let sysfs = tempfile::tempdir().unwrap();
    let places = nodes
        .iter()
        .map(|n| format!("devices/system/node/node{n}/hugepages"))
        .chain([ALL.to_owned()]);
    for place in places {
        for size in ["hugepages-2048kB", "hugepages-1048576kB"] {
            let folder = sysfs.path().join(&place).join(size);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("nr_hugepages"), "0\n").unwrap();
            fs::write(folder.join("free_hugepages"), "0\n").unwrap();
        }
    }
    sysfs
}

fn run(sysfs: &TempDir, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/hugepages.sh");
    Command::new("bash")
        .arg(script)
        .args(arguments)
        .env("HUGEPAGES_SYSFS", sysfs.path())
        .output()
        .unwrap()
}

#[track_caller]
fn succeeds(sysfs: &TempDir, arguments: &[&str]) -> String {
    let output = run(sysfs, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Asserts that the script fails with this code and one line that has all the parts.
#[track_caller]
fn fails(sysfs: &TempDir, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = run(sysfs, arguments);
    let shown = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
    for part in parts {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
}

fn pages(sysfs: &TempDir, place: &str, size: &str) -> String {
    let file = sysfs
        .path()
        .join(place)
        .join(format!("hugepages-{size}"))
        .join("nr_hugepages");
    fs::read_to_string(file).unwrap().trim().to_owned()
}

#[test]
fn without_arguments_512_mib_of_2_mib_pages_are_reserved() {
    let sysfs = machine(&[0]);
    assert!(succeeds(&sysfs, &[]).contains("256 pages of 2 MiB"));
    assert_eq!(
        (
            pages(&sysfs, ALL, "2048kB"),
            pages(&sysfs, ALL, "1048576kB")
        ),
        ("256".into(), "0".into())
    );
}

#[test]
fn counts_sizes_and_nodes_are_honoured() {
    let sysfs = machine(&[0, 1]);
    succeeds(&sysfs, &["reserve", "--count", "7"]);
    assert_eq!(pages(&sysfs, ALL, "2048kB"), "7");
    succeeds(
        &sysfs,
        &["reserve", "--mib", "1025", "--size", "1G", "--node", "1"],
    );
    assert_eq!(
        pages(&sysfs, "devices/system/node/node1/hugepages", "1048576kB"),
        "2",
        "a part of a page needs a whole one"
    );
    assert_eq!(
        pages(&sysfs, "devices/system/node/node0/hugepages", "1048576kB"),
        "0"
    );
    assert_eq!(pages(&sysfs, ALL, "1048576kB"), "0");
}

#[test]
fn reserving_again_changes_nothing_and_never_takes_pages_away() {
    let sysfs = machine(&[0]);
    succeeds(&sysfs, &["reserve", "--count", "300"]);
    for count in ["300", "10"] {
        assert!(succeeds(&sysfs, &["reserve", "--count", count]).contains("reserved already"));
        assert_eq!(pages(&sysfs, ALL, "2048kB"), "300");
    }
}

#[test]
fn a_dry_run_says_what_would_be_written_and_writes_nothing() {
    let sysfs = machine(&[0]);
    let said = succeeds(&sysfs, &["reserve", "--mib", "64", "--dry-run"]);
    let file = sysfs.path().join(ALL).join("hugepages-2048kB/nr_hugepages");
    assert_eq!(said.trim(), format!("would write 32 to {}", file.display()));
    assert_eq!(pages(&sysfs, ALL, "2048kB"), "0");
    succeeds(&sysfs, &["reserve"]);
    assert!(succeeds(&sysfs, &["release", "--dry-run"]).contains("would write 0 to"));
    assert_eq!(pages(&sysfs, ALL, "2048kB"), "256");
}

#[test]
fn releasing_gives_back_all_sizes_or_the_one_named() {
    let sysfs = machine(&[0]);
    succeeds(&sysfs, &["reserve"]);
    succeeds(&sysfs, &["reserve", "--size", "1G", "--count", "2"]);
    succeeds(&sysfs, &["release", "--size", "1G"]);
    assert_eq!(
        (
            pages(&sysfs, ALL, "2048kB"),
            pages(&sysfs, ALL, "1048576kB")
        ),
        ("256".into(), "0".into())
    );
    succeeds(&sysfs, &["release"]);
    assert_eq!(pages(&sysfs, ALL, "2048kB"), "0");
    assert!(succeeds(&sysfs, &["release"]).contains("no pages of 2 MiB"));
}

#[test]
fn show_lists_every_node() {
    let sysfs = machine(&[0, 1]);
    succeeds(&sysfs, &["reserve", "--node", "1", "--count", "5"]);
    let shown = succeeds(&sysfs, &["show"]);
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 5, "{shown}");
    assert!(
        rows.contains(&vec!["1", "2MiB", "5", "0"])
            && rows.contains(&vec!["0", "1024MiB", "0", "0"]),
        "{shown}"
    );
    assert!(
        succeeds(&machine(&[]), &["show"]).contains("-      2MiB"),
        "a machine without NUMA has pages, too"
    );
}

/// The kernel takes any number and may give fewer pages: here a pipe in place of the file lets the
/// test answer in its stead.
#[test]
fn fewer_pages_than_asked_for_fail_in_one_sentence() {
    let sysfs = machine(&[0]);
    let file = sysfs.path().join(ALL).join("hugepages-2048kB/nr_hugepages");
    let pipe = file.with_file_name("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&pipe, &file).unwrap();
    // The kernel's part: what the script reads and writes, in its order.
    let kernel = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            fs::write(&pipe, "0\n").unwrap();
            let asked = fs::read_to_string(&pipe).unwrap();
            fs::write(&pipe, "100\n").unwrap();
            asked
        }
    });
    fails(&sysfs, &["reserve"], 1, &["gave 100 of 256 pages of 2 MiB"]);
    assert_eq!(kernel.join().unwrap().trim(), "256");
}

#[test]
fn what_is_not_there_is_named() {
    let sysfs = machine(&[0]);
    fails(
        &sysfs,
        &["reserve", "--node", "3"],
        1,
        &["--node 3", "node 0"],
    );
    fs::remove_dir_all(sysfs.path().join(ALL).join("hugepages-1048576kB")).unwrap();
    fails(
        &sysfs,
        &["reserve", "--size", "1G"],
        1,
        &["1024 MiB", "another --size"],
    );
    fails(
        &tempfile::tempdir().unwrap(),
        &["show"],
        1,
        &["no hugepages"],
    );
}

#[test]
fn bad_arguments_are_named() {
    let sysfs = machine(&[0]);
    fails(
        &sysfs,
        &["reserve", "--size", "4M"],
        2,
        &["--size 4M", "2M or 1G"],
    );
    fails(
        &sysfs,
        &["reserve", "--count", "0"],
        2,
        &["--count 0", "from 1"],
    );
    fails(&sysfs, &["reserve", "--count", "010"], 2, &["--count 010"]);
    fails(&sysfs, &["reserve", "--mib", "many"], 2, &["--mib many"]);
    fails(
        &sysfs,
        &["reserve", "--count"],
        2,
        &["--count needs a value"],
    );
    fails(
        &sysfs,
        &["reserve", "--count", "1", "--mib", "1"],
        2,
        &["one of them"],
    );
    fails(&sysfs, &["reserve", "--node", "../0"], 2, &["--node ../0"]);
    fails(&sysfs, &["grow"], 2, &["grow"]);
    fails(&sysfs, &["show", "--count", "1"], 2, &["for reserve"]);
    assert!(succeeds(&sysfs, &["--help"]).contains("usage:"));
}
