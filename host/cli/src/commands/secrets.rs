//! `secrets enable|list|disable|tune|move`.

use clap::Command;

use super::mounts::{self, Table};
use super::run::{Run, bare_path, mount_path};
use crate::client::ApiRequest;
use crate::declare::{group, leaf};
use crate::failure::Failure;

pub(super) fn tree() -> Command {
    group("secrets", "Secrets engines: where credentials come from").subcommands([
        mounts::enable_flags(leaf(
            "enable",
            "Enable a secrets engine",
            "TYPE",
            "  $ leasehold secrets enable database\n  $ leasehold secrets enable -path=db2 -max-lease-ttl=24h database",
        )),
        leaf(
            "list",
            "List the secrets engines",
            "",
            "  $ leasehold secrets list\n  $ leasehold secrets list -detailed",
        ),
        leaf(
            "disable",
            "Disable a secrets engine and revoke all its leases",
            "PATH",
            "  $ leasehold secrets disable database/",
        ),
        mounts::tuning_flags(leaf(
            "tune",
            "Change how a secrets engine is mounted",
            "PATH",
            "  $ leasehold secrets tune -max-lease-ttl=48h database/",
        )),
        leaf(
            "move",
            "Move a secrets engine to another path",
            "FROM TO",
            "  $ leasehold secrets move database/ postgres/",
        ),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "enable" => enable(run),
        "list" => list(run),
        "disable" => disable(run),
        "tune" => tune(run),
        _ => relocate(run),
    }
}

fn enable(run: &mut Run) -> Result<(), Failure> {
    let [kind] = run.exactly()?;
    let client = run.client()?;
    let kind = match kind.trim() {
        "plugin" => run.text("plugin-name").unwrap_or_default().to_owned(),
        kind => kind.to_owned(),
    };
    let path = mount_path(run.text("path").filter(|path| !path.is_empty()).unwrap_or(&kind));
    let body = mounts::enable_body(run, &kind)?;
    client
        .send(&ApiRequest::post(format!("sys/mounts/{path}")).json(body))
        .map_err(|error| Failure::while_doing("Error enabling", error))?;
    Ok(run.env.say(&format!("Success! Enabled the {kind} secrets engine at: {path}"))?)
}

fn list(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let table = client
        .send(&ApiRequest::get("sys/mounts"))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error listing secrets engines", error))?;
    mounts::show(run, Table::Secrets, table)
}

fn disable(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let client = run.client()?;
    let path = mount_path(bare_path(&path));
    client
        .send(&ApiRequest::delete(format!("sys/mounts/{path}")))
        .map_err(|error| Failure::while_doing(format!("Error disabling secrets engine at {path}"), error))?;
    Ok(run.env.say(&format!("Success! Disabled the secrets engine (if it existed) at: {path}"))?)
}

fn tune(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let client = run.client()?;
    let path = mount_path(bare_path(&path));
    let body = mounts::tune_body(run)?;
    client
        .send(&ApiRequest::post(format!("sys/mounts/{path}tune")).json(body))
        .map_err(|error| Failure::while_doing(format!("Error tuning secrets engine {path}"), error))?;
    Ok(run.env.say(&format!("Success! Tuned the secrets engine at: {path}"))?)
}

fn relocate(run: &mut Run) -> Result<(), Failure> {
    let [from, to] = run.exactly()?;
    mounts::relocate(run, "secrets engine", &mount_path(&from), &mount_path(&to))
}
