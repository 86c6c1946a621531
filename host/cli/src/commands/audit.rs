//! `audit enable|list|disable`.

use clap::Command;
use serde_json::{Map, Value, json};

use super::run::{Run, bare_path, mount_path};
use crate::client::{ApiRequest, sorted};
use crate::data;
use crate::declare::{group, leaf, switch, value};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn tree() -> Command {
    group("audit", "Audit devices: who did what, on record").subcommands([
        leaf(
            "enable",
            "Enable an audit device; a file lies beneath the server's audit_directory",
            "TYPE [KEY=VALUE...]",
            "  $ leasehold audit enable file file_path=audit.log",
        )
        .arg(value("path", "PATH", "Name of the device, if not its type"))
        .arg(value("description", "TEXT", "What it is for"))
        .arg(switch("local", "Keep out of replication")),
        leaf("list", "List the audit devices", "", "  $ leasehold audit list\n  $ leasehold audit list -detailed"),
        leaf("disable", "Disable an audit device", "PATH", "  $ leasehold audit disable file/"),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "enable" => enable(run),
        "list" => list(run),
        _ => disable(run),
    }
}

fn enable(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    let Some((kind, words)) = words.split_first() else {
        return Err(Failure::Local(
            "Error enabling audit device: audit type missing. Valid types include 'file', 'socket' and 'syslog'."
                .to_owned(),
        ));
    };
    let kind = kind.trim();
    let path = mount_path(run.text("path").filter(|path| !path.is_empty()).unwrap_or(kind));
    let no_stdin = run.no_stdin();
    let gathered =
        data::gather(run.env, words, no_stdin).map_err(|problem| problem.local("Failed to parse K=V data"))?;
    let options: Map<String, Value> =
        data::as_texts(gathered.unwrap_or_default()).into_iter().map(|(key, value)| (key, value.into())).collect();
    let body = json!({ "type": kind, "description": run.text("description").unwrap_or_default(), "options": options, "local": run.switch("local") });
    let client = run.client()?;
    client
        .send(&ApiRequest::put(format!("sys/audit/{path}")).json(body))
        .map_err(|error| Failure::while_doing("Error enabling audit device", error))?;
    Ok(run.env.say(&format!("Success! Enabled the {kind} audit device at: {path}"))?)
}

fn list(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let answer = client
        .send(&ApiRequest::get("sys/audit"))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error listing audits", error))?;
    let Value::Object(devices) = sorted(answer) else {
        return Err(Failure::Server("Error listing audits: the answer holds no table".to_owned()));
    };
    if run.format != Format::Table {
        let shown = devices.iter().map(|(path, device)| (path.clone(), in_order(device))).collect();
        return print::document(run.env, run.format, &Value::Object(shown));
    }
    if devices.is_empty() {
        run.env.say("No audit devices are enabled.")?;
        return Err(Failure::Status(2));
    }
    let detailed = run.switch("detailed");
    let rows: Vec<Vec<String>> = devices.iter().map(|(path, device)| row(path, device, detailed)).collect();
    let head: &[&str] = if detailed {
        &["Path", "Type", "Description", "Replication", "Options"]
    } else {
        &["Path", "Type", "Description"]
    };
    Ok(run.env.say(&print::table(head, &rows))?)
}

fn row(path: &str, device: &Value, detailed: bool) -> Vec<String> {
    let text = |key: &str| device.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut row = vec![path.to_owned(), text("type"), text("description")];
    if detailed {
        let options: Vec<_> = device
            .get("options")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={}", print::plain(value)))
            .collect();
        let local = device.get("local").and_then(Value::as_bool).unwrap_or(false);
        row.push(if local { "local" } else { "replicated" }.to_owned());
        row.push(options.join(" "));
    }
    row
}

fn in_order(device: &Value) -> Value {
    let of = |key: &str| device.get(key).cloned().unwrap_or_default();
    json!({ "type": of("type"), "description": of("description"), "options": of("options"), "local": of("local"), "path": of("path") })
}

fn disable(run: &mut Run) -> Result<(), Failure> {
    let [path] = run.exactly()?;
    let path = mount_path(bare_path(&path));
    let client = run.client()?;
    client
        .send(&ApiRequest::delete(format!("sys/audit/{path}")))
        .map_err(|error| Failure::while_doing("Error disabling audit device", error))?;
    Ok(run.env.say(&format!("Success! Disabled audit device (if it was enabled) at: {path}"))?)
}
