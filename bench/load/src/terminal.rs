//! Lines to and from whoever started this process.

use std::io::{self, BufRead, Write};

use crate::Outcome;

/// One line to standard output, at once: the reader waits for it.
pub fn say(line: &str) -> Outcome<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}

/// One line to standard error. Nobody is left to tell when even that fails.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Waits for a line, so that the reader of an event can look at the gateway while nothing happens.
pub fn wait_for_line() -> Outcome<()> {
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line)? {
        0 => Err("standard input ended at a barrier".into()),
        _ => Ok(()),
    }
}
