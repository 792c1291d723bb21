//! The parts that both configuration files have: `[eal]` and `[report]`.
//!
//! Holds always, in a value that `parse` or `load` returned: `lcores` is neither empty nor repeats
//! a core, and the report's interval is at least 100 ms.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::doc::{Found, Section};
use crate::key::KeyReader;
use crate::value::{self, duration};
use crate::{Error, key};

/// `[eal]`: how DPDK's environment abstraction layer is brought up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eal {
    /// CPU numbers of the workers, in the order given; not empty, no duplicates, each below 1024
    /// (`CPU_SETSIZE`).
    pub lcores: Vec<usize>,
    /// Where packet memory comes from.
    pub memory: Memory,
    /// What a worker does when its polls come back empty; `None` leaves it to the driver (software
    /// drivers sleep).
    pub idle: Option<Idle>,
}

/// `eal.memory`: where packet memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages, through EAL's `--in-memory`: no hugetlbfs mount is needed and nothing is left
    /// behind.
    Hugepages,
    /// Ordinary pages, EAL's `--no-huge`: for trying things out with software drivers.
    NoHuge,
}

/// `eal.idle`: what a worker does when its polls come back empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls again at once: lowest latency, a whole core.
    Spin,
    /// Gives the core back for a moment.
    Sleep,
}

/// `[report]`: what is written about the run, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Time between two reports, at least 100 ms.
    pub interval: Duration,
    /// The file the report is written to, as given: a relative path starts at the working
    /// directory.
    pub json: PathBuf,
}

/// The keys of `[eal]`.
pub(crate) const EAL_KEYS: &[&str] = &["lcores", "memory", "idle"];
/// The keys of `[report]`.
pub(crate) const REPORT_KEYS: &[&str] = &["interval", "json"];

/// The longest time any key accepts.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Eal {
    pub(crate) fn read(section: &Section<'_>) -> Result<Self, Error> {
        const LCORES: &str =
            "give a list of CPU numbers from 0 to 1023, none twice, such as [1, 2]";
        let mut lcores = vec![1];
        if let Some(item) = section.get("lcores") {
            lcores.clear();
            for core in item.items(LCORES)? {
                let number = core.integer(0..=1023)?;
                if lcores.contains(&number) {
                    return Err(core.fail(format_args!("is listed twice; {LCORES}")));
                }
                lcores.push(number);
            }
            if lcores.is_empty() {
                return Err(item.fail(LCORES));
            }
        }
        let memory = match section.get("memory") {
            Some(item) => item.choice(&[
                ("hugepages", Memory::Hugepages),
                ("no-huge", Memory::NoHuge),
            ])?,
            None => Memory::Hugepages,
        };
        let idle = match section.get("idle") {
            Some(item) => Some(item.choice(&[("spin", Idle::Spin), ("sleep", Idle::Sleep)])?),
            None => None,
        };
        Ok(Self {
            lcores,
            memory,
            idle,
        })
    }
}

impl Report {
    pub(crate) fn read(section: &Section<'_>) -> Result<Self, Error> {
        let interval = match section.get("interval") {
            Some(item) => item.parsed("a duration", |s| {
                duration(s, Duration::from_millis(100), DAY)
            })?,
            None => Duration::from_secs(10),
        };
        let json = match section.get("json") {
            Some(item) => item.parsed("a file name", |s| file_name(s, "report.json"))?,
            None => PathBuf::from("report.json"),
        };
        Ok(Self { interval, json })
    }
}

/// The path of a file, as given: a whole one, or one that stays below the folder that relative
/// paths start at.
pub(crate) fn file_name(text: &str, example: &str) -> Result<PathBuf, String> {
    if matches!(text.rsplit('/').next(), None | Some("" | "." | "..")) {
        return Err(format!(
            "names no file; give a file name such as \"{example}\""
        ));
    }
    file_or_folder(text, example)
}

/// The same of a file or a folder.
pub(crate) fn file_or_folder(text: &str, example: &str) -> Result<PathBuf, String> {
    // Control characters would break the line of an error, and more on a terminal.
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!(
            "names no file; give a file name such as \"{example}\""
        ));
    }
    if value::leaves_its_folder(text) {
        return Err(format!(
            "leaves the folder that relative paths start at; give a name below it such as \"{example}\", or a whole path"
        ));
    }
    Ok(PathBuf::from(text))
}

/// A path of the configuration, which starts at the configuration's folder.
pub(crate) fn beside(config: &str, file: PathBuf) -> PathBuf {
    Path::new(config)
        .parent()
        .map_or_else(|| file.clone(), |folder| folder.join(&file))
}

/// `address = […]` of a port: our addresses on its wire.
pub(crate) fn own_addresses<'a>(section: &Section<'a>) -> Result<Vec<Found<'a, IpNet>>, Error> {
    let Some(item) = section.get("address") else {
        return Ok(Vec::new());
    };
    let found = item.list(value::OWN, value::own_address)?;
    for (i, one) in found.iter().enumerate() {
        if let Some(other) = found[..i]
            .iter()
            .find(|o| o.value.addr() == one.value.addr())
        {
            return Err(one.item.fail(format_args!(
                "is the address of {} too; give each once",
                other.item.key
            )));
        }
    }
    Ok(found)
}

/// The key that `key_file` names, and a warning if too many may read it.
pub(crate) fn link_key(
    config: &str,
    section: &Section<'_>,
    reader: KeyReader<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<[u8; 32]>, Error> {
    let Some(item) = section.get("key_file") else {
        return Ok(None);
    };
    let path = beside(
        config,
        item.parsed("a file name", |s| file_name(s, "link.key"))?,
    );
    let file = reader(&path).map_err(|e| {
        item.fail(format_args!(
            "{} cannot be read: {e}; give {}",
            path.display(),
            key::KEY
        ))
    })?;
    let key = key::decode(&file.bytes)
        .map_err(|reason| item.fail(format_args!("{} {reason}", path.display())))?;
    if file.world_readable {
        warnings.push(format!(
            "{}: {} is readable by every user of this machine; chmod 600 it",
            item.key,
            path.display()
        ));
    }
    Ok(Some(key))
}

/// `insecure`, which with a key would contradict it.
pub(crate) fn insecure(section: &Section<'_>, key: &Option<[u8; 32]>) -> Result<bool, Error> {
    let Some(item) = section.get("insecure") else {
        return Ok(false);
    };
    let insecure = item.bool()?;
    if insecure && key.is_some() {
        return Err(
            item.fail("contradicts key_file, which makes the link secure; give one of the two")
        );
    }
    Ok(insecure)
}

/// Reads the text of a configuration.
pub(crate) fn read_config(path: &Path) -> Result<String, Error> {
    const LARGEST: u64 = 1 << 20;
    let name = path.display().to_string();
    let (bytes, _) = key::read_regular(path, LARGEST + 1).map_err(|e| {
        Error::file(
            &name,
            format_args!("cannot be read: {e}; give the path of a TOML file"),
        )
    })?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::file(&name, "is larger than 1 MiB; give a TOML file"));
    }
    String::from_utf8(bytes).map_err(|_| Error::file(&name, "is not UTF-8; give a TOML file"))
}
