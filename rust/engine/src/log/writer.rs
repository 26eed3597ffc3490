//! The access log's thread: takes lines from a bounded queue and writes them in batches.
//!
//! The queue is bounded twice, in lines and in bytes; what finds it full is dropped and counted, so a log that blocks
//! (a pipe that nobody reads, a full disk) costs lines and never a connection. After the first line of a batch the
//! thread waits a moment for more: a sleeping thread needs no wake-up from the worker that logs, which is what a line
//! costs most.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use super::record::Record;
use crate::snapshot::{AccessLog, LogFormat};

const QUEUE_LINES: usize = 16_384;
const QUEUE_BYTES: usize = 8 << 20;
/// Bytes of one write, give or take a line.
const BATCH_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_millis(5);
/// How often a log file is looked for under its name.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// An open access log. Clones write to the same one; when the last is dropped, what is queued is still written.
#[derive(Clone, Debug)]
pub struct Sink {
    queue: SyncSender<Item>,
    counts: Arc<Counts>,
    format: LogFormat,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes in the queue.
    queued: AtomicUsize,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Opens the access log: `stdout`, `stderr`, or a file, which is appended to and made with mode 0640 when new.
pub fn open(spec: &AccessLog) -> io::Result<Sink> {
    let output = Output::open(&spec.path)?;
    let (queue, items) = sync_channel(QUEUE_LINES);
    let counts = Arc::new(Counts::default());
    let writer = Writer { items, output, counts: counts.clone(), lines: Vec::new(), flushes: Vec::new() };
    thread::Builder::new().name("tidegate-log".to_owned()).spawn(|| writer.run())?;
    Ok(Sink { queue, counts, format: spec.format })
}

impl Sink {
    /// Logs a record, or counts it as dropped. Never blocks.
    pub fn record(&self, record: &Record<'_>) {
        let mut line = Vec::with_capacity(512);
        record.write(self.format, &mut line);
        self.push(line);
    }

    /// Logs a line that ends in a newline, or counts it as dropped. Never blocks.
    pub fn push(&self, line: Vec<u8>) {
        let length = line.len();
        let queued = self.counts.queued.fetch_add(length, Relaxed);
        if queued + length > QUEUE_BYTES || self.queue.try_send(Item::Line(line)).is_err() {
            self.counts.queued.fetch_sub(length, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all that was logged before is written, up to `timeout`; false when it is not. Blocks: not for
    /// workers.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        while let Err(error) = self.queue.try_send(item) {
            item = match error {
                TrySendError::Full(item) if Instant::now() < deadline => item,
                _ => return false,
            };
            thread::sleep(Duration::from_millis(1));
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Lines that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Lines that could not be written.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Relaxed)
    }
}

/// What the thread has in hand.
struct Writer {
    items: Receiver<Item>,
    output: Output,
    counts: Arc<Counts>,
    lines: Vec<u8>,
    flushes: Vec<SyncSender<()>>,
}

impl Writer {
    /// Until the last sink is gone and its lines are written.
    fn run(mut self) {
        while let Ok(item) = self.items.recv() {
            self.take(item);
            thread::sleep(LINGER);
            while self.gather() {
                self.write();
            }
        }
    }

    /// Fills a batch from the queue; whether there is one.
    fn gather(&mut self) -> bool {
        while self.lines.len() < BATCH_BYTES {
            let Ok(item) = self.items.try_recv() else { break };
            self.take(item);
        }
        !(self.lines.is_empty() && self.flushes.is_empty())
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Line(line) => self.lines.extend_from_slice(&line),
            Item::Flush(done) => self.flushes.push(done),
        }
    }

    fn write(&mut self) {
        let lost = self.output.write(&self.lines);
        self.counts.failed.fetch_add(lost, Relaxed);
        self.counts.queued.fetch_sub(self.lines.len(), Relaxed);
        self.lines.clear();
        for done in self.flushes.drain(..) {
            // Whoever asked may have stopped waiting.
            let _ = done.try_send(());
        }
    }
}

/// Where lines go.
struct Output {
    file: File,
    /// None for stdout and stderr, which nobody rotates.
    path: Option<PathBuf>,
    checked: Instant,
    /// The last write ended within a line.
    torn: bool,
}

impl Output {
    fn open(name: &str) -> io::Result<Self> {
        let (file, path) = match name {
            "stdout" => (duplicate(io::stdout())?, None),
            "stderr" => (duplicate(io::stderr())?, None),
            _ => (open_file(Path::new(name))?, Some(PathBuf::from(name))),
        };
        Ok(Self { file, path, checked: Instant::now(), torn: false })
    }

    /// Writes lines; returns how many were lost.
    fn write(&mut self, lines: &[u8]) -> u64 {
        self.follow_rotation();
        if self.torn && !lines.is_empty() && self.write_some(b"\n").is_empty() {
            self.torn = false;
        }
        let rest = self.write_some(lines);
        let written = &lines[..lines.len() - rest.len()];
        self.torn = written.last().map_or(self.torn, |last| *last != b'\n');
        rest.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// Writes what can be written and returns the rest, which an error kept.
    fn write_some<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(count @ 1..) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(),
                _ => break,
            }
        }
        bytes
    }

    /// Until the file takes bytes again: whoever started us may have made stdout non-blocking.
    fn wait(&self) {
        // An error here shows itself in the write that follows.
        let _ = poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], None);
    }

    /// Opens the file anew when its name leads to another one, or to none. Until that succeeds the old one is written.
    fn follow_rotation(&mut self) {
        let Some(path) = self.path.as_deref().filter(|_| self.checked.elapsed() >= ROTATION_CHECK) else { return };
        if !is_at(&self.file, path)
            && let Ok(file) = open_file(path)
        {
            self.file = file;
            self.torn = false;
        }
        self.checked = Instant::now();
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(identity).ok() == fs::metadata(path).map(identity).ok()
}

/// A descriptor of our own, so that nothing of `std`'s buffers and locks lies between us and the file.
fn duplicate(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Non-blocking, because a pipe without a reader would hold up who opens it; regular files do not mind.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file: Result<OwnedFd, _> = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640));
    file.map(File::from).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })
}
