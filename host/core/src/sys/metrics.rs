//! `sys/metrics` (contract.md §2.7): Vault's JSON, or the text form of Prometheus for whoever asks for that.

use std::collections::BTreeMap;

use crate::call::{Call, SystemHandler, handler};
use crate::core::Unsealed;
use crate::fields::{Field, Kind};
use crate::metrics;
use crate::request::{LogicalResponse, RequestError};
use crate::routes::{Access, Answer, Op, Route};

pub const ROUTES: &[Route<SystemHandler>] = &[Route::new(
    "metrics",
    Access::Token,
    "Metrics of this process.",
    &[Op::read("Shows the metrics of this process.", handler!(show))
        .takes(&[Field::visible("format", Kind::Text, "`prometheus` for its text form; JSON without it.")])
        .answers(Answer::Text("text/plain"))],
)];

async fn show(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let metrics = &call.core.seams.metrics;
    let answer = |text: String, kind| LogicalResponse { raw: Some((text, kind)), ..LogicalResponse::default() };
    let as_text = match call.fields.text("format").unwrap_or_default() {
        "" => asks_for_text(&call.request.headers),
        "prometheus" => true,
        other => {
            let other: String = other.chars().take(64).collect();
            return Ok(answer(format!("metric response format {other:?} unknown"), "text/plain").with_status(400));
        }
    };
    measure(call.unsealed).await?;
    Ok(if as_text {
        answer(metrics.prometheus(), "text/plain; version=0.0.4; charset=utf-8")
    } else {
        answer(metrics.json().to_string(), "application/json")
    })
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
    Ok(())
}
