//! The command line.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Absorbs the target's responses and hands their headers to the engines that claimed them.
#[derive(Clone, PartialEq, Eq, Debug, Parser)]
#[command(name = "intercept", version)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check the file and the machine, say what is wrong, and end.
    #[arg(long)]
    pub check: bool,
    /// End after this time, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Write the report to this file instead of report.json of the configuration.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let args = Args::try_parse_from([
            "intercept",
            "--config",
            "a.toml",
            "--duration",
            "1m 30s",
            "--report",
            "r",
        ])
        .unwrap();
        assert_eq!(args.config, PathBuf::from("a.toml"));
        assert_eq!(
            (args.check, args.duration),
            (false, Some(Duration::from_secs(90)))
        );
        let e = Args::try_parse_from(["intercept", "--config", "a", "--duration", "soon"])
            .unwrap_err()
            .to_string();
        assert!(e.contains("--duration") && e.contains("soon"), "{e}");
        assert!(
            Args::try_parse_from(["intercept"])
                .unwrap_err()
                .to_string()
                .contains("--config")
        );
    }
}
