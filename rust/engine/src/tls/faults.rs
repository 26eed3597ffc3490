//! Faults side by side: a configuration is told all that is wrong with it, not the first thing only.

use crate::error::Fault;

pub(super) type Checked<T> = Result<T, Vec<Fault>>;

pub(super) fn one(pointer: impl Into<String>, message: impl Into<String>) -> Vec<Fault> {
    vec![Fault::new(pointer, message)]
}

pub(super) fn both<A, B>(first: Checked<A>, second: Checked<B>) -> Checked<(A, B)> {
    match (first, second) {
        (Ok(first), Ok(second)) => Ok((first, second)),
        (first, second) => Err(first.err().into_iter().chain(second.err()).flatten().collect()),
    }
}

pub(super) fn all<T>(results: impl Iterator<Item = Checked<T>>) -> Checked<Vec<T>> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}
