//! The rules of the documents: the README is short, all that a report can say is explained, and
//! links lead somewhere.

use super::{files, is_within, read, workspace};
use std::collections::BTreeSet;
use std::path::Path;

/// Lines that the README may have at most; what is more has a page in `docs/`.
const MAX_README_LINES: usize = 150;

/// Where fields and reasons are explained.
const REPORT: &str = "docs/report.md";

fn is_field(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(is_part)
}

/// Names of the public fields in a source.
fn public_fields(source: &str) -> BTreeSet<&str> {
    source
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub "))
        .filter_map(|field| field.split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| is_field(name))
        .collect()
}

/// Names of the reasons that a source declares with `reasons!`.
fn declared_reasons(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for declared in source.split("reasons! {").skip(1) {
        let end = declared.find("\n}").unwrap_or(declared.len());
        for line in declared[..end].lines() {
            let Some((variant, name)) = line.trim().split_once(" = \"") else {
                continue;
            };
            if let Some(name) = name.strip_suffix("\",")
                && variant.chars().all(char::is_alphanumeric)
            {
                names.push(name);
            }
        }
    }
    names
}

/// What the intercept's report is made of, without its tests.
fn intercept_report() -> String {
    let source = read(&workspace().join("intercept/src/report.rs"));
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    source[..end].to_owned()
}

/// Names that stand nowhere in the page as code.
fn unexplained<'a>(page: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    names
        .into_iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect()
}

#[test]
fn every_reason_a_report_can_give_is_explained() {
    let root = workspace();
    let page = read(&root.join(REPORT));
    for (package, at_least) in [("wire", 20), ("replay", 20), ("intercept", 5)] {
        let mut found = 0;
        for path in files(&root.join(package).join("src"), "rs") {
            // The macro's own file has samples of declarations alone.
            if path.ends_with("wire/src/reasons.rs") {
                continue;
            }
            let source = read(&path);
            let names = declared_reasons(&source);
            found += names.len();
            let missing = unexplained(&page, names);
            assert!(missing.is_empty(), "{REPORT} does not explain {missing:?}");
        }
        assert!(found >= at_least, "{package}: only {found} were found");
    }
}

#[test]
fn every_field_of_a_report_is_explained() {
    let root = workspace();
    let page = read(&root.join(REPORT));
    let explained: BTreeSet<&str> = page
        .split(|c: char| !is_field(c.encode_utf8(&mut [0; 4])))
        .collect();

    let source = read(&root.join("engine/src/report.rs"));
    let mut fields: BTreeSet<&str> = source
        .split("\":")
        .filter_map(|before| before.rsplit_once('"'))
        .map(|(_, name)| name)
        .filter(|name| is_field(name))
        .collect();
    let links = read(&root.join("engine/src/links.rs"));
    let (_, stats) = links.split_once("pub struct Stats {").unwrap();
    let of_links = public_fields(stats.split_once("\n}").unwrap().0);
    assert!(of_links.len() > 5, "only {of_links:?} were found");
    let intercept = intercept_report();
    let of_intercept = public_fields(&intercept);
    assert!(of_intercept.len() > 20, "only {of_intercept:?} were found");
    fields.extend(of_links);
    fields.extend(of_intercept);
    assert!(fields.len() > 70, "only {fields:?} were found");

    let missing: Vec<_> = fields.difference(&explained).collect();
    assert!(missing.is_empty(), "{REPORT} does not explain {missing:?}");
}

#[test]
fn reasons_are_found_where_they_are_declared() {
    let source = "wire::reasons! {\n    /// Why.\n    pub enum Why {\n        /// It = \"no\",\n\
        \x20       First = \"first\",\n        Second2 = \"second\",\n    }\n}\nA = \"other\",\n";
    assert_eq!(declared_reasons(source), ["first", "second"]);
}

#[test]
fn a_name_that_is_not_explained_is_found() {
    let page = "`hole` is a gap, midstream is no code, `not_full` is";
    assert_eq!(
        unexplained(page, ["hole", "midstream", "full", "not_full"]),
        ["midstream", "full"]
    );
    let source = "pub struct A {\n    /// It.\n    pub b_1: u64,\n    c: u64,\n}\npub fn d() {}\n";
    assert_eq!(public_fields(source), BTreeSet::from(["b_1"]));
}

#[test]
fn the_readme_stays_short() {
    let readme = read(&workspace().join("README.md"));
    let is_short = is_within("README.md", &readme, MAX_README_LINES);
    is_short.unwrap_or_else(|e| panic!("{e}: give a topic a page in docs/"));
}

/// A document without its blocks of code.
fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    markdown.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// What a document's headings are called in links, by GitHub's rule.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(markdown) {
        let text = line.trim_start_matches('#');
        let level = line.len() - text.len();
        let Some(text) = text.strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else {
            continue;
        };
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let name = text.trim().to_lowercase().replace(' ', "-");
        let name: String = name.chars().filter(kept).collect();
        let mut numbered = name.clone();
        for n in 1.. {
            if found.insert(numbered) {
                break;
            }
            numbered = format!("{name}-{n}");
        }
    }
    found
}

/// The relative links of a document at `path`: how many there are, and those that lead nowhere.
fn links(path: &Path) -> (usize, Vec<String>) {
    let document = read(path);
    let text: Vec<&str> = prose(&document).collect();
    let text = text.join("\n");
    let (mut followed, mut broken) = (0, Vec::new());
    for part in text.split("](").skip(1) {
        let link = part.split([')', ' ']).next().unwrap();
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        followed += 1;
        let (file, anchor) = link
            .split_once('#')
            .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
        let to = if file.is_empty() {
            path.to_owned()
        } else {
            path.parent().unwrap().join(file)
        };
        let leads_somewhere = to.exists()
            && anchor.is_none_or(|a| {
                to.extension().is_some_and(|e| e == "md") && anchors(&read(&to)).contains(a)
            });
        if !leads_somewhere {
            broken.push(link.to_owned());
        }
    }
    (followed, broken)
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = workspace();
    let mut followed = 0;
    for path in files(&root, "md") {
        let (here, broken) = links(&path);
        assert!(
            broken.is_empty(),
            "{}: these links lead nowhere: {broken:?}",
            path.display()
        );
        followed += here;
    }
    assert!(followed > 20, "only {followed} links were found");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.md"), folder.path().join("b.md"));
    let text = "# A\n[1](b.md) [2](b.md#the-engines-report), [3](#a) [4](https://x.invalid/y)\n\
        ```\n# no heading\n[5](nothing)\n```\n[6](c.md) [7](b.md#none) [8](#no-heading) [9](#b-1)\n";
    std::fs::write(&a, text).unwrap();
    std::fs::write(&b, "## The engine's report\n### `b`, c[]\n### `b`, c[]\n").unwrap();
    let (followed, broken) = links(&a);
    assert_eq!(followed, 7);
    assert_eq!(broken, ["c.md", "b.md#none", "#no-heading", "#b-1"]);
    let expected = ["b-c", "b-c-1", "the-engines-report"].map(String::from);
    assert_eq!(anchors(&read(&b)), BTreeSet::from(expected));
}
