//! `lease lookup|renew|revoke`.

use clap::Command;
use serde_json::json;

use super::data::show;
use super::run::{Run, parse_span};
use crate::client::ApiRequest;
use crate::declare::{group, leaf, switch, value};
use crate::failure::Failure;
use crate::print::wrapped;

pub(super) fn tree() -> Command {
    group("lease", "Leases: how long credentials live").subcommands([
        leaf("lookup", "Show a lease", "LEASE", "  $ leasehold lease lookup database/creds/readonly/2f6a614c"),
        leaf("renew", "Extend a lease", "LEASE [INCREMENT]", "  $ leasehold lease renew database/creds/readonly/2f6a614c\n  $ leasehold lease renew -increment=30m database/creds/readonly/2f6a614c")
            .arg(value("increment", "DURATION", "How much longer; the server may give less")),
        leaf("revoke", "End a lease: the credential is gone at once", "LEASE", "  $ leasehold lease revoke database/creds/readonly/2f6a614c\n  $ leasehold lease revoke -sync database/creds/readonly/2f6a614c\n  $ leasehold lease revoke -prefix database/creds/readonly")
            .arg(switch("prefix", "End every lease whose id begins so; needs sudo"))
            .arg(switch("force", "Forget the leases even if the credentials cannot be removed; needs -prefix").alias("f"))
            .arg(switch("sync", "Wait until it is done")),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "lookup" => lookup(run),
        "renew" => renew(run),
        _ => revoke(run),
    }
}

fn missing() -> Failure {
    Failure::Local("Missing ID!".to_owned())
}

fn lookup(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let id = match words.as_slice() {
        [] => return Err(missing()),
        [id] => id.trim(),
        _ => return Err(Failure::Local(format!("Too many arguments (expected 1, got {})", words.len()))),
    };
    let client = run.client()?;
    let call = ApiRequest::put("sys/leases/lookup").json(json!({ "lease_id": id }));
    let secret = client
        .send(&call)
        .and_then(|answer| answer.secret())
        .map_err(|error| Failure::while_doing(format!("error looking up lease id {id}"), error))?;
    show(run, &secret.unwrap_or_default())
}

fn renew(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let (id, increment) = match words.as_slice() {
        [] => return Err(missing()),
        [id] => (id.trim(), run.span("increment")?),
        // The spelling of old.
        [id, increment] => (id.trim(), parse_span("increment", increment)?),
        _ => return Err(Failure::Local(format!("Too many arguments (expected 1-2, got {})", words.len()))),
    };
    let client = run.client()?;
    let call =
        ApiRequest::put("sys/leases/renew").json(json!({ "increment": increment.whole_seconds(), "lease_id": id }));
    let secret = client
        .send(&call)
        .and_then(|answer| answer.secret())
        .map_err(|error| Failure::while_doing(format!("Error renewing {id}"), error))?;
    show(run, &secret.unwrap_or_default())
}

fn revoke(run: &mut Run) -> Result<(), Failure> {
    let [id] = run.exactly()?;
    let id = id.trim();
    let (force, prefix, sync) = (run.switch("force"), run.switch("prefix"), run.switch("sync"));
    if force && !prefix {
        return Err(Failure::Local("Specifying -force requires also specifying -prefix".to_owned()));
    }
    let client = run.client()?;
    if force {
        run.env.warn(&wrapped(
            "Warning! Force-removing leases can cause Leasehold to become out of sync with secret engines!",
        ));
    }
    let (call, what) = match (force, prefix) {
        (true, _) => (ApiRequest::put(format!("sys/leases/revoke-force/{id}")), "force revoking leases with prefix"),
        (_, true) => (
            ApiRequest::put(format!("sys/leases/revoke-prefix/{id}")).json(json!({ "sync": sync })),
            "revoking leases with prefix",
        ),
        _ => (ApiRequest::put(format!("sys/leases/revoke/{id}")).json(json!({ "sync": sync })), "revoking lease"),
    };
    client.send(&call).map_err(|error| Failure::while_doing(format!("Error {what} {id}"), error))?;
    let done = match (force, sync, prefix) {
        (true, ..) => format!("Success! Force revoked any leases with prefix: {id}"),
        (_, true, true) => format!("Success! Revoked any leases with prefix: {id}"),
        (_, true, false) => format!("Success! Revoked lease: {id}"),
        _ => "All revocation operations queued successfully!".to_owned(),
    };
    Ok(run.env.say(&done)?)
}
