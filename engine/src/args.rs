//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Replays mirrored TCP sessions, live, against a target.
///
/// Runs until SIGINT or SIGTERM, or until a capture file is replayed. Exit codes: 0 done, 2 the
/// configuration is wrong, 1 anything else; the last line on stderr says why.
#[derive(Parser, Debug)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Args {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration; see examples/replay.toml.
    #[arg(long, value_name = "FILE", required = true)]
    pub config: Option<PathBuf>,
    /// Check the file and the machine (hugepages, devices, links), say what is wrong, and end.
    #[arg(long)]
    pub check: bool,
    /// Stop after this time, for example 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Write the report here instead of report.json in the configuration.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// What can be done instead of replaying.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Adds up reports of several engines, as of the shards of one mirror, and prints the sum.
    Merge {
        /// The engines' reports.
        #[arg(required = true, value_name = "REPORT")]
        reports: Vec<PathBuf>,
    },
}
