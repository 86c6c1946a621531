//! The metrics of this process: recorded in memory, rendered when somebody asks.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// Upper bounds of every `…_seconds`, from a decision in the sandbox to a database that hangs.
const BUCKETS: [f64; 14] = [1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Upper bounds of every `…_fuel`: a decision takes thousands of units, the most that anybody may use is a thousand million.
const FUEL: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Samples wait in memory until they are sorted into buckets: that must not depend on anybody asking.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder. Returns what renders it as Prometheus text. Call it within the runtime, before anything counts.
pub(crate) fn start() -> Result<Arc<dyn Fn() -> String + Send + Sync>, String> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_fuel".to_owned()), &FUEL))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| error.to_string())?;
    let upkeep = recorder.clone();
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(UPKEEP);
        loop {
            turns.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(Arc::new(move || {
        recorder.run_upkeep();
        recorder.render()
    }))
}
