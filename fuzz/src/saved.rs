//! Inputs that are kept: those that once broke something, and a few that reach far. They are judged
//! again by ordinary tests, without a fuzzer.

use std::path::{Path, PathBuf};
use std::{fs, panic};

/// Judges all kept inputs of `target`; panics with the names of those that fail.
pub fn judge(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut inputs = Vec::new();
    for kind in ["regressions", "seeds"] {
        let folder = fuzz.join(kind).join(target);
        // Nothing may have been found of one kind.
        if folder.exists() {
            let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
            inputs.extend(entries.map(|e| e.expect("an entry of the folder").path()));
        }
    }
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs of {target} are kept");
    let fails = |path: &PathBuf| {
        let data = fs::read(path).expect("a file");
        panic::catch_unwind(|| run(&data)).is_err()
    };
    let failed: Vec<_> = inputs.iter().filter(|path| fails(path)).collect();
    assert!(failed.is_empty(), "{} fail: {failed:#?}", failed.len());
}
