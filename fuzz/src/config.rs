//! Any text as a configuration of either program: it is taken or refused, never more. A refusal is
//! one line that names the file and a place in it; what is taken is taken again, the same, whatever
//! is added that means nothing.

use config::{Error, KeyFile, intercept, replay};
use std::fmt::Debug;
use std::io;
use std::path::Path;

const FILE: &str = "fuzz.toml";

/// Key files are not looked for on the machine: some are there, the others are not.
fn key_file(path: &Path) -> io::Result<KeyFile> {
    if path.as_os_str().len().is_multiple_of(2) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(KeyFile {
        bytes: (0..32).collect(),
        world_readable: path.as_os_str().len().is_multiple_of(3),
    })
}

fn judge<T: PartialEq + Debug>(text: &str, parse: impl Fn(&str) -> Result<T, Error>) {
    match parse(text) {
        Ok(taken) => {
            // A byte order mark has a meaning, nothing, at the very start alone.
            let (mark, rest) =
                text.split_at(text.len() - text.trim_start_matches('\u{feff}').len());
            let longer = format!("{mark}# A comment.\n{rest}\n# Another.\n");
            assert_eq!(parse(&longer).as_ref(), Ok(&taken));
        }
        Err(e) => {
            let said = e.to_string();
            assert!(said.starts_with(FILE), "{said:?} names no file");
            assert!(
                !said.chars().any(char::is_control),
                "{said:?} is more than a line"
            );
            assert!(
                e.key().is_some() || e.line().is_some(),
                "{said:?} names no place"
            );
            let lines = text.lines().count().max(1) + 1;
            assert!(
                e.line().is_none_or(|n| (1..=lines).contains(&n)),
                "{said:?}, but there are {lines} lines"
            );
            assert_eq!(parse(text), Err(e));
        }
    }
}

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    judge(text, |t| replay::parse_with(t, FILE, &key_file));
    judge(text, |t| intercept::parse_with(t, FILE, &key_file));
}
