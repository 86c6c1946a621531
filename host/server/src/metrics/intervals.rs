//! Vault's JSON: what levels are now, and what was counted and measured in the last interval that is over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use leasehold_model::Timestamp;
use metrics::Key;
use serde_json::{Map, Value, json};

/// Everything under its name and labels. Numbers of an interval are kept until two more have begun.
pub(super) struct Intervals {
    turn: Arc<AtomicU64>,
    /// Of the interval before this one, or of this one while it is the first.
    began: Mutex<Began>,
    gauges: Registry<Level>,
    counters: Registry<Series>,
    samples: Registry<Series>,
}

type Registry<T> = RwLock<BTreeMap<Key, Arc<T>>>;

#[derive(Clone, Copy)]
struct Began {
    last: Timestamp,
    this: Timestamp,
}

impl Intervals {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            turn: Arc::default(),
            began: Mutex::new(Began { last: now, this: now }),
            gauges: Registry::default(),
            counters: Registry::default(),
            samples: Registry::default(),
        }
    }

    pub(super) fn gauge(&self, key: &Key) -> Arc<Level> {
        find(&self.gauges, key, Level::default)
    }

    pub(super) fn counter(&self, key: &Key) -> Arc<Series> {
        find(&self.counters, key, || Series::new(&self.turn))
    }

    pub(super) fn sample(&self, key: &Key) -> Arc<Series> {
        find(&self.samples, key, || Series::new(&self.turn))
    }

    /// The next interval begins.
    pub(super) fn turn(&self, now: Timestamp) {
        let mut began = held(&self.began);
        *began = Began { last: began.this, this: now };
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Of the last interval, which was so long; in the first, of that.
    pub(super) fn shown(&self, length: Duration) -> Value {
        let began = *held(&self.began);
        let turn = self.turn.load(Ordering::Relaxed);
        let series = |registry: &Registry<Series>| -> Vec<Value> {
            let all = registry.read().unwrap_or_else(PoisonError::into_inner);
            let sums = all.iter().map(|(key, series)| (key, series.of(turn.saturating_sub(1))));
            sums.filter(|(_, sums)| sums.count > 0).map(|(key, sums)| sums.shown(key, length)).collect()
        };
        let gauges = self.gauges.read().unwrap_or_else(PoisonError::into_inner);
        let gauges: Vec<Value> = gauges
            .iter()
            .map(|(key, level)| json!({ "Name": key.name(), "Value": number(level.now()), "Labels": labels(key) }))
            .collect();
        json!({
            "Timestamp": began.last.go(),
            "Gauges": gauges,
            "Points": [],
            "Counters": series(&self.counters),
            "Samples": series(&self.samples),
        })
    }
}

fn find<T>(registry: &Registry<T>, key: &Key, make: impl FnOnce() -> T) -> Arc<T> {
    if let Some(found) = registry.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return found.clone();
    }
    let mut all = registry.write().unwrap_or_else(PoisonError::into_inner);
    all.entry(key.clone()).or_insert_with(|| Arc::new(make())).clone()
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gauge.
#[derive(Default)]
pub(super) struct Level(AtomicU64);

impl Level {
    pub(super) fn change(&self, to: impl Fn(f64) -> f64) {
        let to = |bits| Some(to(f64::from_bits(bits)).to_bits());
        // Refused only by a change that says nothing, which this one never does.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }

    fn now(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A counter, or what is measured.
pub(super) struct Series {
    turn: Arc<AtomicU64>,
    kept: Mutex<Kept>,
}

#[derive(Clone, Copy, Default)]
struct Kept {
    turn: u64,
    this: Sums,
    last: Sums,
}

impl Kept {
    fn turn_to(&mut self, turn: u64) {
        if turn != self.turn {
            let last = if turn == self.turn + 1 { self.this } else { Sums::default() };
            *self = Self { turn, this: Sums::default(), last };
        }
    }
}

impl Series {
    fn new(turn: &Arc<AtomicU64>) -> Self {
        Self { turn: turn.clone(), kept: Mutex::default() }
    }

    pub(super) fn add(&self, value: f64) {
        let mut kept = held(&self.kept);
        kept.turn_to(self.turn.load(Ordering::Relaxed));
        kept.this.add(value);
    }

    fn of(&self, turn: u64) -> Sums {
        let mut kept = held(&self.kept);
        kept.turn_to(self.turn.load(Ordering::Relaxed));
        if turn == kept.turn { kept.this } else { kept.last }
    }
}

#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Sums {
    fn add(&mut self, value: f64) {
        (self.min, self.max) =
            if self.count == 0 { (value, value) } else { (self.min.min(value), self.max.max(value)) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    fn shown(&self, key: &Key, length: Duration) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "nobody counts so far in one interval")]
        let count = self.count as f64;
        let spread = (count * self.squares - self.sum * self.sum) / (count * (count - 1.0)).max(1.0);
        json!({
            "Name": key.name(),
            "Count": self.count,
            "Rate": number(self.sum / length.as_secs_f64()),
            "Sum": number(self.sum),
            "Min": number(self.min),
            "Max": number(self.max),
            "Mean": number(self.sum / count),
            "Stddev": number(spread.max(0.0).sqrt()),
            "Labels": labels(key),
        })
    }
}

/// Whole where it is whole, as Vault writes it.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
    if value.fract() == 0.0 && value.abs() < EXACT { Value::from(value as i64) } else { Value::from(value) }
}

fn labels(key: &Key) -> Value {
    let labels: Map<String, Value> =
        key.labels().map(|label| (label.key().to_owned(), Value::from(label.value()))).collect();
    Value::Object(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_795_394_942 + secs)
    }

    #[test]
    fn the_last_whole_interval_is_shown_and_the_first_until_there_is_one() {
        let intervals = Intervals::new(at(0));
        let counter = intervals.counter(&Key::from_parts("vault.a", vec![metrics::Label::new("b", "c")]));
        let counts = |intervals: &Intervals| {
            let shown = intervals.shown(LENGTH);
            (shown["Timestamp"].as_str().unwrap().to_owned(), shown["Counters"][0]["Count"].as_u64())
        };
        counter.add(1.0);
        assert_eq!(counts(&intervals), ("2026-11-23 00:49:02 +0000 UTC".to_owned(), Some(1)));
        intervals.turn(at(10));
        counter.add(1.0);
        counter.add(1.0);
        assert_eq!(counts(&intervals), ("2026-11-23 00:49:02 +0000 UTC".to_owned(), Some(1)));
        intervals.turn(at(20));
        assert_eq!(counts(&intervals), ("2026-11-23 00:49:12 +0000 UTC".to_owned(), Some(2)));
        intervals.turn(at(30));
        assert_eq!(counts(&intervals).1, None, "nothing happened");
    }

    #[test]
    fn what_was_measured_is_told_in_the_fields_shape() {
        let intervals = Intervals::new(at(0));
        let sample = intervals.sample(&Key::from_name("vault.core.handle_request"));
        [0.5, 1.5, 1.0].into_iter().for_each(|value| sample.add(value));
        let gauge = intervals.gauge(&Key::from_name("vault.core.active"));
        gauge.change(|_| 1.0);
        assert_eq!(
            intervals.shown(LENGTH).to_string(),
            "{\"Timestamp\":\"2026-11-23 00:49:02 +0000 UTC\",\"Gauges\":[{\"Name\":\"vault.core.active\",\"Value\":1,\"Labels\":{}}],\
             \"Points\":[],\"Counters\":[],\"Samples\":[{\"Name\":\"vault.core.handle_request\",\"Count\":3,\"Rate\":0.3,\"Sum\":3,\
             \"Min\":0.5,\"Max\":1.5,\"Mean\":1,\"Stddev\":0.5,\"Labels\":{}}]}"
        );
    }
}
