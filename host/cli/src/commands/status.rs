//! `status`: sealed or not, for people and for probes. Exit status 0 unsealed, 2 sealed, 1 cannot tell.

use clap::Command;
use serde_json::{Value, json};

use super::run::Run;
use crate::client::{ApiRequest, Client, ClientError};
use crate::declare::{leaf, switch};
use crate::failure::Failure;
use crate::print;

pub(super) fn tree() -> Command {
    leaf(
        "status",
        "Show whether the server is sealed",
        "",
        "  $ leasehold status\n  $ leasehold status -detailed\n  $ leasehold status -format=json\n  $ leasehold status -field=sealed",
    )
    .arg(switch("detailed", "Also show the components that decide and render, by the digest of their bytes"))
}

pub(super) fn status(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    // 2 means "sealed" here, so whatever else goes wrong is 1.
    let cannot_tell = |failure: Failure| match failure {
        Failure::Server(why) => Failure::Local(why),
        other => other,
    };
    let mut client = run.client().map_err(cannot_tell)?;
    client.leave_namespace();
    let seal = client
        .send(&ApiRequest::get("sys/seal-status"))
        .and_then(|answer| answer.json())
        .map_err(|error| cannot_tell(Failure::while_doing("Error checking seal status", error)))?;
    show(run, &client, &seal).map_err(cannot_tell)?;
    if run.switch("detailed") {
        print::builtin_modules(run.env, run.format, &seal).map_err(cannot_tell)?;
    }
    if seal["sealed"].as_bool().unwrap_or(true) { Err(Failure::Status(2)) } else { Ok(()) }
}

/// Prints a seal status together with who leads.
pub(super) fn show(run: &mut Run, client: &Client, seal: &Value) -> Result<(), Failure> {
    let leader = match client.send(&ApiRequest::get("sys/leader")) {
        // Sealed nodes of a cluster cannot say who leads, only that somebody may.
        Err(ClientError::Refused(refusal)) if refusal.says_sealed() => json!({ "ha_enabled": true }),
        other => other
            .and_then(|answer| answer.json())
            .map_err(|error| Failure::while_doing("Error checking leader status", error))?,
    };
    let Some(field) = run.text("field").map(str::to_owned) else {
        return print::seal_status(run.env, run.format, seal, &leader);
    };
    match print::seal_status_field(seal, &leader, &field) {
        Some(value) => print::raw_field(run.env, run.format, &value),
        None => Err(Failure::Local(format!("Field \"{field}\" not present in seal status"))),
    }
}
