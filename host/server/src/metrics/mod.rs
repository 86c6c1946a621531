//! The metrics of this process: recorded in memory, rendered when somebody asks.
//!
//! Must not know: what is counted.
//!
//! Start with [`start`]. [`intervals`] keeps for Vault's JSON what Prometheus text does not tell: the values of one interval.

mod intervals;

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::host::{Clock, Metrics};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use serde_json::Value;

use crate::clock::SystemClock;
use intervals::{Intervals, Level, Series};

/// Upper bounds of every `…_seconds`, from a decision in the sandbox to a database that hangs.
const BUCKETS: [f64; 14] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Upper bounds of every `…_fuel`: a decision takes thousands of units, the most that anybody may use is a thousand million.
const FUEL: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Of what has no buckets: Vault's.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Samples wait in memory until they are sorted into buckets: that must not depend on anybody asking.
const UPKEEP: Duration = Duration::from_secs(5);

/// So many times, and an interval is over.
const UPKEEPS: u32 = 2;

/// Records every value for both forms.
struct Both {
    text: PrometheusRecorder,
    intervals: Arc<Intervals>,
}

/// A handle of either form.
struct Pair<T, U>(T, Arc<U>);

impl CounterFn for Pair<Counter, Series> {
    fn increment(&self, value: u64) {
        self.0.increment(value);
        #[expect(clippy::cast_precision_loss, reason = "a sum of Vault is a float")]
        self.1.add(value as f64);
    }

    fn absolute(&self, value: u64) {
        // Nobody here sets a counter, and what it was before is not known here.
        self.0.absolute(value);
    }
}

impl GaugeFn for Pair<Gauge, Level> {
    fn increment(&self, value: f64) {
        self.0.increment(value);
        self.1.change(|level| level + value);
    }

    fn decrement(&self, value: f64) {
        self.0.decrement(value);
        self.1.change(|level| level - value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
        self.1.change(|_| value);
    }
}

impl HistogramFn for Pair<Histogram, Series> {
    fn record(&self, value: f64) {
        self.0.record(value);
        self.1.add(value);
    }
}

impl metrics::Recorder for Both {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.text.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.text.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.text.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let counter = self.text.register_counter(key, metadata);
        Counter::from_arc(Arc::new(Pair(counter, self.intervals.counter(key))))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let gauge = self.text.register_gauge(key, metadata);
        Gauge::from_arc(Arc::new(Pair(gauge, self.intervals.gauge(key))))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let histogram = self.text.register_histogram(key, metadata);
        Histogram::from_arc(Arc::new(Pair(histogram, self.intervals.sample(key))))
    }
}

/// What has been recorded.
struct Recorded {
    text: PrometheusHandle,
    intervals: Arc<Intervals>,
}

impl Metrics for Recorded {
    fn prometheus(&self) -> String {
        self.text.run_upkeep();
        self.text.render()
    }

    fn json(&self) -> Value {
        self.intervals.shown(UPKEEP * UPKEEPS)
    }
}

/// Installs the recorder. Call it within the runtime, before anything counts.
pub(crate) fn start() -> Result<Arc<dyn Metrics>, String> {
    let text = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_fuel".to_owned()), &FUEL))
        .and_then(|builder| builder.set_quantiles(&QUANTILES))
        .map_err(|error| error.to_string())?
        .build_recorder();
    let intervals = Arc::new(Intervals::new(SystemClock.now()));
    let recorded = Recorded { text: text.handle(), intervals: intervals.clone() };
    let (upkeep, turning) = (recorded.text.clone(), intervals.clone());
    metrics::set_global_recorder(Both { text, intervals }).map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.tick().await;
        loop {
            for _ in 0..UPKEEPS {
                ticks.tick().await;
                upkeep.run_upkeep();
            }
            turning.turn(SystemClock.now());
        }
    });
    Ok(Arc::new(recorded))
}
