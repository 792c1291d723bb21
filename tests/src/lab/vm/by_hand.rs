//! A guest from the command line: anything can be run in it, with the lab's load or without.

use super::trial::{Setup, load};
use super::{Cable, Machine, Vm};
use crate::lab::servers::{Server, Service, Side};
use crate::lab::{Lab, LabOptions};
use anyhow::{Result, bail};
use std::time::Duration;

/// A command ends when it wants to; here is a limit for one that never does.
const LIMIT: Duration = Duration::from_secs(3600);
const START: Duration = Duration::from_secs(90);
/// What a replay may take after the load.
const SETTLE: Duration = Duration::from_secs(10);

/// Boots a guest and runs a command in it, or the comparison of the tests if the command is empty.
/// Prints what it wrote and the report that it left in the lab's folder. Returns its exit code.
///
/// # Errors
/// This machine can't run a guest, the guest hangs, or the comparison fails.
pub fn run(setup: &Setup, with_load: bool, command: &str) -> Result<i32> {
    let Some(machine) = Machine::here("lab vm")? else {
        return Ok(1);
    };
    if command.is_empty() {
        let outcome = setup.run("lab vm", &machine)?;
        println!("{}\n{}", outcome.log, outcome.report);
        return Ok(0);
    }
    let lab = Lab::start(LabOptions {
        responses: setup.responses(),
        ..LabOptions::default()
    })?;
    let servers =
        [Side::Production, Side::Target].map(|side| Server::start(&lab, side, Service::Http, true));
    for server in &servers {
        if let Err(e) = server {
            bail!("{e:#}");
        }
    }
    let config = setup.engine()?.write(&lab)?;
    if let Some(options) = setup.intercept() {
        options.write(&lab)?;
    }
    let mut vm = Vm::start(&lab, &machine, &setup.vm)?;
    for cable in [Cable::Mirror, Cable::Replay, Cable::Assistant] {
        if let Some(address) = setup.vm.address(cable) {
            eprintln!("lab vm: {address} leads to {cable:?}");
        }
    }
    eprintln!("lab vm: the lab's folder is {}", lab.dir().display());
    let job = vm.spawn(
        "engine",
        &format!(
            "echo $$ >vm/engine.pid\nexport RUST_LOG=\"${{RUST_LOG:-info}}\" CONFIG={}\n\
             {}{command}",
            config.display(),
            // The program itself is to get SIGTERM, and no shell before it.
            if with_load { "exec " } else { "" }
        ),
    )?;
    let code = if with_load {
        vm.wait_ready(&job, START)?;
        for workload in load(setup.family) {
            println!("{:?}", lab.load(&workload)?);
        }
        std::thread::sleep(SETTLE);
        vm.terminate(&job, START)?
    } else {
        vm.wait(&job, LIMIT)?
    };
    print!("{}", job.log());
    if let Ok(report) = std::fs::read_to_string(lab.file("report.json")) {
        println!("{report}");
    }
    Ok(code)
}
