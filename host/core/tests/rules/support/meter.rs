//! What a test's own thread has measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder,
    SharedString, Unit,
};

/// One series; labels are not told apart.
#[derive(Debug, Default)]
struct Series {
    count: u64,
    level: f64,
    samples: Vec<f64>,
}

#[derive(Clone, Debug, Default)]
struct Cell(Arc<Mutex<Series>>);

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        self.0.lock().unwrap().count += value;
    }

    fn absolute(&self, value: u64) {
        self.0.lock().unwrap().count = value;
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        self.0.lock().unwrap().level += value;
    }

    fn decrement(&self, value: f64) {
        self.0.lock().unwrap().level -= value;
    }

    fn set(&self, value: f64) {
        self.0.lock().unwrap().level = value;
    }
}

impl HistogramFn for Cell {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().samples.push(value);
    }
}

#[derive(Debug, Default)]
struct Kept(Mutex<BTreeMap<String, Cell>>);

impl Kept {
    fn cell(&self, name: &str) -> Cell {
        self.0.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.cell(key.name())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.cell(key.name())))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.cell(key.name())))
    }
}

/// Whatever this thread measures until this is dropped: a test with one thread is alone there.
pub struct Measured {
    kept: &'static Kept,
    _guard: LocalRecorderGuard<'static>,
}

impl Measured {
    pub fn begin() -> Self {
        let kept: &'static Kept = Box::leak(Box::default());
        Self { kept, _guard: metrics::set_default_local_recorder(kept) }
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.kept.cell(name).0.lock().unwrap().count
    }

    pub fn gauge(&self, name: &str) -> f64 {
        self.kept.cell(name).0.lock().unwrap().level
    }

    pub fn histogram(&self, name: &str) -> Vec<f64> {
        self.kept.cell(name).0.lock().unwrap().samples.clone()
    }
}
