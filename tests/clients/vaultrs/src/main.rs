//! Walks vaultrs over mounts, policies, tokens, credentials, userpass, approle and both versions of kv.
//!
//! Needs VAULT_ADDR and VAULT_TOKEN (root), and a database role `readonly` at `database/`. Every step asserts what it got; the
//! last line says that all held.

use std::collections::HashMap;
use std::env;
use std::error::Error;

use vaultrs::api::auth::approle::requests::SetAppRoleRequest;
use vaultrs::api::auth::userpass::requests::CreateUserRequest;
use vaultrs::api::kv2::requests::{SetConfigurationRequest, SetSecretMetadataRequest, SetSecretRequestOptions};
use vaultrs::api::sys::requests::EnableEngineRequest;
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::auth::{approle, userpass};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::{database, kv1, kv2, sys, token};

const POLICY: &str =
    "path \"rust-kv/*\" { capabilities = [\"read\"] }\npath \"database/creds/readonly\" { capabilities = [\"read\"] }";

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

    versions(&root).await?;

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

/// kv version 2.
async fn versions(root: &VaultClient) -> Result<(), Box<dyn Error>> {
    let mut wanted = EnableEngineRequest::builder();
    wanted.options(HashMap::from([("version".to_owned(), "2".to_owned())]));
    sys::mount::enable(root, "rust-kv2", "kv", Some(&mut wanted)).await?;
    let (mount, path) = ("rust-kv2", "app/db");
    let value = |user: &'static str| HashMap::from([("user", user)]);

    let first = kv2::set_with_options(root, mount, path, &value("anton"), SetSecretRequestOptions { cas: 0 }).await?;
    assert_eq!((first.version, first.destroyed, first.deletion_time.as_str()), (1, false, ""));
    let late = kv2::set_with_options(root, mount, path, &value("berta"), SetSecretRequestOptions { cas: 0 }).await;
    assert!(refused(400, late));
    assert_eq!(kv2::set(root, mount, path, &value("berta")).await?.version, 2);
    let now: HashMap<String, String> = kv2::read(root, mount, path).await?;
    let before: HashMap<String, String> = kv2::read_version(root, mount, path, 1).await?;
    assert_eq!((now["user"].as_str(), before["user"].as_str()), ("berta", "anton"));
    assert_eq!(kv2::list(root, mount, "").await?, ["app/"]);
    assert_eq!(kv2::list(root, mount, "app").await?, ["db"]);

    kv2::delete_latest(root, mount, path).await?;
    // What is left of it comes with 404 and without errors, for which this library has no name.
    assert!(kv2::read::<HashMap<String, String>>(root, mount, path).await.is_err());
    kv2::undelete_versions(root, mount, path, vec![2]).await?;
    kv2::delete_versions(root, mount, path, vec![1]).await?;
    kv2::destroy_versions(root, mount, path, vec![1]).await?;
    let mut changes = SetSecretMetadataRequest::builder();
    changes
        .max_versions(3_u64)
        .delete_version_after("1h")
        .custom_metadata(HashMap::from([("owner".to_owned(), "web".to_owned())]));
    kv2::set_metadata(root, mount, path, Some(&mut changes)).await?;
    let metadata = kv2::read_metadata(root, mount, path).await?;
    assert_eq!(
        (metadata.current_version, metadata.max_versions, metadata.delete_version_after.as_str()),
        (2, 3, "1h0m0s")
    );
    assert!(metadata.versions["1"].destroyed && metadata.versions["2"].deletion_time.is_empty());
    assert_eq!(metadata.custom_metadata.unwrap_or_default()["owner"], "web");

    let mut settings = SetConfigurationRequest::builder();
    settings.max_versions(20_u64).cas_required(true);
    kv2::config::set(root, mount, Some(&mut settings)).await?;
    let settings = kv2::config::read(root, mount).await?;
    assert_eq!((settings.max_versions, settings.cas_required), (20, true));
    assert!(refused(400, kv2::set(root, mount, path, &value("clara")).await));

    kv2::delete_metadata(root, mount, path).await?;
    assert!(refused(404, kv2::read_metadata(root, mount, path).await));
    sys::mount::disable(root, mount).await?;
    Ok(())
}
