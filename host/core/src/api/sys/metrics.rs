//! `sys/metrics` (contract.md §2.7): Vault's JSON, or the text form of Prometheus for whoever asks for that.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::call::{Call, SystemHandler, handler};
use crate::core::{Core, Unsealed};
use crate::fields::{Field, Kind};
use crate::metrics;
use crate::request::{LogicalRequest, LogicalResponse};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

pub const ROUTES: &[Route<SystemHandler>] = &[Route::new(
    "metrics",
    Access::Token,
    "Metrics of this process.",
    &[Op::read("Shows the metrics of this process.", handler!(show))
        .takes(&[Field::visible("format", Kind::Text, "`prometheus` for its text form; JSON without it.")])
        .answers(Answer::Text("text/plain"))],
)];

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    measure(call.unsealed).await?;
    Ok(answer(call.core, call.fields.text("format").unwrap_or_default(), &call.request.headers))
}

impl Core {
    /// The same without a token and without an audit record, for a listener that allows it; also while sealed.
    pub async fn metrics(&self, request: &LogicalRequest) -> LogicalResponse {
        if let Ok(unsealed) = self.unsealed()
            && let Err(error) = measure(&unsealed).await
        {
            // What is known without the storage is worth showing.
            tracing::warn!(%error, "leases could not be counted for a scrape");
        }
        let format = request.data.get("format").and_then(Value::as_str).unwrap_or_default();
        answer(self, format, &request.headers)
    }
}

fn answer(core: &Core, format: &str, headers: &BTreeMap<String, Vec<String>>) -> LogicalResponse {
    let metrics = &core.seams.metrics;
    let raw = |text: String, kind| LogicalResponse { raw: Some((text, kind)), ..LogicalResponse::default() };
    let as_text = match format {
        "" => asks_for_text(headers),
        "prometheus" => true,
        other => {
            let other: String = other.chars().take(64).collect();
            return raw(format!("metric response format {other:?} unknown"), "text/plain").with_status(400);
        }
    };
    if as_text {
        raw(with_state(metrics.prometheus()), "text/plain; version=0.0.4; charset=utf-8")
    } else {
        raw(metrics.json().to_string(), "application/json")
    }
}

/// Before the first unsealing nobody knows the cluster's name, the gauge's label; an alert on a sealed server must work then, too.
fn with_state(mut text: String) -> String {
    if !text.contains("\nvault_core_unsealed{") {
        text.push_str("# TYPE vault_core_unsealed gauge\nvault_core_unsealed 0\n");
    }
    text
}

/// What Prometheus sends of itself.
fn asks_for_text(headers: &BTreeMap<String, Vec<String>>) -> bool {
    let Some(accepted) = headers.get("accept") else { return false };
    accepted.first().is_some_and(|first| first.starts_with("application/openmetrics-text"))
        || accepted.iter().any(|kind| kind.contains("prometheus/telemetry"))
}

/// What is counted only when somebody asks.
async fn measure(unsealed: &Unsealed) -> Result<(), RequestError> {
    let counts = unsealed.leases.measure().await?;
    metrics::leases(&counts, unsealed.leases.irrevocable_count());
    unsealed.jobs.measure().await?;
    unsealed.quotas.leases.measure().await?;
    Ok(())
}
