//! `creds/:name`: decides what is to be done, and does nothing yet.

use leasehold_core::seams::engine::{EngineRequest, LeasePlan};
use leasehold_core::seams::error::RequestError;
use leasehold_model::Ttl;

use super::connection::ConnectionRecord;
use super::credential;
use super::effect::Effect;
use super::role::RoleRecord;

/// In Vault's order: role → connection → allowed → credential type → name → password policy → statements.
pub(super) async fn plan(
    request: &EngineRequest,
    role_name: &str,
    role: &RoleRecord,
    connection: &ConnectionRecord,
) -> Result<LeasePlan, RequestError> {
    if !connection.allows(role_name) {
        return Err(RequestError::Engine(format!("{role_name:?} is not an allowed role")));
    }
    if role.credential_type != "password" {
        let why = format!("unsupported credential_type: {:?}", role.credential_type);
        return Err(RequestError::invalid(why));
    }
    let policy = credential::policy(&role.credential_config, connection);
    let at = &request.context;
    credential::check_policy(at, policy).await?;
    let entropy = &*at.entropy;
    let template = match role.username_template.trim() {
        "" => connection.username_template(),
        own => own,
    };
    let username = credential::named(at, template, &request.display_name, role_name).await?;
    let (password_at, expiration_at) = (credential::placeholder(entropy), credential::placeholder(entropy));
    let values = [
        ("name", username.as_str()),
        ("username", username.as_str()),
        ("password", password_at.as_str()),
        ("expiration", expiration_at.as_str()),
    ];
    let creation = role.creation.rendered(&*at.templates, &values, "creation").await?;
    if creation.is_empty() {
        return Err(RequestError::Engine("empty creation statements".to_owned()));
    }
    let revocation = role.revocation.rendered(&*at.templates, values.get(..2).unwrap_or(&[]), "revocation").await?;
    let effect = Effect {
        connection: role.db_name.clone(),
        role: role_name.to_owned(),
        server: connection.server.clone(),
        username,
        creation,
        password_at,
        expiration_at,
        password_policy: policy.clone(),
        revocation_timeout: role.revocation_timeout,
        revocation,
    };
    Ok(LeasePlan {
        // The role's limit holds for what somebody asks for, too.
        default_ttl: request.fields.ttl("ttl").and_then(Ttl::if_set).unwrap_or(role.default_ttl),
        max_ttl: role.max_ttl,
        renewable: true,
        connection: super::target_name(at, &role.db_name),
        effect_time: Some(connection.creation_timeout(role.creation_timeout).map_err(RequestError::Engine)?),
        effect: serde_json::to_value(effect).map_err(|error| RequestError::Internal(error.to_string()))?,
        made_of: Vec::new(),
        warnings: Vec::new(),
    })
}
