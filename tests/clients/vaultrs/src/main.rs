//! Walks vaultrs over mounts, policies, tokens, credentials, userpass, approle and kv version 1.
//!
//! Needs VAULT_ADDR and VAULT_TOKEN (root), and a database role `readonly` at `database/`. Every step asserts what it got; the
//! last line says that all held.

use std::collections::HashMap;
use std::env;
use std::error::Error;

use vaultrs::api::auth::approle::requests::SetAppRoleRequest;
use vaultrs::api::auth::userpass::requests::CreateUserRequest;
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::auth::{approle, userpass};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::{database, kv1, sys, token};

const POLICY: &str = "path \"rust-kv/*\" { capabilities = [\"read\"] }\npath \"database/creds/readonly\" { capabilities = [\"read\"] }";

fn client(address: &str, token: &str) -> Result<VaultClient, Box<dyn Error>> {
    Ok(VaultClient::new(VaultClientSettingsBuilder::default().address(address).token(token).build()?)?)
}

fn refused<T>(status: u16, answer: Result<T, ClientError>) -> bool {
    matches!(answer, Err(ClientError::APIError { code, .. }) if code == status)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "a TLS provider is there already")?;
    let (address, root_token) = (env::var("VAULT_ADDR")?, env::var("VAULT_TOKEN")?);
    let root = client(&address, &root_token)?;
    let nobody = client(&address, "")?;

    assert!(!sys::health(&root).await?.sealed);
    sys::mount::enable(&root, "rust-kv", "kv", None).await?;
    assert_eq!(sys::mount::list(&root).await?["rust-kv/"].mount_type, "kv");

    kv1::set(&root, "rust-kv", "app/db", &HashMap::from([("user", "u")])).await?;
    let stored: HashMap<String, String> = kv1::get(&root, "rust-kv", "app/db").await?;
    assert_eq!(stored["user"], "u");
    assert_eq!(kv1::list(&root, "rust-kv", "").await?.data.keys, ["app/"]);
    kv1::delete(&root, "rust-kv", "app/db").await?;
    assert!(refused(404, kv1::get_raw(&root, "rust-kv", "app/db").await));
    kv1::set(&root, "rust-kv", "top", &HashMap::from([("a", "b")])).await?;

    sys::policy::set(&root, "rust-walk", POLICY).await?;
    assert!(sys::policy::list(&root).await?.policies.contains(&"rust-walk".to_owned()));
    assert_eq!(sys::policy::read(&root, "rust-walk").await?.rules, POLICY);

    let mut wanted = CreateTokenRequest::builder();
    wanted.policies(vec!["rust-walk".to_owned()]).ttl("1h");
    let made = token::new(&root, Some(&mut wanted)).await?;
    let child = client(&address, &made.client_token)?;
    assert_eq!(token::lookup_self(&child).await?.policies, ["default", "rust-walk"]);
    assert_eq!(token::lookup(&root, &made.client_token).await?.accessor, made.accessor);
    assert_eq!(token::renew_self(&child, Some("30m")).await?.lease_duration, 1800);
    assert!(refused(403, kv1::set(&child, "rust-kv", "top", &HashMap::from([("a", "c")])).await));

    let credentials = database::role::creds(&child, "database", "readonly").await?;
    assert!(credentials.username.starts_with("v-"));

    sys::auth::enable(&root, "rust-users", "userpass", None).await?;
    let mut user = CreateUserRequest::builder();
    user.token_policies(vec!["rust-walk".to_owned()]);
    userpass::user::set(&root, "rust-users", "ada", "first-one", Some(&mut user)).await?;
    assert_eq!(userpass::user::list(&root, "rust-users").await?.keys, ["ada"]);
    let person = userpass::login(&nobody, "rust-users", "ada", "first-one").await?;
    assert!(person.policies.contains(&"rust-walk".to_owned()));
    assert!(refused(400, userpass::login(&nobody, "rust-users", "ada", "wrong").await));
    sys::auth::disable(&root, "rust-users").await?;
    assert!(refused(403, token::lookup_self(&client(&address, &person.client_token)?).await));

    sys::auth::enable(&root, "rust-roles", "approle", None).await?;
    let mut role = SetAppRoleRequest::builder();
    role.token_policies(vec!["rust-walk".to_owned()]).token_ttl("20m");
    approle::role::set(&root, "rust-roles", "web", Some(&mut role)).await?;
    assert_eq!(approle::role::list(&root, "rust-roles").await?.keys, ["web"]);
    let role_id = approle::role::read_id(&root, "rust-roles", "web").await?.role_id;
    let secret = approle::role::secret::generate(&root, "rust-roles", "web", None).await?;
    let app = approle::login(&nobody, "rust-roles", &role_id, &secret.secret_id).await?;
    assert_eq!(app.lease_duration, 1200);
    let read: HashMap<String, String> = kv1::get(&client(&address, &app.client_token)?, "rust-kv", "top").await?;
    assert_eq!(read["a"], "b");
    approle::role::secret::delete(&root, "rust-roles", "web", &secret.secret_id).await?;
    assert!(refused(400, approle::login(&nobody, "rust-roles", &role_id, &secret.secret_id).await));
    sys::auth::disable(&root, "rust-roles").await?;

    token::revoke_accessor(&root, &made.accessor).await?;
    assert!(refused(403, token::lookup_self(&child).await));
    sys::policy::delete(&root, "rust-walk").await?;
    sys::mount::disable(&root, "rust-kv").await?;
    println!("vaultrs: all steps held");
    Ok(())
}
