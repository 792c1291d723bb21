//! The rules of the sources that no compiler checks: who may depend on whom, where `unsafe` may
//! stand, what the pure crates must not know, how long files and comments may be. Those of the
//! documents and of messages stand in modules of their own.
//!
//! Sources are read as they are in the workspace; what is in comments and strings is no code.
#![cfg(feature = "lab")]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to fail there"
)]

#[path = "rules/documents.rs"]
mod documents;
#[path = "rules/keys.rs"]
mod keys;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates that must stay free of `unsafe`, DPDK, clocks and sockets.
const PURE: [&str; 4] = ["wire", "link", "replay", "config"];

/// Lines that a source file may have at most.
const MAX_LINES: usize = 600;

/// Columns that a comment may have at most, from its slashes on.
const MAX_COMMENT: usize = 100;

/// Each crate, and the crates of this workspace that it may use in what it ships.
const MAY_USE: [(&str, &[&str]); 11] = [
    ("dpdk-sys", &[]),
    ("dpdk", &["dpdk-sys", "wire"]),
    ("wire", &[]),
    ("link", &["wire"]),
    ("link-tcp", &["link", "wire"]),
    ("wake", &[]),
    ("replay", &["wire"]),
    ("config", &[]),
    ("capture-file", &[]),
    (
        "engine",
        &[
            "capture-file",
            "config",
            "dpdk",
            "link",
            "link-tcp",
            "replay",
            "wake",
            "wire",
        ],
    ),
    (
        "intercept",
        &["config", "dpdk", "link", "link-tcp", "wake", "wire"],
    ),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files below `folder` whose names end so, build results left out.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(
        !found.is_empty(),
        "{}: no .{extension} files",
        folder.display()
    );
    found
}

/// The folders of the workspace's members, as the root manifest names them.
fn members() -> Vec<String> {
    let manifest = read(&workspace().join("Cargo.toml"));
    let list = manifest.split_once("members = [").unwrap().1;
    let list = list.split_once(']').unwrap().0;
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// What `cargo tree` says about a crate's shipped dependencies.
fn tree(package: &str, more: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["tree", "--frozen", "-p", package, "-e", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(more)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree -p {package}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Source text without comments, strings and characters, line by line as before.
fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i) = (String::new(), 0);
    let mut word = false;
    while i < chars.len() {
        let c = at(i);
        let start = i;
        match c {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    if at(i) == '/' && at(i + 1) == '*' {
                        depth += 1;
                        i += 2;
                    } else if at(i) == '*' && at(i + 1) == '/' {
                        depth -= 1;
                        i += 2;
                    } else {
                        i += 1;
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            'r' if !word && (at(i + 1) == '"' || at(i + 1) == '#') => {
                let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
                if at(i + 1 + hashes) == '"' {
                    i += hashes + 2;
                    let ends = |i: usize| at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#');
                    while i < chars.len() && !ends(i) {
                        i += 1;
                    }
                    i += hashes + 1;
                }
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character, not a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            _ => {}
        }
        if i == start {
            out.push(c);
            i += 1;
        } else {
            let skipped = &chars[start..i.min(chars.len())];
            out.push(' ');
            out.extend(skipped.iter().filter(|c| **c == '\n'));
        }
        word = c.is_alphanumeric() || c == '_';
    }
    out
}

/// Lines of `code` that have this word in them.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let has = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == word)
    };
    (1..)
        .zip(code.lines())
        .filter(|(_, line)| has(line))
        .map(|(n, _)| n)
        .collect()
}

/// What a crate ships: its sources without tests.
fn shipped(package: &str) -> Vec<(PathBuf, String)> {
    // The first component is the crate, one of which is called tests.
    let is_test = |p: &PathBuf| {
        p.file_stem()
            .is_some_and(|s| s == "tests" || s == "samples")
            || p.components().skip(1).any(|c| c.as_os_str() == "tests")
    };
    let root = workspace();
    files(&root.join(package).join("src"), "rs")
        .into_iter()
        .map(|p| p.strip_prefix(&root).unwrap().to_owned())
        .filter(|p| !is_test(p))
        .map(|p| {
            let text = code(&read(&root.join(&p)));
            let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            (p, text[..end].to_owned())
        })
        .collect()
}

#[test]
fn crates_use_what_the_architecture_allows() {
    for (package, allowed) in MAY_USE {
        let listed = tree(package, &["--depth", "1"]);
        let used: BTreeSet<&str> = listed
            .lines()
            .skip(1)
            .filter(|l| l.contains(" (/"))
            .filter_map(|l| l.split(' ').next())
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let more: Vec<_> = used.difference(&allowed).collect();
        assert!(more.is_empty(), "{package} must not depend on {more:?}");
    }
    for package in PURE {
        let listed = tree(package, &[]);
        assert!(listed.starts_with(package), "{listed}");
        assert!(
            !listed.contains("dpdk"),
            "{package} reaches DPDK:\n{listed}"
        );
    }
}

#[test]
fn unsafe_stands_in_the_dpdk_crates_alone() {
    let root = workspace();
    for package in PURE {
        let lib = code(&read(&root.join(package).join("src/lib.rs")));
        assert!(
            lib.contains("#![forbid(unsafe_code)]"),
            "{package}/src/lib.rs does not forbid unsafe code"
        );
    }
    let mut looked_at = 0;
    for member in members() {
        if member == "dpdk" || member == "dpdk-sys" {
            continue;
        }
        for path in files(&root.join(&member), "rs") {
            let lines = lines_with(&code(&read(&path)), "unsafe");
            assert!(
                lines.is_empty(),
                "{}: unsafe in lines {lines:?}",
                path.display()
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 50, "only {looked_at} files were looked at");
}

#[test]
fn pure_crates_know_no_clock_socket_or_thread() {
    for package in PURE {
        for (path, text) in shipped(package) {
            for word in [
                "Instant",
                "SystemTime",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
                "thread",
                "rand",
                "getrandom",
            ] {
                let lines = lines_with(&text, word);
                assert!(
                    lines.is_empty(),
                    "{}: {word} in lines {lines:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn modules_say_what_they_are_for_and_stay_short() {
    let root = workspace();
    for member in members() {
        for (path, _) in shipped(&member) {
            let text = read(&root.join(&path));
            assert!(
                text.starts_with("//! "),
                "{}: does not open with what it is for",
                path.display()
            );
        }
        for path in files(&root.join(&member), "rs") {
            is_within(&path.display().to_string(), &read(&path), MAX_LINES)
                .unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Whether a text has no more lines than that; else a sentence that says so.
fn is_within(name: &str, text: &str, limit: usize) -> Result<(), String> {
    let lines = text.lines().count();
    if lines <= limit {
        return Ok(());
    }
    Err(format!("{name}: {lines} lines, and {limit} are the limit"))
}

#[test]
fn a_line_too_many_is_found() {
    assert_eq!(is_within("a", "line\nlast", 2), Ok(()));
    assert_eq!(
        is_within("a", "line\nline\nlast", 2),
        Err("a: 3 lines, and 2 are the limit".into())
    );
}

/// Comment lines that are too long: their numbers. Indentation does not count.
fn long_comments(source: &str) -> Vec<usize> {
    let is_long = |line: &str| {
        let line = line.trim_start();
        line.starts_with("//") && line.chars().count() > MAX_COMMENT
    };
    (1..)
        .zip(source.lines())
        .filter(|(_, line)| is_long(line))
        .map(|(n, _)| n)
        .collect()
}

#[test]
fn comments_wrap() {
    let root = workspace();
    let mut looked_at = 0;
    for path in files(&root, "rs") {
        let lines = long_comments(&read(&path));
        assert!(
            lines.is_empty(),
            "{}: comments of more than {MAX_COMMENT} columns in lines {lines:?}",
            path.display()
        );
        looked_at += 1;
    }
    assert!(looked_at > 50, "only {looked_at} files were looked at");
}

#[test]
fn a_long_comment_is_found_and_long_code_is_not() {
    let fits = format!("    //{}", "é".repeat(MAX_COMMENT - 2));
    let code = format!("let a = \"//{}\";", "b".repeat(MAX_COMMENT));
    let source = format!("{fits}\n{code}\n{fits}c\n/{fits}\n///{}", "d".repeat(98));
    assert_eq!(long_comments(&source), [3, 5]);
}

#[test]
fn the_lexer_of_these_tests_tells_code_from_text() {
    let source = "let a = \"unsafe // \\\" x\"; // unsafe\n/* unsafe /* */ unsafe */ b\nr#\"unsafe\"# 'u' '\\'' &'a c\nunsafe_code unsafe";
    let code = code(source);
    assert_eq!(lines_with(&code, "unsafe"), [4]);
    assert_eq!(lines_with(&code, "b"), [2]);
    assert_eq!(lines_with(&code, "c"), [3]);
    assert_eq!(lines_with(&code, "x"), []);
}
