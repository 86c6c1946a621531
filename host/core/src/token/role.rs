//! Token roles: what tokens are like that are made at `auth/token/create/ROLE`, and which policies they may have.
//!
//! A role's lists take the place of the rule that a child's policies are a subset of its parent's.

use leasehold_model::{Ttl, glob};
use serde::{Deserialize, Serialize};

use crate::codec::encode;
use crate::commit;
use crate::keys;
use crate::mount::MountTokenType;
use crate::seams::error::RequestError;
use crate::seams::storage::{Batch, Expect, StorageError};
use crate::seams::token_params::{TokenParams, sanitized};
use crate::token::Tokens;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenRole {
    pub allowed_policies: Vec<String>,
    pub allowed_policies_glob: Vec<String>,
    pub disallowed_policies: Vec<String>,
    pub disallowed_policies_glob: Vec<String>,
    pub orphan: bool,
    pub renewable: bool,
    /// Behind the path of its tokens; empty: none.
    pub path_suffix: String,
    pub allowed_entity_aliases: Option<Vec<String>>,
    /// Of these: addresses, the longest life, the period, uses, and whether the policy `default` is left out.
    pub token: TokenParams,
    /// As the fields without `token_` show them; zero where those with it were written.
    pub old_explicit_max_ttl: Ttl,
    pub old_period: Ttl,
    pub kind: MountTokenType,
}

impl Default for TokenRole {
    fn default() -> Self {
        Self {
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            orphan: false,
            renewable: true,
            path_suffix: String::new(),
            allowed_entity_aliases: None,
            token: TokenParams::default(),
            old_explicit_max_ttl: Ttl::ZERO,
            old_period: Ttl::ZERO,
            kind: MountTokenType::default(),
        }
    }
}

/// A role as it was read.
#[derive(Debug)]
pub struct UsedRole {
    pub name: String,
    pub role: TokenRole,
    /// What a commit must expect for it to be still so.
    pub unchanged: Expect,
}

/// What [`TokenRole::policies`] is asked about.
pub(crate) struct PoliciesAsked<'a> {
    /// Empty: none were named.
    pub named: &'a [String],
    pub parent: &'a [String],
    pub no_default_policy: bool,
}

impl TokenRole {
    /// # Errors
    /// Vault's texts for what does not go together.
    pub fn check(&self) -> Result<(), RequestError> {
        if !self.path_suffix.is_empty() && !is_suffix(&self.path_suffix) {
            return Err(RequestError::invalid(
                "given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w",
            ));
        }
        if self.kind != MountTokenType::Batch {
            return Ok(());
        }
        for (is_so, what) in [
            (!self.orphan, "non-orphan tokens"),
            (!self.token.period.is_zero(), "periodic tokens"),
            (self.renewable, "renewable tokens"),
            (!self.token.explicit_max_ttl.is_zero(), "tokens with an explicit max TTL"),
        ] {
            if is_so {
                return Err(RequestError::Invalid(format!(
                    "'token_type' cannot be 'batch' when role is set to generate {what}"
                )));
            }
        }
        Ok(())
    }

    /// The policies of a new token, sorted; none: the role has no lists, and the rules of tokens without one hold.
    ///
    /// # Errors
    /// Vault's texts for what the lists do not allow.
    pub(crate) fn policies(&self, asked: &PoliciesAsked<'_>) -> Result<Option<Vec<String>>, RequestError> {
        let has_allowed = !self.allowed_policies.is_empty() || !self.allowed_policies_glob.is_empty();
        let has_disallowed = !self.disallowed_policies.is_empty() || !self.disallowed_policies_glob.is_empty();
        if !has_allowed && !has_disallowed {
            return Ok(None);
        }
        let disallows = |name: &str| {
            self.disallowed_policies.iter().any(|other| other == name) || covers(&self.disallowed_policies_glob, name)
        };
        let adds_default = !asked.no_default_policy && !self.token.no_default_policy && !disallows("default");
        let allowed = with_default(&self.allowed_policies, adds_default);
        let policies = match (asked.named.is_empty(), has_allowed) {
            (false, _) => with_default(asked.named, adds_default),
            (true, true) => allowed.clone(),
            (true, false) => with_default(asked.parent, adds_default),
        };
        if has_allowed
            && !policies.iter().all(|name| allowed.contains(name) || covers(&self.allowed_policies_glob, name))
        {
            return Err(RequestError::Invalid(format!(
                "token policies ({}) must be subset of the role's allowed policies ({}) or glob policies ({})",
                quoted(&policies),
                quoted(&allowed),
                quoted(&self.allowed_policies_glob)
            )));
        }
        match policies.iter().find(|name| disallows(name)) {
            Some(name) => Err(RequestError::Invalid(format!("token policy {name:?} is disallowed by this role"))),
            None => Ok(Some(policies)),
        }
    }
}

/// As Vault cleans a list: `root` anywhere is `root` alone.
fn with_default(names: &[String], adds_default: bool) -> Vec<String> {
    let mut clean = sanitized(names);
    if clean.iter().any(|name| name == "root") {
        return vec!["root".to_owned()];
    }
    if adds_default && !clean.iter().any(|name| name == "default") {
        clean.push("default".to_owned());
        clean.sort();
    }
    clean
}

fn covers(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| glob::covers(pattern, name))
}

/// As Go prints a list of texts.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", names.join(" "))
}

/// The path of a token is part of its lease's name.
const SUFFIX_MAX: usize = 128;

fn is_suffix(text: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (3..=SUFFIX_MAX).contains(&text.len())
        && text.starts_with(is_word)
        && text.ends_with(is_word)
        && text.chars().all(|letter| is_word(letter) || matches!(letter, '-' | '.'))
}

impl Tokens {
    /// # Errors
    /// As storage.
    pub async fn role(&self, name: &str) -> Result<Option<UsedRole>, StorageError> {
        let stored = commit::read(self.storage(), &keys::token_role(name)).await?;
        let unchanged = stored.unchanged;
        Ok(stored.record.map(|role| UsedRole { name: name.to_owned(), role, unchanged }))
    }

    /// Changes a role as it is stored, or a new one; `change` is asked again when another request was faster.
    ///
    /// # Errors
    /// As `change`, or storage.
    pub async fn update_role(
        &self,
        name: &str,
        change: impl Fn(&mut TokenRole) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let key = keys::token_role(name);
        for _ in 0..commit::TRIES {
            let stored = commit::read::<TokenRole>(self.storage(), &key).await?;
            let mut role = stored.record.unwrap_or_default();
            change(&mut role)?;
            let value = encode(&role)?;
            let batch = Batch::new().put(key.clone(), value, stored.unchanged);
            match self.storage().commit(batch).await {
                Ok(()) => return Ok(()),
                Err(StorageError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(commit::overtaken_too_often(&key).into())
    }

    /// # Errors
    /// As storage.
    pub(crate) async fn remove_role(&self, name: &str) -> Result<(), StorageError> {
        let batch = Batch::new().delete(keys::token_role(name));
        self.storage().commit(batch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_roles_lists_decide_which_policies_a_token_has() {
        let role = |allowed: &[&str], globs: &[&str], disallowed: &[&str]| TokenRole {
            allowed_policies: names(allowed),
            allowed_policies_glob: names(globs),
            disallowed_policies: names(disallowed),
            ..TokenRole::default()
        };
        let none: &[&str] = &[];
        for (role, named, wanted) in [
            (role(none, none, none), none, Ok(None)),
            (role(&["B", "a"], none, none), none, Ok(Some(vec!["a", "b", "default"]))),
            (role(&["a", "b"], none, none), &["a"], Ok(Some(vec!["a", "default"]))),
            (role(none, &["dev-*"], none), none, Ok(Some(vec!["default"]))),
            (role(none, &["dev-*"], none), &["dev-x"], Ok(Some(vec!["default", "dev-x"]))),
            (role(none, &["dev-*"], none), &["prod"], Err("must be subset")),
            (role(&["a"], none, none), &["root"], Err("([\"root\"]) must be subset")),
            (role(none, none, &["z"]), none, Ok(Some(vec!["default", "p"]))),
            (role(none, none, &["z"]), &["y"], Ok(Some(vec!["default", "y"]))),
            (role(none, none, &["z"]), &["Z"], Err("policy \"z\" is disallowed")),
            (role(none, none, &["default"]), &["y"], Ok(Some(vec!["y"]))),
            (role(&["a"], none, &["a"]), none, Err("policy \"a\" is disallowed")),
        ] {
            let (named, parent) = (names(named), names(&["p"]));
            let asked = PoliciesAsked { named: &named, parent: &parent, no_default_policy: false };
            match (role.policies(&asked), wanted) {
                (Ok(policies), Ok(wanted)) => assert_eq!(policies, wanted.map(|wanted| names(&wanted)), "{role:?}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, wanted) => panic!("{found:?} {wanted:?} {role:?}"),
            }
        }
    }

    #[test]
    fn suffixes_are_words_with_dashes_and_dots() {
        for (text, wanted) in [
            ("abc", true),
            ("a-c", true),
            ("s_f.x", true),
            ("ab", false),
            ("-ab", false),
            ("a/c", false),
            ("ab.", false),
        ] {
            assert_eq!(is_suffix(text), wanted, "{text}");
        }
    }
}
