//! `policy write|read|list|delete|fmt|lint`.

use std::path::PathBuf;

use clap::Command;
use leasehold_acl::format_policy;
use serde_json::{Value, json};

use super::run::Run;
use crate::client::ApiRequest;
use crate::data::{opening, read_bounded};
use crate::declare::{group, leaf};
use crate::failure::Failure;
use crate::print::{self, Format};
use crate::tools::{FindingSeverity, PolicyFinding};

pub(super) fn tree() -> Command {
    group("policy", "Policies: who may do what").subcommands([
        leaf(
            "write",
            "Upload a policy from a file, or from standard input with -",
            "NAME FILE",
            "  $ leasehold policy write apps apps-policy.hcl\n  $ leasehold policy write apps - < apps-policy.hcl",
        ),
        leaf("read", "Show a policy", "NAME", "  $ leasehold policy read apps"),
        leaf("list", "List the policies", "", "  $ leasehold policy list"),
        leaf("delete", "Delete a policy", "NAME", "  $ leasehold policy delete apps"),
        leaf(
            "fmt",
            "Check a policy file as the server would, and format it in place",
            "FILE",
            "  $ leasehold policy fmt apps-policy.hcl",
        ),
        leaf(
            "lint",
            "Say what in a policy file is probably not meant; exits 2 if anything",
            "FILE",
            "  $ leasehold policy lint apps-policy.hcl",
        ),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "write" => write(run),
        "read" => read(run),
        "list" => list(run),
        "delete" => delete(run),
        "lint" => lint(run),
        _ => format(run),
    }
}

fn write(run: &mut Run) -> Result<(), Failure> {
    let [typed, file] = run.exactly()?;
    let client = run.client()?;
    let name = typed.to_lowercase().trim().to_owned();
    let bytes = match file.trim() {
        "-" => read_bounded(&mut run.env.stdin)
            .map_err(|error| Failure::Server(format!("Error reading policy: {error}")))?,
        path => std::fs::File::open(run.env.expand_home(path))
            .and_then(|mut file| read_bounded(&mut file))
            .map_err(|error| Failure::Server(format!("Error opening policy file: {}", opening(path, &error))))?,
    };
    let policy = String::from_utf8(bytes)
        .map_err(|_| Failure::Server("Error reading policy: it is not UTF-8 text".to_owned()))?;
    let answer = client
        .send(&ApiRequest::put(at(&name)).json(json!({ "policy": policy })))
        .and_then(|answer| answer.secret())
        .map_err(|error| Failure::while_doing("Error uploading policy", error))?;
    if let Some(answer) = &answer {
        print::warnings(run.env, answer);
    }
    if name != typed {
        run.env.warn(&format!("Policy name was converted from \"{typed}\" to \"{name}\""));
    }
    Ok(run.env.say(&format!("Success! Uploaded policy: {name}"))?)
}

fn read(run: &mut Run) -> Result<(), Failure> {
    let [name] = run.exactly()?;
    let client = run.client()?;
    let name = name.trim().to_lowercase();
    let secret = client
        .logical(&ApiRequest::get(at(&name)))
        .map_err(|error| Failure::while_doing(format!("Error reading policy named {name}"), error))?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let Some(policy) = data.get("policy").and_then(Value::as_str).filter(|policy| !policy.is_empty()) else {
        return Err(Failure::Server(format!("No policy named: {name}")));
    };
    if run.format == Format::Table {
        return Ok(run.env.say(policy.trim())?);
    }
    print::document(run.env, run.format, &json!({ "policy": policy }))
}

fn list(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let secret = client
        .logical(&ApiRequest::get("sys/policies/acl").query("list", "true"))
        .map_err(|error| Failure::while_doing("Error listing policies", error))?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let Some(names) = data.get("keys").and_then(Value::as_array) else {
        return Err(Failure::Server("Error listing policies: data from server response is empty".to_owned()));
    };
    if run.format != Format::Table {
        return print::document(run.env, run.format, &Value::Array(names.clone()));
    }
    for name in names {
        run.env.say(&print::plain(name))?;
    }
    Ok(())
}

fn delete(run: &mut Run) -> Result<(), Failure> {
    let [name] = run.exactly()?;
    let client = run.client()?;
    let name = name.to_lowercase().trim().to_owned();
    client
        .send(&ApiRequest::delete(at(&name)))
        .map_err(|error| Failure::while_doing(format!("Error deleting {name}"), error))?;
    Ok(run.env.say(&format!("Success! Deleted policy: {name}"))?)
}

fn at(name: &str) -> String {
    format!("sys/policies/acl/{name}")
}

/// The file that was named: its path, the path as it is shown, its text.
fn source(run: &mut Run) -> Result<(PathBuf, String, String), Failure> {
    let [typed] = run.exactly()?;
    let path = run.env.expand_home(typed.trim());
    let shown = path.display().to_string();
    let bytes = std::fs::File::open(&path)
        .and_then(|mut file| read_bounded(&mut file))
        .map_err(|error| Failure::Local(format!("Error reading source file: {}", opening(&shown, &error))))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::Local(format!("{shown} is not UTF-8 text")))?;
    Ok((path, shown, text))
}

/// `apps.hcl:3:6: warning: path "a/*/b": … (write "a/+/b") [literal-star]`, as compilers and editors have it.
fn told(shown: &str, found: &PolicyFinding) -> String {
    let PolicyFinding { severity, code, line, column, message, help } = found;
    let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{shown}:{line}:{column}: {}: {message}{help} [{code}]", severity.as_str())
}

fn lint(run: &mut Run) -> Result<(), Failure> {
    let (_, shown, text) = source(run)?;
    let found = run.tools.check_policy(&text).map_err(|why| Failure::Local(why.to_string()))?;
    let is_odd = found.iter().any(|one| one.severity == FindingSeverity::Warning);
    if run.format == Format::Table {
        for one in &found {
            run.env.say(&told(&shown, one))?;
        }
        if found.is_empty() {
            run.env.say(&format!("Success! Nothing stands out in {shown}"))?;
        }
    } else {
        let all = found.iter().map(|one| {
            json!({
                "severity": one.severity.as_str(),
                "code": one.code,
                "line": one.line,
                "column": one.column,
                "message": one.message,
                "help": one.help,
            })
        });
        print::document(run.env, run.format, &Value::Array(all.collect()))?;
    }
    if is_odd { Err(Failure::Status(2)) } else { Ok(()) }
}

fn format(run: &mut Run) -> Result<(), Failure> {
    let (path, shown, text) = source(run)?;
    let found = run.tools.check_policy(&text).map_err(|why| Failure::Local(why.to_string()))?;
    for one in found.iter().filter(|one| one.severity == FindingSeverity::Warning) {
        run.env.warn(&told(&shown, one));
    }
    let formatted = format_policy(&text).map_err(|error| Failure::Local(format!("failed to parse policy: {error}")))?;
    if formatted != text {
        std::fs::write(&path, formatted)
            .map_err(|error| Failure::Local(format!("Error writing result: {}", opening(&shown, &error))))?;
    }
    Ok(run.env.say(&format!("Success! Formatted policy: {shown}"))?)
}
