//! What secrets engines and auth methods have in common: the mount table and its bodies.

use std::time::Duration;

use clap::{Arg, Command};
use serde_json::{Map, Value, json};

use super::run::Run;
use crate::client::{ApiRequest, sorted};
use crate::declare::{switch, value, values};
use crate::failure::Failure;
use crate::print::{self, Format};

/// The flags of `enable`.
pub(super) fn enable_flags(command: Command) -> Command {
    tuning_flags(command)
        .arg(value("path", "PATH", "Where to mount it, if not at the name of its type"))
        .arg(value("plugin-name", "NAME", "Name of the plugin, where the type is `plugin`"))
        .arg(switch("force-no-cache", "Do not cache"))
        .arg(switch("local", "Keep out of replication"))
        .arg(switch("seal-wrap", "Wrap critical values once more"))
        .arg(switch("external-entropy-access", "Let it use an external source of randomness"))
}

/// The flags of `tune`, which `enable` has as well.
pub(super) fn tuning_flags(command: Command) -> Command {
    let list = |name: &'static str, help: &'static str| -> Arg { values(name, "KEY", help) };
    command
        .arg(value("description", "TEXT", "What it is for"))
        .arg(value(
            "default-lease-ttl",
            "DURATION",
            "Leases live this long unless something else is said; -1s is the system's",
        ))
        .arg(value("max-lease-ttl", "DURATION", "Leases live no longer than this; -1s is the system's"))
        .arg(list("audit-non-hmac-request-keys", "Key of a request that audit may show in clear; may be repeated"))
        .arg(list("audit-non-hmac-response-keys", "Key of an answer that audit may show in clear; may be repeated"))
        .arg(value("listing-visibility", "WHO", "`unauth` shows the mount to anybody"))
        .arg(list("passthrough-request-headers", "Header to hand on; may be repeated"))
        .arg(list("allowed-response-headers", "Header that may be answered; may be repeated"))
        .arg(values("options", "KEY=VALUE", "Option of the mount; may be repeated"))
        .arg(value("version", "NUMBER", "Version of the engine, where it has several"))
        .arg(value("plugin-version", "VERSION", "Version of the plugin"))
}

/// The body of `sys/mounts/:path` and `sys/auth/:path`.
pub(super) fn enable_body(run: &Run, kind: &str) -> Result<Value, Failure> {
    let mut config = json!({
        "options": null,
        "default_lease_ttl": run.span("default-lease-ttl")?.to_go(),
        "max_lease_ttl": run.span("max-lease-ttl")?.to_go(),
        "force_no_cache": run.switch("force-no-cache"),
    });
    put_what_was_given(run, &mut config);
    Ok(json!({
        "type": kind,
        "description": run.text("description").unwrap_or_default(),
        "config": config,
        "local": run.switch("local"),
        "seal_wrap": run.switch("seal-wrap"),
        "external_entropy_access": run.switch("external-entropy-access"),
        "options": options(run)?,
    }))
}

/// The body of `sys/mounts/:path/tune`: empty texts mean "unchanged".
pub(super) fn tune_body(run: &Run) -> Result<Value, Failure> {
    let mut body = json!({
        "options": options(run)?,
        "default_lease_ttl": run.span("default-lease-ttl")?.to_tuning(),
        "max_lease_ttl": run.span("max-lease-ttl")?.to_tuning(),
        "force_no_cache": false,
    });
    if let Some(description) = run.text("description") {
        body["description"] = json!(description);
    }
    put_what_was_given(run, &mut body);
    Ok(body)
}

fn put_what_was_given(run: &Run, body: &mut Value) {
    for flag in [
        "audit-non-hmac-request-keys",
        "audit-non-hmac-response-keys",
        "passthrough-request-headers",
        "allowed-response-headers",
    ] {
        let given = run.texts(flag);
        if !given.is_empty() {
            body[flag.replace('-', "_")] = json!(given);
        }
    }
    for flag in ["listing-visibility", "token-type", "plugin-version"] {
        if let Some(given) = run.text(flag).filter(|given| !given.is_empty()) {
            body[flag.replace('-', "_")] = json!(given);
        }
    }
}

fn options(run: &Run) -> Result<Value, Failure> {
    let mut options: Map<String, Value> =
        run.pairs("options")?.into_iter().map(|(key, value)| (key, value.into())).collect();
    if let Some(version) = run.number("version")?.filter(|&version| version > 0) {
        options.insert("version".to_owned(), version.to_string().into());
    }
    Ok(if options.is_empty() { Value::Null } else { Value::Object(options) })
}

/// What kind of mount table is shown: it decides the columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Secrets,
    Auth,
}

pub(super) fn show(run: &mut Run, which: Table, mounts: Value) -> Result<(), Failure> {
    let Value::Object(mounts) = sorted(mounts) else {
        return Err(Failure::Server("the answer holds no mount table".to_owned()));
    };
    if run.format != Format::Table {
        let shown = mounts.iter().map(|(path, mount)| (path.clone(), in_order(mount))).collect();
        return print::document(run.env, run.format, &Value::Object(shown));
    }
    let text = if run.switch("detailed") { detailed(which, &mounts) } else { simple(which, &mounts) };
    run.env.say(&text)?;
    for (path, _) in mounts.iter().filter(|(_, mount)| is_tainted(mount)) {
        run.env.warn(&format!(
            "{path} is tainted: it was disabled, but not all of its leases could be revoked, and no request reaches it. Disable it \
             again when they can be; `lease revoke -force -prefix {path}` gives them up and leaves behind what they made."
        ));
    }
    Ok(())
}

/// Our servers say so; Vault's do not.
fn is_tainted(mount: &Value) -> bool {
    mount.get("tainted") == Some(&Value::Bool(true))
}

fn text(mount: &Value, key: &str) -> String {
    mount.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn simple(which: Table, mounts: &Map<String, Value>) -> String {
    let rows: Vec<Vec<String>> = mounts
        .iter()
        .map(|(path, mount)| {
            let mut row = vec![path.clone(), text(mount, "type"), text(mount, "accessor"), text(mount, "description")];
            if which == Table::Auth {
                row.push(text(mount, "plugin_version"));
            }
            row
        })
        .collect();
    match which {
        Table::Secrets => print::table(&["Path", "Type", "Accessor", "Description"], &rows),
        Table::Auth => print::table(&["Path", "Type", "Accessor", "Description", "Version"], &rows),
    }
}

fn detailed(which: Table, mounts: &Map<String, Value>) -> String {
    let seventh = if which == Table::Secrets { "Force No Cache" } else { "Token Type" };
    let head = [
        "Path",
        "Plugin",
        "Accessor",
        "Default TTL",
        "Max TTL",
        seventh,
        "Replication",
        "Seal Wrap",
        "External Entropy Access",
        "Options",
        "Description",
        "UUID",
        "Version",
        "Running Version",
        "Running SHA256",
        "Deprecation Status",
    ];
    let rows: Vec<Vec<String>> = mounts
        .iter()
        .map(|(path, mount)| {
            let yes = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
            let config = mount.get("config").cloned().unwrap_or_default();
            let ttl = |key: &str| match (
                mount.get("type").and_then(Value::as_str),
                config.get(key).and_then(Value::as_i64).unwrap_or(0),
            ) {
                (Some("system" | "cubbyhole"), _) => String::new(),
                (_, 0) => "system".to_owned(),
                (_, seconds) => seconds.to_string(),
            };
            let sixth = if which == Table::Secrets {
                yes(config.get("force_no_cache")).to_string()
            } else {
                text(&config, "token_type")
            };
            let options = mount
                .get("options")
                .filter(|options| !options.is_null())
                .map_or_else(|| "map[]".to_owned(), print::plain);
            let place = if yes(mount.get("local")) { "local" } else { "replicated" };
            vec![
                path.clone(),
                text(mount, "type"),
                text(mount, "accessor"),
                ttl("default_lease_ttl"),
                ttl("max_lease_ttl"),
                sixth,
                place.to_owned(),
                yes(mount.get("seal_wrap")).to_string(),
                yes(mount.get("external_entropy_access")).to_string(),
                options,
                text(mount, "description"),
                text(mount, "uuid"),
                text(mount, "plugin_version"),
                text(mount, "running_plugin_version"),
                text(mount, "running_sha256"),
                text(mount, "deprecation_status"),
            ]
        })
        .collect();
    print::table(&head, &rows)
}

/// One mount with its keys in the order in which Vault prints them.
fn in_order(mount: &Value) -> Value {
    let mut config = json!({});
    let given = mount.get("config").cloned().unwrap_or_default();
    for key in ["default_lease_ttl", "max_lease_ttl"] {
        config[key] = json!(given.get(key).and_then(Value::as_i64).unwrap_or(0));
    }
    config["force_no_cache"] = json!(given.get("force_no_cache").and_then(Value::as_bool).unwrap_or(false));
    const REST: [&str; 7] = [
        "audit_non_hmac_request_keys",
        "audit_non_hmac_response_keys",
        "listing_visibility",
        "passthrough_request_headers",
        "allowed_response_headers",
        "token_type",
        "user_lockout_config",
    ];
    for key in REST {
        if let Some(value) = given.get(key).filter(|value| !value.is_null() && *value != "") {
            config[key] = value.clone();
        }
    }
    let yes = |key: &str| mount.get(key).and_then(Value::as_bool).unwrap_or(false);
    let mut shown = json!({
        "uuid": text(mount, "uuid"),
        "type": text(mount, "type"),
        "description": text(mount, "description"),
        "accessor": text(mount, "accessor"),
        "config": config,
        "options": mount.get("options").cloned().unwrap_or_default(),
        "local": yes("local"),
        "seal_wrap": yes("seal_wrap"),
        "external_entropy_access": yes("external_entropy_access"),
        "plugin_version": text(mount, "plugin_version"),
        "running_plugin_version": text(mount, "running_plugin_version"),
        "running_sha256": text(mount, "running_sha256"),
        "deprecation_status": text(mount, "deprecation_status"),
    });
    if is_tainted(mount) {
        shown["tainted"] = json!(true);
    }
    shown
}

/// How long to wait before asking again whether a move is over: at first often, then as seldom as Vault does.
const MOVE_WAITS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(2), Duration::from_secs(10)];

/// Moves a mount, and waits until that is over. `kind`: what people call it.
pub(super) fn relocate(run: &mut Run, kind: &str, from: &str, to: &str) -> Result<(), Failure> {
    let client = run.client()?;
    let started = client
        .send(&ApiRequest::post("sys/remount").json(json!({ "from": from, "to": to })))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing(format!("Error moving {kind} {from} to {to}"), error))?;
    let id = started["migration_id"].as_str().unwrap_or_default().to_owned();
    let what = format!("moving {kind} {from} to {to}, with migration ID {id}");
    run.env.say(&format!("Started {what}"))?;
    let mut waits = MOVE_WAITS.into_iter().chain(std::iter::repeat(MOVE_WAITS[3]));
    loop {
        let state = client
            .send(&ApiRequest::get(format!("sys/remount/status/{id}")))
            .and_then(|answer| answer.data())
            .map_err(|error| {
                Failure::while_doing(format!("Error checking migration status of {kind} {from} to {to}"), error)
            })?;
        match state["migration_info"]["status"].as_str() {
            Some("success") => return Ok(run.env.say(&format!("Success! Finished {what}"))?),
            Some("failure") => return Err(Failure::Server(format!("Failure! Error encountered {what}"))),
            _ => {}
        }
        std::thread::sleep(waits.next().unwrap_or(MOVE_WAITS[3]));
    }
}
