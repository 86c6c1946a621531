//! `auth enable|list|disable|tune`.

use clap::Command;

use super::mounts::{self, Table};
use super::run::{Run, bare_path, mount_path};
use crate::client::ApiRequest;
use crate::declare::{group, leaf, value};
use crate::failure::Failure;

pub(super) fn tree() -> Command {
    let token_type =
        || value("token-type", "TYPE", "Kind of the tokens it makes: default-service, default-batch, service or batch");
    group("auth", "Auth methods: who may come in, and how").subcommands([
        mounts::enable_flags(leaf(
            "enable",
            "Enable an auth method",
            "TYPE",
            "  $ leasehold auth enable userpass  # refused by this server",
        ))
        .arg(token_type()),
        leaf("list", "List the auth methods", "", "  $ leasehold auth list\n  $ leasehold auth list -detailed"),
        leaf(
            "disable",
            "Disable an auth method and revoke all its tokens",
            "PATH",
            "  $ leasehold auth disable userpass/",
        ),
        mounts::tuning_flags(leaf(
            "tune",
            "Change how an auth method is mounted",
            "PATH",
            "  $ leasehold auth tune -max-lease-ttl=8h token/",
        ))
        .arg(token_type()),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "enable" => enable(run),
        "list" => list(run),
        "disable" => disable(run),
        _ => tune(run),
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
        .send(&ApiRequest::post(format!("sys/auth/{path}")).json(body))
        .map_err(|error| Failure::while_doing(format!("Error enabling {kind} auth"), error))?;
    Ok(run.env.say(&format!("Success! Enabled {kind} auth method at: {path}"))?)
}

fn list(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let table = client
        .send(&ApiRequest::get("sys/auth"))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error listing enabled authentications", error))?;
    mounts::show(run, Table::Auth, table)
}

fn disable(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let client = run.client()?;
    let path = mount_path(bare_path(&path));
    client
        .send(&ApiRequest::delete(format!("sys/auth/{path}")))
        .map_err(|error| Failure::while_doing(format!("Error disabling auth method at {path}"), error))?;
    Ok(run.env.say(&format!("Success! Disabled the auth method (if it existed) at: {path}"))?)
}

fn tune(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let client = run.client()?;
    let path = mount_path(bare_path(&path));
    let body = mounts::tune_body(run)?;
    // Not `sys/auth/…/tune`: that one asks for sudo.
    client
        .send(&ApiRequest::post(format!("sys/mounts/auth/{path}tune")).json(body))
        .map_err(|error| Failure::while_doing(format!("Error tuning auth method {path}"), error))?;
    Ok(run.env.say(&format!("Success! Tuned the auth method at: {path}"))?)
}
