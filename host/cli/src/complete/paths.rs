//! Which names a server has that may stand at the cursor: mounts, and what their lists show below them.
//!
//! What cannot be listed, by whom it may be, has no names.

use serde_json::Value;

use crate::client::{ApiRequest, Client};
use crate::commands::run::{Run, bare_path};

/// What a command's first word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Path,
    Mount,
    AuthMount,
    Policy,
    /// Of a kv engine, of either version.
    Key,
    Device,
}

impl Wanted {
    pub(super) fn by(command: &[&str]) -> Option<Self> {
        Some(match command {
            ["read" | "write" | "patch" | "list" | "scan" | "delete" | "path-help"] => Self::Path,
            ["secrets", "disable" | "tune" | "move"] | ["kv", "enable-versioning"] => Self::Mount,
            ["auth", "disable" | "tune" | "move"] => Self::AuthMount,
            ["policy", "read" | "write" | "delete"] => Self::Policy,
            ["kv", "metadata", _] | ["kv", _] => Self::Key,
            ["audit", "disable"] => Self::Device,
            _ => return None,
        })
    }
}

pub(super) fn find(run: &Run, wanted: Wanted, begun: &str) -> Option<Vec<String>> {
    let mut client = run.client().ok()?;
    client.stop_wrapping();
    client.set_dry_run(None);
    match wanted {
        Wanted::Path => paths(&client, begun),
        Wanted::Mount => mounts(&client, "secret"),
        Wanted::AuthMount => mounts(&client, "auth"),
        Wanted::Policy => listed(&client, "sys/policies/acl"),
        Wanted::Key => keys(&client, run.text("mount").map(bare_path), begun),
        Wanted::Device => names(&data(&client, ApiRequest::get("sys/audit"))?),
    }
}

/// Mounts, `auth/` and its mounts, or what the list of a folder shows.
fn paths(client: &Client, begun: &str) -> Option<Vec<String>> {
    let folder = folder_of(begun);
    match folder {
        "" => {
            let mut all = mounts(client, "secret")?;
            all.push("auth/".to_owned());
            Some(all)
        }
        "auth/" => below(folder, mounts(client, "auth")?),
        _ => below(folder, listed(client, folder)?),
    }
}

/// Keys of a kv engine as its commands name them: version 2 lists them at a place of its own.
fn keys(client: &Client, mount: Option<&str>, begun: &str) -> Option<Vec<String>> {
    let folder = folder_of(begun);
    let whole = mount.map_or_else(|| folder.to_owned(), |mount| format!("{mount}/{folder}"));
    if whole.is_empty() {
        return mounts(client, "secret");
    }
    let found = data(client, ApiRequest::get(format!("sys/internal/ui/mounts/{}", bare_path(&whole))))?;
    let path = found["path"].as_str()?;
    let key = whole.strip_prefix(path)?;
    let list = match found["options"]["version"].as_str() {
        Some("2") => format!("{path}metadata/{key}"),
        _ => whole.clone(),
    };
    below(folder, listed(client, &list)?)
}

/// Up to the last slash.
fn folder_of(begun: &str) -> &str {
    begun.rfind('/').and_then(|at| begun.get(..=at)).unwrap_or_default()
}

fn below(folder: &str, names: Vec<String>) -> Option<Vec<String>> {
    Some(names.into_iter().map(|name| format!("{folder}{name}")).collect())
}

fn mounts(client: &Client, table: &str) -> Option<Vec<String>> {
    names(&data(client, ApiRequest::get("sys/internal/ui/mounts"))?[table])
}

fn listed(client: &Client, folder: &str) -> Option<Vec<String>> {
    let found = data(client, ApiRequest::get(bare_path(folder)).query("list", "true"))?;
    Some(found["keys"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn names(object: &Value) -> Option<Vec<String>> {
    Some(object.as_object()?.keys().cloned().collect())
}

fn data(client: &Client, call: ApiRequest) -> Option<Value> {
    client.send(&call).ok()?.data().ok()
}
