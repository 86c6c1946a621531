//! The gauges that a test's own thread has set, with their labels.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Keeps the last value of each gauge, by name and labels.
#[derive(Debug, Default)]
pub struct Gauges(Mutex<Vec<(metrics::Key, Arc<AtomicU64>)>>);

impl Gauges {
    pub fn of(&self, name: &str, labels: &[(&'static str, &'static str)]) -> f64 {
        let wanted = metrics::Key::from_parts(name.to_owned(), labels);
        let gauges = self.0.lock().unwrap();
        let found = gauges.iter().find(|(key, _)| *key == wanted).expect("the gauge is there");
        f64::from_bits(found.1.load(Ordering::Relaxed))
    }

    /// The next scrape has to set all of them again.
    pub fn scramble(&self) {
        for (_, value) in self.0.lock().unwrap().iter() {
            value.store((-1.0_f64).to_bits(), Ordering::Relaxed);
        }
    }

    /// Whether any gauge has this label.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        let gauges = self.0.lock().unwrap();
        gauges.iter().any(|(key, _)| key.labels().any(|label| label.key() == name && label.value() == value))
    }
}

impl metrics::Recorder for Gauges {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }
    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        let mut gauges = self.0.lock().unwrap();
        let value = match gauges.iter().find(|(known, _)| known == key) {
            Some((_, value)) => value.clone(),
            None => {
                let value = Arc::<AtomicU64>::default();
                gauges.push((key.clone(), value.clone()));
                value
            }
        };
        metrics::Gauge::from_arc(value)
    }
    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}
