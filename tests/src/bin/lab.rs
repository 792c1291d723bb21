//! The lab from the command line: build one to try things in, run commands in its namespaces,
//! remove it, or see the demonstration.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::process::ExitCode;
use tests::lab::vm::trial::Setup;
use tests::lab::vm::{Memory, Model, Nic, by_hand};
use tests::lab::{self, Family, Lab, LabOptions, Node, Responses, Span, demo};

/// A laboratory of network namespaces: clients, a production server, a mirror port, a target.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a lab that stays until `down`.
    Up {
        /// Its name: letters and digits.
        name: String,
        /// The target's responses go to the assistant instead of the appliance.
        #[arg(long)]
        remote: bool,
        /// Mirror what clients send alone.
        #[arg(long)]
        client_to_server: bool,
    },
    /// Remove a lab and end everything that runs in it.
    Down {
        /// Its name.
        name: String,
    },
    /// Run a command in a node of a lab; its exit code becomes ours.
    Exec {
        /// The lab's name.
        name: String,
        /// The node.
        node: NodeName,
        /// The command with its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Remove labs whose owner is gone.
    Sweep,
    /// Boot a virtual machine with PCI NICs in the appliance's place, and run something in it.
    Vm(VmArgs),
    /// Replay real traffic between real servers, and compare what both have seen.
    Demo {
        /// Seconds of load.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
}

/// What the virtual machine is like, and what runs in it.
#[derive(clap::Args)]
struct VmArgs {
    /// A NIC of the guest, given once for each: igb, e1000e, vmxnet3 or virtioN (with N queues), a
    /// colon, and where its cable leads: mirror, replay or assistant. The first is 0000:01:00.0.
    /// Default: igb:mirror and igb:replay.
    #[arg(long = "nic")]
    nics: Vec<Nic>,
    /// The guest's memory.
    #[arg(long, value_enum, default_value = "2m")]
    memory: MemoryName,
    /// Clients and servers speak IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Workers of the engine, 1 or 2; without a command.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Clients ask the production server as soon as the command's log says "ready", and the
    /// command gets SIGTERM when they have been silent for a while.
    #[arg(long)]
    load: bool,
    /// A shell command for the guest, in the lab's folder, with `$CONFIG` for the engine's
    /// configuration. Without it the engine and the comparison run as in the tests.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum MemoryName {
    #[value(name = "2m")]
    Mib2,
    #[value(name = "1g")]
    Gib1,
    #[value(name = "two-nodes")]
    TwoNodes,
}

impl From<MemoryName> for Memory {
    fn from(name: MemoryName) -> Self {
        match name {
            MemoryName::Mib2 => Self::Mib2,
            MemoryName::Gib1 => Self::Gib1,
            MemoryName::TwoNodes => Self::TwoNodes,
        }
    }
}

fn vm(args: VmArgs) -> Result<ExitCode> {
    let mut setup = Setup::of(Model::Igb);
    if !args.nics.is_empty() {
        setup.vm.nics = args.nics;
    }
    setup.vm.memory = args.memory.into();
    setup.workers = args.workers;
    if args.ipv6 {
        setup.family = Family::V6;
    }
    let command = args.command.join(" ");
    let code = by_hand::run(&setup, args.load, &command)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

#[derive(Clone, Copy, ValueEnum)]
enum NodeName {
    Client,
    Production,
    Switch,
    Appliance,
    Lan,
    Target,
    Assistant,
}

impl From<NodeName> for Node {
    fn from(name: NodeName) -> Self {
        match name {
            NodeName::Client => Self::Client,
            NodeName::Production => Self::Production,
            NodeName::Switch => Self::Switch,
            NodeName::Appliance => Self::Appliance,
            NodeName::Lan => Self::Lan,
            NodeName::Target => Self::Target,
            NodeName::Assistant => Self::Assistant,
        }
    }
}

fn exec(name: &str, node: Node, command: &[String]) -> Result<ExitCode> {
    lab::require_root()?;
    let [program, args @ ..] = command else {
        bail!("no command was given")
    };
    let namespace = format!("{name}-{}", node.suffix());
    let status = std::process::Command::new("ip")
        .args(["netns", "exec", &namespace, program])
        .args(args)
        .status()
        .context("ip: cannot be run; is iproute2 installed?")?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(1),
    ))
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up {
            name,
            remote,
            client_to_server,
        } => {
            let options = LabOptions {
                responses: if remote {
                    Responses::Remote
                } else {
                    Responses::Embedded
                },
                span: if client_to_server {
                    Span::ClientToServer
                } else {
                    Span::Both
                },
                name: Some(name),
                ..LabOptions::default()
            };
            let lab = Lab::start(options)?;
            for node in Node::ALL {
                println!("{}", lab.namespace(node));
            }
        }
        Command::Down { name } => lab::remove(&name)?,
        Command::Exec {
            name,
            node,
            command,
        } => return exec(&name, node.into(), &command),
        Command::Sweep => {
            lab::require_root()?;
            println!("{} removed", lab::sweep()?);
        }
        Command::Vm(args) => return vm(args),
        Command::Demo { seconds } => {
            if let Some(reason) = demo::run(seconds)? {
                eprintln!("demo: {reason}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    run(Args::parse().command).unwrap_or_else(|e| {
        eprintln!("lab: {e:#}");
        ExitCode::FAILURE
    })
}
