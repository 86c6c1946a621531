//! `auth enable|list|disable|tune|move|help`.

use clap::Command;
use serde_json::{Map, Value, json};

use super::mounts::{self, Table};
use super::run::{Run, bare_path, mount_path};
use crate::client::ApiRequest;
use crate::declare::{group, leaf, switch, value};
use crate::failure::Failure;

pub(super) fn tree() -> Command {
    let token_type =
        || value("token-type", "TYPE", "Kind of the tokens it makes: default-service, default-batch, service or batch");
    // `help` is a command of its own here, as in Vault: it takes a method, not a command.
    group("auth", "Auth methods: who may come in, and how").disable_help_subcommand(true).subcommands([
        mounts::enable_flags(leaf(
            "enable",
            "Enable an auth method",
            "TYPE",
            "  $ leasehold auth enable userpass\n  $ leasehold auth enable -path=machines approle",
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
        .arg(token_type())
        .arg(value("user-lockout-threshold", "NUMBER", "So many failed logins in a row lock a name"))
        .arg(value("user-lockout-duration", "DURATION", "How long a name stays locked"))
        .arg(value("user-lockout-counter-reset-duration", "DURATION", "After so long a failed login is forgotten"))
        .arg(switch("user-lockout-disable", "Lock nobody")),
        leaf(
            "move",
            "Move an auth method to another path; its tokens end",
            "FROM TO",
            "  $ leasehold auth move auth/jwt/ auth/ci/",
        ),
        leaf(
            "help",
            "Show how to log in with an auth method",
            "TYPE | PATH",
            "  $ leasehold auth help userpass\n  $ leasehold auth help machines/",
        ),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "enable" => enable(run),
        "list" => list(run),
        "disable" => disable(run),
        "move" => relocate(run),
        "help" => help(run),
        _ => tune(run),
    }
}

/// Vault wants `auth/` in front; without it, no other mount can be meant.
fn relocate(run: &mut Run) -> Result<(), Failure> {
    let below = |path: String| {
        let path = bare_path(&path);
        format!("auth/{}", mount_path(path.strip_prefix("auth/").unwrap_or(path)))
    };
    let [from, to] = run.exactly()?.map(below);
    mounts::relocate(run, "auth method", &from, &to)
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
    let mut body = mounts::tune_body(run)?;
    if let Some(lockout) = lockout(run) {
        body["user_lockout_config"] = lockout;
    }
    // Not `sys/auth/…/tune`: that one asks for sudo.
    client
        .send(&ApiRequest::post(format!("sys/mounts/auth/{path}tune")).json(body))
        .map_err(|error| Failure::while_doing(format!("Error tuning auth method {path}"), error))?;
    Ok(run.env.say(&format!("Success! Tuned the auth method at: {path}"))?)
}

/// What the flags say of the lockout; nothing when they say nothing. The server reads numbers and lengths from texts.
fn lockout(run: &Run) -> Option<Value> {
    let mut config = Map::new();
    for (flag, key) in [
        ("user-lockout-threshold", "lockout_threshold"),
        ("user-lockout-duration", "lockout_duration"),
        ("user-lockout-counter-reset-duration", "lockout_counter_reset_duration"),
    ] {
        config.extend(run.text(flag).filter(|text| !text.is_empty()).map(|text| (key.to_owned(), json!(text))));
    }
    config.extend(run.switch_if_given("user-lockout-disable").map(|off| ("lockout_disable".to_owned(), json!(off))));
    (!config.is_empty()).then_some(Value::Object(config))
}

/// By a type's name without asking anybody; by a path with a look at the server's auth mounts.
fn help(run: &mut Run) -> Result<(), Failure> {
    let [word] = run.exactly()?;
    let word = bare_path(&word).trim_end_matches('/').to_owned();
    if let Some(text) = help_text(&word) {
        return Ok(run.env.say(text)?);
    }
    let client = run.client()?;
    let table = client
        .send(&ApiRequest::get("sys/auth"))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error listing authentication methods", error))?;
    let entry = table.get(format!("{word}/"));
    let kind = entry.and_then(|entry| entry.get("type")).and_then(Value::as_str);
    let Some(kind) = kind else {
        return Err(Failure::Server(format!("Error retrieving help: unknown authentication method: {word}")));
    };
    match help_text(kind) {
        Some(text) => Ok(run.env.say(text)?),
        None => Err(Failure::Server(format!("No method-specific CLI handler available for auth method \"{kind}\""))),
    }
}

fn help_text(kind: &str) -> Option<&'static str> {
    match kind {
        "token" => Some(TOKEN_HELP),
        "userpass" => Some(USERPASS_HELP),
        "approle" => Some(APPROLE_HELP),
        "cert" => Some(CERT_HELP),
        "jwt" => Some(JWT_HELP),
        "kubernetes" => Some(KUBERNETES_HELP),
        _ => None,
    }
}

const TOKEN_HELP: &str = "\
Usage: leasehold login [TOKEN]

  The token auth method takes a token that exists already, checks it and keeps it.

      $ leasehold login
      Token (will be hidden):

Configuration:

  token=<string>
      The token. If it is not given, the command asks for it.

  lookup=<bool>
      Whether to ask the server about the token first. The default is true.";

const USERPASS_HELP: &str = "\
Usage: leasehold login -method=userpass [CONFIG K=V...]

  The userpass auth method takes a user name and a password.

      $ leasehold login -method=userpass username=sally
      Password (will be hidden):

Configuration:

  username=<string>
      The name of the user.

  password=<string>
      The password. If it is not given, the command asks for it.";

const APPROLE_HELP: &str = "\
Usage: leasehold login -method=approle [CONFIG K=V...]

  The approle auth method takes the id of a role and, unless the role needs none, a secret id.

      $ leasehold login -method=approle role_id=ROLE_ID
      Secret ID (will be hidden):

Configuration:

  role_id=<string>
      The id of the role.

  secret_id=<string>
      The secret id. If it is not given, the command asks for it; empty, none is sent.";

const JWT_HELP: &str = "\
Usage: leasehold login -method=jwt [CONFIG K=V...]

  The jwt auth method takes a signed token of an identity provider, for example of a CI job or of a Kubernetes pod.

      $ leasehold login -method=jwt role=ci jwt=@token.jwt

Configuration:

  role=<string>
      The role. If it is not given, the mount's default role is used.

  jwt=<string>
      The token. @FILE reads it from a file, - from standard input.";

const KUBERNETES_HELP: &str = "\
Usage: leasehold login -method=kubernetes [CONFIG K=V...]

  The kubernetes auth method takes the token of a service account.

      $ leasehold login -method=kubernetes role=shop jwt=@/var/run/secrets/tokens/leasehold

Configuration:

  role=<string>
      The role.

  jwt=<string>
      The token. @FILE reads it from a file, - from standard input.";

const CERT_HELP: &str = "\
Usage: leasehold login -method=cert [CONFIG K=V...]

  The cert auth method takes the certificate that the connection shows.

      $ leasehold login -method=cert -client-cert=app.crt -client-key=app.key name=apps

Configuration:

  name=<string>
      The stored certificate that vouches for this one. If it is not given, the server tries all.";
