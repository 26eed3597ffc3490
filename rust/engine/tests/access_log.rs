//! The access log on real files and pipes: rotation, a reader that does not read, a disk that is full.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::Value;
use tidegate_engine::log::{Exchange, Kind, Record, Refusal, Sink, open};
use tidegate_engine::snapshot::{AccessLog, LogFormat};

const LONG: Duration = Duration::from_secs(10);

/// A folder of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sink(path: &Path) -> Sink {
    open(&AccessLog { path: path.display().to_string(), format: LogFormat::Json }).unwrap()
}

fn line(number: usize) -> Vec<u8> {
    format!("{number:099}\n").into_bytes()
}

fn numbers(text: &str) -> Vec<usize> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn records_are_appended_to_a_private_file() {
    let folder = Folder::new("append");
    let path = folder.file("access.log");
    for number in 0..2 {
        let sink = sink(&path);
        let exchange = Exchange { connection: 12, listener: "edge", protocol: "h1", ..Exchange::default() };
        let kind = Kind::Refusal(Refusal { status: 404, reason: "no_route", duration: number });
        sink.record(&Record { time: 0, exchange, kind });
        assert!(sink.flush(LONG));
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["duration_ms"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0, "at most 0640");
}

#[test]
fn clones_share_one_queue_in_order() {
    let folder = Folder::new("clones");
    let path = folder.file("access.log");
    let sink = sink(&path);
    let threads = (0..4).map(|thread| {
        let sink = sink.clone();
        thread::spawn(move || (0..1000).for_each(|number| sink.push(line(thread * 1000 + number))))
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert!(sink.flush(LONG));
    let written = numbers(&fs::read_to_string(&path).unwrap());
    for thread in 0..4 {
        let own: Vec<usize> = written.iter().copied().filter(|number| number / 1000 == thread).collect();
        assert!(own.iter().copied().eq(thread * 1000..(thread + 1) * 1000));
    }
    assert_eq!((sink.dropped(), sink.failed()), (0, 0));
}

#[test]
fn what_is_queued_outlives_the_last_sink() {
    let folder = Folder::new("outlives");
    let path = folder.file("access.log");
    let sink = sink(&path);
    (0..5000).for_each(|number| sink.push(line(number)));
    let start = Instant::now();
    drop(sink);
    while fs::metadata(&path).unwrap().len() < 500_000 && start.elapsed() < LONG {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(numbers(&fs::read_to_string(&path).unwrap()).into_iter().eq(0..5000));
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let folder = Folder::new("rotation");
    let (path, moved) = (folder.file("access.log"), folder.file("access.log.1"));
    let sink = sink(&path);
    sink.push(line(1));
    assert!(sink.flush(LONG));
    fs::rename(&path, &moved).unwrap();
    thread::sleep(Duration::from_millis(1050));
    sink.push(line(2));
    assert!(sink.flush(LONG));
    assert_eq!(numbers(&fs::read_to_string(&moved).unwrap()), [1]);
    assert_eq!(numbers(&fs::read_to_string(&path).unwrap()), [2]);

    // A new name that cannot be opened leaves the file that is open.
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    thread::sleep(Duration::from_millis(1050));
    sink.push(line(3));
    assert!(sink.flush(LONG));
    assert_eq!(numbers(&fs::read_to_string(&moved).unwrap()), [2, 3]);
    assert_eq!((sink.dropped(), sink.failed()), (0, 0));
}

fn pipe(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).unwrap()
}

/// Everything that comes until the writers have gone.
fn read_to_end(mut pipe: File) -> String {
    let (mut text, mut buffer, start) = (Vec::new(), [0; 65_536], Instant::now());
    while start.elapsed() < LONG {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_time() {
    let folder = Folder::new("stuck");
    let path = folder.file("pipe");
    let reader = pipe(&path);
    let sink = sink(&path);
    let start = Instant::now();
    (0..40_000).for_each(|number| sink.push(line(number)));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!sink.flush(Duration::from_millis(50)), "nobody reads");
    let dropped = sink.dropped();
    assert!(dropped > 0 && dropped < 40_000, "{dropped}");
    let reading = thread::spawn(|| read_to_end(reader));
    assert!(sink.flush(LONG));
    sink.push(line(40_000));
    drop(sink);
    let read = numbers(&reading.join().unwrap());
    assert_eq!(read.len() as u64 + dropped, 40_001);
    assert!(read.is_sorted() && read.last() == Some(&40_000), "whole lines, in order, and logging goes on");
}

#[test]
fn dropping_a_sink_waits_for_nobody() {
    let folder = Folder::new("drop");
    let path = folder.file("pipe");
    let reader = pipe(&path);
    let sink = sink(&path);
    (0..5000).for_each(|number| sink.push(line(number)));
    assert!(!sink.flush(Duration::from_millis(50)), "more than the pipe holds");
    let start = Instant::now();
    drop(sink);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(numbers(&read_to_end(reader)).into_iter().eq(0..5000), "and yet nothing is lost");
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let folder = Folder::new("bytes");
    let path = folder.file("pipe");
    let reader = pipe(&path);
    let sink = sink(&path);
    (0..20).for_each(|_| sink.push(vec![b'x'; 1 << 20]));
    assert!(sink.dropped() >= 12, "{}", sink.dropped());
    drop(reader);
    assert!(sink.flush(LONG), "a reader that left ends the wait");
    assert!(sink.dropped() < 20);
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let sink = sink(Path::new("/dev/full"));
    (0..3).for_each(|number| sink.push(line(number)));
    assert!(sink.flush(LONG));
    assert_eq!((sink.failed(), sink.dropped()), (3, 0));
}

#[test]
fn a_log_that_cannot_be_opened_says_which() {
    let folder = Folder::new("unopened");
    let missing = folder.file("no/access.log");
    let refused =
        |path: &Path| open(&AccessLog { path: path.display().to_string(), format: LogFormat::Text }).unwrap_err();
    assert_eq!(refused(&missing).kind(), ErrorKind::NotFound);
    assert!(refused(&missing).to_string().contains("no/access.log"));
    mknodat(CWD, folder.file("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let start = Instant::now();
    refused(&folder.file("pipe"));
    assert!(start.elapsed() < Duration::from_secs(1), "a pipe without a reader is not waited for");
}

#[test]
fn the_standard_streams_are_logs_too() {
    for name in ["stdout", "stderr"] {
        let sink = open(&AccessLog { path: name.to_owned(), format: LogFormat::Text }).unwrap();
        sink.push(Vec::new());
        assert!(sink.flush(LONG));
        assert_eq!((sink.dropped(), sink.failed()), (0, 0));
    }
}
