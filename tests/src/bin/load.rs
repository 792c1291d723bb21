//! The load client of the lab: runs one bounded workload and writes its summary as one line of
//! JSON.
//!
//! Exit code 0 means that every request was answered; 1 that some were not, or that the workload
//! could not be run.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use tests::load::{Talk, Workload, run};

/// Runs a bounded workload against a server.
#[derive(Parser)]
struct Args {
    /// Address and port of the server.
    #[arg(long)]
    to: SocketAddr,
    /// Addresses to come from, taken in turn.
    #[arg(long, value_delimiter = ',')]
    from: Vec<IpAddr>,
    /// Connections in all.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests on each connection.
    #[arg(long, default_value_t = 1)]
    requests: usize,
    /// Connections at the same time.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Requests started in a second; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Makes this run's bytes differ from another's.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(subcommand)]
    talk: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HTTP GET.
    Get,
    /// HTTP POST.
    Post {
        /// Sizes of the bodies in bytes, taken in turn.
        #[arg(long, value_delimiter = ',', required = true)]
        sizes: Vec<usize>,
    },
    /// Redis SET.
    Redis {
        /// Commands sent before their answers are read.
        #[arg(long, default_value_t = 1)]
        pipeline: usize,
        /// Bytes of each value.
        #[arg(long, default_value_t = 32)]
        value: usize,
    },
    /// SMTP, where the server speaks first.
    Smtp,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let talk = match args.talk {
        Command::Get => Talk::Get,
        Command::Post { sizes } => Talk::Post(sizes),
        Command::Redis { pipeline, value } => Talk::Redis { pipeline, value },
        Command::Smtp => Talk::Smtp,
    };
    let workload = Workload {
        to: args.to,
        from: args.from,
        talk,
        connections: args.connections,
        requests: args.requests,
        concurrency: args.concurrency,
        rate: args.rate,
        seed: args.seed,
    };
    let summary = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run(workload))?;
    println!("{}", serde_json::to_string(&summary)?);
    if let Some(error) = &summary.first_error {
        eprintln!(
            "load: {} connections failed; the first: {error}",
            summary.errors
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
