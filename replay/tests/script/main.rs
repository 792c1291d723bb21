//! Packet scripts: one small file for each behaviour of the session core, both directions of both
//! connections, frame by frame.
//!
//! Each `.pkt` file below `replay/tests/scripts` is a test of its own, named for its path; the
//! format is described there and below. `syntax` and `settings` read a script, `segment` and
//! `tally` know how segments and counters are written, `bed` runs it and `outlet` takes what the
//! core sends, `shown` knows what the mirror showed.
//!
//! A script fails at the first thing that is not as it says: a frame that is missing, left over,
//! early, late or different in any field, a counter, a byte that was not captured, books that do
//! not balance, or anything left at its end. Scripts in `refused/` must fail, with the words that
//! follow `# fails:` in them.

#![doc = include_str!("../scripts/README.md")]

mod bed;
mod outlet;
mod segment;
mod settings;
mod shown;
mod syntax;
mod tally;

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const FAILS: &str = "# fails:";

fn main() -> ExitCode {
    if cfg!(miri) {
        println!("skipped: an interpreter takes too long for the scripts");
        return ExitCode::SUCCESS;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files = Vec::new();
    if let Err(e) = collect(&folder, &mut files) {
        eprintln!("the scripts cannot be listed: {e}");
        return ExitCode::FAILURE;
    }
    files.sort();
    let trials = files
        .into_iter()
        .map(|path| {
            let short = path.strip_prefix(&folder).unwrap_or(&path);
            let name = short.with_extension("").display().to_string();
            let shown = format!("replay/tests/scripts/{}", short.display());
            Trial::test(name, move || check(&path, &shown).map_err(Failed::from))
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "pkt") {
            files.push(path);
        }
    }
    Ok(())
}

fn check(path: &Path, shown: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    if !text.starts_with("# ") {
        return Err(format!(
            "{shown}:1: a script begins with a comment that says the behaviour"
        ));
    }
    let result = syntax::read(&text).and_then(|script| bed::run(&script));
    let result = result.map_err(|(line, e)| format!("{shown}:{line}: {e}"));
    let words = text.lines().find_map(|l| l.strip_prefix(FAILS));
    if words.is_some() != shown.contains("/refused/") {
        return Err(format!(
            "{shown}: scripts in refused/ have a line '{FAILS}', and only they do"
        ));
    }
    let Some(words) = words else {
        return result;
    };
    match result {
        Ok(()) => Err(format!("{shown}: it should have failed:{words}")),
        Err(e) if e.contains(words.trim()) => Ok(()),
        Err(e) => Err(format!(
            "{shown}: it should have failed with:{words}\nbut it failed with: {e}"
        )),
    }
}
