//! The replay engine: re-creates mirrored TCP client sessions, live, against a target.
//!
//! Arguments, configuration, machine, cores, report, in this order. Exit code 2 means that the
//! configuration is wrong, 1 anything else; the last line on stderr says why, in one sentence.
#![forbid(unsafe_code)]

use clap::Parser;
use engine::args::{Args, Command};
use engine::{control, progress, setup};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Why the engine ends with an error.
enum Failure {
    Configuration(String),
    Other(anyhow::Error),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let default = env_logger::Env::default().default_filter_or("info");
    let mut logger = env_logger::Builder::from_env(default);
    if progress::is_terminal() {
        // What is logged stands above the bar of an offline replay. Of a pipe the logger does not
        // know that it ends at a terminal.
        logger.target(env_logger::Target::Pipe(Box::new(progress::AboveBar)));
        if ["NO_COLOR", "RUST_LOG_STYLE"]
            .iter()
            .all(|v| std::env::var_os(v).is_none())
        {
            logger.write_style(env_logger::WriteStyle::Always);
        }
    }
    logger.format_target(false).init();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(e)) => {
            eprintln!("engine: {e}");
            ExitCode::from(2)
        }
        Err(Failure::Other(e)) => {
            eprintln!("engine: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    if let Some(Command::Merge { reports }) = &args.command {
        let sum = engine::merge::files(reports).map_err(Failure::Other)?;
        println!("{sum:#}");
        return Ok(());
    }
    // There is one, unless there is a command.
    let path = args.config.clone().unwrap_or_default();
    let config = config::replay::load(&path).map_err(|e| Failure::Configuration(e.to_string()))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends at once, for whoever does not want to wait for the drain.
        let registered =
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        registered.map_err(|e| {
            Failure::Other(anyhow::Error::new(e).context("signals cannot be caught"))
        })?;
    }
    let (machine, jobs) = setup::start(&config).map_err(Failure::Other)?;
    if args.check {
        let down = setup::without_link(&machine.mirrors, &machine.replay, Duration::ZERO);
        drop(jobs);
        if let Some(links) = machine.links {
            links.stop();
        }
        let but = match down.as_slice() {
            [] => String::new(),
            down => format!(", but there is no link at {}", down.join(" and ")),
        };
        println!(
            "{}: configuration and machine are in order{but}",
            path.display()
        );
        return Ok(());
    }
    let report = args.report.as_ref().unwrap_or(&config.report.json);
    control::run(&config, machine, jobs, report, args.duration, &stop).map_err(Failure::Other)
}
