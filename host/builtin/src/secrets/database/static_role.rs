//! `static-roles/:name`: a PostgreSQL role that stands already, and whose password is changed here again and again.
//!
//! Must not know: how a password is changed.
//!
//! Start with [`StaticRole::merge`] (what a write says) and [`StaticRole::credentials`] (what a reader gets).
//!
//! Invariants: one static role at a time has the password of one user of one target. The password leaves through `static-creds` alone, and
//! is used for logins only where the connection led when it was set or written.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use leasehold_core::fields::Fields;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{Dialect, Purpose, TemplateRenderer};
use leasehold_model::{Timestamp, Ttl};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connection::ConnectionRecord;
use super::credential::NAME_MAX;
use super::role::{self, CREDENTIAL_TYPES};
use super::rotation::schedule::Schedule;
use super::rotation::{Rotation, StoredPassword};
use super::templates::Templates;

/// More than anybody writes.
const TEXT_MAX: usize = 1 << 20;
/// What PostgreSQL takes at a login.
const PASSWORD_MAX: usize = 1_000;

/// A stored static role. Holds its password.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StaticRole {
    pub(super) db_name: String,
    pub(super) username: String,
    pub(super) credential_type: String,
    pub(super) credential_config: BTreeMap<String, String>,
    pub(super) statements: Templates,
    /// The role logs in itself and changes its own password.
    pub(super) is_self_managed: bool,
    pub(super) skip_import_rotation: bool,
    /// The current one; none before the first rotation.
    pub(super) password: Option<StoredPassword>,
    pub(super) rotation: Rotation,
    /// Of the key that keeps others from having the same user.
    pub(super) user_key: String,
    /// Where the connection led when the password was set or written: [`ConnectionRecord::place`].
    #[serde(default)]
    place: Option<String>,
}

pub(super) fn key(name: &str) -> String {
    format!("static-role/{name}")
}

/// The key that one user of one target has at most once. `server`: what tells it from others; where it does not say, its connection does.
pub(super) fn user_key(server: Option<&str>, connection: &str, username: &str) -> String {
    let target = server.map_or_else(|| format!("connection {connection}"), str::to_owned);
    let hash = digest::digest(&digest::SHA256, format!("{target}\0{username}").as_bytes());
    format!("static-user/{}", hex::encode(hash))
}

impl StaticRole {
    /// Only what is given changes. Returns warnings of the template component.
    ///
    /// # Errors
    /// In Vault's words.
    pub(super) async fn merge(
        &mut self,
        fields: &Fields,
        renderer: &dyn TemplateRenderer,
        is_new: bool,
    ) -> Result<Vec<String>, RequestError> {
        let invalid = |why: &str| RequestError::invalid(why);
        let given = |name: &str| fields.text(name).filter(|text| !text.is_empty());
        match given("db_name") {
            Some(name) if is_new => name.clone_into(&mut self.db_name),
            Some(name) if name != self.db_name => {
                return Err(invalid(
                    "cannot update static account database: delete the static role, then create it on the other connection",
                ));
            }
            _ if self.db_name.is_empty() => return Err(invalid("database name is a required field")),
            _ => {}
        }
        match given("username") {
            Some(name) if is_new && (name.len() > NAME_MAX || name.contains('\0')) => {
                return Err(invalid("username is no name that a PostgreSQL role can have"));
            }
            Some(name) if is_new => name.clone_into(&mut self.username),
            Some(name) if name != self.username => return Err(invalid("cannot update static account username")),
            _ if self.username.is_empty() => {
                return Err(invalid("username is a required field to create a static account"));
            }
            _ => {}
        }
        self.rotation.schedule.merge(fields).map_err(RequestError::Invalid)?;
        if self.rotation.schedule == Schedule::Never {
            return Err(invalid("rotation_period is required to create static accounts"));
        }
        self.merge_credential(fields, is_new)?;
        let dialect = match fields.text("template_dialect") {
            None => None,
            Some("" | "handlebars") => Some(Dialect::Handlebars),
            Some("plain") => Some(Dialect::Plain),
            Some(other) => {
                let why = format!("invalid template_dialect {other:?}: it is \"handlebars\" or \"plain\"");
                return Err(RequestError::Invalid(why));
            }
        };
        let mut warnings = Vec::new();
        if fields.list("rotation_statements").is_some() || dialect.is_some() {
            let texts =
                fields.list("rotation_statements").map_or_else(|| self.statements.texts.clone(), <[String]>::to_vec);
            if texts.iter().map(String::len).sum::<usize>() > TEXT_MAX {
                return Err(RequestError::Invalid(format!("rotation_statements are longer than {TEXT_MAX} bytes")));
            }
            let texts = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
            let wished = dialect.unwrap_or(Dialect::Handlebars);
            self.statements = Templates { texts, dialect: wished };
            let (list, insists) = (&mut self.statements, fields.text("template_dialect") == Some("handlebars"));
            warnings = role::judge(renderer, "rotation_statements", list, Purpose::Rotation, wished, insists).await?;
        }
        Ok(warnings)
    }

    fn merge_credential(&mut self, fields: &Fields, is_new: bool) -> Result<(), RequestError> {
        let kind = match fields.text("credential_type") {
            Some("" | "password") => "password",
            None if is_new => "password",
            None => "",
            Some("rsa_private_key" | "client_certificate") => {
                let why =
                    format!("unsupported credential_type: {:?}", fields.text("credential_type").unwrap_or_default());
                return Err(RequestError::Engine(why));
            }
            Some(other) => {
                return Err(RequestError::Invalid(format!("invalid credential_type {other:?}: {CREDENTIAL_TYPES}")));
            }
        };
        if !kind.is_empty() {
            kind.clone_into(&mut self.credential_type);
        }
        if let Some(config) = fields.pairs("credential_config") {
            self.credential_config = config.clone();
        }
        if let Some(skip) = fields.bool("skip_import_rotation") {
            if !is_new && skip != self.skip_import_rotation {
                return Err(RequestError::invalid(
                    "skip_import_rotation can only be set when the static role is created",
                ));
            }
            self.skip_import_rotation = skip;
        }
        let given = |name: &str| fields.text(name).filter(|text| !text.is_empty());
        let (known, managed) = (given("password"), given("self_managed_password"));
        if known.or(managed).is_some_and(|text| text.len() > PASSWORD_MAX || text.contains('\0')) {
            return Err(RequestError::invalid(
                "the password is longer than PostgreSQL takes, or holds a NUL character",
            ));
        }
        if known.is_some() && managed.is_some() && known != managed {
            return Err(RequestError::invalid(
                "password and self_managed_password say different things: send one of them",
            ));
        }
        if managed.is_some() {
            self.is_self_managed = true;
        }
        if let Some(password) = managed.or(known) {
            self.password = Some(StoredPassword(SecretString::from(password)));
        }
        Ok(())
    }

    /// Whether both have the same password, or neither has one.
    pub(super) fn has_password_of(&self, other: &Self) -> bool {
        let text = |role: &Self| role.password.as_ref().map(|password| password.0.expose_secret().to_owned());
        text(self) == text(other)
    }

    /// Whether the connection leads where it led when the password was set or written.
    pub(super) fn is_bound_to(&self, connection: &ConnectionRecord) -> bool {
        self.place.is_none() || self.place == connection.place()
    }

    /// The user is the one where the connection leads now.
    pub(super) fn bind(&mut self, connection: &ConnectionRecord) {
        self.place = connection.place();
        self.user_key = user_key(connection.server_here(), &self.db_name, &self.username);
    }

    /// Where the password is about to be set.
    pub(super) fn note_place(&mut self, connection: &ConnectionRecord) {
        self.place = connection.place();
    }

    pub(super) fn answer(&self) -> LogicalResponse {
        let mut data = json!({
            "credential_type": self.credential_type,
            "db_name": self.db_name,
            "rotation_statements": self.statements.texts,
            "username": self.username,
        });
        if !self.credential_config.is_empty() {
            data["credential_config"] = json!(self.credential_config);
        }
        if self.skip_import_rotation {
            data["skip_import_rotation"] = json!(true);
        }
        if self.is_self_managed {
            data["self_managed"] = json!(true);
        }
        self.tell_rotation(&mut data);
        LogicalResponse::json(sorted(data))
    }

    /// What a reader gets; `None` while no password is known.
    pub(super) fn credentials(&self, now: Timestamp) -> Option<LogicalResponse> {
        let password = self.password.as_ref()?;
        let mut data = json!({
            "username": self.username,
            "password": password.0.expose_secret(),
            "ttl": self.ttl(now),
        });
        self.tell_rotation(&mut data);
        Some(LogicalResponse::json(sorted(data)))
    }

    /// How long the password is good for at least. Never nothing: a client that comes back after that time must not come back at once
    /// for ever, while a rotation fails (vault#7222).
    fn ttl(&self, now: Timestamp) -> u64 {
        let due = self.rotation.due_at.unwrap_or(now);
        u64::try_from(due.seconds_from(now)).unwrap_or(0).max(1)
    }

    fn tell_rotation(&self, data: &mut Value) {
        match &self.rotation.schedule {
            Schedule::Never => {}
            Schedule::Every(period) => data["rotation_period"] = json!(period),
            Schedule::Cron { text, window } => {
                data["rotation_schedule"] = json!(text);
                data["rotation_window"] = json!(window.if_set().unwrap_or(Ttl::ZERO));
            }
        }
        // A role whose password was never changed here has Go's empty moment in Vault.
        let never = || "0001-01-01T00:00:00Z".to_owned();
        data["last_vault_rotation"] = json!(self.rotation.last_rotated_at.map_or_else(never, Timestamp::rfc3339));
    }
}

fn sorted(mut data: Value) -> Value {
    if let Value::Object(data) = &mut data {
        data.sort_keys();
    }
    data
}
