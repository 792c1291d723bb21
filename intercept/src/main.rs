//! The intercept's process: arguments, signals, exit code.
//!
//! Exit code 0: ended by signal or `--duration`, or `--check` found nothing wrong. 2: the command
//! line or the configuration. 1: anything else. The last line on stderr says why, in one sentence.
#![forbid(unsafe_code)]

use clap::Parser;
use intercept::args::Args;
use intercept::run::{Failure, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    let args = Args::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the process at once, should the orderly end hang.
        let result = signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(e) = result {
            eprintln!("intercept: signal {signal} cannot be handled: {e}");
            return ExitCode::from(1);
        }
    }
    match run(&args, &stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (e, code) = match failure {
                Failure::Config(e) => (e, 2),
                Failure::Other(e) => (e, 1),
            };
            eprintln!("intercept: {e:#}");
            ExitCode::from(code)
        }
    }
}
