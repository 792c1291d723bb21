//! What a program may leave behind: interfaces, processes and files.

use super::process::output;
use super::{Lab, Node};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A program that refuses to run ends at once; a busy machine takes longer.
const END: Duration = Duration::from_secs(30);

/// What there is in a node, to be compared before and after a program has run there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    links: String,
    processes: String,
    files: BTreeSet<String>,
}

impl Traces {
    /// Interfaces with their flags, processes, and the files below a folder, such as the one where
    /// the EAL keeps its own.
    ///
    /// # Errors
    /// `ip` can't be run.
    pub fn of(lab: &Lab, node: Node, folder: &Path) -> Result<Self> {
        // Name and flags; what a cable's other end does to it is not ours.
        let links = lab.run(node, "ip", &["-br", "link"])?;
        let links = links
            .split_whitespace()
            .filter(|word| !matches!(*word, "UP" | "DOWN" | "UNKNOWN" | "LOWERLAYERDOWN"))
            .fold(String::new(), |all, word| {
                all + " " + &word.replace("NO-CARRIER,", "").replace(",LOWER_UP", "")
            });
        let processes = output(Command::new("ip").args(["netns", "pids", &lab.namespace(node)]))?;
        let mut files = BTreeSet::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.insert(entry.path().display().to_string());
                }
            }
        }
        Ok(Self {
            links,
            processes,
            files,
        })
    }
}

/// Runs the engine or the intercept to its end. Returns its exit code and the last line of its log.
///
/// # Errors
/// It left something behind in the node or in the EAL's folder, or does not end.
pub fn run_to_end(
    lab: &Lab,
    node: Node,
    name: &str,
    mut command: Command,
) -> Result<(Option<i32>, String)> {
    // Where the EAL keeps its files; a folder of its own shows what it leaves.
    let folder = lab.file("run");
    std::fs::create_dir_all(&folder)?;
    command.env("RUNTIME_DIRECTORY", &folder);
    let before = Traces::of(lab, node, &folder)?;
    super::appliance::keep_fanouts_apart()?;
    let mut process = lab.spawn(name, command)?;
    let status = process.wait(END)?;
    let after = Traces::of(lab, node, &folder)?;
    if after != before {
        bail!(
            "{name}: left something behind: {after:?} instead of {before:?}; its log:\n{}",
            process.log()
        );
    }
    let last = process.log().lines().last().unwrap_or("").to_owned();
    Ok((status.code(), last))
}
