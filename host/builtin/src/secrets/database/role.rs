//! `roles/:name`: a recipe for credentials.

use std::collections::BTreeMap;

use leasehold_core::fields::Fields;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{
    Diagnostic, Dialect, Purpose, SandboxError, Severity, TemplateRenderer, TemplateReport,
};
use leasehold_model::Ttl;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::connection::check_creation_timeout;
use super::postgresql::statements::{self, Placement};
use super::templates::Templates;

/// A stored role. Holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RoleRecord {
    pub(super) db_name: String,
    pub(super) creation: Templates,
    pub(super) revocation: Templates,
    pub(super) renew: Templates,
    pub(super) rollback: Templates,
    pub(super) default_ttl: Ttl,
    pub(super) max_ttl: Ttl,
    pub(super) credential_type: String,
    pub(super) credential_config: BTreeMap<String, String>,
    /// As wished; each list keeps the one that holds for it.
    pub(super) template_dialect: Dialect,
    /// Zero: as the connection says.
    #[serde(default)]
    pub(super) creation_timeout: Ttl,
    /// Zero: as long as any revocation.
    #[serde(default)]
    pub(super) revocation_timeout: Ttl,
    /// Zero: as many as anybody wants. Who keeps to it is not the engine: it is a row of the quotas, written in one commit with this.
    #[serde(default)]
    pub(super) max_leases: u64,
    /// Empty: as the connection says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) username_template: String,
}

impl Default for RoleRecord {
    fn default() -> Self {
        Self {
            db_name: String::new(),
            creation: Templates::default(),
            revocation: Templates::default(),
            renew: Templates::default(),
            rollback: Templates::default(),
            default_ttl: Ttl::ZERO,
            max_ttl: Ttl::ZERO,
            credential_type: "password".to_owned(),
            credential_config: BTreeMap::new(),
            template_dialect: Dialect::Handlebars,
            creation_timeout: Ttl::ZERO,
            revocation_timeout: Ttl::ZERO,
            max_leases: 0,
            username_template: String::new(),
        }
    }
}

/// Fields that Vault knows elsewhere, and without which something else would happen than whoever writes them wants.
const NOT_OF_A_ROLE: &[(&str, &str)] = &[
    ("password_policy", "it stands in credential_config, or with the connection, config/:name"),
    ("username", STATIC),
    ("rotation_period", STATIC),
    ("rotation_schedule", STATIC),
    ("rotation_window", STATIC),
    ("rotation_statements", STATIC),
    ("self_managed_password", STATIC),
    ("skip_import_rotation", STATIC),
];
const STATIC: &str = "it belongs to a static role, static-roles/:name";

/// What there is, for whoever asks for something else.
pub(super) const CREDENTIAL_TYPES: &str =
    "\"password\" is issued here; \"rsa_private_key\" and \"client_certificate\" are known, and not issued yet";

/// In less time a revocation that has something to do would never be through.
const REVOCATION_TIMEOUT_MIN: Ttl = Ttl::from_secs(5);
/// As that of creation: a lease that is being revoked holds sessions of the target.
const REVOCATION_TIMEOUT_MAX: Ttl = Ttl::from_secs(600);

/// More than anybody writes; a role is read at every lease.
const TEXT_MAX: usize = 1 << 20;

impl RoleRecord {
    /// Only what is given changes. Returns warnings of the template component.
    ///
    /// # Errors
    /// Wrong fields, in Vault's words. Statements are never refused.
    pub(super) async fn merge(
        &mut self,
        fields: &Fields,
        renderer: &dyn TemplateRenderer,
    ) -> Result<Vec<String>, RequestError> {
        for (name, why) in NOT_OF_A_ROLE {
            if fields.unknown().contains_key(*name) {
                return Err(RequestError::invalid(format!("{name} is not a field of a role: {why}")));
            }
        }
        if let Some(name) = fields.text("db_name") {
            self.db_name = name.to_owned();
        }
        if self.db_name.is_empty() {
            return Err(RequestError::invalid("database name is required"));
        }
        if let Some(ttl) = fields.ttl("default_ttl") {
            self.default_ttl = ttl;
        }
        if let Some(ttl) = fields.ttl("max_ttl") {
            self.max_ttl = ttl;
        }
        if let Some(timeout) = fields.ttl("creation_timeout") {
            check_creation_timeout(timeout).map_err(RequestError::Invalid)?;
            self.creation_timeout = timeout;
        }
        if let Some(timeout) = fields.ttl("revocation_timeout") {
            check_revocation_timeout(timeout)?;
            self.revocation_timeout = timeout;
        }
        if let Some(most) = fields.int("max_leases") {
            let refused =
                |_| RequestError::invalid("max_leases must not be negative; 0 allows as many as anybody wants");
            self.max_leases = u64::try_from(most).map_err(refused)?;
        }
        if let Some(wished) = fields.text("credential_type") {
            self.credential_type = match wished {
                "" | "password" => "password".to_owned(),
                known @ ("rsa_private_key" | "client_certificate") => known.to_owned(),
                other => {
                    let why = format!("invalid credential_type {other:?}: {CREDENTIAL_TYPES}");
                    return Err(RequestError::invalid(why));
                }
            };
        }
        if let Some(template) = fields.text("username_template") {
            template.clone_into(&mut self.username_template);
        }
        if let Some(config) = fields.pairs("credential_config") {
            self.credential_config = config.clone();
        }
        let dialect_changes = match fields.text("template_dialect") {
            None => false,
            Some(text) => {
                let wished = match text {
                    "" | "handlebars" => Dialect::Handlebars,
                    "plain" => Dialect::Plain,
                    other => {
                        let why = format!("invalid template_dialect {other:?}: it is \"handlebars\" or \"plain\"");
                        return Err(RequestError::invalid(why));
                    }
                };
                std::mem::replace(&mut self.template_dialect, wished) != wished
            }
        };
        let mut warnings = self.cannot_be_issued();
        let wished = self.template_dialect;
        let insists = fields.text("template_dialect") == Some("handlebars");
        for (name, purpose, list) in [
            ("creation_statements", Purpose::Creation, &mut self.creation),
            ("revocation_statements", Purpose::Revocation, &mut self.revocation),
            ("renew_statements", Purpose::Renewal, &mut self.renew),
            ("rollback_statements", Purpose::Rollback, &mut self.rollback),
        ] {
            let given = fields.list(name);
            if given.is_none() && !dialect_changes {
                continue;
            }
            if let Some(texts) = given {
                list.texts = texts.iter().filter(|text| !text.trim().is_empty()).cloned().collect();
            }
            if list.texts.iter().map(String::len).sum::<usize>() > TEXT_MAX {
                return Err(RequestError::invalid(format!("{name} are longer than {TEXT_MAX} bytes")));
            }
            warnings.extend(judge(renderer, name, list, purpose, wished, insists).await?);
            if purpose == Purpose::Creation && !list.texts.is_empty() {
                warnings.extend(odd_statements(renderer, list).await);
            }
        }
        Ok(warnings)
    }

    /// What Vault takes and could issue, and what is refused here when credentials are read.
    fn cannot_be_issued(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.credential_type != "password" {
            warnings.push(format!(
                "credential_type {:?} is not supported yet: reading credentials of this role fails until it is \"password\"",
                self.credential_type
            ));
        }
        let given = self.credential_config.iter().filter(|(_, value)| !value.is_empty());
        for (name, _) in given.filter(|(name, _)| *name != "password_policy") {
            warnings.push(format!(
                "credential_config {name:?} has no effect: it belongs to a credential_type that is not supported yet"
            ));
        }
        warnings
    }

    pub(super) fn answer(&self) -> LogicalResponse {
        let mut answer = LogicalResponse::json(json!({
            "creation_statements": self.creation.texts,
            "credential_type": self.credential_type,
            "db_name": self.db_name,
            "default_ttl": self.default_ttl,
            "max_ttl": self.max_ttl,
            "renew_statements": self.renew.texts,
            "revocation_statements": self.revocation.texts,
            "rollback_statements": self.rollback.texts,
        }));
        if let Some(data) = &mut answer.data {
            if !self.username_template.is_empty() {
                data.insert("username_template".to_owned(), json!(self.username_template));
                data.sort_keys();
            }
            if !self.credential_config.is_empty() {
                data.insert("credential_config".to_owned(), json!(self.credential_config));
                data.sort_keys();
            }
            if self.creation_timeout != Ttl::ZERO {
                data.insert("creation_timeout".to_owned(), json!(self.creation_timeout));
            }
            if self.revocation_timeout != Ttl::ZERO {
                data.insert("revocation_timeout".to_owned(), json!(self.revocation_timeout));
            }
            if self.max_leases > 0 {
                data.insert("max_leases".to_owned(), json!(self.max_leases));
                data.sort_keys();
            }
            data.insert("template_dialect".to_owned(), json!(self.template_dialect));
            let kept: serde_json::Map<String, Value> = [
                ("creation_statements", &self.creation),
                ("renew_statements", &self.renew),
                ("revocation_statements", &self.revocation),
                ("rollback_statements", &self.rollback),
            ]
            .into_iter()
            .filter(|(_, list)| !list.texts.is_empty() && list.dialect != self.template_dialect)
            .map(|(name, list)| (name.to_owned(), json!(list.dialect)))
            .collect();
            // Which lists are read otherwise than wished; a warning said so when they were written.
            if !kept.is_empty() {
                data.insert("template_dialect_kept".to_owned(), Value::Object(kept));
            }
        }
        answer
    }
}

fn check_revocation_timeout(timeout: Ttl) -> Result<(), RequestError> {
    if timeout == Ttl::ZERO || (REVOCATION_TIMEOUT_MIN..=REVOCATION_TIMEOUT_MAX).contains(&timeout) {
        return Ok(());
    }
    Err(RequestError::Invalid(format!(
        "revocation_timeout must be between {} s and {} s, or 0 for the default",
        REVOCATION_TIMEOUT_MIN.as_secs(),
        REVOCATION_TIMEOUT_MAX.as_secs()
    )))
}

/// Has the template component look at statements: it says in which dialect they will be rendered, and what is odd about them. `insists`:
/// whoever writes them named the dialect.
///
/// # Errors
/// The component could not look at them, and another dialect than the named one would change what they mean.
pub(super) async fn judge(
    renderer: &dyn TemplateRenderer,
    name: &str,
    list: &mut Templates,
    purpose: Purpose,
    wished: Dialect,
    insists: bool,
) -> Result<Vec<String>, RequestError> {
    list.dialect = wished;
    if list.texts.is_empty() {
        return Ok(Vec::new());
    }
    let report = match renderer.check_template(&list.unpacked(), purpose, wished).await {
        Ok(report) => report,
        // Another time or place may settle these.
        Err(later @ (SandboxError::Busy | SandboxError::Loading)) => return Err(later.into()),
        Err(SandboxError::Time) => {
            return Err(RequestError::Unavailable(format!("there was no time to check {name}, try again")));
        }
        Err(error) if insists => {
            return Err(RequestError::invalid(format!(
                "checking {name} exceeded its limits ({error}): shorten them, or send template_dialect=plain"
            )));
        }
        Err(error) => unread(name, &error),
    };
    list.dialect = report.dialect;
    Ok(told(name, &report.diagnostics))
}

/// Statements that will not do what they are meant for, and places where neither a password nor its verifier may be put:
/// credentials of this role would be refused.
async fn odd_statements(renderer: &dyn TemplateRenderer, list: &Templates) -> Vec<String> {
    const HERE: &str = "Lpasswordplaceholder";
    const NAME: &str = "Lname";
    let values = [("name", NAME), ("username", NAME), ("password", HERE), ("expiration", "Lexpiration")];
    // What does not render is among the component's own diagnostics.
    let rendered = list.rendered(renderer, &values, "creation").await.unwrap_or_default();
    let mut warnings = Vec::new();
    for (index, statement) in rendered.iter().enumerate() {
        if let Some(odd) = statements::advice(statement, NAME) {
            warnings.push(format!("creation_statements, rendered statement {}: {odd}", index + 1));
        }
        for placed in statements::placements(statement, HERE) {
            use Placement::{DollarQuoted, EscapeLiteral, Literal, PartOfLiteral};
            if !matches!(placed.placement, Literal | EscapeLiteral | DollarQuoted | PartOfLiteral) {
                let body = if placed.bodies > 0 { " of a function body" } else { "" };
                warnings.push(format!(
                    "creation_statements, rendered statement {}, byte {}: the password stands {}{body}, where it is refused when \
                     credentials are read (write '{{{{password}}}}', in single quotes)",
                    index + 1,
                    placed.offset + 1,
                    placed.placement
                ));
            }
        }
    }
    warnings
}

/// A check only advises: statements that it came to no end with are kept, rendered in the dialect that means nothing by them.
fn unread(list: &str, error: &SandboxError) -> TemplateReport {
    tracing::warn!("the statements of a role could not be checked: {error}");
    let diagnostic = Diagnostic {
        severity: Severity::Warning,
        code: "not-looked-at".to_owned(),
        message: format!("kept as plain: checking {list} exceeded its limits ({error})"),
        line: 1,
        column: 1,
        help: Some("set template_dialect=plain when that is what you want".to_owned()),
        at: String::new(),
    };
    TemplateReport { dialect: Dialect::Plain, diagnostics: vec![diagnostic] }
}

/// All diagnostics of one list; of those that say the same of many places, the first one, and how many there are.
fn told(list: &str, diagnostics: &[Diagnostic]) -> Vec<String> {
    const ONCE: [&str; 1] = ["direct-grant"];
    let mut warnings = Vec::new();
    for (index, found) in diagnostics.iter().enumerate() {
        let alike = |other: &&Diagnostic| other.code == found.code;
        if !ONCE.contains(&found.code.as_str()) {
            warnings.push(said(list, found));
        } else if !diagnostics.iter().take(index).any(|other| alike(&other)) {
            let more = diagnostics.iter().filter(alike).count() - 1;
            let more = if more > 0 { format!("; the same holds for {more} more") } else { String::new() };
            warnings.push(said(list, found) + &more);
        }
    }
    warnings
}

fn said(list: &str, found: &Diagnostic) -> String {
    let Diagnostic { at, line, column, message, help, .. } = found;
    let number = at.parse::<usize>().map_or_else(|_| at.clone(), |index| (index + 1).to_string());
    let place = if number.is_empty() { String::new() } else { format!(" {number}") };
    let help = help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
    format!("{list}{place}, line {line}, column {column}: {message}{help}")
}

#[cfg(test)]
mod tests {
    use leasehold_core::seams::sandbox::Severity;

    use super::*;

    #[test]
    fn a_warning_says_where_to_look() {
        let found = Diagnostic {
            severity: Severity::Warning,
            code: "x".to_owned(),
            message: "odd".to_owned(),
            line: 2,
            column: 7,
            help: Some("do it so".to_owned()),
            at: "0".to_owned(),
        };
        assert_eq!(said("creation_statements", &found), "creation_statements 1, line 2, column 7: odd (do it so)");
    }

    #[test]
    fn what_holds_for_every_grant_is_said_once() {
        let found = |code: &str, line| Diagnostic {
            severity: Severity::Warning,
            code: code.to_owned(),
            message: code.to_owned(),
            line,
            column: 1,
            help: None,
            at: "0".to_owned(),
        };
        let all = [
            found("direct-grant", 1),
            found("other", 2),
            found("direct-grant", 3),
            found("other", 4),
            found("direct-grant", 5),
        ];
        assert_eq!(
            told("creation_statements", &all),
            [
                "creation_statements 1, line 1, column 1: direct-grant; the same holds for 2 more",
                "creation_statements 1, line 2, column 1: other",
                "creation_statements 1, line 4, column 1: other",
            ]
        );
    }

    #[test]
    fn a_role_reads_back_in_vaults_shape_with_ours_after_it() {
        let role = RoleRecord { db_name: "pg".to_owned(), default_ttl: Ttl::from_secs(3600), ..RoleRecord::default() };
        let keys: Vec<String> = role.answer().data.unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            [
                "creation_statements",
                "credential_type",
                "db_name",
                "default_ttl",
                "max_ttl",
                "renew_statements",
                "revocation_statements",
                "rollback_statements",
                "template_dialect"
            ]
        );
    }
}
