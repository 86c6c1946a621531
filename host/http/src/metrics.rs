//! Counts and times of requests, by operation and class of status.

use std::array;
use std::time::Duration;

use http::StatusCode;
use leasehold_model::Operation;
use metrics::{Counter, Gauge, Histogram};

pub(crate) const REQUESTS: &str = "leasehold_http_requests_total";
pub(crate) const SECONDS: &str = "leasehold_http_request_seconds";
pub(crate) const CONNECTIONS: &str = "leasehold_http_connections";
pub(crate) const TURNED_AWAY: &str = "leasehold_http_connections_turned_away_total";

const OPERATIONS: [&str; 9] = ["create", "read", "update", "patch", "delete", "list", "scan", "help", "none"];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Handles made once: a look-up by name and labels for each request costs more than the counting.
pub(crate) struct Meter {
    requests: [[Counter; CLASSES.len()]; OPERATIONS.len()],
    seconds: [Histogram; OPERATIONS.len()],
    pub(crate) connections: Gauge,
    pub(crate) turned_away: Counter,
}

impl Meter {
    pub(crate) fn new() -> Self {
        metrics::describe_counter!(REQUESTS, "Requests answered, by operation and class of status.");
        metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "From the head of a request to its answer.");
        metrics::describe_gauge!(CONNECTIONS, "Open connections.");
        metrics::describe_counter!(TURNED_AWAY, "Connections closed because their address had too many.");
        let name = |at: usize| OPERATIONS.get(at).copied().unwrap_or("none");
        let class = |at: usize| CLASSES.get(at).copied().unwrap_or("5xx");
        Self {
            requests: array::from_fn(|operation| {
                array::from_fn(
                    |status| metrics::counter!(REQUESTS, "operation" => name(operation), "status" => class(status)),
                )
            }),
            seconds: array::from_fn(|operation| metrics::histogram!(SECONDS, "operation" => name(operation))),
            connections: metrics::gauge!(CONNECTIONS),
            turned_away: metrics::counter!(TURNED_AWAY),
        }
    }

    /// `None`: refused before it was clear what was asked.
    pub(crate) fn count(&self, operation: Option<Operation>, status: StatusCode, took: Duration) {
        let operation = operation.map_or("none", Operation::as_str);
        let at = OPERATIONS.iter().position(|name| *name == operation).unwrap_or(OPERATIONS.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        if let Some(counter) = self.requests.get(at).and_then(|counters| counters.get(class)) {
            counter.increment(1);
        }
        if let Some(histogram) = self.seconds.get(at) {
            histogram.record(took.as_secs_f64());
        }
    }
}
