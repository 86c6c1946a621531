//! The `token_*` fields that all auth methods share: what the tokens of a user or role are like.

use leasehold_model::{Cidr, Ttl};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fields::{Field, Fields, Kind};
use crate::request::Object;
use crate::seams::error::RequestError;

/// What tokens are like that a login makes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenParams {
    pub bound_cidrs: Vec<Cidr>,
    pub explicit_max_ttl: Ttl,
    pub max_ttl: Ttl,
    pub no_default_policy: bool,
    pub num_uses: i32,
    pub period: Ttl,
    /// As they were given: `default` is added when a token is made.
    pub policies: Vec<String>,
    pub strictly_bind_ip: bool,
    pub ttl: Ttl,
    pub kind: ChosenKind,
}

/// Which kind of token a user or role asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChosenKind {
    /// Whatever the mount makes.
    #[default]
    Default,
    Service,
    Batch,
}

impl ChosenKind {
    /// # Errors
    /// `invalid 'token_type' value …`.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        match text {
            "" | "default" => Ok(Self::Default),
            "service" => Ok(Self::Service),
            "batch" => Ok(Self::Batch),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(RequestError::Invalid(format!("invalid 'token_type' value {shown:?}")))
            }
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Service => "service",
            Self::Batch => "batch",
        }
    }
}

/// Declared by every route that writes a user or a role.
pub const FIELDS: &[Field] = &[
    Field::visible("token_bound_cidrs", Kind::CommaList, "Addresses that may use the tokens."),
    Field::visible("token_explicit_max_ttl", Kind::Duration, "No renewal passes this."),
    Field::visible("token_max_ttl", Kind::Duration, "The longest that the tokens may live."),
    Field::visible("token_no_default_policy", Kind::Bool, "Leaves the policy `default` out."),
    Field::visible("token_num_uses", Kind::Int, "How many requests a token may make; 0 is without limit."),
    Field::visible("token_period", Kind::Duration, "Every renewal resets the TTL to this."),
    Field::visible("token_policies", Kind::CommaList, "Policies of the tokens."),
    Field::visible("token_strictly_bind_ip", Kind::Bool, "Binds a token to the address that logged in."),
    Field::visible("token_ttl", Kind::Duration, "How long the tokens live at first."),
    Field::visible("token_type", Kind::Text, "`default`, `service` or `batch`."),
];

/// A method's own fields, and [`FIELDS`] after them: `N` is how many there are together.
///
/// # Panics
/// At compile time, when `N` is another number.
#[must_use]
pub const fn with_token_fields<const N: usize>(own: &[Field]) -> [Field; N] {
    assert!(own.len() + FIELDS.len() == N, "the number of fields is wrong");
    let mut all = [FIELDS[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < own.len() { own[at] } else { FIELDS[at - own.len()] };
        at += 1;
    }
    all
}

fn refuse<T>(text: &str) -> Result<T, RequestError> {
    Err(RequestError::invalid(text))
}

/// Addresses and blocks, in Vault's words when one of them is neither.
///
/// # Errors
/// `error parsing address …`.
pub fn blocks(given: &[String]) -> Result<Vec<Cidr>, RequestError> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            let shown: String = text.chars().take(64).collect();
            RequestError::Invalid(format!(
                "error parsing address {shown:?}: Unable to convert {shown:?} to an IPv4 or IPv6 address, or a UNIX Socket"
            ))
        })
    };
    given.iter().map(parse).collect()
}

/// Lower-cased, sorted, without doubles and empty names.
#[must_use]
pub fn sanitized(policies: &[String]) -> Vec<String> {
    let mut clean: Vec<String> =
        policies.iter().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
    clean.sort();
    clean.dedup();
    clean
}

impl TokenParams {
    /// Takes over what the fields name and leaves the rest as it is.
    ///
    /// # Errors
    /// Vault's texts for what does not go together.
    pub fn update(&mut self, fields: &Fields) -> Result<(), RequestError> {
        let kind = fields.text("token_type").map(ChosenKind::parse).transpose()?;
        self.update_with_kind(fields, kind)
    }

    /// As [`TokenParams::update`], where a method reads `token_type` in its own way.
    ///
    /// # Errors
    /// As [`TokenParams::update`].
    pub fn update_with_kind(&mut self, fields: &Fields, kind: Option<ChosenKind>) -> Result<(), RequestError> {
        if let Some(given) = fields.list("token_bound_cidrs") {
            self.bound_cidrs = blocks(given)?;
        }
        for (name, ttl) in [
            ("token_explicit_max_ttl", &mut self.explicit_max_ttl),
            ("token_max_ttl", &mut self.max_ttl),
            ("token_period", &mut self.period),
            ("token_ttl", &mut self.ttl),
        ] {
            *ttl = fields.ttl(name).unwrap_or(*ttl);
        }
        self.no_default_policy = fields.bool("token_no_default_policy").unwrap_or(self.no_default_policy);
        self.strictly_bind_ip = fields.bool("token_strictly_bind_ip").unwrap_or(self.strictly_bind_ip);
        if let Some(policies) = fields.list("token_policies") {
            self.policies = sanitized(policies);
        }
        self.kind = kind.unwrap_or(self.kind);
        if let Some(uses) = fields.int("token_num_uses") {
            if uses < 0 {
                return refuse("'token_num_uses' cannot be negative");
            }
            self.num_uses = i32::try_from(uses).map_err(|_| RequestError::invalid("'token_num_uses' is too large"))?;
        }
        self.check()
    }

    /// Whether the values go together, whichever way they came.
    ///
    /// # Errors
    /// Vault's texts.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.kind == ChosenKind::Batch && !self.period.is_zero() {
            return refuse("'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens");
        }
        if self.kind == ChosenKind::Batch && self.num_uses != 0 {
            return refuse(
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
            );
        }
        if !self.max_ttl.is_zero() && self.ttl > self.max_ttl {
            return refuse("'token_ttl' cannot be greater than 'token_max_ttl'");
        }
        if self.strictly_bind_ip && !self.bound_cidrs.is_empty() {
            return refuse("'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one");
        }
        Ok(())
    }

    /// Adds what a read shows.
    pub fn show(&self, data: &mut Object) {
        for (name, value) in [
            ("token_bound_cidrs", json!(self.bound_cidrs)),
            ("token_explicit_max_ttl", self.explicit_max_ttl.as_secs().into()),
            ("token_max_ttl", self.max_ttl.as_secs().into()),
            ("token_no_default_policy", self.no_default_policy.into()),
            ("token_num_uses", self.num_uses.into()),
            ("token_period", self.period.as_secs().into()),
            ("token_policies", json!(self.policies)),
            ("token_strictly_bind_ip", self.strictly_bind_ip.into()),
            ("token_ttl", self.ttl.as_secs().into()),
            ("token_type", self.kind.as_str().into()),
        ] {
            data.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(data: serde_json::Value) -> Result<TokenParams, RequestError> {
        let serde_json::Value::Object(data) = data else { panic!("an object") };
        let mut params = TokenParams::default();
        params.update(&Fields::coerce(FIELDS, &data).unwrap()).map(|()| params)
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_vaults_words() {
        for (data, text) in [
            (json!({ "token_type": "foo" }), "invalid 'token_type' value \"foo\""),
            (json!({ "token_num_uses": -1 }), "'token_num_uses' cannot be negative"),
            (json!({ "token_ttl": "2h", "token_max_ttl": "1h" }), "'token_ttl' cannot be greater than 'token_max_ttl'"),
            (
                json!({ "token_type": "batch", "token_period": 5 }),
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate periodic tokens",
            ),
            (
                json!({ "token_type": "batch", "token_num_uses": 5 }),
                "'token_type' cannot be 'batch' or 'default_batch' when set to generate tokens with limited use count",
            ),
            (
                json!({ "token_bound_cidrs": "foo" }),
                "error parsing address \"foo\": Unable to convert \"foo\" to an IPv4 or IPv6 address, or a UNIX Socket",
            ),
            (
                json!({ "token_bound_cidrs": "1.2.3.4", "token_strictly_bind_ip": true }),
                "'token_strictly_bind_ip' conflicts with 'token_bound_cidrs'; set only one",
            ),
        ] {
            assert_eq!(updated(data.clone()).unwrap_err().to_string(), text, "{data}");
        }
    }

    /// What is at a bound goes, and what is shown is what was taken.
    #[test]
    fn what_goes_together_is_taken_and_shown() {
        assert_eq!(
            updated(json!({ "token_ttl": "1h", "token_max_ttl": "1h" })).unwrap().ttl,
            Ttl::from_secs(3_600),
            "as long as the maximum is not too long"
        );
        assert_eq!(updated(json!({ "token_ttl": "2h" })).unwrap().ttl, Ttl::from_secs(7_200), "no maximum is set");
        assert!(updated(json!({ "token_type": "batch", "token_ttl": "1h", "token_num_uses": 0 })).is_ok());
        assert!(updated(json!({ "token_strictly_bind_ip": true })).is_ok());
        assert_eq!(
            updated(json!({ "token_num_uses": 3_000_000_000_i64 })).unwrap_err().to_string(),
            "'token_num_uses' is too large"
        );
        let given = json!({
            "token_bound_cidrs": ["10.0.0.0/8"],
            "token_explicit_max_ttl": 7_200,
            "token_max_ttl": 3_600,
            "token_no_default_policy": true,
            "token_num_uses": 3,
            "token_period": 0,
            "token_policies": ["a", "b"],
            "token_strictly_bind_ip": false,
            "token_ttl": 600,
            "token_type": "service",
        });
        let params = updated(given.clone()).unwrap();
        let mut shown = Object::new();
        params.show(&mut shown);
        assert_eq!(serde_json::Value::Object(shown), given);
        // What is not named stays.
        let mut again = params.clone();
        again.update(&Fields::default()).unwrap();
        let (mut before, mut after) = (Object::new(), Object::new());
        params.show(&mut before);
        again.show(&mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn policies_are_lower_case_sorted_and_without_doubles() {
        assert_eq!(updated(json!({ "token_policies": "B, a,,b" })).unwrap().policies, ["a", "b"]);
    }
}
