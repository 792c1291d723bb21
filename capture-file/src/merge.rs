//! Many files as one: their frames in the order of time.
//!
//! A file is opened when its first frame is due, and closed behind its last, so that a thousand
//! files of a ring take no more than those that overlap. A file that is damaged ends there; the
//! others go on.

use crate::clocked::{Clocked, Disorder};
use crate::files::Found;
use crate::input::{self, Input};
use crate::reader::Reader;
use crate::{Error, Frame, Nanos, What};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opens a pipe or standard input.
pub type Opener = Arc<dyn Fn(&Path) -> Result<Input, Error> + Send + Sync>;

/// A file and when it begins.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// The file.
    pub file: Found,
    /// The time of its first frame; `None` if it has none, or cannot be looked at before.
    pub first: Option<Nanos>,
}

impl Stamped {
    /// Looks when a file begins.
    ///
    /// # Errors
    /// It is no capture, or all of its frames have a link type that `plays` refuses. One that is
    /// damaged behind its header is found to be so when it is played.
    pub fn look(file: Found, plays: impl Fn(u16) -> bool) -> Result<Self, Error> {
        if matches!(file, Found::Pipe(_)) {
            return Ok(Self { file, first: None });
        }
        let mut clocked = open(&file)?;
        if let Some(link) = clocked.reader().link().filter(|link| !plays(*link)) {
            return Err(Error::new(clocked.reader().name(), What::LinkType(link)));
        }
        let first = matches!(clocked.advance(), Ok(true)).then(|| clocked.time());
        Ok(Self { file, first })
    }
}

fn open(file: &Found) -> Result<Clocked, Error> {
    let path = file.path();
    let reader = Reader::new(&path.display().to_string(), input::open(path)?)?;
    Ok(Clocked::new(reader))
}

/// A file that is being read.
struct Open {
    index: usize,
    clocked: Clocked,
    count: Arc<AtomicU64>,
}

/// Many files as one. [`Merge::advance`] goes on to the next frame, [`Merge::frame`] has it.
pub struct Merge {
    pipes: Opener,
    /// Those that were not opened yet, the first to be opened at the end.
    later: Vec<(usize, Stamped)>,
    open: Vec<Option<Open>>,
    /// The time of each open file's frame, and its place in `open`; the file that the current frame
    /// is of is not there.
    heap: BinaryHeap<Reverse<(Nanos, usize)>>,
    current: Option<usize>,
    errors: Vec<Error>,
    disorder: Disorder,
    /// Bytes read of files that are closed.
    read: u64,
}

impl Merge {
    /// The frames of `files`; `pipes` opens those that are no plain files.
    pub fn new(files: &[Stamped], pipes: Opener) -> Self {
        // A pipe is opened first: nobody knows when it begins.
        let mut later: Vec<(usize, Stamped)> = files.iter().cloned().enumerate().collect();
        later.sort_by_key(|(i, f)| Reverse((f.first.unwrap_or(0), *i)));
        Self {
            pipes,
            later,
            open: Vec::new(),
            heap: BinaryHeap::new(),
            current: None,
            errors: Vec::new(),
            disorder: Disorder::default(),
            read: 0,
        }
    }

    /// Goes on to the next frame of all. False when all files are read as far as they go.
    pub fn advance(&mut self) -> bool {
        if let Some(place) = self.current.take() {
            self.step(place);
        }
        loop {
            let next = self.heap.peek().map(|Reverse((time, _))| *time);
            // A file that begins before the next frame, or at a time that is not known.
            let is_due = |first: Nanos| next.is_none_or(|next| first <= next);
            let due = self.later.last().map(|(_, f)| f.first.unwrap_or(0));
            if due.is_some_and(is_due) {
                self.begin();
                continue;
            }
            let Some(Reverse((_, place))) = self.heap.pop() else {
                return false;
            };
            self.current = Some(place);
            return true;
        }
    }

    /// Opens the file that is next to be opened.
    fn begin(&mut self) {
        let Some((index, stamped)) = self.later.pop() else {
            return;
        };
        let opened = match &stamped.file {
            Found::File(_) => open(&stamped.file),
            Found::Pipe(path) => (self.pipes)(path)
                .and_then(|input| Reader::new(&path.display().to_string(), input))
                .map(Clocked::new),
        };
        match opened {
            Ok(clocked) => {
                let count = clocked.reader().count();
                let file = Open {
                    index,
                    clocked,
                    count,
                };
                let place = match self.open.iter().position(Option::is_none) {
                    Some(place) => place,
                    None => {
                        self.open.push(None);
                        self.open.len() - 1
                    }
                };
                self.open[place] = Some(file);
                self.step(place);
            }
            Err(e) => self.errors.push(e),
        }
    }

    /// Goes on to the next frame of an open file.
    fn step(&mut self, place: usize) {
        let Some(Some(file)) = self.open.get_mut(place) else {
            return;
        };
        match file.clocked.advance() {
            Ok(true) => self.heap.push(Reverse((file.clocked.time(), place))),
            Ok(false) => self.close(place),
            Err(e) => {
                self.errors.push(e);
                self.close(place);
            }
        }
    }

    /// A file is read. Its place is free for another.
    fn close(&mut self, place: usize) {
        if let Some(file) = self.open.get_mut(place).and_then(Option::take) {
            self.disorder.add(file.clocked.disorder());
            self.read += file.count.load(Ordering::Relaxed);
        }
    }

    /// The frame that [`Merge::advance`] went on to: when it was captured, the number of its file
    /// in the list, and the frame itself.
    pub fn frame(&self) -> Option<(Nanos, usize, Frame<'_>)> {
        let file = self.open.get(self.current?)?.as_ref()?;
        Some((file.clocked.time(), file.index, file.clocked.frame()))
    }

    /// What was wrong with files so far, in the order in which it was found.
    pub fn errors(&self) -> &[Error] {
        &self.errors
    }

    /// Frames whose times were not in order so far.
    pub fn disorder(&self) -> Disorder {
        let mut all = self.disorder;
        for file in self.open.iter().flatten() {
            all.add(file.clocked.disorder());
        }
        all
    }

    /// Bytes read of the files so far, as they are stored.
    pub fn bytes_read(&self) -> u64 {
        let open = self.open.iter().flatten();
        self.read + open.map(|o| o.count.load(Ordering::Relaxed)).sum::<u64>()
    }
}
