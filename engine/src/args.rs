//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Replays mirrored TCP sessions, live, against a target.
///
/// Runs until SIGINT or SIGTERM, or until a capture file is replayed. Exit codes: 0 done, 2 the
/// configuration is wrong, 1 anything else; the last line on stderr says why.
#[derive(Parser, Debug)]
#[command(version)]
pub struct Args {
    /// The configuration; see examples/replay.toml.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
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
