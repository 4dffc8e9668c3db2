// Threads over byte ranges, std::collections::HashMap, merged and sorted by the first thread.
// usage: wordcount WORKERS OUTPUT INPUT...
use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const SPLIT_BYTES: u64 = 8 << 20;
const READ_BYTES: usize = 1 << 20;

type Counts = HashMap<String, u64>;

struct Split {
    path: String,
    start: u64,
    end: u64,
}

fn add(counts: &mut Counts, text: &str) {
    for word in text.split(|letter: char| !letter.is_alphabetic()) {
        if word.is_empty() {
            continue;
        }
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_owned(), 1);
            }
        }
    }
}

/// Counts the lines that begin in bytes [start, end).
fn count(split: &Split, counts: &mut Counts) -> io::Result<()> {
    let mut position = split.start.saturating_sub(1);
    let mut file = BufReader::with_capacity(READ_BYTES, File::open(&split.path)?);
    file.seek(SeekFrom::Start(position))?;
    let mut line = Vec::new();
    if split.start > 0 {
        position += file.read_until(b'\n', &mut line)? as u64; // of the split before
    }
    while position < split.end {
        line.clear();
        let got = file.read_until(b'\n', &mut line)?;
        if got == 0 {
            break;
        }
        position += got as u64;
        add(counts, &String::from_utf8_lossy(&line));
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let workers: usize = arguments[1].parse().expect("WORKERS is a number");
    let mut splits = Vec::new();
    for path in &arguments[3..] {
        let size = fs::metadata(path)?.len();
        for start in (0..size).step_by(SPLIT_BYTES as usize) {
            let end = size.min(start + SPLIT_BYTES);
            splits.push(Split { path: path.clone(), start, end });
        }
    }
    let next = AtomicUsize::new(0);
    let mut parts: Vec<Counts> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = Counts::new();
                    while let Some(split) = splits.get(next.fetch_add(1, Ordering::Relaxed)) {
                        count(split, &mut counts).expect("an input can be read");
                    }
                    counts
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all = parts.pop().unwrap_or_default();
    for part in parts {
        for (word, count) in part {
            *all.entry(word).or_insert(0) += count;
        }
    }
    let mut sorted: Vec<_> = all.into_iter().collect();
    sorted.sort_unstable();
    let mut out = BufWriter::new(File::create(&arguments[2])?);
    for (word, count) in sorted {
        writeln!(out, "{word} {count}")?;
    }
    out.flush()
}
