//! The capture files of an offline replay: which they are, how far they are read, what was wrong
//! with them, and the thread that reads them.

use super::pipe;
use super::reader::{Reading, read_ahead};
use anyhow::{Context, Result, bail};
use capture_file::{Disorder, Found, Merge, Opener, Schedule, Stamped, find};
use config::replay::Files;
use dpdk::{Mbuf, PortStats};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::decode::LinkType;

/// How often the reader looks whether it is to begin again.
const LOOK: Duration = Duration::from_millis(1);

/// Frames and bytes read of one file.
#[derive(Default)]
struct Count {
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// What the reader and the control core share.
#[derive(Default)]
pub struct Shared {
    /// Reading is to stop.
    pub stop: Arc<AtomicBool>,
    /// Passes that may begin.
    allowed: AtomicU32,
    /// All passes are read, or reading was stopped.
    done: AtomicBool,
    names: Vec<String>,
    counts: Vec<Count>,
    told: Mutex<Told>,
    /// What errors say, each once.
    errors: Mutex<Vec<String>>,
    /// Link types that are not understood and were seen.
    unknown: Mutex<Vec<u16>>,
}

/// How far reading is.
#[derive(Clone, Copy, Default)]
struct Told {
    /// Of passes that are over.
    before: Sums,
    now: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    position: u64,
    skipped: u64,
    read: u64,
    disorder: Disorder,
}

impl Sums {
    fn plus(mut self, other: Self) -> Self {
        self.position += other.position;
        self.skipped += other.skipped;
        self.read += other.read;
        self.disorder.add(other.disorder);
        self
    }
}

impl Shared {
    /// A frame was read of a file.
    #[inline]
    pub(super) fn count(&self, file: usize, bytes: usize) {
        if let Some(count) = self.counts.get(file) {
            // Nobody else writes them.
            let add = |n: &AtomicU64, by| {
                n.store(n.load(Ordering::Relaxed) + by, Ordering::Relaxed);
            };
            add(&count.frames, 1);
            add(&count.bytes, bytes as u64);
        }
    }

    /// How far reading is in this pass.
    pub(super) fn account(&self, merge: &Merge, schedule: &Schedule) {
        self.told().now = Sums {
            position: schedule.position(),
            skipped: schedule.skipped(),
            read: merge.bytes_read(),
            disorder: merge.disorder(),
        };
    }

    /// What was wrong with files. That of a later pass is known.
    pub(super) fn failed(&self, errors: &[capture_file::Error]) {
        let mut all = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for error in errors.iter().map(ToString::to_string) {
            if !all.contains(&error) {
                log::error!("mirror.file: {error}; the replay goes on with what else there is");
                all.push(error);
            }
        }
    }

    /// A frame's link type is not understood.
    #[cold]
    pub(super) fn warn_of(&self, link: u16, file: usize) {
        let mut all = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&link) {
            all.push(link);
            log::warn!(
                "mirror.file: {} {}; they are counted as link_type, and other frames are replayed",
                self.names.get(file).map_or("a file", String::as_str),
                capture_file::link::refusal(link)
            );
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a report says of capture files.
#[derive(Clone, Copy, Debug, Default)]
pub struct CaptureStats {
    /// How many files there are.
    pub files: usize,
    /// Passes that have begun.
    pub passes: u32,
    /// Bytes of all files as they are stored, times the passes; `None` if one is a pipe.
    pub size: Option<u64>,
    /// Bytes read of them.
    pub read: u64,
    /// How far reading is in capture time, in ns, all passes together.
    pub position: u64,
    /// Idle time that was left out, in ns.
    pub skipped: u64,
    /// Frames whose times were not in order.
    pub disorder: Disorder,
}

/// The capture files of an offline replay.
pub struct Tape {
    files: Vec<Stamped>,
    shared: Arc<Shared>,
    size: Option<u64>,
    loops: u32,
    reading: Option<Reading<Mbuf>>,
    reader: Option<JoinHandle<()>>,
}

impl Tape {
    /// Finds the files that the configuration names, and looks where each begins.
    ///
    /// # Errors
    /// One of them is none that could be replayed.
    pub fn find(config: &Files) -> Result<Self> {
        let (mut files, mut size) = (Vec::new(), Some(0));
        for name in &config.names {
            let (found, left_out) = find(name).context("mirror.file")?;
            for error in left_out {
                log::warn!("mirror.file: {error}; it is left out");
            }
            for file in found {
                if files.iter().any(|f: &Stamped| f.file == file) {
                    continue;
                }
                let path = file.path();
                match &file {
                    Found::Pipe(_) if config.loops > 1 => bail!(
                        "mirror.loops = {}: {} is a pipe, which can be read but once: give 1, or a file",
                        config.loops,
                        path.display()
                    ),
                    Found::Pipe(_) => size = None,
                    Found::File(path) => {
                        let len = std::fs::metadata(path).map_or(0, |m| m.len());
                        size = size.map(|size: u64| size + len);
                    }
                }
                let plays = |link| LinkType::from_pcap(link).is_some();
                files.push(Stamped::look(file, plays).context("mirror.file")?);
            }
        }
        let names: Vec<String> = files
            .iter()
            .map(|f| f.file.path().display().to_string())
            .collect();
        let shared = Shared {
            allowed: AtomicU32::new(1),
            counts: names.iter().map(|_| Count::default()).collect(),
            names,
            ..Shared::default()
        };
        Ok(Self {
            files,
            shared: Arc::new(shared),
            size,
            loops: config.loops,
            reading: None,
            reader: None,
        })
    }

    /// Is told how to read.
    pub fn thread(&mut self, reading: Reading<Mbuf>) {
        self.reading = Some(reading);
    }

    /// Begins to read, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(&mut self) -> Result<()> {
        let Some(mut reading) = self.reading.take() else {
            return Ok(());
        };
        let (files, shared, loops) = (self.files.clone(), Arc::clone(&self.shared), self.loops);
        let stop = Arc::clone(&shared.stop);
        let pipes: Opener = Arc::new(move |path: &Path| pipe::open(path, &stop));
        let run = move || {
            for pass in 0..loops {
                while shared.allowed.load(Ordering::Acquire) <= pass {
                    if shared.stop.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(LOOK);
                }
                let mut told = shared.told();
                told.before = told.before.plus(std::mem::take(&mut told.now));
                drop(told);
                let merge = Merge::new(&files, Arc::clone(&pipes));
                read_ahead(&mut reading, merge, &shared);
            }
            shared.done.store(true, Ordering::Release);
        };
        let reader = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(run)
            .context("the thread that reads capture files cannot be started")?;
        self.reader = Some(reader);
        Ok(())
    }

    /// The pass that is being played, from 1.
    pub fn pass(&self) -> u32 {
        self.shared.allowed.load(Ordering::Relaxed)
    }

    /// True if there is no further pass.
    pub fn is_last(&self) -> bool {
        self.pass() >= self.loops
    }

    /// The next pass may begin.
    pub fn again(&self) {
        self.shared.allowed.fetch_add(1, Ordering::Release);
    }

    /// Ends reading, wherever it is.
    ///
    /// # Errors
    /// What was wrong with the first file that could not be read to its end.
    pub fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            bail!("the thread that reads capture files ended before its time");
        }
        let errors = &self.shared.errors;
        let errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        match &errors[..] {
            [] => Ok(()),
            [only] => bail!("mirror.file: {only}"),
            [first, others @ ..] => bail!("mirror.file: {first}; and {} more", others.len()),
        }
    }

    /// True if the reader's thread has ended although it was to go on.
    pub fn has_failed(&self) -> bool {
        let ended = self.reader.as_ref().is_some_and(JoinHandle::is_finished);
        ended && !self.shared.done.load(Ordering::Acquire)
    }

    /// Each file's name, and what was read of it.
    pub fn counts(&self) -> Vec<(String, PortStats)> {
        let counts = self.shared.names.iter().zip(&self.shared.counts);
        let stats = |count: &Count| PortStats {
            rx_frames: count.frames.load(Ordering::Relaxed),
            rx_bytes: count.bytes.load(Ordering::Relaxed),
            ..PortStats::default()
        };
        counts
            .map(|(name, count)| (name.clone(), stats(count)))
            .collect()
    }

    /// How far reading is.
    pub fn stats(&self) -> CaptureStats {
        let told = *self.shared.told();
        let all = told.before.plus(told.now);
        CaptureStats {
            files: self.files.len(),
            passes: self.pass(),
            size: self.size.map(|size| size * u64::from(self.loops)),
            read: all.read,
            position: all.position,
            skipped: all.skipped,
            disorder: all.disorder,
        }
    }
}
