//! `mirror.file` and what goes with it: an offline replay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Speed;
use crate::Error;
use crate::doc::{Item, Section};
use crate::shared::{DAY, beside, file_or_folder};
use crate::value::duration;

/// An offline replay, of `mirror.file`.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Captures, folders of them and patterns (`*`, `?`, `[…]`), at least one; `-` is standard
    /// input. What is relative in the file starts at the configuration file's folder, and is
    /// already joined to it here.
    pub names: Vec<PathBuf>,
    /// How fast they are played.
    pub speed: Speed,
    /// How many times they are played, at least 1; once, if standard input is among them.
    pub loops: u32,
    /// The longest time without a frame, in capture time; `None`: as long as it was.
    pub max_idle: Option<Duration>,
}

impl Files {
    /// What `mirror.max_idle` is where nothing is said.
    pub const MAX_IDLE: Duration = Duration::from_secs(10);
}

const STDIN: &str = "-";
const ACCEPTED: &str = "a capture file, a folder or a pattern, such as \"online.pcap\", \"captures/\" or \"ring.pcap*\", a list of them, or \"-\" for standard input";

/// Reads the keys of an offline replay; `file` is that of `mirror.file`.
pub(super) fn read(path: &str, section: &Section<'_>, file: &Item<'_>) -> Result<Files, Error> {
    let names = names(path, file)?;
    let speed = match section.get("speed") {
        None => Speed::Factor(1.0),
        Some(item) if item.str("").is_ok_and(|s| s == "max") => Speed::Max,
        Some(item) => match item.number() {
            Some(factor) if (0.001..=1000.0).contains(&factor) => Speed::Factor(factor),
            _ => return Err(item.fail("give a number from 0.001 to 1000, or \"max\"")),
        },
    };
    let loops = match section.get("loops") {
        None => 1,
        Some(item) => {
            let loops = item.integer(1..=u32::MAX)?;
            if loops > 1 && names.iter().any(|n| n == Path::new(STDIN)) {
                return Err(item.fail("standard input can be read but once; give 1, or a file"));
            }
            loops
        }
    };
    let max_idle = match section.get("max_idle") {
        None => Some(Files::MAX_IDLE),
        Some(item) if item.str("").is_ok_and(|s| s == "off") => None,
        Some(item) => Some(item.parsed("a duration, or \"off\"", |s| {
            duration(s, Duration::from_millis(1), DAY).map_err(|e| format!("{e}, or \"off\""))
        })?),
    };
    Ok(Files {
        names,
        speed,
        loops,
        max_idle,
    })
}

fn names(path: &str, file: &Item<'_>) -> Result<Vec<PathBuf>, Error> {
    let name = |text: &str| match text {
        STDIN => Ok(PathBuf::from(text)),
        "" => Err(format!("names no file; give {ACCEPTED}")),
        _ => Ok(beside(path, file_or_folder(text, "online.pcap")?)),
    };
    if file.str("").is_ok() {
        return Ok(vec![file.parsed(ACCEPTED, name)?]);
    }
    let found = file.list(ACCEPTED, name)?;
    if found.is_empty() {
        return Err(file.fail(format_args!("names no file; give {ACCEPTED}")));
    }
    for (i, one) in found.iter().enumerate() {
        if let Some(other) = found[..i].iter().find(|o| o.value == one.value) {
            let other = &other.item.key;
            return Err(one
                .item
                .fail(format_args!("is {other} already; give each once")));
        }
    }
    Ok(found.into_iter().map(|f| f.value).collect())
}
