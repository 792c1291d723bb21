//! The shared key of the control link, as it stands in a file.
//!
//! Holds always: no error and no warning shows any of the file's content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

/// What a key file holds.
pub(crate) const KEY: &str = "a file of 32 random bytes, raw, as 64 hex digits or as base64";

/// A file's content, and whether everyone may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The content, of which the first 4096 bytes suffice.
    pub bytes: Vec<u8>,
    /// Users other than its owner and group may read it.
    pub world_readable: bool,
}

/// What a key file is read with; [`read_key_file`] reads from disk.
pub type KeyReader<'r> = &'r dyn Fn(&Path) -> io::Result<KeyFile>;

/// Reads at most `limit` bytes of a regular file. Anything else could make the start hang.
pub(crate) fn read_regular(path: &Path, limit: u64) -> io::Result<(Vec<u8>, std::fs::Metadata)> {
    let regular = |meta: &std::fs::Metadata| {
        if meta.is_file() {
            Ok(())
        } else {
            Err(io::Error::other("is not a regular file"))
        }
    };
    // Asked before opening, since opening a pipe waits, and again after it, since the path may have
    // changed.
    regular(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    let meta = file.metadata()?;
    regular(&meta)?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok((bytes, meta))
}

/// Reads a key file from disk: the reader that `parse` and `load` use.
///
/// # Errors
/// The file system's, and one for anything that is not a regular file.
pub fn read_key_file(path: &Path) -> io::Result<KeyFile> {
    use std::os::unix::fs::PermissionsExt;
    let (bytes, meta) = read_regular(path, 4096)?;
    Ok(KeyFile {
        bytes,
        world_readable: meta.permissions().mode() & 0o004 != 0,
    })
}

/// The 32 bytes a key file stands for.
pub(crate) fn decode(bytes: &[u8]) -> Result<[u8; 32], String> {
    let key = raw(bytes)
        .or_else(|| text(bytes))
        .ok_or_else(|| format!("holds {} bytes that are no key; give {KEY}", bytes.len()))?;
    if key.iter().all(|b| *b == key[0]) {
        return Err(format!(
            "holds one byte repeated, which is no secret; give {KEY}"
        ));
    }
    Ok(key)
}

fn raw(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

fn text(bytes: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        return Some(key);
    }
    let decoded = BASE64_STANDARD
        .decode(text)
        .or_else(|_| BASE64_STANDARD_NO_PAD.decode(text))
        .ok()?;
    raw(&decoded)
}
