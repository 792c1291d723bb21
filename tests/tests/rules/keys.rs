//! A message that names a key of the configuration names one that there is.

use super::{files, read, workspace};
use std::collections::BTreeSet;

/// Crates whose messages users see.
const SPEAKING: [&str; 6] = ["dpdk", "engine", "intercept", "config", "link", "link-tcp"];

/// What looks like a key and is none: names of files.
const OTHERS: [&str; 1] = ["link.key"];

/// The keys of an example, shown or commented out, as `section.key`.
fn keys(example: &str) -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in example.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && is_name(key)
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

fn is_name(word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !word.is_empty() && word.chars().all(is_part)
}

/// Words in the strings of a source that look like keys of these sections.
fn named<'a>(source: &'a str, sections: &BTreeSet<&str>) -> Vec<&'a str> {
    let shipped = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let strings = shipped
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| Some(&line[line.find('"')?..=line.rfind('"')?]));
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let words = strings.flat_map(move |s| s.split(move |c| !is_part(c)));
    words
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            word.split_once('.')
                .is_some_and(|(section, key)| sections.contains(section) && is_name(key))
        })
        .collect()
}

#[test]
fn every_key_that_a_message_names_is_documented() {
    let root = workspace();
    let mut documented = BTreeSet::new();
    for example in ["replay", "offline", "intercept"] {
        documented.extend(keys(&read(&root.join(format!("examples/{example}.toml")))));
    }
    let sections: BTreeSet<&str> = documented
        .iter()
        .filter_map(|key| Some(key.split_once('.')?.0))
        .collect();
    let mut found = 0;
    for package in SPEAKING {
        for path in files(&root.join(package).join("src"), "rs") {
            if path.file_stem().is_some_and(|s| s == "tests")
                || path.components().any(|c| c.as_os_str() == "tests")
            {
                continue;
            }
            let source = read(&path);
            for key in named(&source, &sections) {
                found += 1;
                assert!(
                    documented.contains(key) || OTHERS.contains(&key),
                    "{}: a message names {key}, which no example has",
                    path.display()
                );
            }
        }
    }
    assert!(found > 20, "only {found} keys were found");
}

#[test]
fn a_key_that_there_is_not_is_found() {
    let keys = keys("[eal]\nlcores = [1]\n# idle = \"spin\"\n# A word, and more.\n");
    let expected = ["eal.idle", "eal.lcores"].map(String::from);
    assert_eq!(keys, BTreeSet::from(expected));
    let source =
        "let a = \"set eal.pci, or eal.lcores.\"; // \"eal.x\"\n// \"eal.y\"\nself.eal.z();\n";
    let sections = BTreeSet::from(["eal"]);
    assert_eq!(named(source, &sections), ["eal.pci", "eal.lcores", "eal.x"]);
}
