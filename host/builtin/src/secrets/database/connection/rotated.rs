//! The password of a connection's own user, as far as this server changes it: what a write says of that, and which password is kept.
//!
//! Must not know: how a password is changed.
//!
//! Start with [`ConnectionRecord::check_rotatable`].
//!
//! Invariant: a password that only this server knew is not forgotten because somebody wrote another one.

use leasehold_core::fields::Fields;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{Dialect, Purpose, TemplateRenderer};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::super::role;
use super::super::rotation::schedule::Schedule;
use super::super::templates::Templates;
use super::{ConnectionRecord, Dsn, dsn};

const UNABLE: &str = "unable to rotate root credentials";
const REPLACED: &str = "the password of this connection had been changed by rotate-root, and this write replaces it: where the database \
     does not take the new one, the former one is still tried";
const LEFT_BEHIND: &str = "the password of this connection had been changed by rotate-root, and nobody else knows it: it is forgotten, as \
     this write leads the connection elsewhere";

impl ConnectionRecord {
    /// Whether the password is one that can be changed here: it is a field of its own, and the URL has it filled in.
    ///
    /// # Errors
    /// What is missing, in Vault's words.
    pub(in super::super) fn check_rotatable(&self) -> Result<Dsn, String> {
        let url = self.connection_url.expose_secret();
        if self.username().is_empty() {
            return Err(format!("{UNABLE}: no username in configuration"));
        }
        if self.password.expose_secret().is_empty() {
            return Err(format!("{UNABLE}: no password in configuration"));
        }
        for tag in [dsn::USERNAME_TAG, dsn::PASSWORD_TAG] {
            if !url.contains(tag) {
                return Err(format!(
                    "{UNABLE}: connection_url does not use {tag}: write it there instead of the value"
                ));
            }
        }
        self.dsn().map_err(|error| error.to_string())
    }

    pub(in super::super) fn password(&self) -> &SecretString {
        &self.password
    }

    /// Passwords besides [`ConnectionRecord::password`] that the database may have for the same user.
    pub(in super::super) fn other_passwords(&self) -> Vec<SecretString> {
        let is_used = self.connection_url.expose_secret().contains(dsn::PASSWORD_TAG);
        if is_used { self.rotation.other_passwords() } else { Vec::new() }
    }

    /// The same, of which only the current password counts: for finding out whether that one works.
    pub(in super::super) fn with_current_password_alone(&self) -> Self {
        let mut alone = self.clone();
        alone.rotation.forget_passwords();
        alone
    }

    /// The current password from now on; returns the one before.
    pub(in super::super) fn take_rotated(&mut self, password: SecretString) -> SecretString {
        self.is_password_unproved = false;
        std::mem::replace(&mut self.password, password)
    }

    /// Whether the connection would log in with this password, and where it does now.
    pub(in super::super) fn check_password(&self, password: &SecretString) -> Result<(), String> {
        let mut changed = self.clone();
        changed.password = password.clone();
        let is_sent = changed.sent_password().is_some_and(|sent| sent.expose_secret() == password.expose_secret());
        if is_sent && changed.leads_as(self) {
            return Ok(());
        }
        Err("rotate-root: a password by this connection's password_policy does not stand in its connection_url as it is: leave \
             out disable_escaping, or the characters that mean something there"
            .to_owned())
    }

    pub(in super::super) fn has_rotation_statements(&self) -> bool {
        self.root_rotation_statements.iter().any(|text| !text.trim().is_empty())
    }

    /// The statements that change the password, with the dialect in which they are rendered.
    ///
    /// # Errors
    /// As the template component, which judges statements that an older version has stored.
    pub(in super::super) async fn rotation_templates(
        &self,
        renderer: &dyn TemplateRenderer,
    ) -> Result<Templates, RequestError> {
        match self.root_rotation_dialect {
            Some(dialect) => Ok(Templates { texts: self.rotation_texts(), dialect }),
            None => Ok(self.judge_rotation(renderer).await?.0),
        }
    }

    /// Has the template component judge `root_rotation_statements`, and keeps the dialect in which they are rendered from now on. Returns
    /// what else it says.
    ///
    /// # Errors
    /// As the template component.
    pub(in super::super) async fn advise_rotation(
        &mut self,
        renderer: &dyn TemplateRenderer,
    ) -> Result<Vec<String>, RequestError> {
        let (judged, told) = self.judge_rotation(renderer).await?;
        self.root_rotation_dialect = Some(judged.dialect);
        Ok(told)
    }

    async fn judge_rotation(&self, renderer: &dyn TemplateRenderer) -> Result<(Templates, Vec<String>), RequestError> {
        let mut list = Templates { texts: self.rotation_texts(), dialect: Dialect::Handlebars };
        let name = "root_rotation_statements";
        let told = role::judge(renderer, name, &mut list, Purpose::Rotation, Dialect::Handlebars, false).await?;
        Ok((list, told))
    }

    fn rotation_texts(&self) -> Vec<String> {
        self.root_rotation_statements.iter().filter(|text| !text.trim().is_empty()).cloned().collect()
    }

    /// Only what is given changes.
    pub(super) fn merge_rotation(&mut self, fields: &Fields) -> Result<(), String> {
        self.rotation.schedule.merge(fields)?;
        if let Some(paused) = fields.bool("disable_automated_rotation") {
            self.rotation.is_paused = paused;
        }
        if self.rotation.schedule != Schedule::Never {
            self.check_rotatable()?;
        }
        Ok(())
    }

    /// A write that replaces a password which only this server knew leaves that one beside the new one.
    pub(super) fn keep_rotated(&mut self, before: &Self) -> Option<String> {
        if !before.rotation.was_rotated() || self.password.expose_secret() == before.password.expose_secret() {
            return None;
        }
        if !before.leads_as(self) {
            return Some(LEFT_BEHIND.to_owned());
        }
        self.rotation.replaced(before.password.clone());
        Some(REPLACED.to_owned())
    }

    /// What a login sends.
    pub(in super::super) fn sent_password(&self) -> Option<SecretString> {
        self.dsn().ok()?.password
    }

    /// Whether it would change anything that the database took the password.
    pub(in super::super) fn is_in_doubt(&self) -> bool {
        self.is_password_unproved || !self.rotation.is_certain()
    }

    pub(super) fn tell_rotation(&self, data: &mut Value) {
        match &self.rotation.schedule {
            Schedule::Never => {}
            Schedule::Every(period) => data["rotation_period"] = json!(period),
            Schedule::Cron { text, window } => {
                data["rotation_schedule"] = json!(text);
                data["rotation_window"] = json!(window);
            }
        }
        if self.rotation.is_paused {
            data["disable_automated_rotation"] = json!(true);
        }
        if let Some(at) = self.rotation.last_rotated_at {
            data["last_vault_rotation"] = json!(at.rfc3339());
        }
    }
}
