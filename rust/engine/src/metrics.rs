//! Counters: one set for each worker, written by that worker alone, summed when somebody asks.
//!
//! A writer never locks and never uses an atomic read-modify-write: it is the only one who writes its cells. Cells are
//! found by name and labels once (a lock and a hash) and then held, so the cost on a path is one load and one store.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};
use serde_json::{Value, json};

/// A number that only its worker changes and anybody may read.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// At least `value` from now on.
    pub fn raise(&self, value: u64) {
        self.0.store(self.value().max(value), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds in milliseconds of the buckets of a histogram of durations.
const BUCKETS: [u64; 16] =
    [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000, 60_000, 300_000, 1_800_000, 14_400_000, 86_400_000];

/// Durations, counted in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Cell; BUCKETS.len()],
    beyond: Cell,
    sum: Cell,
}

impl Histogram {
    pub fn record(&self, milliseconds: u64) {
        let bucket = BUCKETS.iter().position(|bound| milliseconds <= *bound);
        bucket.map_or(&self.beyond, |index| &self.buckets[index]).add(1);
        self.sum.add(milliseconds);
    }
}

/// The labels of one cell, in the order that its family declares.
pub type Labels = Vec<(&'static str, Arc<str>)>;

#[derive(Clone, Debug)]
enum Metric {
    Counter(Arc<Cell>),
    Gauge(Arc<Cell>),
    Histogram(Arc<Histogram>),
}

/// All cells of one worker.
#[derive(Debug, Default)]
pub struct Metrics {
    cells: Mutex<HashTable<Entry>>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    name: &'static str,
    labels: Labels,
    metric: Metric,
}

impl Entry {
    fn is(&self, name: &str, labels: &[(&'static str, &str)]) -> bool {
        let same = |(mine, one): (&(&str, Arc<str>), &(&str, &str))| mine.0 == one.0 && *mine.1 == *one.1;
        self.name == name && self.labels.len() == labels.len() && self.labels.iter().zip(labels).all(same)
    }
}

impl Metrics {
    /// The counter of that name and those labels, made when new.
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Arc<Cell> {
        match self.find(name, labels, || Metric::Counter(Arc::default())) {
            Metric::Counter(cell) | Metric::Gauge(cell) => cell,
            Metric::Histogram(_) => Arc::default(),
        }
    }

    /// The gauge of that name and those labels, made when new.
    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Arc<Cell> {
        match self.find(name, labels, || Metric::Gauge(Arc::default())) {
            Metric::Counter(cell) | Metric::Gauge(cell) => cell,
            Metric::Histogram(_) => Arc::default(),
        }
    }

    /// The histogram of that name and those labels, made when new.
    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Arc<Histogram> {
        match self.find(name, labels, || Metric::Histogram(Arc::default())) {
            Metric::Histogram(histogram) => histogram,
            Metric::Counter(_) | Metric::Gauge(_) => Arc::default(),
        }
    }

    fn find(&self, name: &'static str, labels: &[(&'static str, &str)], make: impl FnOnce() -> Metric) -> Metric {
        let hash = self.hash(name, labels);
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = cells.find(hash, |entry| entry.is(name, labels)) {
            return entry.metric.clone();
        }
        let labels = labels.iter().map(|(key, value)| (*key, Arc::from(*value))).collect();
        let metric = make();
        cells.insert_unique(hash, Entry { hash, name, labels, metric: metric.clone() }, |entry| entry.hash);
        metric
    }

    fn hash(&self, name: &str, labels: &[(&'static str, &str)]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        name.hash(&mut hasher);
        labels.iter().for_each(|(_, value)| value.hash(&mut hasher));
        hasher.finish()
    }
}

/// The sum over all workers, as JSON: `[{"name", "kind", "samples": [{"labels", "value"}]}]`.
pub fn sum<'m>(workers: impl IntoIterator<Item = &'m Metrics>) -> Value {
    let mut totals: BTreeMap<(&'static str, Labels), Total> = BTreeMap::new();
    for metrics in workers {
        let cells = metrics.cells.lock().unwrap_or_else(PoisonError::into_inner);
        for Entry { name, labels, metric, .. } in cells.iter() {
            totals.entry((name, labels.clone())).or_insert_with(|| Total::like(metric)).add(metric);
        }
    }
    families(totals)
}

fn families(totals: BTreeMap<(&'static str, Labels), Total>) -> Value {
    let mut families: Vec<Value> = Vec::new();
    let mut last = "";
    for ((name, labels), total) in totals {
        if name != last {
            families.push(json!({"name": name, "kind": total.kind(), "samples": []}));
            last = name;
        }
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), Value::from(&**value))).collect();
        let sample = json!({"labels": labels, "value": total.value()});
        if let Some(samples) = families.last_mut().and_then(|family| family["samples"].as_array_mut()) {
            samples.push(sample);
        }
    }
    Value::Array(families)
}

enum Total {
    Counter(u64),
    Gauge(u64),
    Histogram { counts: [u64; BUCKETS.len() + 1], sum: u64 },
}

impl Total {
    fn like(metric: &Metric) -> Self {
        match metric {
            Metric::Counter(_) => Self::Counter(0),
            Metric::Gauge(_) => Self::Gauge(0),
            Metric::Histogram(_) => Self::Histogram { counts: [0; BUCKETS.len() + 1], sum: 0 },
        }
    }

    fn add(&mut self, metric: &Metric) {
        match (self, metric) {
            (Self::Counter(total), Metric::Counter(cell)) | (Self::Gauge(total), Metric::Gauge(cell)) => {
                *total = total.wrapping_add(cell.value());
            }
            (Self::Histogram { counts, sum }, Metric::Histogram(histogram)) => {
                let cells = histogram.buckets.iter().chain([&histogram.beyond]);
                counts.iter_mut().zip(cells).for_each(|(count, cell)| *count += cell.value());
                *sum += histogram.sum.value();
            }
            _ => {}
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Counter(total) => json!(total),
            // One worker's part of a gauge may be below zero, where another took over; the sum is not.
            Self::Gauge(total) => json!(*total as i64),
            Self::Histogram { counts, sum } => {
                let mut count = 0;
                let mut buckets = Vec::with_capacity(BUCKETS.len());
                for (bound, bucket) in BUCKETS.iter().zip(counts) {
                    count += bucket;
                    buckets.push(json!([*bound as f64 / 1000.0, count]));
                }
                json!({"buckets": buckets, "sum": *sum as f64 / 1000.0, "count": count + counts[BUCKETS.len()]})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed() {
        let (one, two) = (Metrics::default(), Metrics::default());
        one.counter("requests_total", &[("route", "a")]).add(2);
        two.counter("requests_total", &[("route", "a")]).add(3);
        two.counter("requests_total", &[("route", "b")]).add(1);
        one.gauge("connections", &[]).add(1);
        two.gauge("connections", &[]).subtract(1);
        let text = sum([&one, &two]);
        assert_eq!(text[0], json!({"name": "connections", "kind": "gauge", "samples": [{"labels": {}, "value": 0}]}));
        assert_eq!(text[1]["samples"][0], json!({"labels": {"route": "a"}, "value": 5}));
        assert_eq!(text[1]["samples"][1], json!({"labels": {"route": "b"}, "value": 1}));
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        let histogram = metrics.histogram("seconds", &[]);
        [1, 2, 100_000_000].into_iter().for_each(|value| histogram.record(value));
        let value = &sum([&metrics])[0]["samples"][0]["value"];
        assert_eq!((&value["buckets"][0], &value["buckets"][1]), (&json!([0.001, 1]), &json!([0.005, 2])));
        assert_eq!((&value["buckets"][15][1], &value["count"]), (&json!(2), &json!(3)));
    }
}
