//! When the key that seals new values is replaced by itself (contract.md §2.8).

use leasehold_model::duration;
use serde_json::{Value, json};

use crate::api::call::{Call, SystemHandler, handler};
use crate::core::seal_error;
use crate::fields::{Field, Kind};
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;
use crate::seams::seal::{RotationSchedule, ScheduleChange};

const SCHEDULE: &[Field] = &[
    Field::visible("enabled", Kind::Bool, "Whether a newer key is added by itself.").default("true"),
    Field::visible("interval", Kind::Duration, "How old a key gets, a day at least; 0: as old as it may.").default("0"),
    Field::visible("max_operations", Kind::Int, "How many values a key seals, over all servers.").default("3865470566"),
];

const OPS: &[Op<SystemHandler>] = &[
    Op::read("Shows when a newer key is added by itself.", handler!(read)).answers(Answer::Data(SCHEDULE)),
    Op::update("Says when a newer key is added by itself.", handler!(write)).takes(SCHEDULE),
];
const ABOUT: &str = "When the encryption key is replaced by itself.";

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new("rotate/config", Access::Token, ABOUT, OPS),
    Route::new("rotate/keyring/config", Access::Token, ABOUT, OPS),
];

async fn read(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let schedule = call.core.seams.seal.rotation_schedule().await.map_err(seal_error)?;
    // As in Vault: a text where there is one, and a number where there is none.
    let interval: Value = match schedule.interval.is_zero() {
        true => 0.into(),
        false => duration::go_text(schedule.interval).into(),
    };
    Ok(LogicalResponse::json(json!({
        "enabled": schedule.enabled,
        "interval": interval,
        "max_operations": schedule.max_operations,
    })))
}

async fn write(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (seal, fields) = (&call.core.seams.seal, &call.fields);
    let change = ScheduleChange {
        enabled: fields.bool("enabled"),
        interval: fields.ttl("interval"),
        // What is negative is too small like anything else.
        max_operations: fields.int("max_operations").map(|operations| u64::try_from(operations).unwrap_or(0)),
    };
    if change.interval.is_some_and(|interval| !interval.is_zero() && interval < RotationSchedule::INTERVAL_MIN) {
        return Err(RequestError::Invalid(format!(
            "interval must be greater or equal to {}",
            duration::go_text(RotationSchedule::INTERVAL_MIN)
        )));
    }
    let (least, most) = (RotationSchedule::OPERATIONS_MIN, RotationSchedule::OPERATIONS_MAX);
    if change.max_operations.is_some_and(|operations| !(least..=most).contains(&operations)) {
        return Err(RequestError::Invalid(format!("max_operations must be in the range [{least},{most}]")));
    }
    call.core.nodes.write_keys(seal.change_rotation_schedule(change)).await.map_err(seal_error)?;
    Ok(LogicalResponse::empty())
}
