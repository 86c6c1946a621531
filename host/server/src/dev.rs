//! The development server: in memory, unsealed, everything printed. Nothing it holds outlives it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::Core;
use leasehold_core::request::{LogicalRequest, Object};
use leasehold_core::token::create::First;
use leasehold_devpg::DevPg;
use leasehold_model::{Operation, TokenId};
use serde_json::{Value, json};

use crate::causes::with_causes;
use crate::config::{Address, Config, Listener, files};
use crate::wiring;

pub(crate) struct Options {
    pub(crate) root_token: Option<String>,
    pub(crate) address: String,
    /// Into `~/.vault-token`, where clients look for it.
    pub(crate) store_token: bool,
    pub(crate) postgresql: bool,
    /// What they say is added: the entry points of Vault's and OpenBao's images always name a folder of them.
    pub(crate) files: Vec<PathBuf>,
}

/// The listener of `-dev` comes first, before those of the files.
///
/// # Errors
/// As [`files::configuration`].
pub(crate) fn config(options: &Options) -> Result<Config, String> {
    let mut config =
        if options.files.is_empty() { Config::with_defaults() } else { files::of_development(&options.files)? };
    config.listeners.insert(0, Listener::plain(Address::Tcp(options.address.clone())));
    config.audit_directory = config.audit_directory.or_else(|| std::env::temp_dir().canonicalize().ok());
    Ok(config)
}

/// Initialises, unseals, prints; with `-dev-postgres` makes a database to lease credentials of. `address` is that of `-dev`.
pub(crate) async fn prepare(core: &Arc<Core>, options: &Options, address: &str) -> Result<Option<DevPg>, String> {
    let failed = |error: leasehold_core::seams::error::RequestError| {
        format!("could not prepare the development server: {}", with_causes(&error))
    };
    let made =
        core.init(1, 1, First::Development(options.root_token.as_deref().map(TokenId::new))).await.map_err(failed)?;
    let [share] = made.shares.as_slice() else { return Err("one key share was asked for".to_owned()) };
    core.unseal(&share.0).await.map_err(failed)?;
    let root = made.root_token;
    let secret = json!({ "type": "kv", "options": { "version": "2" }, "description": "key/value secret storage" });
    ask(core, &root, "sys/mounts/secret", secret).await?;
    let postgresql = if options.postgresql { Some(with_postgresql(core, &root).await?) } else { None };
    let is_stored = options.store_token && store_token(&root)?;
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &*share.0);
    println!(
        "WARNING! dev mode is enabled! In this mode, Leasehold runs entirely in-memory\nand starts unsealed with a single unseal key. {}\n",
        if is_stored { TOKEN_STORED } else { TOKEN_NOT_STORED }
    );
    println!(
        "You may need to set the following environment variables:\n\n    $ export LEASEHOLD_ADDR='http://{0}' VAULT_ADDR='http://{0}'\n",
        address
    );
    println!(
        "The unseal key and root token are displayed below in case you want to\nseal/unseal the server or re-authenticate.\n\nUnseal Key: {key}\nRoot Token: {}\n",
        root.expose()
    );
    if let Some(postgresql) = &postgresql {
        println!(
            "A private PostgreSQL goes with this server. Its superuser logs in, and a credential is leased, by:\n\n    \
             $ psql '{}'\n    $ leasehold read database/creds/readonly\n",
            postgresql.superuser_url()
        );
    }
    println!("Development mode should NOT be used in production installations!\n");
    // Whoever reads this from a pipe waits for it.
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    Ok(postgresql)
}

const TOKEN_STORED: &str =
    "The root token is already\nauthenticated to the CLI, so you can immediately begin using Leasehold.";
const TOKEN_NOT_STORED: &str = "The root token is not\nstored for the CLI: log in with it, or set LEASEHOLD_TOKEN.";

/// As Vault's development server does. Whether it was stored: not without a home.
fn store_token(root: &TokenId) -> Result<bool, String> {
    let Some(home) = std::env::var_os("HOME") else { return Ok(false) };
    let path = PathBuf::from(home).join(".vault-token");
    // By rename: a file that is there may be readable by others, or lead elsewhere.
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(root.expose().as_bytes()))
        .and_then(|()| std::fs::rename(&beside, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map(|()| true).map_err(|error| {
        format!("could not store the token in {}: {error}; to do without, say -dev-no-store-token", path.display())
    })
}

async fn with_postgresql(core: &Arc<Core>, root: &TokenId) -> Result<DevPg, String> {
    let started = tokio::task::spawn_blocking(|| DevPg::start(leasehold_devpg::Options::default())).await;
    let postgresql = started.map_err(|error| error.to_string())?.map_err(|error| with_causes(&error))?;
    ask(core, root, "sys/mounts/database", json!({ "type": "database" })).await?;
    ask(
        core,
        root,
        "database/config/postgresql",
        json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": postgresql.templated_url(),
            "username": postgresql.admin_user(),
            "password": postgresql.admin_password(),
        }),
    )
    .await?;
    ask(
        core,
        root,
        "database/roles/readonly",
        json!({
            "db_name": "postgresql",
            "creation_statements": "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;",
            "default_ttl": "1h",
            "max_ttl": "24h",
        }),
    )
    .await?;
    Ok(postgresql)
}

/// Through the same pipeline as every client.
async fn ask(core: &Arc<Core>, root: &TokenId, path: &str, body: Value) -> Result<(), String> {
    let data = match body {
        Value::Object(data) => data,
        _ => Object::new(),
    };
    let request = LogicalRequest {
        id: leasehold_core::random::uuid(&*wiring::entropy()),
        operation: Operation::Update,
        path: path.to_owned(),
        data,
        token: Some(root.clone()),
        client: None,
        wrap_ttl: None,
        headers: BTreeMap::new(),
        raw_body: None,
        upload: None,
        body_withheld: false,
        is_let_in: false,
    };
    core.handle(request).await.map(|_| ()).map_err(|error| format!("{path}: {}", with_causes(&error)))
}
