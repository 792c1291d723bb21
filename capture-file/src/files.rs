//! Which files a name means: one, those that fit a pattern, those in a folder, or standard input.

use crate::{Error, What, input, reader::Reader};
use std::path::{Path, PathBuf};

/// The name of standard input.
pub const STDIN: &str = "-";

/// A file that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file that can be read again.
    File(PathBuf),
    /// A pipe, or standard input: it can be read once.
    Pipe(PathBuf),
}

impl Found {
    /// Its name.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Pipe(path) => path,
        }
    }
}

/// The files that `name` means, in the order of their names, and those beside them that are left
/// out as they are no captures or empty.
///
/// A folder means the captures in it, not those in its folders; a name with `*`, `?` or `[` that is
/// no file means the files that fit it.
///
/// # Errors
/// There is none, or one cannot be opened.
pub fn find(name: &Path) -> Result<(Vec<Found>, Vec<Error>), Error> {
    if name == Path::new(STDIN) {
        return Ok((vec![Found::Pipe(name.to_owned())], Vec::new()));
    }
    let shown = name.display().to_string();
    let fail = |what| Error::new(&shown, what);
    let metadata = match std::fs::metadata(name) {
        Ok(metadata) => metadata,
        Err(_) if shown.contains(['*', '?', '[']) => {
            let paths = glob::glob(&shown).map_err(|_| fail(What::None(PATTERN)))?;
            return several(paths.flatten().filter(|p| !p.is_dir()), &fail, FITS);
        }
        Err(e) => return Err(fail(What::Open(e))),
    };
    if metadata.is_dir() {
        let entries = std::fs::read_dir(name).map_err(|e| fail(What::Open(e)))?;
        let paths = entries.flatten().map(|e| e.path());
        let hidden = |p: &PathBuf| {
            let name = p.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b".")
        };
        return several(paths.filter(|p| p.is_file() && !hidden(p)), &fail, INSIDE);
    }
    Ok((vec![kind(name.to_owned())], Vec::new()))
}

const PATTERN: &str = "such pattern: give one with *, ? and [a-z]";
const FITS: &str = "capture file that fits this pattern";
const INSIDE: &str = "capture file in this folder";

fn kind(path: PathBuf) -> Found {
    if std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
        Found::File(path)
    } else {
        Found::Pipe(path)
    }
}

/// Those of `paths` that are captures, and what is wrong with the others.
fn several(
    paths: impl Iterator<Item = PathBuf>,
    fail: &dyn Fn(What) -> Error,
    none: &'static str,
) -> Result<(Vec<Found>, Vec<Error>), Error> {
    let mut all: Vec<PathBuf> = paths.collect();
    all.sort();
    let (mut found, mut left) = (Vec::new(), Vec::new());
    for path in all {
        let one = kind(path);
        if matches!(one, Found::Pipe(_)) {
            found.push(one);
            continue;
        }
        let name = one.path().display().to_string();
        match input::open(one.path()).and_then(|input| Reader::new(&name, input)) {
            Ok(_) => found.push(one),
            // What was meant to be a capture, or cannot be looked at, is not left out in silence.
            Err(
                e @ Error {
                    what: What::Magic(_) | What::Empty | What::Foreign(..),
                    ..
                },
            ) => left.push(e),
            Err(e) => return Err(e),
        }
    }
    if found.is_empty() {
        return Err(fail(What::None(none)));
    }
    Ok((found, left))
}
