//! Measurements in processes of their own: memory is measured from a fresh heap, and there is one
//! EAL a process.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs this program with these arguments and reads the JSON it prints. It is ended when it takes
/// longer than `limit`. What it says on stderr becomes part of the error.
pub fn measure<T: DeserializeOwned>(args: &[String], limit: Duration) -> Result<T> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let what = args.join(" ");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what} could not be started"))?;
    let readers = (
        child.stdout.take().map(drain),
        child.stderr.take().map(drain),
    );
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{what} was ended as it took longer than {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|r| r.join().ok()).unwrap_or_default()
    };
    let (out, err) = (text(readers.0), text(readers.1));
    if !status.success() {
        bail!("{what} failed: {}", err.trim());
    }
    serde_json::from_str(&out).with_context(|| format!("{what} printed no result: {out:?}"))
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        // What could be read until an error is what there is.
        let _ = from.read_to_string(&mut text);
        text
    })
}
