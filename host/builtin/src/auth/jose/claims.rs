//! What a verified token says: its times, issuer, subject and audience (RFC 7519), and every other claim by name or JSON pointer.

use std::fmt;

use leasehold_model::Timestamp;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Flaw;

/// Added to `nbf`, or to `iat`, where a token has no `exp`, and the reverse; as Vault's.
const LIFETIME_DEFAULT: i64 = 150;
/// How far clocks may differ where a role says nothing; as Vault's.
const SKEW_DEFAULT: i64 = 60;

/// In seconds; 0 is Vault's default, less than 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::auth) struct Leeways {
    pub expiration: i64,
    pub not_before: i64,
    pub clock_skew: i64,
}

fn leeway(given: i64, default: i64) -> i64 {
    match given {
        0 => default,
        less if less < 0 => 0,
        more => more,
    }
}

/// The claims of a token whose signature was verified.
pub(in crate::auth) struct Claims(Map<String, Value>);

/// Names only: claims may be personal.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An object that names no member twice: what two readers of one token would read differently.
struct Unambiguous(Map<String, Value>);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Unambiguous, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = input.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member is there twice"));
                    }
                }
                Ok(Unambiguous(members))
            }
        }
        input.deserialize_map(Members)
    }
}

/// Seconds since 1970; fractions are cut off, as in Vault.
fn seconds(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.is_finite() && float.abs() < 1e15)?;
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        Some(float as i64)
    })
}

impl Claims {
    /// # Errors
    /// The text is no JSON object, names a claim twice, or is nested more than 128 deep.
    pub(super) fn read(text: &[u8]) -> Result<Self, Flaw> {
        serde_json::from_slice(text).map(|Unambiguous(claims)| Self(claims)).map_err(|_| Flaw::Content)
    }

    /// A claim by its name, or, when that begins with `/`, by JSON pointer (RFC 6901). Null counts as absent.
    pub(in crate::auth) fn get(&self, name: &str) -> Option<&Value> {
        let found = match name.strip_prefix('/') {
            None => self.0.get(name),
            Some(path) => {
                let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
                let top = self.0.get(&first.replace("~1", "/").replace("~0", "~"))?;
                rest.map_or(Some(top), |rest| top.pointer(&format!("/{rest}")))
            }
        };
        found.filter(|value| !value.is_null())
    }

    /// A claim that is named and not pointed to.
    pub(in crate::auth) fn named(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    #[cfg(test)]
    pub(in crate::auth) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn time(&self, name: &'static str) -> Result<Option<i64>, Flaw> {
        match self.named(name) {
            None => Ok(None),
            // Zero counts as absent, as in Vault.
            Some(value) => seconds(value).ok_or(Flaw::WrongType(name)).map(|time| Some(time).filter(|time| *time != 0)),
        }
    }

    fn optional_text(&self, name: &'static str) -> Result<Option<&str>, Flaw> {
        self.named(name).map(|value| value.as_str().ok_or(Flaw::WrongType(name))).transpose()
    }

    /// Whether the token is valid now. One that does not say when it ends, or begins, gets that from what it does say.
    ///
    /// # Errors
    /// It is not, or it says nothing of times.
    pub(in crate::auth) fn check_times(&self, leeways: &Leeways, now: Timestamp) -> Result<(), Flaw> {
        let (issued, begins, ends) = (self.time("iat")?, self.time("nbf")?, self.time("exp")?);
        if issued.is_none() && begins.is_none() && ends.is_none() {
            return Err(Flaw::NoTime);
        }
        let latest_start = issued.unwrap_or_default().max(begins.unwrap_or_default());
        let ends = ends.unwrap_or_else(|| latest_start.saturating_add(leeway(leeways.expiration, LIFETIME_DEFAULT)));
        let begins =
            begins.or(issued).unwrap_or_else(|| ends.saturating_sub(leeway(leeways.not_before, LIFETIME_DEFAULT)));
        let skew = leeway(leeways.clock_skew, SKEW_DEFAULT);
        let nanos = |seconds: i64| i128::from(seconds) * 1_000_000_000;
        let now = i128::from(now.as_nanos());
        if now - nanos(skew) > nanos(ends) {
            return Err(Flaw::Expired);
        }
        if now + nanos(skew) < nanos(begins) {
            return Err(Flaw::TooEarly);
        }
        if issued.is_some_and(|issued| now + nanos(skew) < nanos(issued)) {
            return Err(Flaw::FromTheFuture);
        }
        Ok(())
    }

    /// # Errors
    /// The token's `iss` is another one.
    pub(in crate::auth) fn check_issuer(&self, bound: &str) -> Result<(), Flaw> {
        let issuer = self.optional_text("iss")?;
        if bound.is_empty() || issuer == Some(bound) { Ok(()) } else { Err(Flaw::Issuer) }
    }

    /// # Errors
    /// The token's `sub` is another one.
    pub(in crate::auth) fn check_subject(&self, bound: &str) -> Result<(), Flaw> {
        let subject = self.optional_text("sub")?;
        if bound.is_empty() || subject == Some(bound) { Ok(()) } else { Err(Flaw::Subject) }
    }

    /// The token must be for one of the bound audiences; where none is bound, it must be for nobody in particular: it was made for
    /// somebody else, who could use it here otherwise.
    ///
    /// # Errors
    /// It is for others.
    pub(in crate::auth) fn check_audience(&self, bound: &[String]) -> Result<(), Flaw> {
        let audiences: Vec<&str> = match self.named("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => {
                let texts: Option<_> = many.iter().map(Value::as_str).collect();
                texts.ok_or(Flaw::WrongType("aud"))?
            }
            Some(_) => return Err(Flaw::WrongType("aud")),
        };
        if bound.is_empty() {
            return if audiences.is_empty() { Ok(()) } else { Err(Flaw::UnboundAudience) };
        }
        if audiences.iter().any(|audience| bound.iter().any(|bound| bound == audience)) {
            Ok(())
        } else {
            Err(Flaw::Audience)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims(value: &Value) -> Claims {
        Claims::read(value.to_string().as_bytes()).unwrap()
    }

    fn at(seconds: i64, nanos: i64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000 + nanos)
    }

    fn none() -> Leeways {
        Leeways { expiration: -1, not_before: -1, clock_skew: -1 }
    }

    #[test]
    fn the_last_and_the_first_moment_of_a_token_count_and_the_next_ones_do_not() {
        let token = claims(&json!({ "iat": NOW, "nbf": NOW, "exp": NOW + 10 }));
        for (now, wanted) in [
            (at(NOW, 0), Ok(())),
            (at(NOW, -1), Err(Flaw::TooEarly)),
            (at(NOW + 10, 0), Ok(())),
            (at(NOW + 10, 1), Err(Flaw::Expired)),
        ] {
            assert_eq!(token.check_times(&none(), now), wanted, "{now:?}");
        }
        let skewed = Leeways { clock_skew: 5, ..none() };
        for (now, wanted) in [
            (at(NOW - 5, 0), Ok(())),
            (at(NOW - 5, -1), Err(Flaw::TooEarly)),
            (at(NOW + 15, 0), Ok(())),
            (at(NOW + 15, 1), Err(Flaw::Expired)),
        ] {
            assert_eq!(token.check_times(&skewed, now), wanted, "{now:?}");
        }
        let future = claims(&json!({ "iat": NOW + 1, "nbf": NOW, "exp": NOW + 10 }));
        assert_eq!(future.check_times(&none(), at(NOW, 0)), Err(Flaw::FromTheFuture));
        assert_eq!(future.check_times(&none(), at(NOW + 1, 0)), Ok(()));
    }

    #[test]
    fn what_a_token_leaves_out_comes_from_the_leeways() {
        for (token, leeways, last, first) in [
            (json!({ "iat": NOW }), none(), NOW, NOW),
            (json!({ "iat": NOW }), Leeways { expiration: 0, ..none() }, NOW + 150, NOW),
            (json!({ "iat": NOW }), Leeways { expiration: 7, ..none() }, NOW + 7, NOW),
            (json!({ "iat": NOW, "nbf": NOW + 3 }), Leeways { expiration: 7, ..none() }, NOW + 10, NOW + 3),
            (json!({ "exp": NOW }), none(), NOW, NOW),
            (json!({ "exp": NOW }), Leeways { not_before: 0, ..none() }, NOW, NOW - 150),
            (json!({ "exp": NOW }), Leeways { not_before: 9, ..none() }, NOW, NOW - 9),
            (json!({ "exp": NOW, "iat": 0, "nbf": 0 }), Leeways::default(), NOW + 60, NOW - 210),
        ] {
            let (claims, what) = (claims(&token), format!("{token} {leeways:?}"));
            assert_eq!(claims.check_times(&leeways, at(first, 0)), Ok(()), "{what}");
            assert_eq!(claims.check_times(&leeways, at(first, -1)), Err(Flaw::TooEarly), "{what}");
            assert_eq!(claims.check_times(&leeways, at(last, 0)), Ok(()), "{what}");
            assert_eq!(claims.check_times(&leeways, at(last, 1)), Err(Flaw::Expired), "{what}");
        }
    }

    #[test]
    fn times_of_any_size_and_type_are_judged_without_a_panic() {
        for (token, wanted) in [
            (json!({}), Flaw::NoTime),
            (json!({ "exp": null, "iat": 0 }), Flaw::NoTime),
            (json!({ "exp": "1800000000" }), Flaw::WrongType("exp")),
            (json!({ "exp": [NOW] }), Flaw::WrongType("exp")),
            (json!({ "exp": true }), Flaw::WrongType("exp")),
            (json!({ "exp": 1e300 }), Flaw::WrongType("exp")),
            (json!({ "exp": u64::MAX }), Flaw::WrongType("exp")),
            (json!({ "exp": -5 }), Flaw::Expired),
            (json!({ "exp": i64::MIN }), Flaw::Expired),
            (json!({ "nbf": i64::MAX }), Flaw::TooEarly),
            (json!({ "iat": i64::MAX, "nbf": 1, "exp": i64::MAX }), Flaw::FromTheFuture),
        ] {
            assert_eq!(claims(&token).check_times(&Leeways::default(), at(NOW, 0)), Err(wanted), "{token}");
        }
        let fraction = claims(&json!({ "exp": 1_800_000_000.9 }));
        assert_eq!(fraction.check_times(&none(), at(NOW, 0)), Ok(()));
        assert_eq!(fraction.check_times(&none(), at(NOW, 1)), Err(Flaw::Expired), "fractions are cut off");
        let huge = Leeways { expiration: i64::MAX, not_before: i64::MAX, clock_skew: i64::MAX };
        assert_eq!(claims(&json!({ "iat": NOW })).check_times(&huge, at(NOW, 0)), Ok(()));
    }

    #[test]
    fn an_audience_is_a_text_or_a_list_of_texts() {
        let bound = ["a".to_owned(), "b".to_owned()];
        for (aud, wanted) in [
            (json!("a"), Ok(())),
            (json!(["x", "b"]), Ok(())),
            (json!(["x"]), Err(Flaw::Audience)),
            (json!("A"), Err(Flaw::Audience)),
            (json!("a,b"), Err(Flaw::Audience)),
            (json!([]), Err(Flaw::Audience)),
            (Value::Null, Err(Flaw::Audience)),
            (json!({ "a": 1 }), Err(Flaw::WrongType("aud"))),
            (json!(["a", 1]), Err(Flaw::WrongType("aud"))),
            (json!(1), Err(Flaw::WrongType("aud"))),
        ] {
            assert_eq!(claims(&json!({ "aud": aud })).check_audience(&bound), wanted, "{aud}");
        }
    }

    /// A token that somebody else's service was given could be used here otherwise.
    #[test]
    fn a_token_for_somebody_is_refused_where_no_audience_is_bound() {
        for (aud, wanted) in [
            (json!("a"), Err(Flaw::UnboundAudience)),
            (json!(["a"]), Err(Flaw::UnboundAudience)),
            (json!([]), Ok(())),
            (Value::Null, Ok(())),
        ] {
            assert_eq!(claims(&json!({ "aud": aud })).check_audience(&[]), wanted, "{aud}");
        }
    }

    #[test]
    fn issuer_and_subject_are_compared_to_the_letter() {
        let token = claims(&json!({ "iss": "https://issuer", "sub": "bob" }));
        assert_eq!(token.check_issuer("https://issuer"), Ok(()));
        assert_eq!(token.check_issuer(""), Ok(()));
        assert_eq!(token.check_issuer("https://issuer/"), Err(Flaw::Issuer));
        assert_eq!(token.check_subject("bob"), Ok(()));
        assert_eq!(token.check_subject("Bob"), Err(Flaw::Subject));
        let nobody = claims(&json!({ "iss": 1, "sub": ["bob"] }));
        assert_eq!(nobody.check_issuer(""), Err(Flaw::WrongType("iss")));
        assert_eq!(nobody.check_subject(""), Err(Flaw::WrongType("sub")));
        assert_eq!(claims(&json!({})).check_issuer("x"), Err(Flaw::Issuer));
    }

    #[test]
    fn claims_are_named_or_pointed_to() {
        let token = claims(&json!({
            "a": "top", "x": { "y": ["zero", { "k~/": "deep" }] }, "a/b": "slash", "~": "tilde", "/x/y/0": "odd", "n": null,
        }));
        for (name, wanted) in [
            ("a", Some("top")),
            ("/a", Some("top")),
            ("/x/y/0", Some("zero")),
            ("/x/y/1/k~0~1", Some("deep")),
            ("/a~1b", Some("slash")),
            ("/~0", Some("tilde")),
            ("a/b", Some("slash")),
            ("/x/y/2", None),
            ("/x/y/-1", None),
            ("/x/y/00", None),
            ("/", None),
            ("//a", None),
            ("", None),
            ("n", None),
            ("/n", None),
        ] {
            assert_eq!(token.text(name), wanted, "{name}");
        }
        assert_eq!(token.named("/x/y/0").and_then(Value::as_str), Some("odd"));
    }
}
