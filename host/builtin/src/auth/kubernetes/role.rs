//! Which service accounts a role is for.

use leasehold_core::fields::Fields;
use leasehold_core::request::Object;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::glob;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::review::Account;
use crate::auth::old_names::{OldNames, Renamed};
use crate::auth::records::Record;

/// What Vault called these fields before all methods shared them.
const RENAMED: &[Renamed] = &[
    ("policies", "token_policies"),
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("period", "token_period"),
    ("bound_cidrs", "token_bound_cidrs"),
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum AliasSource {
    #[default]
    #[serde(rename = "serviceaccount_uid")]
    Uid,
    #[serde(rename = "serviceaccount_name")]
    Name,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    names: Vec<String>,
    namespaces: Vec<String>,
    pub audience: String,
    alias_source: AliasSource,
    pub token: TokenParams,
    old_names: OldNames,
}

fn is_covered(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| glob::covers(pattern, text))
}

impl Record for Role {
    const FOLDER: &'static str = "role/";

    fn update(&mut self, fields: &Fields, _: bool) -> Result<(), RequestError> {
        let invalid = |text: &str| Err(RequestError::invalid(text));
        self.token.update(fields)?;
        self.old_names.update(&mut self.token, fields, RENAMED)?;
        for (name, list) in [
            ("bound_service_account_names", &mut self.names),
            ("bound_service_account_namespaces", &mut self.namespaces),
        ] {
            if let Some(given) = fields.list(name) {
                *list = given.to_vec();
            }
        }
        if let Some(audience) = fields.text("audience") {
            audience.clone_into(&mut self.audience);
        }
        match fields.text("alias_name_source") {
            None => {}
            Some("" | "serviceaccount_uid") => self.alias_source = AliasSource::Uid,
            Some("serviceaccount_name") => self.alias_source = AliasSource::Name,
            Some(_) => {
                return invalid("invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name");
            }
        }
        if fields.text("bound_service_account_namespace_selector").is_some_and(|selector| !selector.is_empty()) {
            return invalid("'bound_service_account_namespace_selector' is not offered: name the namespaces");
        }
        if self.names.is_empty() {
            return invalid("\"bound_service_account_names\" can not be empty");
        }
        if self.namespaces.is_empty() {
            return invalid(
                "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
            );
        }
        if [&self.names, &self.namespaces].iter().any(|list| list.len() > 1 && list.iter().any(|one| one == "*")) {
            return invalid("can not mix \"*\" with values");
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let unbound = "the role binds no audience: it takes the tokens that pods have for the Kubernetes API server itself, with which their holders can do more than log in here; set 'audience'";
        if self.audience.is_empty() { vec![unbound.to_owned()] } else { Vec::new() }
    }

    fn shown(&self) -> Object {
        let source = match self.alias_source {
            AliasSource::Uid => "serviceaccount_uid",
            AliasSource::Name => "serviceaccount_name",
        };
        let mut data = Object::from_iter([
            ("alias_name_source".to_owned(), source.into()),
            ("bound_service_account_names".to_owned(), json!(self.names)),
            ("bound_service_account_namespace_selector".to_owned(), "".into()),
            ("bound_service_account_namespaces".to_owned(), json!(self.namespaces)),
        ]);
        if !self.audience.is_empty() {
            data.insert("audience".to_owned(), self.audience.clone().into());
        }
        self.token.show(&mut data);
        self.old_names.show(&mut data, RENAMED);
        data
    }

    fn token(&self) -> &TokenParams {
        &self.token
    }
}

impl Role {
    /// By what name the account is known: one that comes back under the same name has another UID.
    pub(super) fn alias_of(&self, account: &Account) -> String {
        match self.alias_source {
            AliasSource::Uid => account.uid.clone(),
            AliasSource::Name => format!("{}/{}", account.namespace, account.name),
        }
    }

    /// Whether the role is for this account, else why not.
    pub(super) fn admit(&self, account: &Account) -> Result<(), &'static str> {
        if !is_covered(&self.namespaces, &account.namespace) {
            return Err("namespace not authorized");
        }
        if !is_covered(&self.names, &account.name) {
            return Err("service account name not authorized");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_for_the_accounts_that_its_patterns_cover_in_both() {
        let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        let role =
            |names: &[&str], spaces: &[&str]| Role { names: list(names), namespaces: list(spaces), ..Role::default() };
        let account = Account { namespace: "shop".to_owned(), name: "app-1".to_owned(), ..Account::default() };
        for (names, spaces, wanted) in [
            (&["app-1"][..], &["shop"][..], Ok(())),
            (&["app-*"], &["x", "sh*"], Ok(())),
            (&["*"], &["shop"], Ok(())),
            (&["*"], &["*"], Ok(())),
            (&["app"], &["shop"], Err("service account name not authorized")),
            (&["app-2", "APP-1"], &["shop"], Err("service account name not authorized")),
            (&["*"], &["sho"], Err("namespace not authorized")),
            (&["*"], &["app-1"], Err("namespace not authorized")),
            (&[], &[], Err("namespace not authorized")),
        ] {
            assert_eq!(role(names, spaces).admit(&account), wanted, "{names:?} {spaces:?}");
        }
        // An account whose name looks like a pattern is only that.
        let odd = Account { name: "*".to_owned(), ..account };
        assert!(role(&["app-*"], &["shop"]).admit(&odd).is_err());
    }
}
